// second_expert: GShard's two experts of a token, one by one, and whether the token goes to the second
//
// experts  (T, 2)  u32  read
// probs    (T, 2)  f32  read   that sum to 1
// u        (T,)    f32  read   U: uniform numbers inside (0, 1), for POLICY 0
// expert1  (T,)    u32  write
// expert2  (T,)    u32  write
// gate1    (T,)    f32  write
// gate2    (T,)    f32  write
// second   (T,)    u32  write  POLICY 0: 1 where u < gate2 / THRESHOLD; 1: always; 2: never;
//                              3: where gate2 > THRESHOLD
//
// Dispatch: an invocation for each token.
// Source: arXiv:2006.16668, algorithm 1. Reference: core/src/kernels/second_expert.rs.

const WG: u32 = 64u;
const POLICY: u32 = 0u;

struct Args {
    N: u32,
    THRESHOLD: f32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
@group(0) @binding(1) var<storage, read> probs: array<f32>;
#if U
@group(0) @binding(2) var<storage, read> u: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> expert1: array<u32>;
@group(0) @binding(4) var<storage, read_write> expert2: array<u32>;
@group(0) @binding(5) var<storage, read_write> gate1: array<f32>;
@group(0) @binding(6) var<storage, read_write> gate2: array<f32>;
@group(0) @binding(7) var<storage, read_write> second: array<u32>;
@group(0) @binding(8) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = (group.x + group.y * groups.x) * WG + lane;
    if t >= args.N {
        return;
    }
    expert1[t] = experts[2u * t];
    expert2[t] = experts[2u * t + 1u];
    gate1[t] = probs[2u * t];
    let gate = probs[2u * t + 1u];
    gate2[t] = gate;
    var goes = POLICY == 1u || (POLICY == 3u && gate > args.THRESHOLD);
#if U
    goes = u[t] * args.THRESHOLD < gate;
#endif
    second[t] = select(0u, 1u, goes);
}
