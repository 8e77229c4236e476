// exchange_unpack: what exchange_pack has put together, taken apart by the rank that got it
//
// rows     (R, ROOM, C + 2K)  4-byte words  read
// counts   (R, R)             u32           read   [s, d]: rows that rank s sent to rank d, which is this one
// x        (R ROOM, C)        4-byte words  write  of rows beyond the count it stays what it was
// experts  (R ROOM, K)        u32           write  and these are 0xFFFFFFFF
// probs    (R ROOM, K)        4-byte words  write  and these 0
//
// Dispatch: an invocation a word. Reference: core/src/kernels/exchange_unpack.rs.

const WG: u32 = 64u;

struct Args {
    R: u32,
    ROOM: u32,
    C: u32,
    K: u32,
    ME: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> experts: array<u32>;
@group(0) @binding(4) var<storage, read_write> probs: array<u32>;
@group(0) @binding(5) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + local;
    let width = args.C + 2u * args.K;
    let row = id / width;
    if row >= args.R * args.ROOM {
        return;
    }
    let i = id % width;
    let there = row % args.ROOM < counts[row / args.ROOM * args.R + args.ME];
    if i < args.C {
        if there {
            x[row * args.C + i] = rows[id];
        }
    } else if i < args.C + args.K {
        experts[row * args.K + i - args.C] = select(0xFFFFFFFFu, rows[id], there);
    } else {
        probs[row * args.K + i - args.C - args.K] = select(0u, rows[id], there);
    }
}
