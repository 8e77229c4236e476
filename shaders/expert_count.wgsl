// expert_count: counts[FIRST + e] = pairs of expert e, with ADD added to what was counted before
//
// experts  (T,)  u32  read          each pair's expert; those from E on are not counted
// counts         u32  read, write   E of them, FIRST on; they wrap around
//
// Dispatch: one invocation per expert, which looks at all pairs. Reference: core/src/kernels/expert_count.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    E: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let expert = id.x;
    if expert >= args.E {
        return;
    }
    var pairs = 0u;
    for (var pair = 0u; pair < args.T; pair += 1u) {
        pairs += select(0u, 1u, experts[pair] == expert);
    }
#if ADD
    pairs += counts[args.FIRST + expert];
#endif
    counts[args.FIRST + expert] = pairs;
}
