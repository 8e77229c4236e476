// softmax: y[t, c] = exp(x[t, c] - max_c x[t]) / sum_c exp(x[t, c] - max_c x[t])
//
// x  (T, C)  f32  read    -inf masks an element; a row of -inf gives zeros
// y  (T, C)  f32  write
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row (no barrier: for adapters
// that are CPUs). Infinities are compared as the lowest finite number: WGSL may assume none.
// Reference: core/src/kernels/softmax.rs.

const WG: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;

struct Args {
    T: u32,
    C: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

fn weight(value: f32, largest: f32) -> f32 {
    return select(0.0, exp(value - largest), value > LOWEST);
}

#if SERIAL
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = (group.x + group.y * groups.x) * WG + lane;
    if t >= args.T {
        return;
    }
    let first = t * args.C;
    let end = first + args.C;
    var largest = LOWEST;
    for (var i = first; i < end; i += 1u) {
        largest = max(largest, x[i]);
    }
    var sum = 0.0;
    for (var i = first; i < end; i += 1u) {
        let e = weight(x[i], largest);
        y[i] = e;
        sum += e;
    }
    let scale = select(0.0, 1.0 / sum, sum > 0.0);
    for (var i = first; i < end; i += 1u) {
        y[i] = y[i] * scale;
    }
}
#else
#import reduce

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group.x + group.y * groups.x;
    if t >= args.T {
        return;
    }
    let first = t * args.C + lane;
    let end = (t + 1u) * args.C;
    var own = LOWEST;
    for (var i = first; i < end; i += WG) {
        own = max(own, x[i]);
    }
    let largest = reduce_max(own, lane);
    var part = 0.0;
    for (var i = first; i < end; i += WG) {
        part += weight(x[i], largest);
    }
    let sum = reduce_sum(part, lane);
    let scale = select(0.0, 1.0 / sum, sum > 0.0);
    for (var i = first; i < end; i += WG) {
        y[i] = weight(x[i], largest) * scale;
    }
}
#endif
