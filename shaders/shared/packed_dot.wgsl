// packed_dot: the dot product of four signed bytes with four others. DOT4: by the instruction that
// WGSL's packed_4x8_integer_dot_product names (DP4A).

fn packed_dot(a: u32, b: u32) -> i32 {
#if DOT4
    return dot4I8Packed(a, b);
#else
    let up = vec4<u32>(24u, 16u, 8u, 0u);
    let x = vec4<i32>(vec4<u32>(a) << up) >> vec4<u32>(24u);
    let z = vec4<i32>(vec4<u32>(b) << up) >> vec4<u32>(24u);
    return dot(x, z);
#endif
}
