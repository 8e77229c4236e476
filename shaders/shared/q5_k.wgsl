// q5_k: x = d s q - dmin m, 5-bit q, 6-bit s and m a chunk, d and dmin a superblock of 8.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = self_CHUNKS + self_CHUNKS / 8u + (self_CHUNKS + 3u) / 4u;

struct self_Block {
    q: vec4<u32>,
    fifth: u32,
    dm: vec2<f32>,
}

fn self_word(row: u32, i: u32) -> u32 {
    return self_words[row * self_ROW + (i >> 2u)][i & 3u];
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    let at = row * self_ROW;
    let dm = vec8_scale_min(self_words[at + self_CHUNKS + (chunk >> 3u)], chunk & 7u);
    let fifth = self_word(row, 4u * (self_CHUNKS + self_CHUNKS / 8u) + chunk);
    return self_Block(self_words[at + chunk], fifth, dm);
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    return vec8_five(b.q[j], b.fifth >> (8u * j), b.dm.x, -b.dm.y);
}
