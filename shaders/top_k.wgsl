// top_k: the TOP largest of x in falling order, ties by smaller id; every NaN comes first, with its
// own bits, so that the host sees it
//
// x       (C,)    f32, read as u32     read
// values  (TOP,)  f32, written as u32  write
// ids     (TOP,)  u32                  write
//
// Dispatch (1, 1, 1). Radix select: an element's key is its order, then its inverted id, so all
// keys differ; up to 8 passes of 8 bits narrow the TOP-th largest key down, most stop after 3 or 4.
// Then the TOP elements from there on are collected and each counts how many are before it.
// TOP <= 128, TOP <= C. Reference: core/src/kernels/top_k.rs.

const WG: u32 = 256u;

struct Args {
    C: u32,
    TOP: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

#import order

const MOST: u32 = 128u;

var<workgroup> histogram: array<atomic<u32>, 256>;
// Elements in 16 neighbouring bins.
var<workgroup> coarse: array<u32, 16>;
// Elements in the bin, and of them how many are among the largest.
var<workgroup> chosen: vec3<u32>;
var<workgroup> count: atomic<u32>;
var<workgroup> list: array<vec2<u32>, MOST>;

fn is_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y > b.y);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
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
            let key = vec2<u32>(order(x[c]), ~c);
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
        let key = vec2<u32>(order(x[c]), ~c);
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
        ids[rank] = ~key.y;
        values[rank] = x[~key.y];
    }
}
