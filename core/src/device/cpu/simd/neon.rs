//! [`Simd`] on 64-bit Arm, where NEON is always there.

use std::arch::aarch64::*;

use super::Simd;
use crate::weights::dequant::E2M1;

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

/// An expression of intrinsics.
macro_rules! vector {
    ($e:expr) => {{
        // SAFETY: NEON is part of the target's baseline; pointers come from references to arrays
        // at least as large as what is read or written.
        unsafe { $e }
    }};
}

/// `[f(0), f(1), f(2), f(3)]` as an expression of intrinsics.
macro_rules! each {
    ($i:ident => $e:expr) => {
        vector!([
            { const $i: usize = 0; $e },
            { const $i: usize = 1; $e },
            { const $i: usize = 2; $e },
            { const $i: usize = 3; $e },
        ])
    };
}

/// 16 bytes as four vectors of words.
#[inline(always)]
fn words(b: uint8x16_t) -> [uint32x4_t; 4] {
    vector!({
        let (low, high) = (vmovl_u8(vget_low_u8(b)), vmovl_high_u8(b));
        [
            vmovl_u16(vget_low_u16(low)),
            vmovl_high_u16(low),
            vmovl_u16(vget_low_u16(high)),
            vmovl_high_u16(high),
        ]
    })
}

/// 16 bytes as numbers.
#[inline(always)]
fn unsigned(b: uint8x16_t) -> [float32x4_t; 4] {
    let w = words(b);
    each!(I => vcvtq_f32_u32(w[I]))
}

/// 16 signed bytes as numbers.
#[inline(always)]
fn signed(b: int8x16_t) -> [float32x4_t; 4] {
    vector!({
        let (low, high) = (vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b));
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
            vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
            vcvtq_f32_s32(vmovl_high_s16(high)),
        ]
    })
}

