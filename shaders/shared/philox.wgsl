// philox: random 32-bit words by number: word n of a stream depends on n, the stream and the seed
// only, so that it is the same on every device and however the work is split.
// Philox 4x32-10: Salmon, Moraes, Dror, Shaw, SC11, doi:10.1145/2063384.2063405; the counter is
// (n / 4, stream, 0, 0), the key the seed's low and high half. Reference: core/src/kernels/philox.rs.

// The high and the low half of the 64-bit product.
fn multiply(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xFFFFu;
    let a1 = a >> 16u;
    let b0 = b & 0xFFFFu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let carry = a0 * b1 + (middle & 0xFFFFu);
    return vec2<u32>(a1 * b1 + (middle >> 16u) + (carry >> 16u), a * b);
}

fn philox(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var key = seed;
    for (var round = 0u; round < 10u; round += 1u) {
        let p = multiply(0xD2511F53u, c.x);
        let q = multiply(0xCD9E8D57u, c.z);
        c = vec4<u32>(q.x ^ c.y ^ key.x, q.y, p.x ^ c.w ^ key.y, p.y);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// The last block, so that neighbouring numbers cost once.
var<private> block_number: u32 = 0xFFFFFFFFu;
var<private> block_words: vec4<u32>;

fn random_word(n: u32, stream: u32, seed: vec2<u32>) -> u32 {
    let number = n / 4u;
    if number != block_number {
        block_number = number;
        block_words = philox(vec4<u32>(number, stream, 0u, 0u), seed);
    }
    return block_words[n % 4u];
}

// Exact, and inside (0, 1): the middles of 2^23 equal parts.
fn to_uniform(word: u32) -> f32 {
    return (f32(word >> 9u) + 0.5) * 1.1920928955078125e-7;
}
