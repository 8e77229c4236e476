// column_sum: y[c] = sum_t x[t, c]
//
// x  (T, C)  f32  read
// y  (C,)    f32  write
//
// Dispatch: a workgroup has 32 columns, LANES = WG / 32 invocations each; with SERIAL WG columns,
// one invocation each (no barrier: for adapters that are CPUs).
// Reference: core/src/kernels/column_sum.rs.

const WG: u32 = 256u;

struct Args {
    T: u32,
    C: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

// Pairs of partial sums: their error grows with the logarithm of T, nearly.
fn part(c: u32, first: u32, step: u32) -> f32 {
    var total = 0.0;
    for (var t = first; t < args.T; t += 32u * step) {
        var some = 0.0;
        let end = min(args.T, t + 32u * step);
        for (var i = t; i < end; i += step) {
            some += x[i * args.C + c];
        }
        total += some;
    }
    return total;
}

#if SERIAL
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = (group.x + group.y * groups.x) * WG + lane;
    if c < args.C {
        y[c] = part(c, 0u, 1u);
    }
}
#else
const LANES: u32 = WG / 32u;

var<workgroup> parts: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = (group.x + group.y * groups.x) * 32u + lane % 32u;
    parts[lane] = part(min(c, args.C - 1u), lane / 32u, LANES);
    workgroupBarrier();
    if lane < 32u && c < args.C {
        var total = 0.0;
        for (var i = lane; i < WG; i += 32u) {
            total += parts[i];
        }
        y[c] = total;
    }
}
#endif
