// kv_append: k_cache[b, g, pos + t] = k[b, t, g],  v_cache[b, g, pos + t] = v[b, t, g]
//
// k, v      (B, T, KVH, D), (B, T, KVH, DV)  f32    read    HEADS_FIRST: (B, KVH, T, ...)
// k_cache   (B, KVH, S, D)                          write   f32, f16 or q8_0
// v_cache   (B, KVH, S, DV)                         write   likewise
// step      position of the first token; rows past S are dropped
//
// f16 (KV_F16): pairs packed in u32, held to +-65504. q8_0 (KV_Q8_0): rows as
// core/src/weights/planar.rs has them, d = max |x| / 127 of 32 elements; D and DV multiples of 32.
//
// Dispatch: one invocation per pair of elements, or with KV_Q8_0 of chunks. D and DV are even.
// Reference: core/src/kernels/kv_append.rs.

const B: u32 = 1u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const DV: u32 = 64u;
const WG: u32 = 64u;

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
    S: u32,
}

#if KV_F16
alias packed = u32;
fn pack(pair: vec2<f32>) -> packed {
    return pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}
#else
#if KV_Q8_0
alias packed = u32;
#else
alias packed = vec2<f32>;
fn pack(pair: vec2<f32>) -> packed {
    return pair;
}
#endif
#endif

@group(0) @binding(0) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> k_cache: array<packed>;
@group(0) @binding(3) var<storage, read_write> v_cache: array<packed>;
@group(0) @binding(4) var<uniform> step: Step;
@group(0) @binding(5) var<uniform> args: Args;

#if KV_Q8_0
const PART: u32 = 64u;

fn load(value: bool, i: u32) -> vec2<f32> {
    if value {
        return v[i];
    }
    return k[i];
}

fn store(value: bool, i: u32, word: u32) {
    if value {
        v_cache[i] = word;
    } else {
        k_cache[i] = word;
    }
}

/// Chunks 2 part and 2 part + 1 of a row of `size` elements.
fn quantize(value: bool, from_row: u32, to_row: u32, size: u32, part: u32) {
    let chunks = size / 32u;
    let to = to_row * 4u * ((34u * chunks + 15u) / 16u);
    var scales = vec2<f32>();
    for (var n = 0u; n < min(2u, chunks - 2u * part); n += 1u) {
        let chunk = 2u * part + n;
        let start = (from_row * size + 32u * chunk) / 2u;
        var largest = 0.0;
        for (var i = 0u; i < 16u; i += 1u) {
            let pair = abs(load(value, start + i));
            largest = max(largest, max(pair.x, pair.y));
        }
        // The value that readers will see.
        let d = unpack2x16float(pack2x16float(vec2<f32>(min(largest / 127.0, 65504.0)))).x;
        let inverse = select(0.0, 1.0 / d, d > 0.0);
        for (var i = 0u; i < 8u; i += 1u) {
            let four = vec4<f32>(load(value, start + 2u * i), load(value, start + 2u * i + 1u));
            let scaled = clamp(four * inverse, vec4<f32>(-127.0), vec4<f32>(127.0));
            let q = vec4<u32>(vec4<i32>(round(scaled))) & vec4<u32>(0xFFu);
            store(value, to + 8u * chunk + i, q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u));
        }
        if n == 0u {
            scales.x = d;
        } else {
            scales.y = d;
        }
    }
    store(value, to + 8u * chunks + part, pack2x16float(scales));
}
#else
const PART: u32 = 2u;
#endif

// Parts of a row of k, of v, and of the longer one.
const PARTS_K: u32 = (D + PART - 1u) / PART;
const PARTS_V: u32 = (DV + PART - 1u) / PART;
const PARTS: u32 = max(PARTS_K, PARTS_V);

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / PARTS;
    let part = id % PARTS;
#if HEADS_FIRST
    let t = row % args.T;
    let g = row / args.T;
#else
    let t = (row / KVH) % args.T;
    let g = row / (KVH * args.T) * KVH + row % KVH;
#endif
    let s = step.pos + t;
    if row >= B * args.T * KVH || s >= args.S {
        return;
    }
    let to = g * args.S + s;
#if KV_Q8_0
    if part < PARTS_K {
        quantize(false, row, to, D, part);
    }
    if part < PARTS_V {
        quantize(true, row, to, DV, part);
    }
#else
    if part < PARTS_K {
        k_cache[to * PARTS_K + part] = pack(k[row * PARTS_K + part]);
    }
    if part < PARTS_V {
        v_cache[to * PARTS_V + part] = pack(v[row * PARTS_V + part]);
    }
#endif
}
