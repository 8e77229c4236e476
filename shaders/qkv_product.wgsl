// qkv_product: the heads of q, k and v of a token, (H + 2 KVH) D rows of w times x (+ bias); q and k are turned as
// rope.wgsl turns them; q goes to q[t, h], keys to k_cache[g, pos + t], values to v_cache[g, pos + t]
//
// x        (T, K)          f32     read    NORM: RMS-normalised first, with the weight `norm`
// w        (N, K)          planar  read    rows ROW0 to ROW0 + N of all heads': whole heads
// bias     (all rows,)     f32     read    with BIAS
// norm     (K,)            f32     read    with NORM
// table    (S', ROT / 2)   vec2    read    with ROPE: (cos, sin) of pair i at absolute position s
// q        (T, H, D)       f32     write
// k_cache  (KVH, S, D)             write   f32 or f16
// v_cache  (KVH, S, D)             write   likewise
// step     position of the first token; rows past S are dropped
//
// It is matvec and qkv_append in one, for few tokens. Four rows at a time, a quad, are two pairs that are turned; D and
// ROT are multiples of 4. Dispatch: see shared/rows.wgsl, or with SERIAL shared/serial.wgsl. Sums are f32.
// Source: arXiv:2104.09864, eq. 34; arXiv:1910.07467, eq. 4. Reference: core/src/kernels/qkv_product.rs.

const K: u32 = 576u;
const H: u32 = 9u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const ROT: u32 = 64u;

#import $W as w
#import x
#import kv_pack

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
    N: u32,
    ROW0: u32,
    S: u32,
}

@group(0) @binding(1) var<storage, read> w_words: array<vec4<u32>>;
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
#if NORM
#if X4
@group(0) @binding(3) var<storage, read> norm: array<vec4<f32>>;
#else
@group(0) @binding(3) var<storage, read> norm: array<f32>;
#endif
#endif
#if ROPE
@group(0) @binding(4) var<storage, read> table: array<vec2<f32>>;
#endif
@group(0) @binding(5) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> k_cache: array<packed>;
@group(0) @binding(7) var<storage, read_write> v_cache: array<packed>;
@group(0) @binding(8) var<uniform> step: Step;
@group(0) @binding(9) var<uniform> args: Args;

alias Block = w_Block;
alias Elements = Vec8;
alias Quad = vec4<f32>;
alias Sum = f32;

/// Is row `row` of all heads' one of those that are turned?
fn is_turned(row: u32) -> bool {
#if ROPE
    return row / D < H + KVH && row % D < ROT;
#else
    return false;
#endif
}

/// The second two rows of a quad are so far from the first two.
fn apart(row: u32) -> u32 {
#if ADJACENT
    return 2u;
#else
    return select(2u, ROT / 2u, is_turned(row));
#endif
}

/// The first row of the quad that begins at row `row` in the order of quads.
fn quad_row(row: u32) -> u32 {
    let i = row % D;
    return select(row, row - i + i / 2u, apart(row) > 2u);
}

fn load(row: u32, chunk: u32) -> Block {
    let own = args.ROW0 + row;
    let first = quad_row(own - own % 4u);
    return w_load(first + own % 2u + (own / 2u % 2u) * apart(own) - args.ROW0, chunk);
}

fn decode(b: Block, j: u32) -> Elements {
    return w_get(b, j);
}

fn dot8(e: Elements, lo: vec4<f32>, hi: vec4<f32>) -> Sum {
    return dot(e.lo, lo) + dot(e.hi, hi);
}

/// Elements `i` and `i + 1` of head `head`.
fn put(t: u32, head: u32, i: u32, two: vec2<f32>) {
    if head < H {
        q[((t * H + head) * D + i) / 2u] = two;
        return;
    }
    let position = step.pos + t;
    if position >= args.S {
        return;
    }
    let g = (head - H) % KVH;
    let to = ((g * args.S + position) * D + i) / 2u;
    if head < H + KVH {
        k_cache[to] = pack(two);
    } else {
        v_cache[to] = pack(two);
    }
}

fn store_quad(t: u32, n: u32, sums: vec4<f32>) {
    if t >= args.T || n >= args.N {
        return;
    }
    let row = args.ROW0 + n;
    let first = quad_row(row);
    let second = first + apart(row);
    var quad = sums;
#if BIAS
    quad += vec4<f32>(bias[first], bias[first + 1u], bias[second], bias[second + 1u]);
#endif
    let head = row / D;
    let i = first % D;
#if ROPE
    if is_turned(row) {
        let turns = (step.pos + t) * (ROT / 2u) + row % D / 2u;
        let a = table[turns];
        let b = table[turns + 1u];
#if ADJACENT
        quad = vec4<f32>(
            quad.x * a.x - quad.y * a.y,
            quad.y * a.x + quad.x * a.y,
            quad.z * b.x - quad.w * b.y,
            quad.w * b.x + quad.z * b.y,
        );
#else
        quad = vec4<f32>(
            quad.x * a.x - quad.z * a.y,
            quad.y * b.x - quad.w * b.y,
            quad.z * a.x + quad.x * a.y,
            quad.w * b.x + quad.y * b.y,
        );
#endif
    }
#endif
    put(t, head, i, quad.xy);
    put(t, head, second % D, quad.zw);
}

#if SERIAL
#import serial
#else
#import rows
#endif
