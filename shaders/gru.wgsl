// gru: for each time t, with g[t] = x[t] W^T + b computed before,
//   r = sigmoid(g_r + R_r h[t - 1] (+ bias_r)), z likewise
//   n = tanh(g_n + r (R_n h[t - 1] (+ bias_n)))     with RESET_AFTER (PyTorch)
//   n = tanh(g_n + R_n (r h[t - 1]) (+ bias_n))     otherwise (arXiv:1406.1078)
//   h[t] = (1 - z) n + z h[t - 1]
//
// gates    (3 H,) at t GT + n GN            f32  read
// w        (3 H, H)                         f32  read: R
// bias     (3 H,)                           f32  read, with BIAS
// lengths  (N,)                             u32  read, with LENGTHS: times after them give y = 0
// y        (H,) at Y0 + t YT + n YN         f32  write: every h[t]
// h        (H,) at H0 + n HN                f32  write: the last state; the first one with INIT
// reset    (N, H)                           f32  write, unless RESET_AFTER: r h[t - 1]
//
// R, Z, C: which of the three parts of gates, w and bias is r, z and n.
// Dispatch: a workgroup has an entry n, its invocations hidden units; with SERIAL an invocation has
// an entry (no barrier: for adapters that are CPUs). Sums are f32.
// Source: PyTorch, torch.nn.GRU (order r, z, n); ONNX, GRU (order z, r, h; linear_before_reset).
// Reference: core/src/kernels/gru.rs.

const R: u32 = 0u;
const Z: u32 = 1u;
const C: u32 = 2u;
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
#if LENGTHS
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> h: array<f32>;
#if !RESET_AFTER
@group(0) @binding(6) var<storage, read_write> reset: array<f32>;
#endif
@group(0) @binding(7) var<uniform> args: Args;

#import activation
#import sequence

// Element k of the state before step s of entry n.
fn before(n: u32, s: u32, k: u32) -> f32 {
    if s > 0u {
        return y[state_at(n, s - 1u) + k];
    }
#if INIT
    return h[kept_at(n) + k];
#else
    return 0.0;
#endif
}

// Row `row` of R times the state before step s.
fn product(row: u32, n: u32, s: u32) -> f32 {
    var sum = 0.0;
#if BIAS
    sum = bias[row];
#endif
    for (var k = 0u; k < args.H; k += 1u) {
        sum += w[row * args.H + k] * before(n, s, k);
    }
    return sum;
}

fn gate(row: u32, n: u32, s: u32) -> f32 {
    let gates_at = time_of(n, s) * args.GT + n * args.GN;
    return act_sigmoid(gates[gates_at + row] + product(row, n, s));
}

// What step s needs of all units before any of them is computed.
fn prepare(n: u32, s: u32, first: u32, stride: u32) {
#if !RESET_AFTER
    if s < steps_of(n) {
        for (var j = first; j < args.H; j += stride) {
            reset[n * args.H + j] = gate(R * args.H + j, n, s) * before(n, s, j);
        }
    }
#endif
}

// Step s of entry n for the hidden units `first`, `first + stride`, ...
fn advance(n: u32, s: u32, first: u32, stride: u32) {
    let to = state_at(n, s);
    if s >= steps_of(n) {
        for (var j = first; j < args.H; j += stride) {
            y[to + j] = 0.0;
        }
        return;
    }
    let gates_at = time_of(n, s) * args.GT + n * args.GN;
    for (var j = first; j < args.H; j += stride) {
        let row = C * args.H + j;
#if RESET_AFTER
        let inner = gate(R * args.H + j, n, s) * product(row, n, s);
#else
        var inner = 0.0;
#if BIAS
        inner = bias[row];
#endif
        for (var k = 0u; k < args.H; k += 1u) {
            inner += w[row * args.H + k] * reset[n * args.H + k];
        }
#endif
        let candidate = act_tanh(gates[gates_at + row] + inner);
        let z = gate(Z * args.H + j, n, s);
        y[to + j] = (1.0 - z) * candidate + z * before(n, s, j);
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
        }
#endif
    }
}

fn step(n: u32, s: u32, first: u32, stride: u32) {
    prepare(n, s, first, stride);
#if !SERIAL
    storageBarrier();
#endif
    advance(n, s, first, stride);
}
