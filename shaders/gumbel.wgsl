// gumbel: y[i] = x[i] - ln(-ln u[i]), u in (0, 1): x with Gumbel noise, whose argmax is a sample of
// softmax(x)
//
// x  (N,)  f32  read
// u  (N,)  f32  read   U: clamped to (0, 1); without it drawn, see shared/draw.wgsl
// y  (N,)  f32  write
//
// Dispatch: each invocation does EACH neighbouring elements, which share their random words.
// Source: arXiv:1611.01144. Reference: core/src/kernels/gumbel.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    N: u32,
    FIRST: u32,
    WIDTH: u32,
    STRIDE: u32,
    STREAM: u32,
    SEED_LOW: u32,
    SEED_HIGH: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if U
@group(0) @binding(1) var<storage, read> u: array<f32>;
#endif
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

#import draw
#import negative_log

fn uniform_of(i: u32) -> f32 {
#if U
    return clamp(u[i], 1.1754944e-38, 0.99999994);
#else
    return to_uniform(word(number_of(i)));
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = ((group.x + group.y * groups.x) * WG + local) * EACH;
    for (var i = first; i < min(first + EACH, args.N); i += 1u) {
        y[i] = x[i] - log(negative_log(uniform_of(i)));
    }
}
