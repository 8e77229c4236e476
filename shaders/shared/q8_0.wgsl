// q8_0: x = d q, 8-bit q, one d a chunk.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = 2u * self_CHUNKS + (2u * self_CHUNKS + 15u) / 16u;

struct self_Block {
    at: u32,
    d: f32,
}

fn self_word(row: u32, i: u32) -> u32 {
    return self_words[row * self_ROW + (i >> 2u)][i & 3u];
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    let d = unpack2x16float(self_word(row, 8u * self_CHUNKS + (chunk >> 1u)));
    return self_Block(row * self_ROW + 2u * chunk, select(d.x, d.y, (chunk & 1u) == 1u));
}

fn self_bytes(word: u32) -> vec4<f32> {
    let q = vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u));
    return vec4<f32>(q >> vec4<u32>(24u));
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    let four = self_words[b.at + (j >> 1u)];
    let two = select(four.xy, four.zw, (j & 1u) == 1u);
    return Vec8(self_bytes(two.x) * b.d, self_bytes(two.y) * b.d);
}
