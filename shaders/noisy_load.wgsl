// noisy_load: y[t, e] = Phi((clean - threshold) / deviation): the probability that expert e would be among
// the K best of token t, were its own noise drawn again
//
// threshold: the largest noisy logit that e must beat: number K + 1 for one of the K best, number K for others
//
// clean    (T, E)  f32  read
// raw      (T, E)  f32  read   deviation = softplus(raw) + 0.01
// noisy    (T, E)  f32  read
// experts  (T, M)  u32  read   the best M = K + 1, or M = K = E: then y is 1
// y        (T, E)  f32  write
//
// Dispatch: an invocation for each element of y. N: T times E.
// Source: arXiv:1701.06538, eq. 9. Reference: core/src/kernels/noisy_load.rs.

const WG: u32 = 64u;
const ACT: u32 = 0u;

struct Args {
    N: u32,
    E: u32,
    K: u32,
    M: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> raw: array<f32>;
@group(0) @binding(2) var<storage, read> noisy: array<f32>;
@group(0) @binding(3) var<storage, read> experts: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> args: Args;

#import activation

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i >= args.N {
        return;
    }
    if args.M == args.K {
        y[i] = 1.0;
        return;
    }
    let t = i / args.E;
    var place = args.K - 1u;
    for (var j = 0u; j < args.K; j += 1u) {
        place = select(place, args.K, experts[t * args.M + j] == i % args.E);
    }
    let rival = min(experts[t * args.M + place], args.E - 1u);
    let distance = clean[i] - noisy[t * args.E + rival];
    y[i] = act_phi(distance / (act_softplus(raw[i]) + 0.01));
}
