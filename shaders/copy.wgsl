// copy: y[o, TO + l, i] = x[o, FROM + l, i] for l < LEN; the rest of y stays
//
// x  (OUTER, X_LEN, INNER)  4-byte words  read
// y  (OUTER, Y_LEN, INNER)  4-byte words  write
//
// FOURS: what lies before, in and behind the block are multiples of 4 words.
// Dispatch: each workgroup does EACH * WG of `elem`, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/copy.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    OUTER: u32,
    INNER: u32,
    X_LEN: u32,
    FROM: u32,
    Y_LEN: u32,
    TO: u32,
    LEN: u32,
}

#if FOURS
alias elem = vec4<u32>;
const WIDTH: u32 = 4u;
#else
alias elem = u32;
const WIDTH: u32 = 1u;
#endif

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let run = args.LEN * args.INNER / WIDTH;
    let first = (group.x + group.y * groups.x) * (EACH * WG) + lane;
    for (var j = 0u; j < EACH; j += 1u) {
        let id = first + j * WG;
        if id < args.OUTER * run {
            let o = id / run;
            let i = id % run;
            let x_at = (o * args.X_LEN + args.FROM) * args.INNER / WIDTH;
            let y_at = (o * args.Y_LEN + args.TO) * args.INNER / WIDTH;
            y[y_at + i] = x[x_at + i];
        }
    }
}
