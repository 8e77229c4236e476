// exchange_combine: y[t, c] = sum of what the ranks gave for token t, in their order
//                             (+ shared_expert[t, c] (sigmoid(gate[t]))) (+ residual[t, c])
//
// rows           (R, ROOM, C)  f32  read   of each rank those that it got, in the order of exchange_order
// places         (R, T)        u32  read   of exchange_order
// probs          (T, K)        f32  read   a NaN: router.wgsl could not route the token, and y is NaN
// residual       (T, C)        f32  read, with RESIDUAL
// shared_expert  (T, C)        f32  read, with SHARED: what it gave
// gate           (T,)          f32  read, with GATE: its logit
// y              (T, C)        f32  write
//
// Dispatch: an invocation an element; sums are in this order.
// Reference: core/src/kernels/exchange_combine.rs.

const WG: u32 = 64u;

struct Args {
    R: u32,
    T: u32,
    C: u32,
    K: u32,
    ROOM: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read> probs: array<f32>;
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
    for (var rank = 0u; rank < args.R; rank += 1u) {
        let place = places[rank * args.T + t];
        if place != 0xFFFFFFFFu {
            sum += rows[(rank * args.ROOM + place) * args.C + c];
        }
    }
    for (var j = 0u; j < args.K; j += 1u) {
        let prob = probs[t * args.K + j];
        if (bitcast<u32>(prob) & 0x7FFFFFFFu) > 0x7F800000u {
            // A token must not go nowhere without a word.
            sum += prob;
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
