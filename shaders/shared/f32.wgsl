// f32: 128 bytes a chunk.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = 8u * self_CHUNKS;

struct self_Block {
    at: u32,
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    return self_Block(row * self_ROW + 8u * chunk);
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    let at = b.at + 2u * j;
    return Vec8(bitcast<vec4<f32>>(self_words[at]), bitcast<vec4<f32>>(self_words[at + 1u]));
}
