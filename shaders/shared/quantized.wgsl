// What quantized_matvec and quantized_matmul have in common: bindings, one integer weight with a
// minimum and a scale for every GC chunks of a row, and where a finished sum goes. The kernel
// declares K; rows.wgsl, serial.wgsl or tiles.wgsl has the entry point.

#import vec8
#import x

// Chunks of 32 elements with one minimum and scale.
const GC: u32 = 4u;
const GROUPS: u32 = ((K + 31u) / 32u + GC - 1u) / GC;

struct Args {
    T: u32,
    N: u32,
    ROW0: u32,
    NY: u32,
}

@group(0) @binding(1) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> sides: array<vec2<f32>>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> args: Args;

struct Block {
    at: u32,
    min: f32,
    scale: f32,
}

alias Elements = Vec8;
alias Quad = vec4<f32>;
alias Sum = f32;

const PLANES: u32 = 1u;

fn load(row: u32, chunk: u32) -> Block {
    let side = sides[row * GROUPS + chunk / GC];
    let at = row * ((K + 31u) / 32u) + chunk;
#if INT8
    return Block(2u * at, side.x, side.y);
#else
    return Block(at, side.x, side.y);
#endif
}

#if INT8
fn bytes(word: u32, b: Block) -> vec4<f32> {
    let q = vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
    return vec4<f32>(q) * b.scale + b.min;
}

fn decode(b: Block, j: u32) -> Elements {
    let four = quants[b.at + (j >> 1u)];
    let two = select(four.xy, four.zw, (j & 1u) == 1u);
    return Vec8(bytes(two.x, b), bytes(two.y, b));
}
#else
fn decode(b: Block, j: u32) -> Elements {
    return vec8_nibbles(quants[b.at][j], b.scale, b.min);
}
#endif

fn dot4(e: Quad, x: vec4<f32>) -> Sum {
    return dot(e, x);
}

fn dot8(e: Elements, lo: vec4<f32>, hi: vec4<f32>) -> Sum {
    return dot(e.lo, lo) + dot(e.hi, hi);
}

fn store(t: u32, n: u32, sum: Sum) {
    if t >= args.T || n >= args.N {
        return;
    }
    var value = sum;
#if BIAS
    value += bias[args.ROW0 + n];
#endif
    y[t * args.NY + args.ROW0 + n] = value;
}

#if TILE
fn tile_put(lo: u32, hi: u32, e: Elements) {
    tile_w[lo] = narrow(e.lo);
    tile_w[hi] = narrow(e.hi);
}

fn tile_get(i: u32) -> Quad {
    return vec4<f32>(tile_w[i]);
}
#endif
