// cross_entropy: with label y of row t, log-probabilities l_c = log_softmax(x[t])_c (NLL: l = x) and
// target q_c = w_c ((1 - SMOOTHING) [c = y] + SMOOTHING / C):
// loss[t] = -sum_c q_c l_c, d_logits[t, c] = up (p_c sum_c q_c - q_c), p = exp l (NLL: p = 0)
//
// logits        (OUTER, C, INNER)  f32  read
// labels        (OUTER, INNER)     u32  read   IGNORE gives loss and gradient 0; another that is not
//                                              below C gives NaN
// class_weight  (C,)               f32  read   CLASS_WEIGHT: w, else 1
// dy            (OUTER, INNER)     f32  read   DY: up, or with DY_ONE its only element; else 1
// total         (1,)               f32  read   TOTAL: up is divided by it
// loss          (OUTER, INNER)     f32  write  LOSS, as u32
// log_prob      (OUTER, C, INNER)  f32  write  LOG_PROB: l
// d_logits      (OUTER, C, INNER)  f32  write  D_LOGITS, as u32
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row. Sums are f32.
// Label smoothing: arXiv:1512.00567; weights as PyTorch has them.
// Reference: core/src/kernels/cross_entropy.rs.

const WG: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;
const NAN: u32 = 0x7FC00000u;

struct Args {
    T: u32,
    C: u32,
    INNER: u32,
    IGNORE: u32,
    SMOOTHING: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
#if CLASS_WEIGHT
@group(0) @binding(2) var<storage, read> class_weight: array<f32>;
#endif
#if DY
@group(0) @binding(3) var<storage, read> dy: array<f32>;
#endif
#if TOTAL
@group(0) @binding(4) var<storage, read> total: array<f32>;
#endif
#if LOSS
@group(0) @binding(5) var<storage, read_write> loss: array<u32>;
#endif
#if LOG_PROB
@group(0) @binding(6) var<storage, read_write> log_prob: array<f32>;
#endif
#if D_LOGITS
@group(0) @binding(7) var<storage, read_write> d_logits: array<u32>;
#endif
@group(0) @binding(8) var<uniform> args: Args;

#import row
#import axis
#import upstream

fn weight_of(c: u32) -> f32 {
#if CLASS_WEIGHT
    return class_weight[c];
#else
    return 1.0;
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
    let first = axis_at(t, 0u);
#if !NLL
    var own = LOWEST;
    for (var c = lane; c < args.C; c += STEP) {
        own = max(own, logits[first + c * args.INNER]);
    }
    let largest = row_max(own, lane);
    var part = 0.0;
    for (var c = lane; c < args.C; c += STEP) {
        part += exp(logits[first + c * args.INNER] - largest);
    }
    let log_sum = log(row_sum(part, lane));
#else
    let largest = 0.0;
    let log_sum = 0.0;
#endif
    let label = labels[t];
    let ignored = label == args.IGNORE;
    let wrong = !ignored && label >= args.C;
    let y = min(label, args.C - 1u);
    let hard = (1.0 - args.SMOOTHING) * weight_of(y);
    let soft = args.SMOOTHING / f32(args.C);
    var smoothed = 0.0;
    var weights = 0.0;
#if SMOOTH
    for (var c = lane; c < args.C; c += STEP) {
        smoothed += weight_of(c) * (logits[first + c * args.INNER] - largest - log_sum);
        weights += weight_of(c);
    }
    smoothed = row_sum(smoothed, lane);
    weights = row_sum(weights, lane);
#endif
#if LOSS
    if lane == 0u {
        let own_log = logits[first + y * args.INNER] - largest - log_sum;
        let value = select(-(hard * own_log + soft * smoothed), 0.0, ignored);
        loss[t] = select(bitcast<u32>(value), NAN, wrong);
    }
#endif
#if LOG_PROB
    for (var c = lane; c < args.C; c += STEP) {
        let i = first + c * args.INNER;
        log_prob[i] = logits[i] - largest - log_sum;
    }
#endif
#if D_LOGITS
    let up = upstream(t);
    for (var c = lane; c < args.C; c += STEP) {
        let i = first + c * args.INNER;
        let target_c = soft * weight_of(c) + select(0.0, hard, c == y);
#if NLL
        let slope = -target_c;
#else
        let slope = exp(logits[i] - largest - log_sum) * (hard + soft * weights) - target_c;
#endif
        let value = select(up * slope, 0.0, ignored);
        d_logits[i] = select(bitcast<u32>(value), NAN, wrong);
    }
#endif
}
