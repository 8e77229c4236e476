// How the cache holds two elements: f32, or f16 (KV_F16) held to +-65504, pairs packed in u32. With KV_Q8_0 see
// kv_store.wgsl.

#if KV_F16
alias packed = u32;
fn pack(pair: vec2<f32>) -> packed {
    return pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}
#else
#if KV_Q8_0
alias packed = u32;
#else
alias packed = vec2<f32>;
fn pack(pair: vec2<f32>) -> packed {
    return pair;
}
#endif
#endif
