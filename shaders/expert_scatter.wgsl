// expert_scatter: y[t, e] = values[t, i] where experts[t, i] = e, else 0
//
// experts  (T, K)  u32         read   no expert twice for a token
// values   (T, K)  u32 or f32  read
// y        (T, E)  the same    write
//
// Dispatch: an invocation for each element of y. N: T times E. Reference: core/src/kernels/expert_scatter.rs.

const WG: u32 = 64u;

struct Args {
    N: u32,
    E: u32,
    K: u32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

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
    let first = i / args.E * args.K;
    var word = 0u;
    for (var j = first; j < first + args.K; j += 1u) {
        word = select(word, values[j], experts[j] == i % args.E);
    }
    y[i] = word;
}
