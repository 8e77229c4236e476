// token_bitmask: logits of tokens that a grammar does not allow become -inf
//
// mask    (ceil((FIRST + C) / 32),)  u32  read         bit t % 32 of word t / 32: token t is allowed
// logits  (C,)  f32, as u32               read, write  of tokens FIRST ..
//
// Dispatch: one invocation per logit. The bits of -inf, since shaders may assume there are no infinities.
// Source: arXiv:2411.15100, section 3. Reference: core/src/kernels/token_bitmask.rs.

const WG: u32 = 256u;
const NEGATIVE_INFINITY: u32 = 0xFF800000u;

struct Args {
    C: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> mask: array<u32>;
@group(0) @binding(1) var<storage, read_write> logits: array<u32>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i >= args.C {
        return;
    }
    let token = args.FIRST + i;
    if ((mask[token / 32u] >> (token % 32u)) & 1u) == 0u {
        logits[i] = NEGATIVE_INFINITY;
    }
}
