// dropout: y[i] = SCALE * x[i] where mask[i], else 0; mask[i] = (random word of i / 256 >= THRESHOLD)
//
// x     (N,)  f32  read
// y     (N,)  f32  write
// mask  (N,)  u32  write  MASK
//
// The comparison is one of integers, so the mask is the same on every device; the words are those of
// shared/draw.wgsl, so it does not depend on how the tensor is split.
// Dispatch: each invocation does EACH neighbouring elements, which share their random words.
// Source: Srivastava et al., JMLR 15, 2014. Reference: core/src/kernels/dropout.rs.

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
    THRESHOLD: u32,
    SCALE: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
#if MASK
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
#endif
@group(0) @binding(3) var<uniform> args: Args;

#import draw

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = ((group.x + group.y * groups.x) * WG + local) * EACH;
    for (var i = first; i < min(first + EACH, args.N); i += 1u) {
        let kept = (word(number_of(i)) >> 8u) >= args.THRESHOLD;
        y[i] = select(0.0, x[i] * args.SCALE, kept);
#if MASK
        mask[i] = select(0u, 1u, kept);
#endif
    }
}
