// expert_nest: experts[p, j] = outer_experts[p] E + inner_experts[p, j]
//              probs[p, j]   = outer_probs[p] inner_probs[p, j]
//
// outer_experts  (T K)     u32  read
// outer_probs    (T K)     f32  read
// inner_experts  (T K, J)  u32  read   of the outer expert's own
// inner_probs    (T K, J)  f32  read
// experts        (T K, J)  u32  write
// probs          (T K, J)  f32  write
//
// 0xFFFFFFFF is no expert: then there is none, and the probability is that router's, a NaN.
//
// Dispatch: an invocation an element. Reference: core/src/kernels/expert_nest.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    K: u32,
    J: u32,
    E: u32,
}

@group(0) @binding(0) var<storage, read> outer_experts: array<u32>;
@group(0) @binding(1) var<storage, read> outer_probs: array<f32>;
@group(0) @binding(2) var<storage, read> inner_experts: array<u32>;
@group(0) @binding(3) var<storage, read> inner_probs: array<f32>;
@group(0) @binding(4) var<storage, read_write> experts: array<u32>;
@group(0) @binding(5) var<storage, read_write> probs: array<f32>;
@group(0) @binding(6) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    if i >= args.T * args.K * args.J {
        return;
    }
    let pair = i / args.J;
    let outer = outer_experts[pair];
    let inner = inner_experts[i];
    if outer == 0xFFFFFFFFu {
        experts[i] = outer;
        probs[i] = outer_probs[pair];
    } else if inner == 0xFFFFFFFFu {
        experts[i] = inner;
        probs[i] = inner_probs[i];
    } else {
        experts[i] = outer * args.E + inner;
        probs[i] = outer_probs[pair] * inner_probs[i];
    }
}
