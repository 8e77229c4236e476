// q5_1: x = d q + m, 5-bit q, d and m a chunk.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = self_CHUNKS + (8u * self_CHUNKS + 15u) / 16u;

struct self_Block {
    q: vec4<u32>,
    fifth: u32,
    dm: vec2<f32>,
}

fn self_word(row: u32, i: u32) -> u32 {
    return self_words[row * self_ROW + (i >> 2u)][i & 3u];
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    let fifth = self_word(row, 4u * self_CHUNKS + chunk);
    let dm = unpack2x16float(self_word(row, 5u * self_CHUNKS + chunk));
    return self_Block(self_words[row * self_ROW + chunk], fifth, dm);
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    return vec8_five(b.q[j], b.fifth >> (8u * j), b.dm.x, b.dm.y);
}
