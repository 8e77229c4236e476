// gated_activation_backward: the gradient of gated_activation,
// d_gate = dy * value * act'(gate), d_value = dy * act(gate), packed as x is
//
// x   (T, 2 M)  f32  read
// dy  (T, M)    f32  read
// dx  (T, 2 M)  f32  write
//
// Dispatch: each workgroup does EACH * WG elements of dy, neighbouring invocations neighbouring ones.
// Source: arXiv:2002.05202, section 2. Reference: core/src/kernels/gated_activation_backward.rs.

const ACT: u32 = 1u;
const WG: u32 = 64u;
const EACH: u32 = 4u;

#import activation_derivative

struct Args {
    T: u32,
    M: u32,
    GATE: u32,
    VALUE: u32,
    STEP: u32,
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
        if i < args.T * args.M {
            let at = i / args.M * 2u * args.M + args.STEP * (i % args.M);
            let gate = x[at + args.GATE];
            dx[at + args.GATE] = dy[i] * x[at + args.VALUE] * derivative(gate);
            dx[at + args.VALUE] = dy[i] * activate(gate);
        }
    }
}
