// quantized_dot: y[t, ROW0 + n] = sum_k (min[n, g] + scale[n, g] w[n, k]) s[t, k / 32] q[t, k]
//                                 (+ bias[ROW0 + n])
//
// q        (T, CHUNKS) of 8   u32  read: signed bytes, from quantize_activations
// q_sides  (T, CHUNKS) of 2   f32  read: s, and s times the sum of q
// quants   (N, CHUNKS)        read: w, 32 unsigned elements, 4 bits as in planar q4_0, or with INT8
//                             8 bits
// sides    (N, GROUPS) of 2   f32  read: min and scale of GC chunks
// bias     (NY,)              f32  read, with BIAS
// y        (T, NY)            f32  write
//
// Products of a chunk are summed as integers, DOT4: with DP4A. Dispatch: LANES invocations have one
// row and token and meet in workgroup memory; with SERIAL one invocation (no barrier: for adapters
// that are CPUs). Source: fastllm, linear.cpp. Reference: core/src/kernels/quantized_dot.rs.

const K: u32 = 576u;
const GC: u32 = 4u;
const WG: u32 = 64u;
const LANES: u32 = 16u;
const CHUNKS: u32 = (K + 31u) / 32u;
const GROUPS: u32 = (CHUNKS + GC - 1u) / GC;

struct Args {
    T: u32,
    N: u32,
    ROW0: u32,
    NY: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> q_sides: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> sides: array<vec2<f32>>;
#if BIAS
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> args: Args;

#import packed_dot

fn four(w: vec4<u32>, x: vec4<u32>) -> i32 {
    return packed_dot(w.x, x.x) + packed_dot(w.y, x.y) + packed_dot(w.z, x.z) + packed_dot(w.w, x.w);
}

// One chunk of row n with token t.
fn product(n: u32, t: u32, chunk: u32) -> f32 {
    let at = t * CHUNKS + chunk;
    let lo = q[2u * at];
    let hi = q[2u * at + 1u];
    let s = q_sides[at];
    let side = sides[n * GROUPS + chunk / GC];
    let w = n * CHUNKS + chunk;
#if INT8
    // Unsigned bytes less 128 are signed ones.
    let flip = vec4<u32>(0x80808080u);
    let sum = four(quants[2u * w] ^ flip, lo) + four(quants[2u * w + 1u] ^ flip, hi);
    let offset = side.x + 128.0 * side.y;
#else
    let even = quants[w] & vec4<u32>(0x0F0F0F0Fu);
    let odd = (quants[w] >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu);
    let sum = four(vec4<u32>(even.x, odd.x, even.y, odd.y), lo)
        + four(vec4<u32>(even.z, odd.z, even.w, odd.w), hi);
    let offset = side.x;
#endif
    return side.y * s.x * f32(sum) + offset * s.y;
}

fn store(t: u32, n: u32, sum: f32) {
    var value = sum;
#if BIAS
    value += bias[args.ROW0 + n];
#endif
    y[t * args.NY + args.ROW0 + n] = value;
}

#if SERIAL
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    let n = i % args.N;
    let t = i / args.N;
    if t >= args.T {
        return;
    }
    var sum = 0.0;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        sum += product(n, t, chunk);
    }
    store(t, n, sum);
}
#else
var<workgroup> partials: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * (WG / LANES) + local / LANES;
    let n = i % args.N;
    let t = i / args.N;
    let lane = local % LANES;
    var sum = 0.0;
    if t < args.T {
        for (var chunk = lane; chunk < CHUNKS; chunk += LANES) {
            sum += product(n, t, chunk);
        }
    }
    partials[local] = sum;
    for (var stride = LANES / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if lane < stride {
            partials[local] += partials[local + stride];
        }
    }
    if lane == 0u && t < args.T {
        store(t, n, partials[local]);
    }
}
#endif
