// reduce_sum: y[0] = sum_i x[i], TOTAL: / total[0]
//
// x      (N,)  f32          read
// total  (1,)  f32          read   TOTAL; 0 gives NaN
// y      (1,)  f32, as u32  write
//
// Dispatch (1, 1, 1). Reference: core/src/kernels/reduce_sum.rs.

const WG: u32 = 256u;

struct Args {
    N: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if TOTAL
@group(0) @binding(1) var<storage, read> total: array<f32>;
#endif
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform> args: Args;

#import row

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var part = 0.0;
    for (var i = lane; i < args.N; i += STEP) {
        part += x[i];
    }
    let sum = row_sum(part, lane);
    if lane == 0u {
#if TOTAL
        y[0] = select(bitcast<u32>(sum / total[0]), 0x7FC00000u, total[0] == 0.0);
#else
        y[0] = bitcast<u32>(sum);
#endif
    }
}
