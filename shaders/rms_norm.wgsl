// rms_norm: y[t, c] = x[first + t, c] / sqrt(mean_c(x[first + t, c]^2) + EPS) * weight[c]
//
// x       (>= first + T, C)  f32  read
// weight  (C,)               f32  read
// y       (T, C)             f32  write
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row (no barrier: for adapters
// that are CPUs). Sums are f32.
// Source: arXiv:1910.07467, eq. 4. Reference: core/src/kernels/rms_norm.rs.

const C: u32 = 576u;
const EPS: f32 = 1e-5;
const WG: u32 = 256u;

struct Args {
    T: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

#if SERIAL
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let t = id.x;
    if t >= args.T {
        return;
    }
    let row = (args.FIRST + t) * C;
    var sum = 0.0;
    for (var c = 0u; c < C; c += 1u) {
        let v = x[row + c];
        sum += v * v;
    }
    let scale = inverseSqrt(sum / f32(C) + EPS);
    for (var c = 0u; c < C; c += 1u) {
        y[t * C + c] = x[row + c] * scale * weight[c];
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
    let row = (args.FIRST + t) * C;
    var sum = 0.0;
    for (var c = lane; c < C; c += WG) {
        let v = x[row + c];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(sum, lane) / f32(C) + EPS);
    for (var c = lane; c < C; c += WG) {
        y[t * C + c] = x[row + c] * scale * weight[c];
    }
}
#endif
