// q4_k: x = d s q - dmin m, 4-bit q, 6-bit s and m a chunk, d and dmin a superblock of 8.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = self_CHUNKS + self_CHUNKS / 8u;

struct self_Block {
    q: vec4<u32>,
    dm: vec2<f32>,
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    let at = row * self_ROW;
    let dm = vec8_scale_min(self_words[at + self_CHUNKS + (chunk >> 3u)], chunk & 7u);
    return self_Block(self_words[at + chunk], dm);
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    return vec8_nibbles(b.q[j], b.dm.x, -b.dm.y);
}
