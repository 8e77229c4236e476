// gemm: y[i, m, n] = ALPHA * sum_k a[i, m, k] * b[i, k, n] (+ BETA * c[i, m, n])
//
// a, b  any strides          f32  read
// c     any strides          f32  read, with C
// y     rows without gaps    f32  write
//
// A batch i is (i / BATCH1, i % BATCH1). Strides are in elements, by batch (0, 1), row and column
// of the matrix; a stride of 0 broadcasts, exchanged strides transpose. AO ... YO is where each
// begins. Dispatch: a workgroup has a tile of 16 RM x 16 RN; with SERIAL an invocation has RM x RN
// sums to itself (no barrier: for adapters that are CPUs). Sums are f32.
// Source: BLAS level 3 (Dongarra et al., 1990); ONNX Gemm and MatMul.
// Reference: core/src/kernels/gemm.rs.

const RM: u32 = 4u;
const RN: u32 = 4u;

struct Args {
    M: u32,
    N: u32,
    K: u32,
    BATCHES: u32,
    BATCH1: u32,
    ALPHA: f32,
    BETA: f32,
    A0: u32,
    A1: u32,
    AM: u32,
    AK: u32,
    AO: u32,
    B0: u32,
    B1: u32,
    BK: u32,
    BN: u32,
    BO: u32,
    C0: u32,
    C1: u32,
    CM: u32,
    CN: u32,
    CO: u32,
    Y0: u32,
    Y1: u32,
    YM: u32,
    YO: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
#if C
@group(0) @binding(2) var<storage, read> c: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> args: Args;

fn store(batch: vec2<u32>, m: u32, n: u32, sum: f32) {
    if m >= args.M || n >= args.N {
        return;
    }
    var value = args.ALPHA * sum;
#if C
    let at = args.CO + dot(batch, vec2<u32>(args.C0, args.C1)) + m * args.CM + n * args.CN;
    value += args.BETA * c[at];
#endif
    y[args.YO + dot(batch, vec2<u32>(args.Y0, args.Y1)) + m * args.YM + n] = value;
}

#if SERIAL
const WG: u32 = 8u;

// Neighbouring invocations have neighbouring columns.
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = (args.N + WG * RN - 1u) / (WG * RN);
    let tiles = (args.M + RM - 1u) / RM * columns;
    let id = group.x + group.y * groups.x;
    if id >= tiles * args.BATCHES {
        return;
    }
    let batch = vec2<u32>(id / tiles / args.BATCH1, id / tiles % args.BATCH1);
    let m = id % tiles / columns * RM;
    let n = id % tiles % columns * (WG * RN) + lane;
    let a_at = args.AO + dot(batch, vec2<u32>(args.A0, args.A1));
    let b_at = args.BO + dot(batch, vec2<u32>(args.B0, args.B1));
    var rows: array<u32, RM>;
    for (var i = 0u; i < RM; i += 1u) {
        rows[i] = a_at + min(m + i, args.M - 1u) * args.AM;
    }
    var columns_at: array<u32, RN>;
    for (var j = 0u; j < RN; j += 1u) {
        columns_at[j] = b_at + min(n + j * WG, args.N - 1u) * args.BN;
    }
    var sums: array<f32, RM * RN>;
    for (var k = 0u; k < args.K; k += 1u) {
        var right: array<f32, RN>;
        for (var j = 0u; j < RN; j += 1u) {
            right[j] = b[columns_at[j] + k * args.BK];
        }
        for (var i = 0u; i < RM; i += 1u) {
            let left = a[rows[i] + k * args.AK];
            for (var j = 0u; j < RN; j += 1u) {
                sums[i * RN + j] += left * right[j];
            }
        }
    }
    for (var i = 0u; i < RM * RN; i += 1u) {
        store(batch, m + i / RN, n + i % RN * WG, sums[i]);
    }
}
#else
const TM: u32 = 16u * RM;
const TN: u32 = 16u * RN;
const TK: u32 = 16u;
// One more than a row, so that writes along k hit different banks.
const PM: u32 = TM + 1u;
const PN: u32 = TN + 1u;

var<workgroup> tile_a: array<f32, TK * PM>;
var<workgroup> tile_b: array<f32, TK * PN>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let columns = (args.N + TN - 1u) / TN;
    let tiles = (args.M + TM - 1u) / TM * columns;
    let id = group.x + group.y * groups.x;
    if id >= tiles * args.BATCHES {
        return;
    }
    let batch = vec2<u32>(id / tiles / args.BATCH1, id / tiles % args.BATCH1);
    let m0 = id % tiles / columns * TM;
    let n0 = id % tiles % columns * TN;
    let a_at = args.AO + dot(batch, vec2<u32>(args.A0, args.A1));
    let b_at = args.BO + dot(batch, vec2<u32>(args.B0, args.B1));
    let m = local / 16u;
    let n = local % 16u;
    var sums: array<f32, RM * RN>;
    for (var k0 = 0u; k0 < args.K; k0 += TK) {
        // Neighbouring invocations read along the smaller stride.
        for (var i = local; i < TM * TK; i += 256u) {
            let along_k = args.AK < args.AM;
            let row = select(i % TM, i / TK, along_k);
            let k = select(i / TM, i % TK, along_k);
            let at = a_at + min(m0 + row, args.M - 1u) * args.AM + min(k0 + k, args.K - 1u) * args.AK;
            tile_a[k * PM + row] = select(0.0, a[at], k0 + k < args.K);
        }
        for (var i = local; i < TN * TK; i += 256u) {
            let along_k = args.BK < args.BN;
            let column = select(i % TN, i / TK, along_k);
            let k = select(i / TN, i % TK, along_k);
            let at = b_at + min(n0 + column, args.N - 1u) * args.BN + min(k0 + k, args.K - 1u) * args.BK;
            tile_b[k * PN + column] = select(0.0, b[at], k0 + k < args.K);
        }
        workgroupBarrier();
        for (var k = 0u; k < TK; k += 1u) {
            var right: array<f32, RN>;
            for (var j = 0u; j < RN; j += 1u) {
                right[j] = tile_b[k * PN + n + 16u * j];
            }
            for (var i = 0u; i < RM; i += 1u) {
                let left = tile_a[k * PM + m + 16u * i];
                for (var j = 0u; j < RN; j += 1u) {
                    sums[i * RN + j] += left * right[j];
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < RM * RN; i += 1u) {
        store(batch, m0 + m + 16u * (i / RN), n0 + n + 16u * (i % RN), sums[i]);
    }
}
#endif
