// Eight consecutive elements of a row, and how quants become them.

struct Vec8 {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Masks the nibbles of elements 0 to 3 of a word in place: element i is 256^i times too large,
// which VEC8_STEP takes back. Saves the shifts; the product is exact, powers of two.
const VEC8_LOW = vec4<u32>(0xFu, 0xF00u, 0xF0000u, 0xF000000u);
const VEC8_STEP = vec4<f32>(1.0, 0.00390625, 0.0000152587890625, 0.000000059604644775390625);

// d * nibble + m for the 8 nibbles of a word. Signed conversion: the unsigned one is slow on CPUs.
fn vec8_nibbles(word: u32, d: f32, m: f32) -> Vec8 {
    let scale = d * VEC8_STEP;
    let lo = vec4<f32>(vec4<i32>(vec4<u32>(word) & VEC8_LOW));
    let hi = vec4<f32>(vec4<i32>(vec4<u32>(word >> 4u) & VEC8_LOW));
    return Vec8(lo * scale + m, hi * scale + m);
}

// The 8 nibbles as integers, lower and upper half.
fn vec8_lower(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u);
}

fn vec8_upper(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(4u, 12u, 20u, 28u)) & vec4<u32>(15u);
}

// d * (nibble + 16 * bit) + m: bit e of `fifth` belongs to element e of the 8.
fn vec8_five(word: u32, fifth: u32, d: f32, m: f32) -> Vec8 {
    let bits = vec4<u32>(fifth << 4u) >> vec4<u32>(0u, 1u, 2u, 3u);
    let lo = vec8_lower(word) | (bits & vec4<u32>(16u));
    let hi = vec8_upper(word) | ((bits >> vec4<u32>(4u)) & vec4<u32>(16u));
    return Vec8(vec4<f32>(vec4<i32>(lo)) * d + m, vec4<f32>(vec4<i32>(hi)) * d + m);
}

// Scale and min number `i` (0 to 7) of a q4_k or q5_k superblock, from its 16-byte header.
// Source: ggml, get_scale_min_k4.
fn vec8_scale_min(head: vec4<u32>, i: u32) -> vec2<f32> {
    let shift = 8u * (i & 3u);
    let bytes = (head.yzw >> vec3<u32>(shift)) & vec3<u32>(255u);
    let first = bytes.xy & vec2<u32>(63u);
    let later = (vec2<u32>(bytes.z, bytes.z >> 4u) & vec2<u32>(15u)) | ((bytes.xy >> vec2<u32>(6u)) << vec2<u32>(4u));
    return unpack2x16float(head.x) * vec2<f32>(select(later, first, i < 4u));
}
