// label_weight: total[0] = sum over the rows t that are not ignored of class_weight[labels[t]], or
// without weights their number: what a mean of losses is divided by
//
// labels        (T,)  u32  read   IGNORE and labels not below C count 0
// class_weight  (C,)  f32  read   CLASS_WEIGHT
// total         (1,)  f32  write
//
// Dispatch (1, 1, 1). Reference: core/src/kernels/label_weight.rs.

const WG: u32 = 256u;

struct Args {
    T: u32,
    C: u32,
    IGNORE: u32,
}

@group(0) @binding(0) var<storage, read> labels: array<u32>;
#if CLASS_WEIGHT
@group(0) @binding(1) var<storage, read> class_weight: array<f32>;
#endif
@group(0) @binding(2) var<storage, read_write> total: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

#import row

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var t = lane; t < args.T; t += STEP) {
        let label = labels[t];
        if label != args.IGNORE && label < args.C {
#if CLASS_WEIGHT
            sum += class_weight[label];
#else
            sum += 1.0;
#endif
        }
    }
    let all = row_sum(sum, lane);
    if lane == 0u {
        total[0] = all;
    }
}
