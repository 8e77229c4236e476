// exchange_order: which tokens go to which rank, and their places in its queue
//
// experts  (T, K)  u32  read   rank r has experts r / SHARE EACH .. + EACH; tokens without one of them stay away
// counts   (R,)    u32  write  tokens that go to each rank
// places   (R, T)  u32  write  how many tokens before this one go there too; 0xFFFFFFFF: it does not
//
// Dispatch (R, 1, 1): a workgroup a rank, each invocation a stretch of the tokens. SERIAL: one invocation.
// Reference: core/src/kernels/exchange_order.rs.

const WG: u32 = 256u;

struct Args {
    R: u32,
    T: u32,
    K: u32,
    EACH: u32,
    SHARE: u32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> places: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

fn goes(t: u32, rank: u32) -> bool {
    let first = rank / args.SHARE * args.EACH;
    for (var j = 0u; j < args.K; j += 1u) {
        if experts[t * args.K + j] - first < args.EACH {
            return true;
        }
    }
    return false;
}

// Gives the tokens of a stretch their places from `first` on.
fn place(start: u32, end: u32, rank: u32, first: u32) -> u32 {
    var next = first;
    for (var t = start; t < end; t += 1u) {
        if goes(t, rank) {
            places[rank * args.T + t] = next;
            next += 1u;
        } else {
            places[rank * args.T + t] = 0xFFFFFFFFu;
        }
    }
    return next;
}

#if SERIAL
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    counts[group.x] = place(0u, args.T, group.x, 0u);
}
#else
var<workgroup> found: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let rank = group.x;
    let each = (args.T + WG - 1u) / WG;
    let start = min(local * each, args.T);
    let end = min(start + each, args.T);
    var own = 0u;
    for (var t = start; t < end; t += 1u) {
        own += select(0u, 1u, goes(t, rank));
    }
    found[local] = own;
    workgroupBarrier();
    var first = 0u;
    for (var i = 0u; i < local; i += 1u) {
        first += found[i];
    }
    let next = place(start, end, rank, first);
    if local == WG - 1u {
        counts[rank] = next;
    }
}
#endif
