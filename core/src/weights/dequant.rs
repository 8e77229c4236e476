//! What the bytes of each weight type mean: the definition every kernel is tested against.
//!
//! Plain loops in f32, with the operations of ggml's `dequantize_row_*` in the same order, so
//! the results agree bit for bit. [`quantize`] is the inverse for making inputs; its blocks are
//! valid and near, not optimal.
//!
//! Source: ggml, `ggml-quants.c` and `ggml-common.h`.

use half::{bf16, f16};

use crate::DType;

/// Decodes `bytes` in ggml's layout into `out`.
///
/// [`DType::U32`] is never a weight; its words are read as numbers.
///
/// # Panics
///
/// If `bytes` is not exactly `out.len()` elements of `dtype`.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        dtype.bytes(out.len()),
        Some(bytes.len()),
        "{dtype}: {} bytes for {} elements",
        bytes.len(),
        out.len()
    );
    let blocks = bytes.chunks_exact(dtype.block_bytes());
    let decode: fn(&[u8], &mut [f32]) = match dtype {
        DType::F32 => |b, y| y[0] = f32::from_bits(u32_at(b, 0)),
        DType::F16 => |b, y| y[0] = f16_at(b, 0),
        DType::BF16 => |b, y| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::U32 => |b, y| y[0] = u32_at(b, 0) as f32,
        DType::Q4_0 => decode_q4_0,
        DType::Q4_1 => decode_q4_1,
        DType::Q5_0 => decode_q5_0,
        DType::Q5_1 => decode_q5_1,
        DType::Q8_0 => decode_q8_0,
        DType::Q4K => decode_q4_k,
        DType::Q5K => decode_q5_k,
        DType::Q6K => decode_q6_k,
        DType::Mxfp4 => decode_mxfp4,
    };
    for (block, y) in blocks.zip(out.chunks_exact_mut(dtype.block_len())) {
        decode(block, y);
    }
}

/// The f16 at byte `i`.
pub(crate) fn f16_at(b: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([b[i], b[i + 1]]).to_f32()
}

/// The little-endian word at byte `i`.
pub(crate) fn u32_at(b: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]])
}

/// 6-bit scale and min of sub-block `j` of 8, from the 12 packed bytes of `q4_k` and `q5_k`.
///
/// Source: ggml, `get_scale_min_k4`.
pub(crate) fn scale_min_k4(j: usize, q: &[u8]) -> (u8, u8) {
    if j < 4 {
        (q[j] & 63, q[j + 4] & 63)
    } else {
        (
            (q[j + 4] & 15) | ((q[j - 4] >> 6) << 4),
            (q[j + 4] >> 4) | ((q[j] >> 6) << 4),
        )
    }
}

// d: f16, qs[16]: element j in the low nibble of byte j, element j + 16 in the high one.
fn decode_q4_0(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 0);
    for j in 0..16 {
        let q = b[2 + j];
        y[j] = (i32::from(q & 15) - 8) as f32 * d;
        y[j + 16] = (i32::from(q >> 4) - 8) as f32 * d;
    }
}

// d, m: f16, qs[16].
fn decode_q4_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    for j in 0..16 {
        let q = b[4 + j];
        y[j] = f32::from(q & 15) * d + m;
        y[j + 16] = f32::from(q >> 4) * d + m;
    }
}

// d: f16, qh: bit e is the fifth bit of element e, qs[16].
fn decode_q5_0(b: &[u8], y: &mut [f32]) {
    let (d, high) = (f16_at(b, 0), u32_at(b, 2));
    for j in 0..16 {
        let q = u32::from(b[6 + j]);
        let low = (q & 15) | ((high >> j) & 1) << 4;
        let top = (q >> 4) | ((high >> (j + 16)) & 1) << 4;
        y[j] = (low as i32 - 16) as f32 * d;
        y[j + 16] = (top as i32 - 16) as f32 * d;
    }
}

