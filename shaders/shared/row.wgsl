// row: how invocations share a row that is reduced. SERIAL: an invocation has a row to itself (no
// barrier: for adapters that are CPUs, and for short or strided rows); otherwise a workgroup has
// one, and row_sum and row_max must be called in uniform control flow.
// A row's elements are lane, lane + STEP, lane + 2 STEP, ...

#if SERIAL
const STEP: u32 = 1u;

fn row_sum(value: f32, lane: u32) -> f32 {
    return value;
}

fn row_max(value: f32, lane: u32) -> f32 {
    return value;
}
#else
#import reduce

const STEP: u32 = WG;

fn row_sum(value: f32, lane: u32) -> f32 {
    return reduce_sum(value, lane);
}

fn row_max(value: f32, lane: u32) -> f32 {
    return reduce_max(value, lane);
}
#endif
