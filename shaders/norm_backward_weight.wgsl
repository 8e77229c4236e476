// norm_backward_weight: gradients of norm by its weight and bias:
// d_weight[c] = sum_t dy[t, c] * (x[t, c] - mean[t]) * rstd[t], d_bias[c] = sum_t dy[t, c]
//
// x         (T, C)  f32  read
// dy        (T, C)  f32  read
// stats     (T, 2)  f32  read   mean and rstd of each row
// d_weight  (C,)    f32  write
// d_bias    (C,)    f32  write  BIAS
//
// Dispatch: one invocation per column, so that neighbours read neighbouring elements.
// Reference: core/src/kernels/norm_backward_weight.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    C: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> d_weight: array<f32>;
#if BIAS
@group(0) @binding(4) var<storage, read_write> d_bias: array<f32>;
#endif
@group(0) @binding(5) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let c = (group.x + group.y * groups.x) * WG + local;
    if c >= args.C {
        return;
    }
    var by_weight = 0.0;
    var by_bias = 0.0;
    for (var t = 0u; t < args.T; t += 1u) {
        let i = t * args.C + c;
        let row = stats[t];
        by_weight += dy[i] * (x[i] - row.x) * row.y;
        by_bias += dy[i];
    }
    d_weight[c] = by_weight;
#if BIAS
    d_bias[c] = by_bias;
#endif
}
