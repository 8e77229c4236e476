//! [`Simd`] on x86-64: AVX-512, and AVX2 with FMA and F16C.
//!
//! The tokens [`Avx512`] and [`Avx2`] are made only inside the functions that enable their
//! features, so whoever holds one runs on a processor that has them.

use std::arch::x86_64::*;

use super::{Simd, Task};
use crate::weights::dequant::E2M1;

/// Proof of AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx512(());

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Runs `task` with AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn avx512<T: Task>(task: T) -> T::Out {
    task.run(Avx512(()))
}

/// Runs `task` with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn avx2<T: Task>(task: T) -> T::Out {
    task.run(Avx2(()))
}

/// Does the processor (and the system) have what [`avx512`] enables?
pub fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && has_avx2()
}

/// Does the processor (and the system) have what [`avx2`] enables?
pub fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// An expression of intrinsics in a method of a token.
macro_rules! vector {
    ($e:expr) => {{
        // SAFETY: `self` proves that the processor has the instructions (see the module); pointers
        // come from references to arrays at least as large as what is read or written, and
        // unaligned forms are used throughout.
        unsafe { $e }
    }};
}

impl Simd for Avx512 {
    type V = __m512;
    type B = __m256i;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        vector!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> __m512 {
        vector!(_mm512_mask_mov_ps(
            _mm512_set1_ps(low),
            0xFF00,
            _mm512_set1_ps(high)
        ))
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> __m512 {
        vector!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, y: &mut [f32; 16]) {
        vector!(_mm512_storeu_ps(y.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        vector!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        vector!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn round(self, v: __m512) -> __m512 {
        vector!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(v))
    }
    #[inline(always)]
    fn pow2(self, v: __m512) -> __m512 {
        vector!(_mm512_scalef_ps(_mm512_set1_ps(1.0), v))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        vector!(_mm512_reduce_add_ps(v))
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        vector!(_mm512_reduce_max_ps(v))
    }

    #[inline(always)]
    fn u8s(self, b: &[u8; 16]) -> __m512 {
        vector!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
            b.as_ptr().cast()
        ))))
    }
    #[inline(always)]
    fn i8s(self, b: &[u8; 16]) -> __m512 {
        vector!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            b.as_ptr().cast()
        ))))
    }
    #[inline(always)]
    fn f16s(self, b: &[u8; 32]) -> __m512 {
        vector!(_mm512_cvtph_ps(_mm256_loadu_si256(b.as_ptr().cast())))
    }
    #[inline(always)]
    fn bf16s(self, b: &[u8; 32]) -> __m512 {
        vector!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(b.as_ptr().cast()))
        )))
    }
    // A permutation looks at the low four bits of its indices only: it is a table of 16 numbers.
    #[inline(always)]
    fn nibbles(self, b: &[u8; 16]) -> [__m512; 2] {
        vector!({
            let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(b.as_ptr().cast()));
            let table = _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0,
                15.0,
            );
            let low = _mm512_permutexvar_ps(q, table);
            let high = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(q), table);
            [low, high]
        })
    }
    #[inline(always)]
    fn e2m1s(self, b: &[u8; 16]) -> [__m512; 2] {
        vector!({
            let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(b.as_ptr().cast()));
            let table =
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(E2M1.as_ptr().cast())));
            let low = _mm512_permutexvar_ps(q, table);
            let high = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(q), table);
            [low, high]
        })
    }
    #[inline(always)]
    fn add_16(self, v: __m512, bits: u16) -> __m512 {
        vector!(_mm512_mask_add_ps(v, bits, v, _mm512_set1_ps(16.0)))
    }

    #[inline(always)]
    fn bytes(self, b: &[u8; 32]) -> __m256i {
        vector!(_mm256_loadu_si256(b.as_ptr().cast()))
    }
    #[inline(always)]
    fn shr<const N: i32>(self, b: __m256i) -> __m256i {
        vector!(_mm256_srli_epi16::<N>(b))
    }
    #[inline(always)]
    fn shl<const N: i32>(self, b: __m256i) -> __m256i {
        vector!(_mm256_slli_epi16::<N>(b))
    }
    #[inline(always)]
    fn and(self, b: __m256i, mask: u8) -> __m256i {
        vector!(_mm256_and_si256(b, _mm256_set1_epi8(mask as i8)))
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        vector!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn widen(self, b: __m256i) -> [__m512; 2] {
        vector!({
            let low = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(b));
            let high = _mm512_cvtepu8_epi32(_mm256_extracti128_si256::<1>(b));
            [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high)]
        })
    }

    // Pairs of rows, of pairs, then 128-bit quarters: four rounds of 16 shuffles.
    #[inline(always)]
    fn transpose(self, rows: [__m512; 16]) -> [__m512; 16] {
        vector!({
            let mut a = rows;
            for i in 0..8 {
                a[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            // After this, quarter c of b[4 g + j] is column 4 c + j of rows 4 g to 4 g + 3.
            let mut b = a;
            for g in 0..4 {
                for h in 0..2 {
                    let (x, y) = (a[4 * g + h], a[4 * g + 2 + h]);
                    let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
                    b[4 * g + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
                    b[4 * g + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
                }
            }
            let mut out = b;
            for j in 0..4 {
                let (r0, r1, r2, r3) = (b[j], b[4 + j], b[8 + j], b[12 + j]);
                let even01 = _mm512_shuffle_f32x4::<0x88>(r0, r1);
                let odd01 = _mm512_shuffle_f32x4::<0xDD>(r0, r1);
                let even23 = _mm512_shuffle_f32x4::<0x88>(r2, r3);
                let odd23 = _mm512_shuffle_f32x4::<0xDD>(r2, r3);
                out[j] = _mm512_shuffle_f32x4::<0x88>(even01, even23);
                out[8 + j] = _mm512_shuffle_f32x4::<0xDD>(even01, even23);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd01, odd23);
                out[12 + j] = _mm512_shuffle_f32x4::<0xDD>(odd01, odd23);
            }
            out
        })
    }

    // The transposition with a sum after each round: 30 shuffles and 15 additions.
    #[inline(always)]
    fn sums(self, rows: [__m512; 16]) -> __m512 {
        vector!({
            let mut a = [rows[0]; 8];
            for (i, a) in a.iter_mut().enumerate() {
                let (x, y) = (rows[2 * i], rows[2 * i + 1]);
                *a = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
            }
            let mut b = [rows[0]; 4];
            for (i, b) in b.iter_mut().enumerate() {
                let (x, y) = (_mm512_castps_pd(a[2 * i]), _mm512_castps_pd(a[2 * i + 1]));
                *b = _mm512_add_ps(
                    _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)),
                );
            }
            let even01 = _mm512_shuffle_f32x4::<0x88>(b[0], b[1]);
            let odd01 = _mm512_shuffle_f32x4::<0xDD>(b[0], b[1]);
            let even23 = _mm512_shuffle_f32x4::<0x88>(b[2], b[3]);
            let odd23 = _mm512_shuffle_f32x4::<0xDD>(b[2], b[3]);
            let (c, d) = (_mm512_add_ps(even01, odd01), _mm512_add_ps(even23, odd23));
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x88>(c, d),
                _mm512_shuffle_f32x4::<0xDD>(c, d),
            )
        })
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    type B = __m256i;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        vector!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> [__m256; 2] {
        vector!([_mm256_set1_ps(low), _mm256_set1_ps(high)])
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [__m256; 2] {
        let (low, high) = x.split_at(8);
        vector!([
            _mm256_loadu_ps(low.as_ptr()),
            _mm256_loadu_ps(high.as_ptr())
        ])
    }
    #[inline(always)]
    fn store(self, v: [__m256; 2], y: &mut [f32; 16]) {
        let (low, high) = y.split_at_mut(8);
        vector!({
            _mm256_storeu_ps(low.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), v[1]);
        })
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        vector!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        vector!([
            _mm256_fmadd_ps(a[0], b[0], c[0]),
            _mm256_fmadd_ps(a[1], b[1], c[1])
        ])
    }
    #[inline(always)]
    fn round(self, v: [__m256; 2]) -> [__m256; 2] {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        vector!([
            _mm256_round_ps::<NEAREST>(v[0]),
            _mm256_round_ps::<NEAREST>(v[1])
        ])
    }
    #[inline(always)]
    fn pow2(self, v: [__m256; 2]) -> [__m256; 2] {
        vector!(v.map(|v| {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }))
    }
    #[inline(always)]
    fn sum(self, v: [__m256; 2]) -> f32 {
        vector!({
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: [__m256; 2]) -> f32 {
        vector!({
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn u8s(self, b: &[u8; 16]) -> [__m256; 2] {
        vector!(unsigned(_mm_loadu_si128(b.as_ptr().cast())))
    }
    #[inline(always)]
    fn i8s(self, b: &[u8; 16]) -> [__m256; 2] {
        vector!(signed(_mm_loadu_si128(b.as_ptr().cast())))
    }
    #[inline(always)]
    fn f16s(self, b: &[u8; 32]) -> [__m256; 2] {
        let (low, high) = b.split_at(16);
        vector!([
            _mm256_cvtph_ps(_mm_loadu_si128(low.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(high.as_ptr().cast()))
        ])
    }
    #[inline(always)]
    fn bf16s(self, b: &[u8; 32]) -> [__m256; 2] {
        let (low, high) = b.split_at(16);
        vector!([low, high].map(|b| {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(b.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }))
    }
    #[inline(always)]
    fn nibbles(self, b: &[u8; 16]) -> [[__m256; 2]; 2] {
        vector!({
            let (b, mask) = (_mm_loadu_si128(b.as_ptr().cast()), _mm_set1_epi8(15));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(b), mask);
            [unsigned(_mm_and_si128(b, mask)), unsigned(high)]
        })
    }
    #[inline(always)]
    fn e2m1s(self, b: &[u8; 16]) -> [[__m256; 2]; 2] {
        vector!({
            let (b, mask) = (_mm_loadu_si128(b.as_ptr().cast()), _mm_set1_epi8(15));
            let table = _mm_loadu_si128(E2M1.as_ptr().cast());
            let high = _mm_and_si128(_mm_srli_epi16::<4>(b), mask);
            [
                signed(_mm_shuffle_epi8(table, _mm_and_si128(b, mask))),
                signed(_mm_shuffle_epi8(table, high)),
            ]
        })
    }
    #[inline(always)]
    fn add_16(self, v: [__m256; 2], bits: u16) -> [__m256; 2] {
        vector!({
            let bits = _mm256_set1_epi32(i32::from(bits));
            let one = |v: __m256, lanes: __m256i| {
                let set = _mm256_cmpeq_epi32(_mm256_and_si256(bits, lanes), lanes);
                let number = _mm256_and_ps(_mm256_castsi256_ps(set), _mm256_set1_ps(16.0));
                _mm256_add_ps(v, number)
            };
            let low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            [one(v[0], low), one(v[1], _mm256_slli_epi32::<8>(low))]
        })
    }

    #[inline(always)]
    fn bytes(self, b: &[u8; 32]) -> __m256i {
        vector!(_mm256_loadu_si256(b.as_ptr().cast()))
    }
    #[inline(always)]
    fn shr<const N: i32>(self, b: __m256i) -> __m256i {
        vector!(_mm256_srli_epi16::<N>(b))
    }
    #[inline(always)]
    fn shl<const N: i32>(self, b: __m256i) -> __m256i {
        vector!(_mm256_slli_epi16::<N>(b))
    }
    #[inline(always)]
    fn and(self, b: __m256i, mask: u8) -> __m256i {
        vector!(_mm256_and_si256(b, _mm256_set1_epi8(mask as i8)))
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        vector!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn widen(self, b: __m256i) -> [[__m256; 2]; 2] {
        vector!([
            unsigned(_mm256_castsi256_si128(b)),
            unsigned(_mm256_extracti128_si256::<1>(b))
        ])
    }

    // Four 8 x 8 blocks, each in three rounds of 8 shuffles.
    #[inline(always)]
    fn transpose(self, rows: [[__m256; 2]; 16]) -> [[__m256; 2]; 16] {
        vector!({
            let mut out = rows;
            for r in 0..2 {
                for c in 0..2 {
                    let mut a = [rows[0][0]; 8];
                    for i in 0..4 {
                        let (x, y) = (rows[8 * r + 2 * i][c], rows[8 * r + 2 * i + 1][c]);
                        a[2 * i] = _mm256_unpacklo_ps(x, y);
                        a[2 * i + 1] = _mm256_unpackhi_ps(x, y);
                    }
                    let mut b = a;
                    for g in 0..2 {
                        for h in 0..2 {
                            let x = _mm256_castps_pd(a[4 * g + h]);
                            let y = _mm256_castps_pd(a[4 * g + 2 + h]);
                            b[4 * g + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
                            b[4 * g + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
                        }
                    }
                    for j in 0..4 {
                        let (x, y) = (b[j], b[4 + j]);
                        out[8 * c + j][r] = _mm256_permute2f128_ps::<0x20>(x, y);
                        out[8 * c + 4 + j][r] = _mm256_permute2f128_ps::<0x31>(x, y);
                    }
                }
            }
            out
        })
    }
}

/// 16 signed bytes as numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(b: __m128i) -> [__m256; 2] {
    let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b));
    [
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
        _mm256_cvtepi32_ps(high),
    ]
}

/// 16 unsigned bytes as numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned(b: __m128i) -> [__m256; 2] {
    let high = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b));
    [
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)),
        _mm256_cvtepi32_ps(high),
    ]
}
