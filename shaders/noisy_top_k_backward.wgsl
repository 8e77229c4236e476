// noisy_top_k_backward: gradients of noisy top-k routing's losses by its clean logits and by what the noise's
// deviation is made of, from those by importance (sum over tokens of the gates) and load (see noisy_load)
//
// clean         (T, E)  f32  read
// raw           (T, E)  f32  read
// noisy         (T, E)  f32  read
// experts       (T, M)  u32  read   the best M = K + 1, or M = K = E: then the load is constant
// d_importance  (E,)    f32  read
// d_load        (E,)    f32  read
// d_clean       (T, E)  f32  write
// d_raw         (T, E)  f32  write
//
// Dispatch: one workgroup per token; with SERIAL one invocation per token. Which experts are the best is
// constant; their noisy logits, gates and thresholds are not.
// Source: arXiv:1701.06538, eq. 3 to 11. Reference: core/src/kernels/noisy_top_k_backward.rs.

const WG: u32 = 64u;
const ACT: u32 = 0u;

struct Args {
    T: u32,
    E: u32,
    K: u32,
    M: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> raw: array<f32>;
@group(0) @binding(2) var<storage, read> noisy: array<f32>;
@group(0) @binding(3) var<storage, read> experts: array<u32>;
@group(0) @binding(4) var<storage, read> d_importance: array<f32>;
@group(0) @binding(5) var<storage, read> d_load: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_clean: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_raw: array<f32>;
@group(0) @binding(8) var<uniform> args: Args;

#import row
#import activation

// Place of expert e among the K best, or K.
fn place_of(t: u32, e: u32) -> u32 {
    var place = args.K;
    for (var j = 0u; j < args.K; j += 1u) {
        place = select(place, j, experts[t * args.M + j] == e);
    }
    return place;
}

fn expert(t: u32, place: u32) -> u32 {
    return min(experts[t * args.M + place], args.E - 1u);
}

// (u, gradient by the clean logit) of the load of element e; u = (clean - threshold) / deviation.
fn load_slope(t: u32, e: u32, is_best: bool) -> vec2<f32> {
    if args.M == args.K {
        return vec2<f32>(0.0, 0.0);
    }
    let i = t * args.E + e;
    let deviation = act_softplus(raw[i]) + 0.01;
    let rival = expert(t, select(args.K - 1u, args.K, is_best));
    let u = clamp((clean[i] - noisy[t * args.E + rival]) / deviation, -12.0, 12.0);
    return vec2<f32>(u, d_load[e] * 0.3989422804 * exp(-0.5 * u * u) / deviation);
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
    // The softmax of the K best, and the mean of d_importance over it.
    let largest = noisy[first + expert(t, 0u)];
    var sum = 0.0;
    var mean = 0.0;
    for (var j = 0u; j < args.K; j += 1u) {
        let e = expert(t, j);
        let weight = exp(noisy[first + e] - largest);
        sum += weight;
        mean += weight * d_importance[e];
    }
    mean = mean / sum;
    // What the load gives to the two thresholds: number K + 1 and number K.
    var part_best = 0.0;
    var part_others = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        let is_best = place_of(t, e) < args.K;
        let slope = load_slope(t, e, is_best).y;
        part_best += select(0.0, slope, is_best);
        part_others += select(slope, 0.0, is_best);
    }
    let of_best = row_sum(part_best, lane);
    let of_others = row_sum(part_others, lane);
    for (var e = lane; e < args.E; e += STEP) {
        let i = first + e;
        let place = place_of(t, e);
        var d_noisy = 0.0;
        if place < args.K {
            d_noisy = exp(noisy[i] - largest) / sum * (d_importance[e] - mean);
        }
        d_noisy -= select(0.0, of_others, place == args.K - 1u);
        if args.M > args.K {
            d_noisy -= select(0.0, of_best, e == expert(t, args.K));
        }
        let load = load_slope(t, e, place < args.K);
        let noise = (noisy[i] - clean[i]) / (act_softplus(raw[i]) + 0.01);
        d_clean[i] = d_noisy + load.y;
        d_raw[i] = (d_noisy * noise - load.y * load.x) * act_sigmoid(raw[i]);
    }
}
