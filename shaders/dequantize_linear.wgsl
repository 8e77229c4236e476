// dequantize_linear: y[a, c, b] = (x[a, c, b] - zero[g]) scale[g], g = a GA + c / BLOCK GC + b GB
//
// x      (A, C, B)  f32  read: whole numbers, or low-precision floats
// scale  (G,)       f32  read
// zero   (G,)       f32  read, with ZERO
// y      (A, C, B)  f32  write
//
// Dispatch: an invocation has one element; no barrier. Source: ONNX, DequantizeLinear: GA = GC = GB
// = 0 for one scale, GC = 1 for one an axis, all for blocks. Reference:
// core/src/kernels/dequantize_linear.rs.

const WG: u32 = 64u;

struct Args {
    A: u32,
    C: u32,
    B: u32,
    BLOCK: u32,
    GA: u32,
    GC: u32,
    GB: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
#if ZERO
@group(0) @binding(2) var<storage, read> zero: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i >= args.A * args.C * args.B {
        return;
    }
    let b = i % args.B;
    let c = i / args.B % args.C;
    let a = i / args.B / args.C;
    let g = a * args.GA + c / args.BLOCK * args.GC + b * args.GB;
    var value = x[i];
#if ZERO
    value -= zero[g];
#endif
    y[i] = value * scale[g];
}
