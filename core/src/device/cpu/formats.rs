//! The weight formats as streams of 16-element vectors: each is written once, and a [`Sink`]
//! makes a dot product or decoded values of it.
//!
//! Source of the layouts: ggml, `ggml-quants.c` and `ggml-common.h`;
//! their definition is `weights::dequant`.

use std::sync::LazyLock;

use half::f16;

use super::simd::{Simd, bytes32, lanes};
use crate::DType;
use crate::weights::dequant::half_e8m0;

/// All f16 values as f32. Scales are converted one by one, for which a load is the cheapest
/// way: models use a few thousand of the values, which stay in the cache.
pub type F16Table = [f32; 65536];

/// The table, made on first use.
pub fn f16_table() -> &'static F16Table {
    static TABLE: LazyLock<Box<F16Table>> = LazyLock::new(|| {
        let values: Vec<f32> = (0..=u16::MAX).map(|b| f16::from_bits(b).to_f32()).collect();
        values.into_boxed_slice().try_into().expect("65536 values")
    });
    &TABLE
}

/// Takes a block's elements in runs of 16 or 32.
pub trait Sink<S: Simd> {
    /// Elements `at..at + 16` are `v`.
    fn plain(&mut self, s: S, at: usize, v: S::V);

    /// Elements `at..at + 16` are `scale (q + offset)`.
    fn run(&mut self, s: S, at: usize, q: S::V, scale: f32, offset: f32);

    /// Elements `at..at + 32` are `scale (q + offset)`.
    fn shifted(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, offset: f32);

    /// Elements `at..at + 32` are `scale q + min`.
    fn affine(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, min: f32);
}

/// A weight format.
pub trait Format {
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Length of the runs for which a dot product needs the sum of x; 0 for none.
    const RUN: usize;
    /// What those sums are multiplied with.
    const FACTOR: f32;

    /// Hands a block's elements to `sink`.
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K);
}

#[inline(always)]
fn bits16(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

#[inline(always)]
fn bits32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[inline(always)]
fn scale(f16s: &F16Table, b: &[u8], at: usize) -> f32 {
    f16s[usize::from(bits16(b, at))]
}

/// `f32`, 16 elements at a time.
pub struct F32;
/// `f16`, 16 elements at a time.
pub struct F16;
/// `bf16`, 16 elements at a time.
pub struct Bf16;
/// `q4_0`: f16 d, 16 bytes: element j in the low nibble of byte j, j + 16 in the high one.
pub struct Q4_0;
/// `q4_1`: f16 d and m, 16 bytes.
pub struct Q4_1;
/// `q5_0`: f16 d, u32 of fifth bits, 16 bytes.
pub struct Q5_0;
/// `q5_1`: f16 d and m, u32 of fifth bits, 16 bytes.
pub struct Q5_1;
/// `q8_0`: f16 d, 32 signed bytes.
pub struct Q8_0;
/// `q4_k`: f16 d and dmin, 12 bytes of scales, 128 bytes.
pub struct Q4K;
/// `q5_k`: f16 d and dmin, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes.
pub struct Q5K;
/// `q6_k`: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, f16 d.
pub struct Q6K;
/// `mxfp4`: e8m0, 16 bytes of e2m1.
pub struct Mxfp4;

impl Format for F32 {
    const LEN: usize = 16;
    const BYTES: usize = 64;
    const RUN: usize = 0;
    const FACTOR: f32 = 0.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, _: &F16Table, b: &[u8], sink: &mut K) {
        let mut x = [0.0; 16];
        for (x, b) in x.iter_mut().zip(b.as_chunks().0) {
            *x = f32::from_le_bytes(*b);
        }
        sink.plain(s, 0, s.load(&x));
    }
}

impl Format for F16 {
    const LEN: usize = 16;
    const BYTES: usize = 32;
    const RUN: usize = 0;
    const FACTOR: f32 = 0.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, _: &F16Table, b: &[u8], sink: &mut K) {
        sink.plain(s, 0, s.f16s(bytes32(b, 0)));
    }
}

