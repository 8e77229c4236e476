// put: part `part` of a row of `size` keys or values goes to row `to` of its cache. The kernel declares k_cache
// and v_cache, arrays of `packed`, and pair(value, i): elements 2 i and 2 i + 1 of the row.
//
// f32 and f16: see kv_pack.wgsl. q8_0 (KV_Q8_0): rows as core/src/weights/planar.rs has
// them, d = max |x| / 127 of 32 elements; sizes are multiples of 32.

#import kv_pack

#if KV_Q8_0
// Elements of a part.
const PART: u32 = 64u;

fn put_word(value: bool, i: u32, word: u32) {
    if value {
        v_cache[i] = word;
    } else {
        k_cache[i] = word;
    }
}

/// Chunks 2 part and 2 part + 1.
fn put(value: bool, to: u32, size: u32, part: u32) {
    let chunks = size / 32u;
    let row = to * 4u * ((34u * chunks + 15u) / 16u);
    var scales = vec2<f32>();
    for (var n = 0u; n < min(2u, chunks - 2u * part); n += 1u) {
        let chunk = 2u * part + n;
        var largest = 0.0;
        for (var i = 0u; i < 16u; i += 1u) {
            let two = abs(pair(value, 16u * chunk + i));
            largest = max(largest, max(two.x, two.y));
        }
        // The value that readers will see.
        let d = unpack2x16float(pack2x16float(vec2<f32>(min(largest / 127.0, 65504.0)))).x;
        let inverse = select(0.0, 1.0 / d, d > 0.0);
        for (var i = 0u; i < 8u; i += 1u) {
            let at = 16u * chunk + 2u * i;
            let four = vec4<f32>(pair(value, at), pair(value, at + 1u));
            let scaled = clamp(four * inverse, vec4<f32>(-127.0), vec4<f32>(127.0));
            let q = vec4<u32>(vec4<i32>(round(scaled))) & vec4<u32>(0xFFu);
            put_word(value, row + 8u * chunk + i, q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u));
        }
        if n == 0u {
            scales.x = d;
        } else {
            scales.y = d;
        }
    }
    put_word(value, row + 8u * chunks + part, pack2x16float(scales));
}
#else
const PART: u32 = 2u;

fn put(value: bool, to: u32, size: u32, part: u32) {
    let i = to * (size / 2u) + part;
    let two = pack(pair(value, part));
    if value {
        v_cache[i] = two;
    } else {
        k_cache[i] = two;
    }
}
#endif
