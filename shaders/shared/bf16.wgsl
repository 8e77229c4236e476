// bf16: 64 bytes a chunk; the upper halves of f32.
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
    let even = bitcast<vec4<f32>>(q << vec4<u32>(16u));
    let odd = bitcast<vec4<f32>>(q & vec4<u32>(0xFFFF0000u));
    return Vec8(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
