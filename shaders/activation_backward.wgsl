// activation_backward: dx[n] = dy[n] * act'(x[n])
//
// x   (N,)  f32  read
// dy  (N,)  f32  read
// dx  (N,)  f32  write
//
// Dispatch: each workgroup does EACH * WG elements, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/activation_backward.rs.

const ACT: u32 = 0u;
const WG: u32 = 64u;
const EACH: u32 = 4u;

#import activation_derivative

struct Args {
    N: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
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
            dx[i] = dy[i] * derivative(x[i]);
        }
    }
}
