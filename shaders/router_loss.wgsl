// router_loss: a token's part of the losses of a router, or with BACKWARD their gradient by its logits
//
//   aux[t] = AUX sum_e assigned[e] probs[t, e]      z[t] = Z ln(sum_e exp logits[t, e])^2
//
// probs = softmax(logits), or with SIGMOID sigmoid(logits) / sum
//
// logits    (T, E)  f32  read
// assigned  (E,)    u32  read   tokens of each expert: constants to the gradient
// probs     (T, E)  f32  write  without BACKWARD, as aux and z
// aux       (T,)    f32  write
// z         (T,)    f32  write
// d_logits  (T, E)  f32  write  BACKWARD: of sum_t aux[t] + z[t]
//
// Dispatch: one workgroup per token; with SERIAL one invocation per token. Precision f32.
// Source: arXiv:2101.03961 eq. 4, 2202.08906 eq. 5. Reference: core/src/kernels/router_loss.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    E: u32,
    AUX: f32,
    Z: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> assigned: array<u32>;
#if BACKWARD
@group(0) @binding(5) var<storage, read_write> d_logits: array<f32>;
#else
@group(0) @binding(2) var<storage, read_write> probs: array<f32>;
@group(0) @binding(3) var<storage, read_write> aux: array<f32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
#endif
@group(0) @binding(6) var<uniform> args: Args;

#import row

fn sigmoid(l: f32) -> f32 {
    let e = exp(-abs(l));
    return select(e, 1.0, l >= 0.0) / (1.0 + e);
}

// What a probability is before it is divided by the sum.
fn weight(l: f32, largest: f32) -> f32 {
#if SIGMOID
    return sigmoid(l);
#else
    return exp(l - largest);
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
    let first = t * args.E;
    var own = -3.4028234e38;
    for (var e = lane; e < args.E; e += STEP) {
        own = max(own, logits[first + e]);
    }
    let largest = row_max(own, lane);
    var part = 0.0;
    var part_exp = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        part += weight(logits[first + e], largest);
        part_exp += exp(logits[first + e] - largest);
    }
    let sum = row_sum(part, lane) + 1e-20;
    let sum_exp = row_sum(part_exp, lane);
    let log_sum = largest + log(sum_exp);
    // The mean of assigned over this token's probabilities.
    var part_mean = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        part_mean += f32(assigned[e]) * weight(logits[first + e], largest) / sum;
    }
    let mean = row_sum(part_mean, lane);
    for (var e = lane; e < args.E; e += STEP) {
        let l = logits[first + e];
        let p = weight(l, largest) / sum;
#if BACKWARD
        var slope = 1.0;
#if SIGMOID
        slope = sigmoid(-l);
#endif
        d_logits[first + e] = args.AUX * p * slope * (f32(assigned[e]) - mean)
            + 2.0 * args.Z * log_sum * exp(l - largest) / sum_exp;
#else
        probs[first + e] = p;
#endif
    }
#if !BACKWARD
    if lane == 0u {
        aux[t] = args.AUX * mean;
        z[t] = args.Z * log_sum * log_sum;
    }
#endif
}