/// 16 little-endian u16 as four vectors of words.
#[inline(always)]
fn halfwords(b: &[u8; 32]) -> [uint32x4_t; 4] {
    vector!({
        let low = vreinterpretq_u16_u8(vld1q_u8(b.as_ptr()));
        let high = vreinterpretq_u16_u8(vld1q_u8(b[16..].as_ptr()));
        [
            vmovl_u16(vget_low_u16(low)),
            vmovl_high_u16(low),
            vmovl_u16(vget_low_u16(high)),
            vmovl_high_u16(high),
        ]
    })
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    type B = [uint8x16_t; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        vector!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> Self::V {
        vector!({
            let (low, high) = (vdupq_n_f32(low), vdupq_n_f32(high));
            [low, low, high, high]
        })
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        each!(I => vld1q_f32(x[4 * I..].as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: Self::V, y: &mut [f32; 16]) {
        each!(I => vst1q_f32(y[4 * I..].as_mut_ptr(), v[I]));
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vaddq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vsubq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vmulq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vdivq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vbslq_f32(vcgtq_f32(a[I], b[I]), a[I], b[I]))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => vbslq_f32(vcltq_f32(a[I], b[I]), a[I], b[I]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each!(I => vfmaq_f32(c[I], a[I], b[I]))
    }
    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        each!(I => vrndnq_f32(v[I]))
    }
    #[inline(always)]
    fn pow2(self, v: Self::V) -> Self::V {
        each!(I => {
            let exponent = vaddq_s32(vcvtq_s32_f32(v[I]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        vector!(vaddvq_f32(vaddq_f32(
            vaddq_f32(v[0], v[1]),
            vaddq_f32(v[2], v[3])
        )))
    }
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        vector!(vmaxvq_f32(vmaxq_f32(
            vmaxq_f32(v[0], v[1]),
            vmaxq_f32(v[2], v[3])
        )))
    }

    #[inline(always)]
    fn u8s(self, b: &[u8; 16]) -> Self::V {
        unsigned(vector!(vld1q_u8(b.as_ptr())))
    }
    #[inline(always)]
    fn i8s(self, b: &[u8; 16]) -> Self::V {
        vector!(signed(vreinterpretq_s8_u8(vld1q_u8(b.as_ptr()))))
    }
    // Exponent and fraction moved into place are 2^-112 of the value, subnormal f16 included;
    // an infinity or NaN then still has to get f32's largest exponent.
    #[inline(always)]
    fn f16s(self, b: &[u8; 32]) -> Self::V {
        let h = halfwords(b);
        each!(I => {
            let sign = vshlq_n_u32::<16>(vandq_u32(h[I], vdupq_n_u32(0x8000)));
            let magnitude = vandq_u32(h[I], vdupq_n_u32(0x7FFF));
            let moved = vreinterpretq_f32_u32(vshlq_n_u32::<13>(magnitude));
            let scaled = vmulq_f32(moved, vdupq_n_f32(f32::from_bits((127 + 112) << 23)));
            let special = vcgeq_u32(magnitude, vdupq_n_u32(0x7C00));
            let top = vandq_u32(special, vdupq_n_u32(0x7F80_0000));
            let bits = vorrq_u32(vreinterpretq_u32_f32(scaled), vorrq_u32(sign, top));
            vreinterpretq_f32_u32(bits)
        })
    }
    #[inline(always)]
    fn bf16s(self, b: &[u8; 32]) -> Self::V {
        let h = halfwords(b);
        each!(I => vreinterpretq_f32_u32(vshlq_n_u32::<16>(h[I])))
    }
    #[inline(always)]
    fn nibbles(self, b: &[u8; 16]) -> [Self::V; 2] {
        vector!({
            let b = vld1q_u8(b.as_ptr());
            [
                unsigned(vandq_u8(b, vdupq_n_u8(15))),
                unsigned(vshrq_n_u8::<4>(b)),
            ]
        })
    }
    #[inline(always)]
    fn e2m1s(self, b: &[u8; 16]) -> [Self::V; 2] {
        vector!({
            let (b, table) = (vld1q_u8(b.as_ptr()), vld1q_s8(E2M1.as_ptr()));
            [
                signed(vqtbl1q_s8(table, vandq_u8(b, vdupq_n_u8(15)))),
                signed(vqtbl1q_s8(table, vshrq_n_u8::<4>(b))),
            ]
        })
    }
    #[inline(always)]
    fn add_16(self, v: Self::V, bits: u16) -> Self::V {
        let masks = [1, 2, 4, 8];
        each!(I => {
            let set = vtstq_u32(
                vdupq_n_u32(u32::from(bits) >> (4 * I)),
                vld1q_u32(masks.as_ptr()),
            );
            let number = vandq_u32(set, vreinterpretq_u32_f32(vdupq_n_f32(16.0)));
            vaddq_f32(v[I], vreinterpretq_f32_u32(number))
        })
    }

    #[inline(always)]
    fn bytes(self, b: &[u8; 32]) -> Self::B {
        vector!([vld1q_u8(b.as_ptr()), vld1q_u8(b[16..].as_ptr())])
    }
    #[inline(always)]
    fn shr<const N: i32>(self, b: Self::B) -> Self::B {
        vector!([vshrq_n_u8::<N>(b[0]), vshrq_n_u8::<N>(b[1])])
    }
    #[inline(always)]
    fn shl<const N: i32>(self, b: Self::B) -> Self::B {
        vector!([vshlq_n_u8::<N>(b[0]), vshlq_n_u8::<N>(b[1])])
    }
    #[inline(always)]
    fn and(self, b: Self::B, mask: u8) -> Self::B {
        vector!([
            vandq_u8(b[0], vdupq_n_u8(mask)),
            vandq_u8(b[1], vdupq_n_u8(mask))
        ])
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        vector!([vorrq_u8(a[0], b[0]), vorrq_u8(a[1], b[1])])
    }
    #[inline(always)]
    fn widen(self, b: Self::B) -> [Self::V; 2] {
        [unsigned(b[0]), unsigned(b[1])]
    }
}
