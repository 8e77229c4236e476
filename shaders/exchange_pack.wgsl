// exchange_pack: rows of tokens in the order in which ranks get them, each with its experts and probabilities
//
// x        (T, C)             4-byte words  read
// experts  (T, K)             u32           read
// probs    (T, K)             4-byte words  read
// places   (R, T)             u32           read   of exchange_order
// rows     (R, ROOM, C + 2K)  4-byte words  write  beyond a rank's tokens they stay what they were
//
// Dispatch: an invocation a word of a token for a rank. Reference: core/src/kernels/exchange_pack.rs.

const WG: u32 = 64u;

struct Args {
    R: u32,
    T: u32,
    C: u32,
    K: u32,
    ROOM: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> experts: array<u32>;
@group(0) @binding(2) var<storage, read> probs: array<u32>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<u32>;
@group(0) @binding(5) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + local;
    let width = args.C + 2u * args.K;
    let queue = id / width;
    if queue >= args.R * args.T {
        return;
    }
    let place = places[queue];
    if place == 0xFFFFFFFFu {
        return;
    }
    let t = queue % args.T;
    let i = id % width;
    var word: u32;
    if i < args.C {
        word = x[t * args.C + i];
    } else if i < args.C + args.K {
        word = experts[t * args.K + i - args.C];
    } else {
        word = probs[t * args.K + i - args.C - args.K];
    }
    rows[(queue / args.T * args.ROOM + place) * width + i] = word;
}
