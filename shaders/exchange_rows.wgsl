// exchange_rows: y[TO + l, i] = x[FROM + l, i] for l < min(LEN, counts[AT]); the rest of y stays
//
// x       (.., INNER)  4-byte words  read
// counts  (..)         u32           read
// y       (.., INNER)  4-byte words  write
//
// FOURS: INNER is a multiple of 4 words. Dispatch: each workgroup does EACH * WG of `elem`, neighbouring invocations
// neighbouring ones. Reference: core/src/kernels/exchange_rows.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    INNER: u32,
    FROM: u32,
    TO: u32,
    LEN: u32,
    AT: u32,
}

#if FOURS
alias elem = vec4<u32>;
const WIDTH: u32 = 4u;
#else
alias elem = u32;
const WIDTH: u32 = 1u;
#endif

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let inner = args.INNER / WIDTH;
    let words = min(args.LEN, counts[args.AT]) * inner;
    let first = (group.x + group.y * groups.x) * (EACH * WG) + lane;
    for (var j = 0u; j < EACH; j += 1u) {
        let i = first + j * WG;
        if i < words {
            y[args.TO * inner + i] = x[args.FROM * inner + i];
        }
    }
}
