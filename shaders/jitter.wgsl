// jitter: y[i] = x[i] (1 - EPS + 2 EPS u[i]), u drawn inside (0, 1), see shared/draw.wgsl
//
// x  (N,)  f32  read
// y  (N,)  f32  write
//
// Dispatch: each invocation does EACH neighbouring elements, which share their random words.
// Source: arXiv:2101.03961, appendix F. Reference: core/src/kernels/jitter.rs.

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
    EPS: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

#import draw

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = ((group.x + group.y * groups.x) * WG + local) * EACH;
    for (var i = first; i < min(first + EACH, args.N); i += 1u) {
        y[i] = x[i] * (1.0 + args.EPS * (2.0 * to_uniform(word(number_of(i))) - 1.0));
    }
}
