// norm_backward: gradient of norm (RMSNorm; CENTERED: LayerNorm) by x, from the row's own x:
// dx[t, c] = rstd * (g - mean_c g - n * mean_c(g n)), g = dy[t, c] * weight[c],
// n = (x[t, c] - mean_c x) * rstd; without CENTERED both means of x and g are taken as 0
//
// x       (T, C)    f32  read
// weight  (C,)      f32  read   WEIGHT
// dy      (T, C)    f32  read
// dx      (T, C)    f32  write
// stats   (T, 2)    f32  write  STATS: mean and rstd, for norm_backward_weight
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row. Sums are f32.
// Reference: core/src/kernels/norm_backward.rs.

const C: u32 = 576u;
const EPS: f32 = 1e-5;
const WG: u32 = 256u;

struct Args {
    T: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if WEIGHT
@group(0) @binding(1) var<storage, read> weight: array<f32>;
#endif
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
#if STATS
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
#endif
@group(0) @binding(5) var<uniform> args: Args;

#import row

fn slope(t: u32, c: u32) -> f32 {
#if WEIGHT
    return dy[t * C + c] * weight[c];
#else
    return dy[t * C + c];
#endif
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
    var level = 0.0;
#if CENTERED
    var total = 0.0;
    for (var c = lane; c < C; c += STEP) {
        total += x[t * C + c];
        level += slope(t, c);
    }
    centre = row_sum(total, lane) / f32(C);
    level = row_sum(level, lane) / f32(C);
#endif
    var squares = 0.0;
    var products = 0.0;
    for (var c = lane; c < C; c += STEP) {
        let d = x[t * C + c] - centre;
        squares += d * d;
        products += slope(t, c) * d;
    }
    let rstd = inverseSqrt(row_sum(squares, lane) / f32(C) + EPS);
    let along = row_sum(products, lane) / f32(C) * rstd;
    for (var c = lane; c < C; c += STEP) {
        let n = (x[t * C + c] - centre) * rstd;
        dx[t * C + c] = rstd * (slope(t, c) - level - n * along);
    }
#if STATS
    if lane == 0u {
        stats[2u * t] = centre;
        stats[2u * t + 1u] = rstd;
    }
#endif
}
