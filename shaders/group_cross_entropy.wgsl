// group_cross_entropy: GroupSoftmax cross-entropy. g is the group of row t's label, p = softmax(x[t]),
// P = sum of p over g's classes: loss[t] = -ln P,
// d_logits[t, c] = up p_c (P - 1) / (P + EPS) for c in g, up p_c for others
//
// logits    (OUTER, C, INNER)  f32  read
// labels    (OUTER, INNER)     u32  read   classes; IGNORE gives loss and gradient 0; another that is
//                                          not below C gives NaN
// groups    (C,)               u32  read   group of each class; a negative one (as u32) is group 0
// dy        (OUTER, INNER)     f32  read   DY: up, or with DY_ONE its only element; else 1
// total     (1,)               f32  read   TOTAL: up is divided by it
// loss      (OUTER, INNER)     f32  write  LOSS, as u32
// d_logits  (OUTER, C, INNER)  f32  write  D_LOGITS, as u32
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row. Sums are f32; P comes from the
// group's own largest logit, so that it does not vanish.
// Reference: core/src/kernels/group_cross_entropy.rs.

const WG: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;
const NAN: u32 = 0x7FC00000u;

struct Args {
    T: u32,
    C: u32,
    INNER: u32,
    IGNORE: u32,
    EPS: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> groups: array<u32>;
#if DY
@group(0) @binding(3) var<storage, read> dy: array<f32>;
#endif
#if TOTAL
@group(0) @binding(4) var<storage, read> total: array<f32>;
#endif
#if LOSS
@group(0) @binding(5) var<storage, read_write> loss: array<u32>;
#endif
#if D_LOGITS
@group(0) @binding(6) var<storage, read_write> d_logits: array<u32>;
#endif
@group(0) @binding(7) var<uniform> args: Args;

#import row
#import axis
#import upstream

fn group_of(c: u32) -> u32 {
    return select(groups[c], 0u, groups[c] >= 0x80000000u);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#if SERIAL
    let t = (workgroup.x + workgroup.y * workgroups.x) * WG + local;
    let lane = 0u;
#else
    let t = workgroup.x + workgroup.y * workgroups.x;
    let lane = local;
#endif
    if t >= args.T {
        return;
    }
    let first = axis_at(t, 0u);
    let label = labels[t];
    let ignored = label == args.IGNORE;
    let wrong = !ignored && label >= args.C;
    let own_group = group_of(min(label, args.C - 1u));
    var all_max = LOWEST;
    var own_max = LOWEST;
    for (var c = lane; c < args.C; c += STEP) {
        let v = logits[first + c * args.INNER];
        all_max = max(all_max, v);
        if group_of(c) == own_group {
            own_max = max(own_max, v);
        }
    }
    all_max = row_max(all_max, lane);
    own_max = row_max(own_max, lane);
    var all_sum = 0.0;
    var own_sum = 0.0;
    for (var c = lane; c < args.C; c += STEP) {
        let v = logits[first + c * args.INNER];
        all_sum += exp(v - all_max);
        if group_of(c) == own_group {
            own_sum += exp(v - own_max);
        }
    }
    all_sum = row_sum(all_sum, lane);
    own_sum = row_sum(own_sum, lane);
    let value = (all_max - own_max) + log(all_sum / own_sum);
#if LOSS
    if lane == 0u {
        loss[t] = select(bitcast<u32>(select(value, 0.0, ignored)), NAN, wrong);
    }
#endif
#if D_LOGITS
    let own = own_sum / all_sum * exp(own_max - all_max);
    let inside = (own - 1.0) / (own + args.EPS);
    let up = select(upstream(t), 0.0, ignored);
    for (var c = lane; c < args.C; c += STEP) {
        let i = first + c * args.INNER;
        let p = exp(logits[i] - all_max) / all_sum;
        let slope = up * p * select(1.0, inside, group_of(c) == own_group);
        d_logits[i] = select(bitcast<u32>(slope), NAN, wrong);
    }
#endif
}
