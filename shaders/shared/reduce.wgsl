// reduce_sum: the sum of `value` over all WG invocations of a workgroup, given to each of them.
// Must be called in uniform control flow. WG is a power of two.

var<workgroup> reduce_scratch: array<f32, WG>;

fn reduce_sum(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if lane < stride {
            reduce_scratch[lane] += reduce_scratch[lane + stride];
        }
    }
    workgroupBarrier();
    let total = reduce_scratch[0];
    workgroupBarrier();
    return total;
}

fn reduce_max(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if lane < stride {
            reduce_scratch[lane] = max(reduce_scratch[lane], reduce_scratch[lane + stride]);
        }
    }
    workgroupBarrier();
    let largest = reduce_scratch[0];
    workgroupBarrier();
    return largest;
}
