// differential_entropy: y[t] = 1/2 ln(2 pi e max(var_c(x[t]), 2^-126)),
// var_c(x[t]) = sum_c (x[t, c] - mean_c x[t])^2 / (C - CORRECTION)
//
// x  (T, C)  f32  read
// y  (T,)    f32  write
//
// The entropy of a normal distribution of the row's variance, in nats. Dispatch: one workgroup per
// row; with SERIAL one invocation per row (no barrier: for adapters that are CPUs).
// Source: Duan, Zhu, Lu 2013, doi:10.1109/NER.2013.6695876.
// Reference: core/src/kernels/differential_entropy.rs.

const WG: u32 = 256u;
// ln(2 pi e)
const LN_2_PI_E: f32 = 2.8378770664093453;
// 2^-126
const SMALLEST: f32 = 1.1754943508222875e-38;

struct Args {
    T: u32,
    C: u32,
    CORRECTION: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

fn entropy(squares: f32) -> f32 {
    let variance = squares / (f32(args.C) - args.CORRECTION);
    return 0.5 * (LN_2_PI_E + log(max(variance, SMALLEST)));
}

#if SERIAL
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = (group.x + group.y * groups.x) * WG + lane;
    if t >= args.T {
        return;
    }
    let first = t * args.C;
    var sum = 0.0;
    for (var i = first; i < first + args.C; i += 1u) {
        sum += x[i];
    }
    let mean = sum / f32(args.C);
    var squares = 0.0;
    for (var i = first; i < first + args.C; i += 1u) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    y[t] = entropy(squares);
}
#else
#import reduce

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group.x + group.y * groups.x;
    if t >= args.T {
        return;
    }
    let first = t * args.C + lane;
    let end = (t + 1u) * args.C;
    var part = 0.0;
    for (var i = first; i < end; i += WG) {
        part += x[i];
    }
    let mean = reduce_sum(part, lane) / f32(args.C);
    part = 0.0;
    for (var i = first; i < end; i += WG) {
        part += (x[i] - mean) * (x[i] - mean);
    }
    let squares = reduce_sum(part, lane);
    if lane == 0u {
        y[t] = entropy(squares);
    }
}
#endif
