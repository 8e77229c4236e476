// mxfp4: x = 2^(e - 127) q, 4-bit float q (e2m1), one e8m0 byte e a chunk.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = self_CHUNKS + (self_CHUNKS + 15u) / 16u;

// Digit q, from the right, is twice the magnitude of the e2m1 number q.
const self_DOUBLED: u32 = 0xC8643210u;

struct self_Block {
    q: vec4<u32>,
    d: f32,
}

fn self_word(row: u32, i: u32) -> u32 {
    return self_words[row * self_ROW + (i >> 2u)][i & 3u];
}

// d is 2^(e - 128), to which the doubled q belong. Below e = 2 it is subnormal, and may become 0.
fn self_load(row: u32, chunk: u32) -> self_Block {
    let e = (self_word(row, 4u * self_CHUNKS + (chunk >> 2u)) >> (8u * (chunk & 3u))) & 255u;
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x200000u << (e & 1u), e < 2u));
    return self_Block(self_words[row * self_ROW + chunk], d);
}

fn self_values(q: vec4<u32>, d: f32) -> vec4<f32> {
    let digits = (vec4<u32>(self_DOUBLED) >> ((q & vec4<u32>(7u)) << vec4<u32>(2u))) & vec4<u32>(15u);
    return vec4<f32>(vec4<i32>(digits)) * select(vec4<f32>(d), vec4<f32>(-d), q > vec4<u32>(7u));
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    return Vec8(self_values(vec8_lower(b.q[j]), b.d), self_values(vec8_upper(b.q[j]), b.d));
}