impl Format for Bf16 {
    const LEN: usize = 16;
    const BYTES: usize = 32;
    const RUN: usize = 0;
    const FACTOR: f32 = 0.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, _: &F16Table, b: &[u8], sink: &mut K) {
        sink.plain(s, 0, s.bf16s(bytes32(b, 0)));
    }
}

impl Format for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const RUN: usize = 32;
    const FACTOR: f32 = -8.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        sink.shifted(s, 0, s.nibbles(lanes(b, 2)), scale(f16s, b, 0), -8.0);
    }
}

impl Format for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const RUN: usize = 32;
    const FACTOR: f32 = 1.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let (d, m) = (scale(f16s, b, 0), scale(f16s, b, 2));
        sink.affine(s, 0, s.nibbles(lanes(b, 4)), d, m);
    }
}

/// Nibbles with their fifth bits.
#[inline(always)]
fn fives<S: Simd>(s: S, b: &[u8; 16], high: u32) -> [S::V; 2] {
    let [q0, q1] = s.nibbles(b);
    [s.add_16(q0, high as u16), s.add_16(q1, (high >> 16) as u16)]
}

impl Format for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const RUN: usize = 32;
    const FACTOR: f32 = -16.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let q = fives(s, lanes(b, 6), bits32(b, 2));
        sink.shifted(s, 0, q, scale(f16s, b, 0), -16.0);
    }
}

impl Format for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const RUN: usize = 32;
    const FACTOR: f32 = 1.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let q = fives(s, lanes(b, 8), bits32(b, 4));
        sink.affine(s, 0, q, scale(f16s, b, 0), scale(f16s, b, 2));
    }
}

impl Format for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const RUN: usize = 0;
    const FACTOR: f32 = 0.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let q = [s.i8s(lanes(b, 2)), s.i8s(lanes(b, 18))];
        sink.shifted(s, 0, q, scale(f16s, b, 0), 0.0);
    }
}

/// Scales and negated mins of the 8 sub-blocks of `q4_k` and `q5_k`, the mins in the upper half.
///
/// Source: ggml, `get_scale_min_k4`.
#[inline(always)]
fn scales_k4<S: Simd>(s: S, f16s: &F16Table, b: &[u8]) -> [f32; 16] {
    let (a, m, top) = (bits32(b, 4), bits32(b, 8), bits32(b, 12));
    let words = [
        a & 0x3F3F_3F3F,
        (top & 0x0F0F_0F0F) | (a >> 6 & 0x0303_0303) << 4,
        m & 0x3F3F_3F3F,
        (top >> 4 & 0x0F0F_0F0F) | (m >> 6 & 0x0303_0303) << 4,
    ];
    let mut bytes = [0; 16];
    for (b, w) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *b = u32::to_le_bytes(w);
    }
    let factors = s.halves(scale(f16s, b, 0), -scale(f16s, b, 2));
    let mut scales = [0.0; 16];
    s.store(s.mul(s.u8s(&bytes), factors), &mut scales);
    scales
}

impl Format for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const RUN: usize = 32;
    const FACTOR: f32 = 1.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let scales = scales_k4(s, f16s, b);
        for i in 0..4 {
            let [low0, high0] = s.nibbles(lanes(b, 16 + 32 * i));
            let [low1, high1] = s.nibbles(lanes(b, 32 + 32 * i));
            let (d, m) = (scales[2 * i], scales[8 + 2 * i]);
            sink.affine(s, 64 * i, [low0, low1], d, m);
            let (d, m) = (scales[2 * i + 1], scales[9 + 2 * i]);
            sink.affine(s, 64 * i + 32, [high0, high1], d, m);
        }
    }
}

