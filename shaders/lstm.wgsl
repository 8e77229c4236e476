// lstm: for each time t, with g[t] = x[t] W^T + b computed before,
//   (i, f, g, o) = g[t] + R h[t - 1] (+ bias)
//   c[t] = sigmoid(f (+ p_f c[t - 1])) c[t - 1] + sigmoid(i (+ p_i c[t - 1])) tanh(g)
//   h[t] = sigmoid(o (+ p_o c[t])) tanh(c[t])
//
// gates     (4 H,) at t GT + n GN            f32  read
// w         (4 H, H)                         f32  read: R
// bias      (4 H,)                           f32  read, with BIAS
// peephole  (3 H,): p_i, p_o, p_f            f32  read, with PEEPHOLE
// lengths   (N,)                             u32  read, with LENGTHS: times after them give y = 0
// y         (H,) at Y0 + t YT + n YN         f32  write: every h[t]
// h, c      (H,) at H0 + n HN                f32  write: the last state; the first one with INIT
//
// I, F, G, O: which of the four parts of gates, w and bias is which gate.
// Dispatch: a workgroup has an entry n, its invocations hidden units; with SERIAL an invocation has
// an entry (no barrier: for adapters that are CPUs). Sums are f32.
// Source: doi:10.1162/neco.1997.9.8.1735; gate order: PyTorch (i, f, g, o), ONNX (i, o, f, g).
// Reference: core/src/kernels/lstm.rs.

const I: u32 = 0u;
const F: u32 = 1u;
const G: u32 = 2u;
const O: u32 = 3u;
const WG: u32 = 64u;
// activation.wgsl wants it; only its parts are used.
const ACT: u32 = 0u;

struct Args {
    T: u32,
    N: u32,
    H: u32,
    GT: u32,
    GN: u32,
    YT: u32,
    YN: u32,
    Y0: u32,
    HN: u32,
    H0: u32,
}

@group(0) @binding(0) var<storage, read> gates: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
#if PEEPHOLE
@group(0) @binding(3) var<storage, read> peephole: array<f32>;
#endif
#if LENGTHS
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
#endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> h: array<f32>;
@group(0) @binding(7) var<storage, read_write> c: array<f32>;
@group(0) @binding(8) var<uniform> args: Args;

#import activation
#import sequence

// Step s of entry n for the hidden units `first`, `first + stride`, ...
fn step(n: u32, s: u32, first: u32, stride: u32) {
    let to = state_at(n, s);
    if s >= steps_of(n) {
        for (var j = first; j < args.H; j += stride) {
            y[to + j] = 0.0;
        }
        return;
    }
    let gates_at = time_of(n, s) * args.GT + n * args.GN;
    for (var j = first; j < args.H; j += stride) {
        let rows = vec4<u32>(I, F, G, O) * args.H + j;
        var a = vec4<f32>(
            gates[gates_at + rows.x],
            gates[gates_at + rows.y],
            gates[gates_at + rows.z],
            gates[gates_at + rows.w],
        );
#if BIAS
        a += vec4<f32>(bias[rows.x], bias[rows.y], bias[rows.z], bias[rows.w]);
#endif
        var cell = 0.0;
        let at = rows * args.H;
        if s > 0u {
            let last = state_at(n, s - 1u);
            for (var k = 0u; k < args.H; k += 1u) {
                a += vec4<f32>(w[at.x + k], w[at.y + k], w[at.z + k], w[at.w + k]) * y[last + k];
            }
            cell = c[kept_at(n) + j];
        }
#if INIT
        if s == 0u {
            for (var k = 0u; k < args.H; k += 1u) {
                a += vec4<f32>(w[at.x + k], w[at.y + k], w[at.z + k], w[at.w + k]) * h[kept_at(n) + k];
            }
            cell = c[kept_at(n) + j];
        }
#endif
#if PEEPHOLE
        a.x += peephole[j] * cell;
        a.y += peephole[2u * args.H + j] * cell;
#endif
        cell = act_sigmoid(a.y) * cell + act_sigmoid(a.x) * act_tanh(a.z);
#if PEEPHOLE
        a.w += peephole[args.H + j] * cell;
#endif
        c[kept_at(n) + j] = cell;
        y[to + j] = act_sigmoid(a.w) * act_tanh(cell);
    }
}

// Leaves the last state of entry n in h; an entry without a step keeps the first one.
fn finish(n: u32, first: u32, stride: u32) {
    let steps = steps_of(n);
    for (var j = first; j < args.H; j += stride) {
        if steps > 0u {
            h[kept_at(n) + j] = y[state_at(n, steps - 1u) + j];
        }
#if !INIT
        if steps == 0u {
            h[kept_at(n) + j] = 0.0;
            c[kept_at(n) + j] = 0.0;
        }
#endif
    }
}
