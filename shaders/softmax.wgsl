// softmax: y = exp(z - max z) / sum exp(z - max z), z = x / TEMPERATURE, along an axis;
// LOG: y = z - max z - ln(sum exp(z - max z))
//
// x     (OUTER, C, INNER)  f32             read   -inf masks an element
// mask  (MASKED,)          u32             read   MASK: not 0 masks; repeated along x
// y     (OUTER, C, INNER)  f32, as u32     write  a masked element gives 0, or with LOG -inf
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row. Infinities are compared as
// the lowest finite number and written as bits: WGSL may assume none. A NaN is not taken for a mask.
// Reference: core/src/kernels/softmax.rs.

const WG: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;
const NEGATIVE_INFINITY: u32 = 0xFF800000u;

struct Args {
    T: u32,
    C: u32,
    INNER: u32,
    MASKED: u32,
    TEMPERATURE: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if MASK
@group(0) @binding(1) var<storage, read> mask: array<u32>;
#endif
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

#import row
#import axis

fn value(i: u32) -> f32 {
#if MASK
    if mask[i % args.MASKED] != 0u {
        return LOWEST;
    }
#endif
    return x[i];
}

fn weight(value: f32, largest: f32) -> f32 {
    return select(exp((value - largest) / args.TEMPERATURE), 0.0, value <= LOWEST);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#if SERIAL
    let t = (group.x + group.y * groups.x) * WG + local;
    let lane = 0u;
#else
    let t = group.x + group.y * groups.x;
    let lane = local;
#endif
    if t >= args.T {
        return;
    }
    let first = axis_at(t, 0u);
    var own = LOWEST;
    for (var c = lane; c < args.C; c += STEP) {
        own = max(own, value(first + c * args.INNER));
    }
    let largest = row_max(own, lane);
    var part = 0.0;
    for (var c = lane; c < args.C; c += STEP) {
        part += weight(value(first + c * args.INNER), largest);
    }
    let sum = row_sum(part, lane);
#if LOG
    let level = select(log(sum), 0.0, sum == 0.0);
#else
    let scale = select(1.0 / sum, 0.0, sum == 0.0);
#endif
    for (var c = lane; c < args.C; c += STEP) {
        let i = first + c * args.INNER;
        let v = value(i);
#if LOG
        let result = (v - largest) / args.TEMPERATURE - level;
        y[i] = select(bitcast<u32>(result), NEGATIVE_INFINITY, v <= LOWEST);
#else
        y[i] = bitcast<u32>(weight(v, largest) * scale);
#endif
    }
}
