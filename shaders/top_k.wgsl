// top_k: the TOP largest along an axis of x in falling order, ties by smaller id; every NaN comes
// first, with its own bits, so that the host sees it. SMALLEST: the other end, in rising order,
// NaNs last.
//
// x       (OUTER, C, INNER)    f32, read as u32     read
// values  (OUTER, TOP, INNER)  f32, written as u32  write
// ids     (OUTER, TOP, INNER)  u32                  write   FIRST is that of element 0
//
// An element's key is its order, then its inverted id, so all keys differ.
// COUNT: an invocation has an element and counts how many are before it (any TOP, short rows).
// Otherwise a workgroup has a row, TOP <= 128. Radix select: up to 8 passes of 8 bits narrow the
// TOP-th largest key down, most stop after 3 or 4. Then the TOP elements from there on are
// collected and each counts how many are before it.
// TOP <= C. Reference: core/src/kernels/top_k.rs.

const WG: u32 = 256u;

struct Args {
    T: u32,
    C: u32,
    INNER: u32,
    TOP: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

#import axis
#import order

fn is_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y > b.y);
}

fn key_of(first: u32, c: u32) -> vec2<u32> {
    let o = order(x[first + c * args.INNER]);
#if SMALLEST
    return vec2<u32>(~o, ~c);
#else
    return vec2<u32>(o, ~c);
#endif
}

fn put(t: u32, first: u32, rank: u32, c: u32) {
    let i = (t / args.INNER * args.TOP + rank) * args.INNER + t % args.INNER;
    ids[i] = args.FIRST + c;
    values[i] = x[first + c * args.INNER];
}

#if COUNT
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    let t = i / args.C;
    if t >= args.T {
        return;
    }
    let c = i % args.C;
    let first = axis_at(t, 0u);
    let own = key_of(first, c);
    var rank = 0u;
    for (var other = 0u; other < args.C; other += 1u) {
        rank += select(0u, 1u, is_before(key_of(first, other), own));
    }
    if rank < args.TOP {
        put(t, first, rank, c);
    }
}
#else
const MOST: u32 = 128u;

var<workgroup> histogram: array<atomic<u32>, 256>;
// Elements in 16 neighbouring bins.
var<workgroup> coarse: array<u32, 16>;
// Elements in the bin, and of them how many are among the largest.
var<workgroup> chosen: vec3<u32>;
var<workgroup> count: atomic<u32>;
var<workgroup> list: array<vec2<u32>, MOST>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group.x + group.y * groups.x;
    if t >= args.T {
        return;
    }
    let first = axis_at(t, 0u);
    // The first `known` bits of the TOP-th largest key, and how many elements that share them
    // are among the largest.
    var prefix = vec2<u32>(0u);
    var remaining = args.TOP;
    for (var digit = 0u; digit < 8u; digit += 1u) {
        for (var bin = lane; bin < 256u; bin += WG) {
            atomicStore(&histogram[bin], 0u);
        }
        workgroupBarrier();
        let word = digit / 4u;
        let shift = 24u - 8u * (digit % 4u);
        let above = ~((2u << (shift + 7u)) - 1u);
        for (var c = lane; c < args.C; c += WG) {
            let key = key_of(first, c);
            let same = word == 0u || key.x == prefix.x;
            if same && (key[word] & above) == prefix[word] {
                atomicAdd(&histogram[(key[word] >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        for (var i = lane; i < 16u; i += WG) {
            var sum = 0u;
            for (var bin = 16u * i; bin < 16u * i + 16u; bin += 1u) {
                sum += atomicLoad(&histogram[bin]);
            }
            coarse[i] = sum;
        }
        workgroupBarrier();
        if lane == 0u {
            var left = remaining;
            var i = 15u;
            while i > 0u && coarse[i] < left {
                left -= coarse[i];
                i -= 1u;
            }
            var bin = 16u * i + 15u;
            var inside = atomicLoad(&histogram[bin]);
            while bin > 16u * i && inside < left {
                left -= inside;
                bin -= 1u;
                inside = atomicLoad(&histogram[bin]);
            }
            chosen = vec3<u32>(bin, left, inside);
            atomicStore(&count, 0u);
        }
        let choice = workgroupUniformLoad(&chosen);
        prefix[word] |= choice.x << shift;
        remaining = choice.y;
        if choice.y == choice.z {
            break;
        }
    }
    for (var c = lane; c < args.C; c += WG) {
        let key = key_of(first, c);
        if !is_before(prefix, key) {
            let slot = atomicAdd(&count, 1u);
            if slot < MOST {
                list[slot] = key;
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < args.TOP; i += WG) {
        let key = list[i];
        var rank = 0u;
        for (var j = 0u; j < args.TOP; j += 1u) {
            rank += select(0u, 1u, is_before(list[j], key));
        }
        put(t, first, rank, ~key.y);
    }
}
#endif