// d, m: f16, qh, qs[16].
fn decode_q5_1(b: &[u8], y: &mut [f32]) {
    let (d, m, high) = (f16_at(b, 0), f16_at(b, 2), u32_at(b, 4));
    for j in 0..16 {
        let q = u32::from(b[8 + j]);
        y[j] = ((q & 15) | ((high >> j) & 1) << 4) as f32 * d + m;
        y[j + 16] = ((q >> 4) | ((high >> (j + 16)) & 1) << 4) as f32 * d + m;
    }
}

// d: f16, qs[32]: int8.
fn decode_q8_0(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

// d, dmin: f16, scales[12], qs[128]: sub-blocks 2i and 2i + 1 in the low and high nibbles of
// bytes 32i..32i + 32.
fn decode_q4_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin, scales, qs) = (f16_at(b, 0), f16_at(b, 2), &b[4..16], &b[16..144]);
    for (sub, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min_k4(sub, scales);
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, y) in y.iter_mut().enumerate() {
            let q = qs[sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15;
            *y = d * f32::from(q) - m;
        }
    }
}

// As q4_k, with qh[32] before qs: bit s of byte l is the fifth bit of element l of sub-block s.
fn decode_q5_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin, scales) = (f16_at(b, 0), f16_at(b, 2), &b[4..16]);
    let (qh, qs) = (&b[16..48], &b[48..176]);
    for (sub, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min_k4(sub, scales);
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, y) in y.iter_mut().enumerate() {
            let q = qs[sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15;
            let q = q + (qh[l] >> sub & 1) * 16;
            *y = d * f32::from(q) - m;
        }
    }
}

// ql[128], qh[64], scales[16]: int8, d: f16. Each half of 128 elements has four runs of 32:
// runs 0 and 1 are the low nibbles of its 64 ql bytes, 2 and 3 the high ones; run r has its upper
// two bits at bit 2r of its 32 qh bytes.
fn decode_q6_k(b: &[u8], y: &mut [f32]) {
    let (ql, qh, scales, d) = (&b[..128], &b[128..192], &b[192..208], f16_at(b, 208));
    for (e, y) in y.iter_mut().enumerate() {
        let (half, run, l) = (e / 128, e / 32 % 4, e % 32);
        let low = ql[64 * half + 32 * (run % 2) + l] >> (4 * (run / 2)) & 15;
        let high = qh[32 * half + l] >> (2 * run) & 3;
        let q = i32::from(low | high << 4) - 32;
        *y = d * f32::from(scales[e / 16] as i8) * q as f32;
    }
}

/// Twice the 16 values of an e2m1 number, which are integers; minus zero is zero, as in ggml (`kvalues_mxfp4`).
pub(crate) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power of two that the byte `e` of type e8m0 stands for, `2^(e - 128)`. 255, the standard's NaN, is
/// the next power.
///
/// Source: ggml, `ggml_e8m0_to_fp32_half`.
pub(crate) const fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        e => (e as u32 - 1) << 23,
    })
}

// e: e8m0, qs[16]: element j in the low nibble of byte j, element j + 16 in the high one.
fn decode_mxfp4(b: &[u8], y: &mut [f32]) {
    let d = half_e8m0(b[0]);
    for j in 0..16 {
        let q = b[1 + j];
        y[j] = d * f32::from(E2M1[usize::from(q & 15)]);
        y[j + 16] = d * f32::from(E2M1[usize::from(q >> 4)]);
    }
}