impl Format for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const RUN: usize = 32;
    const FACTOR: f32 = 1.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let scales = scales_k4(s, f16s, b);
        let mut high = s.bytes(bytes32(b, 16));
        for i in 0..4 {
            let q = s.bytes(bytes32(b, 48 + 32 * i));
            let fifth = s.and(s.shl::<4>(high), 16);
            let even = s.widen(s.or(s.and(q, 15), fifth));
            sink.affine(s, 64 * i, even, scales[2 * i], scales[8 + 2 * i]);
            let fifth = s.and(s.shl::<3>(high), 16);
            let odd = s.widen(s.or(s.and(s.shr::<4>(q), 15), fifth));
            sink.affine(s, 64 * i + 32, odd, scales[2 * i + 1], scales[9 + 2 * i]);
            high = s.shr::<2>(high);
        }
    }
}

impl Format for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const RUN: usize = 16;
    const FACTOR: f32 = -32.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, f16s: &F16Table, b: &[u8], sink: &mut K) {
        let mut scales = [0.0; 16];
        let d = s.splat(scale(f16s, b, 208));
        s.store(s.mul(s.i8s(lanes(b, 192)), d), &mut scales);
        for half in 0..2 {
            let high = s.bytes(bytes32(b, 128 + 32 * half));
            let low0 = s.bytes(bytes32(b, 64 * half));
            let low1 = s.bytes(bytes32(b, 64 * half + 32));
            let runs = [
                s.or(s.and(low0, 15), s.and(s.shl::<4>(high), 48)),
                s.or(s.and(low1, 15), s.and(s.shl::<2>(high), 48)),
                s.or(s.and(s.shr::<4>(low0), 15), s.and(high, 48)),
                s.or(s.and(s.shr::<4>(low1), 15), s.and(s.shr::<2>(high), 48)),
            ];
            for (r, q) in runs.into_iter().enumerate() {
                let (i, [q0, q1]) = (8 * half + 2 * r, s.widen(q));
                sink.run(s, 16 * i, q0, scales[i], -32.0);
                sink.run(s, 16 * i + 16, q1, scales[i + 1], -32.0);
            }
        }
    }
}

impl Format for Mxfp4 {
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const RUN: usize = 0;
    const FACTOR: f32 = 0.0;

    #[inline(always)]
    fn block<S: Simd, K: Sink<S>>(s: S, _: &F16Table, b: &[u8], sink: &mut K) {
        sink.shifted(s, 0, s.e2m1s(lanes(b, 1)), half_e8m0(b[0]), 0.0);
    }
}

/// Runs `$body` with `$f` standing for the [`Format`] of `$dtype`.
macro_rules! with_format {
    ($dtype:expr, $f:ident => $body:expr) => {
        match $dtype {
            DType::F32 | DType::U32 => {
                type $f = $crate::device::cpu::formats::F32;
                $body
            }
            DType::F16 => {
                type $f = $crate::device::cpu::formats::F16;
                $body
            }
            DType::BF16 => {
                type $f = $crate::device::cpu::formats::Bf16;
                $body
            }
            DType::Q4_0 => {
                type $f = $crate::device::cpu::formats::Q4_0;
                $body
            }
            DType::Q4_1 => {
                type $f = $crate::device::cpu::formats::Q4_1;
                $body
            }
            DType::Q5_0 => {
                type $f = $crate::device::cpu::formats::Q5_0;
                $body
            }
            DType::Q5_1 => {
                type $f = $crate::device::cpu::formats::Q5_1;
                $body
            }
            DType::Q8_0 => {
                type $f = $crate::device::cpu::formats::Q8_0;
                $body
            }
            DType::Q4K => {
                type $f = $crate::device::cpu::formats::Q4K;
                $body
            }
            DType::Q5K => {
                type $f = $crate::device::cpu::formats::Q5K;
                $body
            }
            DType::Q6K => {
                type $f = $crate::device::cpu::formats::Q6K;
                $body
            }
            DType::Mxfp4 => {
                type $f = $crate::device::cpu::formats::Mxfp4;
                $body
            }
        }
    };
}
pub(super) use with_format;

/// Run length and factor of the sums of x that dot products with `dtype` need.
pub fn sums(dtype: DType) -> (usize, f32) {
    with_format!(dtype, F => (F::RUN, F::FACTOR))
}
