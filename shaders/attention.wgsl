// attention: y[t, h] = sum_s p_s v[g, s],  p = softmax_s(SCALE * q[t, h] . k[g, s]),
// s = 0 ..= pos + t,  g = h / (H / KVH)
//
// q        (T, H, D)    f32         read
// k_cache  (KVH, S, D)  f32 or f16  read    f16: pairs packed in u32
// v_cache  (KVH, S, D)  f32 or f16  read
// step     position of the first token; pos + T <= S
// y        (T, H, D)    f32         write
//
// Softmax is online, in f32: no (T, S) matrix is in memory. D is even. A `row` is a (t, h) with h
// among the heads of one KV head. One of four ways, by a switch:
//   SERIAL     one invocation per row, no barrier (adapters that are CPUs)
//   TILE       one workgroup per ROWS rows, which share tiles of k and v (prefill on GPUs)
//   SUBGROUPS  one workgroup per (t, h), each subgroup takes whole keys (decoding on GPUs)
//   WORKGROUP  one workgroup per (t, h), without subgroup operations
// Source: arXiv:2205.14135, algorithm 1. Reference: core/src/kernels/attention.rs.

const H: u32 = 9u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const SCALE: f32 = 0.125;
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
}

// `few`: the elements that are loaded at once; `packed`: how the caches hold them.
#if PAIRS
alias few = vec2<f32>;
const FEW: u32 = 2u;
#else
alias few = vec4<f32>;
const FEW: u32 = 4u;
#endif

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

@group(0) @binding(0) var<storage, read> q: array<few>;
@group(0) @binding(1) var<storage, read> k_cache: array<packed>;
@group(0) @binding(2) var<storage, read> v_cache: array<packed>;
@group(0) @binding(3) var<uniform> step: Step;
@group(0) @binding(4) var<storage, read_write> y: array<few>;
@group(0) @binding(5) var<uniform> args: Args;

// Columns of a row, in units of `few`, and rows of one token that share a KV head.
const COLS: u32 = D / FEW;
const GROUP: u32 = H / KVH;
// Below every score; finite, so that differences are.
const LOWEST: f32 = -1e30;

/// Where row `row` of KV head `g` starts in q and y.
fn row_start(g: u32, row: u32) -> u32 {
    return ((row / GROUP) * H + g * GROUP + row % GROUP) * COLS;
}

/// How many keys row `row` sees.
fn row_keys(row: u32) -> u32 {
    return min(step.pos + row / GROUP + 1u, args.S);
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
