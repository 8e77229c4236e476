// vocab_cross_entropy: with sums[t] = (S, z, u) of all ranks (vocab_sums) and label y
// loss[t] = ln S - (1 - SMOOTHING) z - SMOOTHING / VOCAB u
// D_LOGITS: d_logits[t, c] = up (exp(x_c - m) / S - (1 - SMOOTHING) [c = y] - SMOOTHING / VOCAB),
// m = largest[t], for a rank's classes FIRST .. FIRST + C
//
// labels    (T,)    u32  read   IGNORE gives 0; another that is not below VOCAB gives NaN
// sums      (T, 3)  f32  read
// logits    (T, C)  f32  read   D_LOGITS
// largest   (T,)    f32  read   D_LOGITS
// dy        (T,)    f32  read   DY: up, or with DY_ONE its only element; else 1
// total     (1,)    f32  read   TOTAL: up is divided by it
// y         (T,)    f32  write  as u32; D_LOGITS: (T, C)
//
// Dispatch: one invocation per element of y.
// Source: Megatron-LM, arXiv:1909.08053, section 3; label smoothing: arXiv:1512.00567 as PyTorch has
// it, over the whole vocabulary. Reference: core/src/kernels/vocab_cross_entropy.rs.

const WG: u32 = 64u;
const NAN: u32 = 0x7FC00000u;

struct Args {
    T: u32,
    C: u32,
    FIRST: u32,
    VOCAB: u32,
    IGNORE: u32,
    SMOOTHING: f32,
}

@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
#if D_LOGITS
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> largest: array<f32>;
#endif
#if DY
@group(0) @binding(4) var<storage, read> dy: array<f32>;
#endif
#if TOTAL
@group(0) @binding(5) var<storage, read> total: array<f32>;
#endif
@group(0) @binding(6) var<storage, read_write> y: array<u32>;
@group(0) @binding(7) var<uniform> args: Args;

#import upstream

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
#if D_LOGITS
    let t = i / args.C;
#else
    let t = i;
#endif
    if t >= args.T {
        return;
    }
    let hard = 1.0 - args.SMOOTHING;
    let soft = args.SMOOTHING / f32(args.VOCAB);
    let label = labels[t];
#if D_LOGITS
    let own = select(0.0, hard, args.FIRST + i % args.C == label);
    let p = exp(logits[i] - largest[t]) / sums[3u * t];
    let value = upstream(t) * (p - own - soft);
#else
    let value = log(sums[3u * t]) - hard * sums[3u * t + 1u] - soft * sums[3u * t + 2u];
#endif
    let wrong = label != args.IGNORE && label >= args.VOCAB;
    y[i] = select(bitcast<u32>(select(value, 0.0, label == args.IGNORE)), NAN, wrong);
}
