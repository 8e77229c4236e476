// matmul_integer: y[b, m, n] = sum_k (a[b, m, k] - a_zero[m]) (w[b, n, k] - w_zero[n]), in i32
//
// a       (B, M, KW)   u32  read: four signed bytes a word, zeros beyond K
// w       (BW, N, KW)  u32  read: likewise; BW is B or 1
// a_zero  (M,)         i32 as u32  read
// w_zero  (N,)         i32 as u32  read
// y       (B, M, N)    i32 as u32  write
//
// Dispatch: an invocation has one element of y; no barrier. DOT4: with DP4A. Unsigned inputs come
// less 128, zero points as well. Source: ONNX, MatMulInteger.
// Reference: core/src/kernels/matmul_integer.rs.

const WG: u32 = 64u;
const ONES: u32 = 0x01010101u;

struct Args {
    B: u32,
    BW: u32,
    M: u32,
    N: u32,
    K: u32,
}

@group(0) @binding(0) var<storage, read> a: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> a_zero: array<u32>;
@group(0) @binding(3) var<storage, read> w_zero: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;
@group(0) @binding(5) var<uniform> args: Args;

#import packed_dot

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    let n = i % args.N;
    let m = i / args.N % args.M;
    let b = i / args.N / args.M;
    if b >= args.B {
        return;
    }
    let words = (args.K + 3u) / 4u;
    let row = (b * args.M + m) * words;
    let column = (b % args.BW * args.N + n) * words;
    var products = 0;
    var a_sum = 0;
    var w_sum = 0;
    for (var k = 0u; k < words; k += 1u) {
        let four = a[row + k];
        let other = w[column + k];
        products += packed_dot(four, other);
        a_sum += packed_dot(four, ONES);
        w_sum += packed_dot(other, ONES);
    }
    let za = bitcast<i32>(a_zero[m]);
    let zw = bitcast<i32>(w_zero[n]);
    y[i] = bitcast<u32>(products - zw * a_sum - za * w_sum + i32(args.K) * za * zw);
}
