// q6_k: x = d s (q - 32), 6-bit q, 8-bit s for 16 elements, one d a superblock of 8 chunks.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_SUPER: u32 = self_CHUNKS / 8u;
// Offsets in 4-byte words: scales, high pairs, d.
const self_A: u32 = 4u * self_CHUNKS;
const self_B: u32 = self_A + 4u * self_SUPER;
const self_C: u32 = self_B + 2u * self_CHUNKS;
const self_ROW: u32 = (self_C + (self_SUPER + 1u) / 2u + 3u) / 4u;

struct self_Block {
    q: vec4<u32>,
    high: vec2<u32>,
    d: vec2<f32>,
}

fn self_word(row: u32, i: u32) -> u32 {
    return self_words[row * self_ROW + (i >> 2u)][i & 3u];
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    let block = chunk >> 3u;
    let d = unpack2x16float(self_word(row, self_C + (block >> 1u)));
    let shift = 16u * (chunk & 1u);
    let scales = vec2<u32>(self_word(row, self_A + (chunk >> 1u)) >> shift);
    let s = vec2<i32>(scales << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
    let b = self_B + 2u * chunk;
    return self_Block(
        self_words[row * self_ROW + chunk],
        vec2<u32>(self_word(row, b), self_word(row, b + 1u)),
        select(d.x, d.y, (block & 1u) == 1u) * vec2<f32>(s),
    );
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    let pairs = select(b.high.x, b.high.y, j >= 2u) >> (16u * (j & 1u));
    let high = vec4<u32>(pairs << 4u) >> vec4<u32>(0u, 2u, 4u, 6u);
    let lo = vec8_lower(b.q[j]) | (high & vec4<u32>(48u));
    let hi = vec8_upper(b.q[j]) | ((high >> vec4<u32>(8u)) & vec4<u32>(48u));
    let d = select(b.d.x, b.d.y, j >= 2u);
    return Vec8((vec4<f32>(vec4<i32>(lo)) - 32.0) * d, (vec4<f32>(vec4<i32>(hi)) - 32.0) * d);
}
