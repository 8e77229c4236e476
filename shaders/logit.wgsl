// logit: y[i] = ln(p / (1 - p)), p = x[i] held to EPS .. 1 - EPS
//
// x  (N,)  f32          read
// y  (N,)  f32, as u32  write  -inf for 0, inf for 1, NaN outside; as bits: WGSL may assume none
//
// Dispatch: each workgroup does EACH * WG elements, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/logit.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    N: u32,
    EPS: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> args: Args;

fn logit(value: f32) -> u32 {
    var p = value;
    if args.EPS > 0.0 {
        p = clamp(p, args.EPS, 1.0 - args.EPS);
    }
    if p > 0.0 && p < 1.0 {
        // 2 atanh(2 p - 1) near 1/2, where the logarithm's error would be all there is.
        let s = 2.0 * p - 1.0;
        let s2 = s * s;
        let series = 2.0 * s * (1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 / 9.0))));
        return bitcast<u32>(select(log(p / (1.0 - p)), series, s2 < 0.02));
    }
    if p == 0.0 {
        return 0xFF800000u;
    }
    return select(0x7FC00000u, 0x7F800000u, p == 1.0);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * (EACH * WG) + lane;
    for (var j = 0u; j < EACH; j += 1u) {
        let i = first + j * WG;
        if i < args.N {
            y[i] = logit(x[i]);
        }
    }
}
