// add: y[n] = x[n] + ALPHA z[n]
//
// x, z  (N,)  f32  read
// y     (N,)  f32  write
//
// Dispatch: each workgroup does EACH * WG elements, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/add.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    N: u32,
    ALPHA: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

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
            y[i] = x[i] + args.ALPHA * z[i];
        }
    }
}
