// router: the K experts of each token, best first, and their probabilities, from its logits
//
// logits   (T, E)  f32, read as u32     read
// bias     (E,)    f32                  read   BIAS: added to the scores that select, not to probs
// experts  (T, K)  u32                  write  all 0xFFFFFFFF for a token with a NaN or +inf
// probs    (T, K)  f32, written as u32  write  all NaN for it
//
// Scores: SCORE 0 softmax over all experts, 1 the logits (probs: softmax over the chosen),
// 2 sigmoid. NORMALIZE divides probs by their sum, args.SCALE multiplies them. Experts are chosen among the
// GROUPS_KEPT best of GROUPS groups of neighbours; a group's worth is its largest, or with TWO the sum of
// its two largest. Of equal ones the lower number comes first. SCORED: selection needs scores (BIAS, TWO);
// otherwise logits select, in whose order scores are.
//
// Dispatch: one workgroup per token; with SERIAL one invocation per token. Precision f32.
// Source: arXiv:1701.06538, 2401.04088, 2405.04434 section 2.1.2, 2412.19437 section 2.1.2.
// Reference: core/src/kernels/router.rs.

const WG: u32 = 64u;
const K: u32 = 2u;
const SCORE: u32 = 0u;
const GROUPS: u32 = 1u;
const GROUPS_KEPT: u32 = 1u;
const LOWEST: f32 = -3.4028234e38;
const INFINITE: u32 = 0x7F800000u;

struct Args {
    T: u32,
    E: u32,
    SCALE: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<u32>;
#if BIAS
@group(0) @binding(1) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(2) var<storage, read_write> experts: array<u32>;
@group(0) @binding(3) var<storage, read_write> probs: array<u32>;
@group(0) @binding(4) var<uniform> args: Args;

#import row
#import order

// A softmax' largest logit and sum.
struct Level {
    largest: f32,
    sum: f32,
}

// The better of two (key, expert) pairs.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

#if SERIAL
var<private> worth: array<u32, GROUPS>;

fn best_of(own: vec2<u32>, lane: u32) -> vec2<u32> {
    return own;
}
#else
var<workgroup> worth: array<u32, GROUPS>;
var<workgroup> found: array<vec2<u32>, WG>;

fn best_of(own: vec2<u32>, lane: u32) -> vec2<u32> {
    found[lane] = own;
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if lane < stride {
            found[lane] = better(found[lane], found[lane + stride]);
        }
    }
    workgroupBarrier();
    let best = found[0];
    workgroupBarrier();
    return best;
}
#endif

// -inf, an expert that is masked, as the lowest number.
fn logit(i: u32) -> f32 {
    return max(bitcast<f32>(logits[i]), LOWEST);
}

fn score(l: f32, level: Level) -> f32 {
    if SCORE == 2u {
        let e = exp(-abs(l));
        return select(e, 1.0, l >= 0.0) / (1.0 + e);
    }
    return exp(l - level.largest) / level.sum;
}

// What an expert is chosen by.
fn value(first: u32, e: u32, level: Level) -> f32 {
    var v = logit(first + e);
#if SCORED
    if SCORE != 1u {
        v = score(v, level);
    }
#if BIAS
    v += bias[e];
#endif
#endif
    return v;
}

fn key(v: f32) -> u32 {
    return order(bitcast<u32>(v));
}

// The groups that are kept, a bit each.
fn kept_groups(first: u32, level: Level, lane: u32) -> u32 {
    let len = args.E / GROUPS;
    for (var g = lane; g < GROUPS; g += STEP) {
        var largest = LOWEST;
        var second = LOWEST;
        for (var e = g * len; e < (g + 1u) * len; e += 1u) {
            let v = value(first, e, level);
            second = max(second, min(v, largest));
            largest = max(largest, v);
        }
#if TWO
        largest += second;
#endif
        worth[g] = key(largest);
    }
#if !SERIAL
    workgroupBarrier();
#endif
    var kept = 0u;
    for (var g = 0u; g < GROUPS; g += 1u) {
        var before = 0u;
        for (var h = 0u; h < GROUPS; h += 1u) {
            before += select(0u, 1u, worth[h] > worth[g] || (worth[h] == worth[g] && h < g));
        }
        kept |= select(0u, 1u << g, before < GROUPS_KEPT);
    }
    return kept;
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
    var own = LOWEST;
    var own_bad = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        let bits = logits[first + e];
        own_bad = select(own_bad, 1.0, (bits & 0x7FFFFFFFu) > INFINITE || bits == INFINITE);
        own = max(own, logit(first + e));
    }
    let bad = row_max(own_bad, lane) > 0.0;
    var level = Level(row_max(own, lane), 1.0);
    if SCORE == 0u {
        var part = 0.0;
        for (var e = lane; e < args.E; e += STEP) {
            part += exp(logit(first + e) - level.largest);
        }
        level.sum = row_sum(part, lane);
    }
    let kept = kept_groups(first, level, lane);
    let len = args.E / GROUPS;
    var chosen: array<u32, K>;
    var p: array<f32, K>;
    // Below this comes the next one.
    var last = vec2<u32>(NAN_ORDER, NAN_ORDER);
    for (var i = 0u; i < K; i += 1u) {
        // (0, any) loses to every expert: the key of -inf is greater than 0.
        var best = vec2<u32>(0u, NAN_ORDER);
        for (var e = lane; e < args.E; e += STEP) {
            let k = key(value(first, e, level));
            let is_next = k < last.x || (k == last.x && e > last.y);
            if is_next && (kept & (1u << (e / len))) != 0u {
                best = better(best, vec2<u32>(k, e));
            }
        }
        last = best_of(best, lane);
        chosen[i] = last.y;
        // Of a token that holds a NaN there may be fewer than K.
        p[i] = logit(first + min(last.y, args.E - 1u));
    }
    if SCORE == 1u {
        var largest = LOWEST;
        for (var i = 0u; i < K; i += 1u) {
            largest = max(largest, p[i]);
        }
        level = Level(largest, 0.0);
        for (var i = 0u; i < K; i += 1u) {
            level.sum += exp(p[i] - largest);
        }
    }
    var sum = 0.0;
    for (var i = 0u; i < K; i += 1u) {
        p[i] = score(p[i], level);
        sum += p[i];
    }
    var scale = args.SCALE;
#if NORMALIZE
    scale = scale / (sum + 1e-20);
#endif
    for (var i = lane; i < K; i += STEP) {
        experts[t * K + i] = select(chosen[i], 0xFFFFFFFFu, bad);
        probs[t * K + i] = select(bitcast<u32>(p[i] * scale), 0x7FC00000u, bad);
    }
}
