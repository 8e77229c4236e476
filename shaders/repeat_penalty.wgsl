// repeat_penalty: logits[id] = logits[id] < 0 ? logits[id] * PENALTY : logits[id] / PENALTY
//
// ids     (N,)  u32  read          distinct; those outside FIRST .. FIRST + C are ignored
// logits  (C,)  f32  read, write   of ids FIRST ..
//
// Dispatch: one invocation per id.
// Source: arXiv:1909.05858, section 4.1, with the sign rule that keeps a negative logit from
// rising. Reference: core/src/kernels/repeat_penalty.rs.

const WG: u32 = 64u;

struct Args {
    N: u32,
    C: u32,
    PENALTY: f32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i >= args.N {
        return;
    }
    // Ids before FIRST wrap to large ones.
    let id = ids[i] - args.FIRST;
    if id < args.C {
        let logit = logits[id];
        logits[id] = select(logit / args.PENALTY, logit * args.PENALTY, logit < 0.0);
    }
}