/// Encodes `x` in ggml's layout: valid blocks that [`dequantize`] to values near `x`.
///
/// `x` must be finite, and for the f16-scaled types within about ±60,000. Not ggml's
/// search for the best scales: it serves tests and tools that need inputs.
///
/// # Panics
///
/// If `x` is not a whole number of blocks.
pub fn quantize(dtype: DType, x: &[f32]) -> Vec<u8> {
    let Some(bytes) = dtype.bytes(x.len()) else {
        panic!("{dtype}: {} elements are not whole blocks", x.len());
    };
    let mut out = Vec::with_capacity(bytes);
    for x in x.chunks_exact(dtype.block_len()) {
        match dtype {
            DType::F32 => out.extend(x[0].to_le_bytes()),
            DType::F16 => out.extend(f16::from_f32(x[0]).to_le_bytes()),
            DType::BF16 => out.extend(bf16::from_f32(x[0]).to_le_bytes()),
            DType::U32 => out.extend((x[0] as u32).to_le_bytes()),
            DType::Q4_0 => encode_symmetric(x, 4, &mut out),
            DType::Q5_0 => encode_symmetric(x, 5, &mut out),
            DType::Q4_1 => encode_with_min(x, 4, &mut out),
            DType::Q5_1 => encode_with_min(x, 5, &mut out),
            DType::Q8_0 => encode_q8_0(x, &mut out),
            DType::Q4K => encode_k(x, 4, &mut out),
            DType::Q5K => encode_k(x, 5, &mut out),
            DType::Q6K => encode_q6_k(x, &mut out),
            DType::Mxfp4 => encode_mxfp4(x, &mut out),
        }
    }
    out
}

/// Writes `d` as f16 and returns the value the decoder will see.
fn push_f16(d: f32, out: &mut Vec<u8>) -> f32 {
    let d = f16::from_f32(d);
    out.extend(d.to_le_bytes());
    d.to_f32()
}

/// Nearest integer to `x / d` in `low..=high`; 0 or the end next to it when `d` is 0.
fn level(x: f32, d: f32, low: i32, high: i32) -> i32 {
    let q = if d == 0.0 { 0.0 } else { (x / d).round() };
    (q as i32).clamp(low, high)
}

/// The 32 levels of a block of 4 or 5 bits: fifth bits if any, then nibbles.
fn push_levels(q: &[i32; 32], bits: u32, out: &mut Vec<u8>) {
    if bits == 5 {
        let high = (0..32).fold(0_u32, |high, e| high | ((q[e] as u32 >> 4) & 1) << e);
        out.extend(high.to_le_bytes());
    }
    out.extend((0..16).map(|j| (q[j] & 15) as u8 | ((q[j + 16] & 15) as u8) << 4));
}

fn encode_symmetric(x: &[f32], bits: u32, out: &mut Vec<u8>) {
    let half = 1 << (bits - 1);
    // The value of largest magnitude gets the level -half, which has no opposite.
    let top = x
        .iter()
        .copied()
        .fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
    let d = push_f16(top / -(half as f32), out);
    let q = std::array::from_fn(|e| level(x[e], d, -half, half - 1) + half);
    push_levels(&q, bits, out);
}

fn encode_with_min(x: &[f32], bits: u32, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    let (low, high) = range(x);
    let d = push_f16((high - low) / most as f32, out);
    let m = push_f16(low, out);
    let q = std::array::from_fn(|e| level(x[e] - m, d, 0, most));
    push_levels(&q, bits, out);
}

fn range(x: &[f32]) -> (f32, f32) {
    x.iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| {
            (low.min(x), high.max(x))
        })
}

fn encode_q8_0(x: &[f32], out: &mut Vec<u8>) {
    let top = x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    let d = push_f16(top / 127.0, out);
    out.extend(x.iter().map(|&x| level(x, d, -127, 127) as u8));
}

