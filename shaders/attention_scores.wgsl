// attention_scores: y[b, h, t, s] = SCALE * q[b, t, h] . k[b, g, s],  g = h / (H / KVH)
//
// q  (B, T, H, D)    f32  read    HEADS_FIRST: (B, H, T, D)
// k  (B, KVH, S, D)  f32  read    TOKENS_FIRST: (B, S, KVH, D)
// y  (B, H, T, S)    f32  write
//
// Dispatch: one invocation per element. For who wants to see the scores; attention does not.
// Reference: core/src/kernels/attention_scores.rs.

const B: u32 = 1u;
const H: u32 = 9u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const SCALE: f32 = 0.125;
const WG: u32 = 64u;

struct Args {
    T: u32,
    S: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    if id >= B * H * args.T * args.S {
        return;
    }
    let s = id % args.S;
    let t = (id / args.S) % args.T;
    let bh = id / (args.S * args.T);
    let b = bh / H;
    let h = bh % H;
    let g = h / (H / KVH);
#if HEADS_FIRST
    let q_at = (bh * args.T + t) * D;
#else
    let q_at = ((b * args.T + t) * H + h) * D;
#endif
#if TOKENS_FIRST
    let k_at = ((b * args.S + s) * KVH + g) * D;
#else
    let k_at = ((b * KVH + g) * args.S + s) * D;
#endif
    var sum = 0.0;
    for (var i = 0u; i < D; i += 1u) {
        sum += q[q_at + i] * k[k_at + i];
    }
    y[id] = SCALE * sum;
}
