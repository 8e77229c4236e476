// attention: y[t, h] = sum_s p_s v[g, s],  p = softmax_s(SCALE * q[t, h] . k[g, s]),
// s = 0 ..= pos + t,  g = (h + HEAD0) / GROUP
//
// q           (B, T, H, D)    f32  read    HEADS_FIRST: (B, H, T, D)
// k_cache     (B, KVH, S, D)       read    TOKENS_FIRST: (B, S, KVH, D)
// v_cache     (B, KVH, S, DV)      read    likewise
// step        position of the first token
// y           (B, T, H, DV)   f32  write   HEADS_FIRST: (B, H, T, DV)
// mask        (B, H, T, S)         read    optional, as slopes and kv_lengths: shared/attention_rules.wgsl
// sinks       (H,)            f32  read    optional: a score more in each softmax, without a value
// pages       words           u32  read    with PAGED: see below
//
// Caches are f32, f16 (KV_F16: pairs in u32) or q8_0 (KV_Q8_0: rows as core/src/weights/planar.rs
// has them, D and DV multiples of 32). Softmax is online, in f32: no (T, S) matrix is in memory.
// PARTIAL: H is not KVH * GROUP, or HEAD0 not 0: a rank's heads, which begin or end inside a group.
// PAGED: tokens belong to different sequences, whose keys lie in pages of PAGE rows of the caches: four words of
// `pages` for each token are its position, the row of its own key, and where in `pages` the list of its pages begins.
// D and DV are even. A row without a key to attend to gives zeros. A `row` is a (t, h) with h among
// the heads of one KV head. One of four ways, by a switch:
//   SERIAL     one invocation per row, no barrier (adapters that are CPUs)
//   TILE       one workgroup per ROWS rows, which share tiles of k and v (prefill on GPUs)
//   SUBGROUPS  one workgroup per (t, h), each subgroup takes whole keys (decoding on GPUs)
//   WORKGROUP  one workgroup per (t, h), without subgroup operations
// Source: arXiv:2205.14135, algorithm 1; sinks: arXiv:2309.17453 as gpt-oss has them.
// Reference: core/src/kernels/attention.rs.

const B: u32 = 1u;
const H: u32 = 9u;
const KVH: u32 = 3u;
// Query heads of a KV head in the whole model, and place of this call's first one in its group.
const GROUP: u32 = 3u;
const HEAD0: u32 = 0u;
const D: u32 = 64u;
const DV: u32 = 64u;
const SCALE: f32 = 0.125;
const PAGE: u32 = 16u;
const WG: u32 = 256u;

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
    S: u32,
    PREFIX: u32,
    WINDOW: u32,
    MASK_B: u32,
    MASK_H: u32,
    MASK_T: u32,
    MASK_S: u32,
}

// `few`: the elements that are loaded at once; `packed`: how the caches hold them.
#if PAIRS
alias few = vec2<f32>;
const FEW: u32 = 2u;
#else
alias few = vec4<f32>;
const FEW: u32 = 4u;
#endif

#if KV_Q8_0
alias packed = u32;
#else
#if KV_F16
#if PAIRS
alias packed = u32;
fn unpack(p: packed) -> few {
    return unpack2x16float(p);
}
#else
alias packed = vec2<u32>;
fn unpack(p: packed) -> few {
    return few(unpack2x16float(p.x), unpack2x16float(p.y));
}
#endif
#else
alias packed = few;
fn unpack(p: packed) -> few {
    return p;
}
#endif
#endif

@group(0) @binding(0) var<storage, read> q: array<few>;
@group(0) @binding(1) var<storage, read> k_cache: array<packed>;
@group(0) @binding(2) var<storage, read> v_cache: array<packed>;
@group(0) @binding(3) var<uniform> step: Step;
@group(0) @binding(4) var<storage, read_write> y: array<few>;
#if MASK
#if MASK_SEEN
@group(0) @binding(5) var<storage, read> mask: array<u32>;
#else
@group(0) @binding(5) var<storage, read> mask: array<f32>;
#endif
#endif
#if ALIBI
@group(0) @binding(6) var<storage, read> slopes: array<f32>;
#endif
#if KV_LENGTHS
@group(0) @binding(7) var<storage, read> kv_lengths: array<u32>;
#endif
#if SINKS
@group(0) @binding(8) var<storage, read> sinks: array<f32>;
#endif
#if PAGED
@group(0) @binding(9) var<storage, read> pages: array<u32>;
#endif
@group(0) @binding(10) var<uniform> args: Args;

