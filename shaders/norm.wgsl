// norm: y[t, c] = (v - mean_c v) / sqrt(mean_c (v - mean_c v)^2 + EPS) * weight[k] + bias[k] with
// v[t, c] = x[first + t, c] + residual[first + t, c]
//
// Without CENTERED mean_c v is taken as 0: RMSNorm. k is c, or for group norm, where row t is group
// t % GROUPS and its C elements are channels of SPATIAL elements each, the channel.
//
// x         (>= first + T, C)  f32  read
// weight    (channels,)        f32  read   WEIGHT
// bias      (channels,)        f32  read   BIAS
// residual  (>= first + T, C)  f32  read   RESIDUAL
// y         (T, C)             f32  write
// sum       (T, C)             f32  write  SUM: v
// mean      (T,)               f32  write  MEAN
// rstd      (T,)               f32  write  RSTD: 1 / sqrt(variance + EPS)
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row. Sums are f32.
// Source: arXiv:1910.07467 (RMS), arXiv:1607.06450 (layer), arXiv:1803.08494 (group).
// Reference: core/src/kernels/norm.rs.

const C: u32 = 576u;
const EPS: f32 = 1e-5;
const GROUPS: u32 = 1u;
const SPATIAL: u32 = 1u;
const WG: u32 = 256u;

struct Args {
    T: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if WEIGHT
@group(0) @binding(1) var<storage, read> weight: array<f32>;
#endif
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
#if RESIDUAL
@group(0) @binding(3) var<storage, read> residual: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if SUM
@group(0) @binding(5) var<storage, read_write> sum: array<f32>;
#endif
#if MEAN
@group(0) @binding(6) var<storage, read_write> mean: array<f32>;
#endif
#if RSTD
@group(0) @binding(7) var<storage, read_write> rstd: array<f32>;
#endif
@group(0) @binding(8) var<uniform> args: Args;

#import row

fn value(t: u32, c: u32) -> f32 {
    let i = (args.FIRST + t) * C + c;
#if RESIDUAL
    return x[i] + residual[i];
#else
    return x[i];
#endif
}

fn store(t: u32, c: u32, normalised: f32) {
    var result = normalised;
    let k = t % GROUPS * (C / SPATIAL) + c / SPATIAL;
#if WEIGHT
    result *= weight[k];
#endif
#if BIAS
    result += bias[k];
#endif
    y[t * C + c] = result;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#if SERIAL
    let t = (group.x + group.y * groups.x) * WG + local;
    let lane = 0u;
#else
    let t = group.x + group.y * groups.x;
    let lane = local;
#endif
    if t >= args.T {
        return;
    }
    var centre = 0.0;
#if CENTERED
    var total = 0.0;
    for (var c = lane; c < C; c += STEP) {
        total += value(t, c);
    }
    centre = row_sum(total, lane) / f32(C);
#endif
    var squares = 0.0;
    for (var c = lane; c < C; c += STEP) {
        let d = value(t, c) - centre;
        squares += d * d;
    }
    let scale = inverseSqrt(row_sum(squares, lane) / f32(C) + EPS);
    for (var c = lane; c < C; c += STEP) {
        let v = value(t, c);
#if SUM
        sum[t * C + c] = v;
#endif
        store(t, c, (v - centre) * scale);
    }
    if lane == 0u {
#if MEAN
        mean[t] = centre;
#endif
#if RSTD
        rstd[t] = scale;
#endif
    }
}
