// attention_mask: x[b, h, t, s] = the score as the rules change it, or VALUE where they hide the
// key, in place
//
// x  (B, H, T, S)  f32  read, write
// step, mask, slopes, kv_lengths: shared/attention_rules.wgsl
//
// Dispatch: one invocation per element. VALUE may be -inf.
// Reference: core/src/kernels/attention_mask.rs.

const B: u32 = 1u;
const H: u32 = 9u;
const WG: u32 = 64u;

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
    S: u32,
    PREFIX: u32,
    WINDOW: u32,
    MASK_B: u32,
    MASK_H: u32,
    MASK_T: u32,
    MASK_S: u32,
    VALUE: f32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<uniform> step: Step;
#if MASK
#if MASK_SEEN
@group(0) @binding(2) var<storage, read> mask: array<u32>;
#else
@group(0) @binding(2) var<storage, read> mask: array<f32>;
#endif
#endif
#if ALIBI
@group(0) @binding(3) var<storage, read> slopes: array<f32>;
#endif
#if KV_LENGTHS
@group(0) @binding(4) var<storage, read> kv_lengths: array<u32>;
#endif
@group(0) @binding(5) var<uniform> args: Args;

#import attention_rules

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
    let row = id / args.S;
    let query = Query(row / (args.T * H), row % args.T, (row / args.T) % H);
    let score = seen_score(query, x[id], id % args.S, seen_keys(query.b, query.t));
    x[id] = select(args.VALUE, score, score > LOWEST);
}
