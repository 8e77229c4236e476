// f16: 64 bytes a chunk.
// Layout of a row: core/src/weights/planar.rs.

#import vec8

const self_CHUNKS: u32 = (K + 31u) / 32u;
const self_ROW: u32 = 4u * self_CHUNKS;

struct self_Block {
    at: u32,
}

fn self_load(row: u32, chunk: u32) -> self_Block {
    return self_Block(row * self_ROW + 4u * chunk);
}

fn self_get(b: self_Block, j: u32) -> Vec8 {
    let q = self_words[b.at + j];
    return Vec8(
        vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)),
        vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)),
    );
}