fn encode_k(x: &[f32], bits: u32, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    let subs: Vec<(f32, f32)> = x
        .chunks_exact(32)
        .map(|x| {
            let (low, high) = range(x);
            // The min is subtracted and cannot be negative.
            let low = low.min(0.0);
            ((high - low) / most as f32, -low)
        })
        .collect();
    let top = |f: fn(&(f32, f32)) -> f32| subs.iter().map(f).fold(0.0, f32::max);
    let d = push_f16(top(|s| s.0) / 63.0, out);
    let dmin = push_f16(top(|s| s.1) / 63.0, out);
    let mut scales = [0_u8; 12];
    let mut q = [0_u8; 256];
    for (j, &(scale, min)) in subs.iter().enumerate() {
        let (scale, min) = (level(scale, d, 0, 63), level(min, dmin, 0, 63));
        let (s, m) = (scale as u8, min as u8);
        if j < 4 {
            scales[j] |= s;
            scales[j + 4] |= m;
        } else {
            scales[j + 4] = (s & 15) | (m & 15) << 4;
            scales[j - 4] |= (s >> 4) << 6;
            scales[j] |= (m >> 4) << 6;
        }
        let (step, min) = (d * scale as f32, dmin * min as f32);
        for e in 32 * j..32 * j + 32 {
            q[e] = level(x[e] + min, step, 0, most) as u8;
        }
    }
    out.extend(scales);
    if bits == 5 {
        out.extend((0..32).map(|l| (0..8).fold(0, |h, s: usize| h | (q[32 * s + l] >> 4) << s)));
    }
    for pair in q.chunks_exact(64) {
        out.extend((0..32).map(|l| (pair[l] & 15) | (pair[l + 32] & 15) << 4));
    }
}

fn encode_q6_k(x: &[f32], out: &mut Vec<u8>) {
    let tops: Vec<f32> = x
        .chunks_exact(16)
        .map(|x| x.iter().fold(0.0, |a: f32, b| a.max(b.abs())) / 31.0)
        .collect();
    let d = f16::from_f32(tops.iter().copied().fold(0.0, f32::max) / 127.0);
    let scales: Vec<i32> = tops.iter().map(|&s| level(s, d.to_f32(), 0, 127)).collect();
    let q = |e: usize| (level(x[e], d.to_f32() * scales[e / 16] as f32, -32, 31) + 32) as u8;
    for half in [0, 128] {
        out.extend((0..64).map(|l| (q(half + l) & 15) | (q(half + 64 + l) & 15) << 4));
    }
    for half in [0, 128] {
        let high =
            |l: usize| (0..4).fold(0, |h, run| h | (q(half + 32 * run + l) >> 4) << (2 * run));
        out.extend((0..32).map(high));
    }
    out.extend(scales.iter().map(|&s| s as u8));
    out.extend(d.to_le_bytes());
}

// The largest value has the exponent of 4, as ggml has it: what is above 6 becomes 6.
fn encode_mxfp4(x: &[f32], out: &mut Vec<u8>) {
    let top = x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    let e = ((top.to_bits() >> 23) as u8).saturating_sub(2);
    out.push(e);
    let nearest = |x: f32| {
        let error = |q: u8| (half_e8m0(e) * f32::from(E2M1[usize::from(q)]) - x).abs();
        (1..16).fold(0, |best, q| if error(q) < error(best) { q } else { best })
    };
    out.extend((0..16).map(|j| nearest(x[j]) | nearest(x[j + 16]) << 4));
}

/// `n` blocks of random bits with finite scales, the same for the same `seed`: inputs for tests,
/// benches and known-answer checks. Float types get finite values of either sign.
pub fn random_blocks(dtype: DType, n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    // Splitmix64, Steele et al., "Fast splittable pseudorandom number generators", 2014.
    let mut next = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    };
    // Where a block has f16 values: scales of about 2^-12 to 2^-4, either sign.
    let scales: &[usize] = match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::U32 | DType::Mxfp4 => &[],
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q6K => &[208],
    };
    let mut block = vec![0; dtype.block_bytes()];
    let mut out = Vec::with_capacity(n * block.len());
    for _ in 0..n {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                let x = (next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
                out.extend(quantize(dtype, &[x]));
                continue;
            }
            _ => block.fill_with(|| (next() >> 56) as u8),
        }
        for &i in scales {
            let r = next();
            let bits = (r as u16 & 0x83FF) | (3 + (r >> 32) as u16 % 8) << 10;
            block[i..i + 2].copy_from_slice(&bits.to_le_bytes());
        }
        if dtype == DType::Mxfp4 {
            block[0] = 115 + (next() >> 32) as u8 % 8;
        }
        out.extend(&block);
    }
    out
}

#[cfg(test)]
#[path = "dequant_tests.rs"]
mod tests;
