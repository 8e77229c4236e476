// transpose: y[n, b, a] = x[n, a, b]
//
// x  (N, A, B)  f32  read
// y  (N, B, A)  f32  write
//
// Dispatch: an invocation has one element of y, neighbours neighbouring ones; no barrier.
// Reference: core/src/kernels/transpose.rs.

const WG: u32 = 64u;

struct Args {
    N: u32,
    A: u32,
    B: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i >= args.N * args.A * args.B {
        return;
    }
    let a = i % args.A;
    let b = i / args.A % args.B;
    let n = i / args.A / args.B;
    y[i] = x[(n * args.A + a) * args.B + b];
}
