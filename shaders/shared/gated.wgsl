// What the variants of gated_mlp have in common: bindings, two weights of the same shape, and the
// product. The kernel declares K and ACT; rows.wgsl or tiles.wgsl has the entry point.
// EXPERTS: see experts.wgsl.

#import $GATE as gate
#import $UP as up
#import x
#import activation

struct Args {
    T: u32,
    N: u32,
    ROW0: u32,
    NY: u32,
    GATE0: u32,
    UP0: u32,
    GATE_BIAS0: u32,
    UP_BIAS0: u32,
    FIRST: u32,
    COUNT: u32,
    E: u32,
    TILES: u32,
    TT: u32,
}

@group(0) @binding(1) var<storage, read> gate_words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> up_words: array<vec4<u32>>;
#if BIAS
@group(0) @binding(3) var<storage, read> gate_bias: array<f32>;
@group(0) @binding(4) var<storage, read> up_bias: array<f32>;
#endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
#if EXPERTS
@group(0) @binding(6) var<storage, read> pairs: array<u32>;
#endif
#if NORM
#if X4
@group(0) @binding(7) var<storage, read> norm: array<vec4<f32>>;
#else
@group(0) @binding(7) var<storage, read> norm: array<f32>;
#endif
#endif
@group(0) @binding(8) var<uniform> args: Args;

#if EXPERTS
#import experts
#endif

struct Block {
    gate: gate_Block,
    up: up_Block,
}

struct Elements {
    gate: Vec8,
    up: Vec8,
}

struct Quad {
    gate: vec4<f32>,
    up: vec4<f32>,
}

#if CLAMP
const LIMIT: f32 = 7.0;
#endif

// gate, up
alias Sum = vec2<f32>;

const PLANES: u32 = 2u;

fn load(row: u32, chunk: u32) -> Block {
#if EXPERTS
    let own = expert * args.N + row;
    return Block(gate_load(args.GATE0 + own, chunk), up_load(args.UP0 + own, chunk));
#else
    return Block(gate_load(args.GATE0 + row, chunk), up_load(args.UP0 + row, chunk));
#endif
}

fn decode(b: Block, j: u32) -> Elements {
    return Elements(gate_get(b.gate, j), up_get(b.up, j));
}

fn dot4(e: Quad, x: vec4<f32>) -> Sum {
    return vec2<f32>(dot(e.gate, x), dot(e.up, x));
}

fn dot8(e: Elements, lo: vec4<f32>, hi: vec4<f32>) -> Sum {
    return vec2<f32>(
        dot(e.gate.lo, lo) + dot(e.gate.hi, hi),
        dot(e.up.lo, lo) + dot(e.up.hi, hi),
    );
}

fn store(t: u32, n: u32, sum: Sum) {
    if t >= args.T || n >= args.N {
        return;
    }
    var value = sum;
#if BIAS
#if EXPERTS
    let row = expert * args.N + n;
#else
    let row = n;
#endif
    value += vec2<f32>(gate_bias[args.GATE_BIAS0 + row], up_bias[args.UP_BIAS0 + row]);
#endif
#if CLAMP
    let up = clamp(value.y, -LIMIT, LIMIT) + 1.0;
    y[t * args.NY + args.ROW0 + n] = activate(min(value.x, LIMIT)) * up;
#else
    y[t * args.NY + args.ROW0 + n] = activate(value.x) * value.y;
#endif
}

#if TILE
fn tile_put(lo: u32, hi: u32, e: Elements) {
    tile_w[lo] = narrow(e.gate.lo);
    tile_w[hi] = narrow(e.gate.hi);
    tile_w[TN * 8u + lo] = narrow(e.up.lo);
    tile_w[TN * 8u + hi] = narrow(e.up.hi);
}

fn tile_get(i: u32) -> Quad {
    return Quad(vec4<f32>(tile_w[i]), vec4<f32>(tile_w[TN * 8u + i]));
}
#endif
