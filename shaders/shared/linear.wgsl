// What matvec and matmul have in common: bindings, one weight, and where a finished sum goes.
// The kernel declares K; rows.wgsl or tiles.wgsl has the entry point. EXPERTS: see experts.wgsl.

#import $W as w
#import x

struct Args {
    T: u32,
    N: u32,
    ROW0: u32,
    NY: u32,
    FIRST: u32,
    COUNT: u32,
    E: u32,
    TILES: u32,
    TT: u32,
}

@group(0) @binding(1) var<storage, read> w_words: array<vec4<u32>>;
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
#if RESIDUAL
@group(0) @binding(3) var<storage, read> residual: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if EXPERTS
@group(0) @binding(5) var<storage, read> pairs: array<u32>;
#endif
#if NORM
#if X4
@group(0) @binding(6) var<storage, read> norm: array<vec4<f32>>;
#else
@group(0) @binding(6) var<storage, read> norm: array<f32>;
#endif
#endif
@group(0) @binding(7) var<uniform> args: Args;

#if EXPERTS
#import experts
#endif

alias Block = w_Block;
alias Elements = Vec8;
alias Quad = vec4<f32>;
alias Sum = f32;

const PLANES: u32 = 1u;

fn load(row: u32, chunk: u32) -> Block {
#if EXPERTS
    return w_load(expert * args.N + row, chunk);
#else
    return w_load(row, chunk);
#endif
}

fn decode(b: Block, j: u32) -> Elements {
    return w_get(b, j);
}

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
#if EXPERTS
    let i = t * args.NY + n;
    let row = args.ROW0 + expert * args.N + n;
#else
    let i = t * args.NY + args.ROW0 + n;
    let row = args.ROW0 + n;
#endif
    var value = sum;
#if BIAS
    value += bias[row];
#endif
#if RESIDUAL
    value += residual[i];
#endif
    y[i] = value;
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
