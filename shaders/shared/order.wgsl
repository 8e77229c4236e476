// order: an f32's bits as a u32 that sorts the same way: -inf < ... < -0 = 0 < ... < inf < NaN.
// Every NaN gives NAN_ORDER. Works on bits: WGSL may assume that floats are finite.

const NAN_ORDER: u32 = 0xFFFFFFFFu;

fn order(bits: u32) -> u32 {
    let magnitude = bits & 0x7FFFFFFFu;
    if magnitude > 0x7F800000u {
        return NAN_ORDER;
    }
    if bits == magnitude || magnitude == 0u {
        return magnitude | 0x80000000u;
    }
    return ~bits;
}
