// expert_combine: y[t, c] = sum_j probs[t, j] x[t K + j, c]
//                           (+ shared_expert[t, c] (sigmoid(gate[t]))) (+ residual[t, c])
//
// x              (T K, C)  f32  read   what the experts gave, pair by pair
// probs          (T, K)    f32  read
// experts        (T, K)    u32  read   pairs of experts outside FIRST .. FIRST + COUNT are left out, but
//                                      not a NaN of probs: router.wgsl could not route the token
// residual       (T, C)    f32  read, with RESIDUAL
// shared_expert  (T, C)    f32  read, with SHARED: what it gave
// gate           (T,)      f32  read, with GATE: its logit
// y              (T, C)    f32  write
//
// Dispatch: an invocation an element; sums are in this order.
// Reference: core/src/kernels/expert_combine.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    C: u32,
    K: u32,
    FIRST: u32,
    COUNT: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> probs: array<f32>;
@group(0) @binding(2) var<storage, read> experts: array<u32>;
#if RESIDUAL
@group(0) @binding(3) var<storage, read> residual: array<f32>;
#endif
#if SHARED
@group(0) @binding(4) var<storage, read> shared_expert: array<f32>;
#endif
#if GATE
@group(0) @binding(5) var<storage, read> gate: array<f32>;
#endif
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    let t = i / args.C;
    if t >= args.T {
        return;
    }
    let c = i % args.C;
    var sum = 0.0;
    for (var j = 0u; j < args.K; j += 1u) {
        let pair = t * args.K + j;
        if experts[pair] - args.FIRST < args.COUNT {
            sum += probs[pair] * x[pair * args.C + c];
        } else if (bitcast<u32>(probs[pair]) & 0x7FFFFFFFu) > 0x7F800000u {
            // A token must not go nowhere without a word.
            sum += probs[pair];
        }
    }
#if SHARED
#if GATE
    sum += shared_expert[i] / (1.0 + exp(clamp(-gate[t], -80.0, 80.0)));
#else
    sum += shared_expert[i];
#endif
#endif
#if RESIDUAL
    sum += residual[i];
#endif
    y[i] = sum;
}
