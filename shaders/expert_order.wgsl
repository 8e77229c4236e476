// expert_order: sorts pairs of a token and an expert by expert, each expert's in their own order, and
// cuts them into tiles of at most TT pairs of one expert.
//
// experts  (T,)  u32  read   each pair's expert; those outside FIRST .. FIRST + COUNT are left out
// order    u32        write  [0]             number of tiles, at most TILES
//                            [1 + 3 i ..]    tile i: its expert, the place of its first pair, its length
//                            [1 + 3 TILES + place]  pairs in order
//
// Dispatch (COUNT, 1, 1): a workgroup counts all pairs and places one expert's, each invocation those
// of a stretch. SERIAL: one invocation does it all. Reference: core/src/kernels/expert_order.rs.

const WG: u32 = 256u;
const MOST: u32 = 512u;

struct Args {
    T: u32,
    FIRST: u32,
    COUNT: u32,
    TILES: u32,
    TT: u32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
@group(0) @binding(1) var<storage, read_write> order: array<u32>;
@group(0) @binding(2) var<uniform> args: Args;

fn tiles_of(pairs: u32) -> u32 {
    return (pairs + args.TT - 1u) / args.TT;
}

fn put_tile(tile: u32, expert: u32, first: u32, pairs: u32) {
    let at = 1u + 3u * tile;
    order[at] = args.FIRST + expert;
    order[at + 1u] = first;
    order[at + 2u] = min(pairs, args.TT);
}

#if SERIAL
var<private> places: array<u32, MOST>;

@compute @workgroup_size(1)
fn main() {
    for (var e = 0u; e < args.COUNT; e += 1u) {
        places[e] = 0u;
    }
    for (var pair = 0u; pair < args.T; pair += 1u) {
        let own = experts[pair] - args.FIRST;
        if own < args.COUNT {
            places[own] += 1u;
        }
    }
    var first = 0u;
    var tile = 0u;
    for (var e = 0u; e < args.COUNT; e += 1u) {
        let pairs = places[e];
        for (var i = 0u; i < pairs; i += args.TT) {
            put_tile(tile, e, first + i, pairs - i);
            tile += 1u;
        }
        places[e] = first;
        first += pairs;
    }
    order[0] = tile;
    for (var pair = 0u; pair < args.T; pair += 1u) {
        let own = experts[pair] - args.FIRST;
        if own < args.COUNT {
            order[1u + 3u * args.TILES + places[own]] = pair;
            places[own] += 1u;
        }
    }
}
#else
var<workgroup> counts: array<atomic<u32>, MOST>;
// Pairs of this workgroup's expert in each invocation's stretch.
var<workgroup> found: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let mine = group.x;
    for (var e = local; e < args.COUNT; e += WG) {
        atomicStore(&counts[e], 0u);
    }
    workgroupBarrier();
    for (var pair = local; pair < args.T; pair += WG) {
        let own = experts[pair] - args.FIRST;
        if own < args.COUNT {
            atomicAdd(&counts[own], 1u);
        }
    }
    let each = (args.T + WG - 1u) / WG;
    let start = local * each;
    let end = min(start + each, args.T);
    var matches = 0u;
    for (var pair = start; pair < end; pair += 1u) {
        matches += select(0u, 1u, experts[pair] - args.FIRST == mine);
    }
    found[local] = matches;
    workgroupBarrier();
    var first = 0u;
    var tile = 0u;
    for (var e = 0u; e < mine; e += 1u) {
        let pairs = atomicLoad(&counts[e]);
        first += pairs;
        tile += tiles_of(pairs);
    }
    let pairs = atomicLoad(&counts[mine]);
    let tiles = tiles_of(pairs);
    for (var i = local; i < tiles; i += WG) {
        put_tile(tile + i, mine, first + i * args.TT, pairs - i * args.TT);
    }
    if local == 0u && mine == args.COUNT - 1u {
        order[0] = tile + tiles;
    }
    var place = first;
    for (var i = 0u; i < local; i += 1u) {
        place += found[i];
    }
    for (var pair = start; pair < end; pair += 1u) {
        if experts[pair] - args.FIRST == mine {
            order[1u + 3u * args.TILES + place] = pair;
            place += 1u;
        }
    }
}
#endif