#import attention_rules

// Columns of a row of q and k, and of v and y, in units of `few`; KV heads of all sequences.
const COLS: u32 = D / FEW;
const COLS_V: u32 = DV / FEW;
const ALL_KVH: u32 = B * KVH;

// Rows of a cache from one key to the next, and the size of a row in units of `packed`.
#if TOKENS_FIRST
const NEXT_KEY: u32 = KVH;
#else
const NEXT_KEY: u32 = 1u;
#endif
#if KV_Q8_0
const K_ROW: u32 = 4u * ((34u * (D / 32u) + 15u) / 16u);
const V_ROW: u32 = 4u * ((34u * (DV / 32u) + 15u) / 16u);
#else
const K_ROW: u32 = COLS;
const V_ROW: u32 = COLS_V;
#endif

/// The first key's row of KV head `g` of sequence `b` in the caches.
fn cache_row(b: u32, g: u32) -> u32 {
#if TOKENS_FIRST
    return b * args.S * KVH + g;
#else
    return (b * KVH + g) * args.S;
#endif
}

/// The row of key `s` of token `t` in the caches; `cache` is that of the KV head's first.
fn key_row(cache: u32, t: u32, s: u32) -> u32 {
#if PAGED
    return cache + pages[pages[4u * t + 2u] + s / PAGE] * PAGE + s % PAGE;
#else
    return cache + s * NEXT_KEY;
#endif
}

#if KV_Q8_0
/// Column `c` of a row: its quants are in `word`, scales of two chunks in `scales`.
fn dequantize(word: u32, scales: u32, c: u32) -> few {
    let pair = unpack2x16float(scales);
    let d = select(pair.x, pair.y, (c / (32u / FEW)) % 2u == 1u);
#if PAIRS
    let q = vec2<i32>(vec2<u32>(word >> (16u * (c % 2u))) << vec2<u32>(24u, 16u));
    return vec2<f32>(q >> vec2<u32>(24u)) * d;
#else
    let q = vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u));
    return vec4<f32>(q >> vec4<u32>(24u)) * d;
#endif
}
#endif

/// Column `c` of the row of k that starts at `at`.
fn k_few(at: u32, c: u32) -> few {
#if KV_Q8_0
    return dequantize(k_cache[at + c * FEW / 4u], k_cache[at + D / 4u + c * FEW / 64u], c);
#else
    return unpack(k_cache[at + c]);
#endif
}

/// Column `c` of the row of v that starts at `at`.
fn v_few(at: u32, c: u32) -> few {
#if KV_Q8_0
    return dequantize(v_cache[at + c * FEW / 4u], v_cache[at + DV / 4u + c * FEW / 64u], c);
#else
    return unpack(v_cache[at + c]);
#endif
}

/// The number of (b, t, h) in q and y.
fn query_row(x: Query) -> u32 {
#if HEADS_FIRST
    return (x.b * H + x.h) * args.T + x.t;
#else
    return (x.b * args.T + x.t) * H + x.h;
#endif
}

/// First of the heads that read KV head `g`, and how many they are.
fn first_head(g: u32) -> u32 {
#if PARTIAL
    return max(g * GROUP, HEAD0) - HEAD0;
#else
    return g * GROUP;
#endif
}

fn heads_of(g: u32) -> u32 {
#if PARTIAL
    return min((g + 1u) * GROUP - HEAD0, H) - first_head(g);
#else
    return GROUP;
#endif
}

fn kv_head(h: u32) -> u32 {
    return (h + HEAD0) / GROUP;
}

/// Row `row` of KV head `g`.
fn query_of(b: u32, g: u32, row: u32) -> Query {
    let heads = heads_of(g);
    return Query(b, row / heads, first_head(g) + row % heads);
}

/// Largest score and sum of a row before its first key; only one of those that share a row is `one`.
fn start_largest(h: u32) -> f32 {
#if SINKS
    return sinks[h];
#else
    return LOWEST;
#endif
}

fn start_sum(one: bool) -> f32 {
#if SINKS
    return select(0.0, 1.0, one);
#else
    return 0.0;
#endif
}

fn divide(sums: few, sum: f32) -> few {
    return select(sums / sum, few(), sum == 0.0);
}

#if SERIAL
#import attention_serial
#endif
#if TILE
#import attention_tile
#endif
#if SUBGROUPS
#import attention_subgroup
#endif
#if WORKGROUP
#import attention_workgroup
#endif
