//! [`Simd`] in WebAssembly with 128-bit vectors, which the build switches on. All of it is safe
//! Rust: vectors are built from array elements, and the compiler makes loads and stores of that.

use std::arch::wasm32::*;

use super::Simd;
use crate::weights::dequant::E2M1;

/// simd128.
#[derive(Clone, Copy)]
pub struct Simd128;

/// `[f(0), f(1), f(2), f(3)]`.
macro_rules! each {
    ($i:ident => $e:expr) => {
        [
            { const $i: usize = 0; $e },
            { const $i: usize = 1; $e },
            { const $i: usize = 2; $e },
            { const $i: usize = 3; $e },
        ]
    };
}

/// The 16 bytes at `at`.
#[inline(always)]
fn load(b: &[u8], at: usize) -> v128 {
    let b: &[u8; 16] = b[at..].first_chunk().expect("16 bytes");
    let half = |i: usize| {
        u64::from_le_bytes([
            b[i],
            b[i + 1],
            b[i + 2],
            b[i + 3],
            b[i + 4],
            b[i + 5],
            b[i + 6],
            b[i + 7],
        ])
    };
    u64x2(half(0), half(8))
}

/// 16 bytes as numbers.
#[inline(always)]
fn unsigned(b: v128) -> [v128; 4] {
    let (low, high) = (u16x8_extend_low_u8x16(b), u16x8_extend_high_u8x16(b));
    [
        f32x4_convert_u32x4(u32x4_extend_low_u16x8(low)),
        f32x4_convert_u32x4(u32x4_extend_high_u16x8(low)),
        f32x4_convert_u32x4(u32x4_extend_low_u16x8(high)),
        f32x4_convert_u32x4(u32x4_extend_high_u16x8(high)),
    ]
}

/// 16 signed bytes as numbers.
#[inline(always)]
fn signed(b: v128) -> [v128; 4] {
    let (low, high) = (i16x8_extend_low_i8x16(b), i16x8_extend_high_i8x16(b));
    [
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(low)),
        f32x4_convert_i32x4(i32x4_extend_high_i16x8(low)),
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(high)),
        f32x4_convert_i32x4(i32x4_extend_high_i16x8(high)),
    ]
}

/// 16 little-endian u16 as four vectors of words.
#[inline(always)]
fn halfwords(b: &[u8; 32]) -> [v128; 4] {
    let (low, high) = (load(b, 0), load(b, 16));
    [
        u32x4_extend_low_u16x8(low),
        u32x4_extend_high_u16x8(low),
        u32x4_extend_low_u16x8(high),
        u32x4_extend_high_u16x8(high),
    ]
}

impl Simd for Simd128 {
    type V = [v128; 4];
    type B = [v128; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> Self::V {
        let (low, high) = (f32x4_splat(low), f32x4_splat(high));
        [low, low, high, high]
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        each!(I => f32x4(x[4 * I], x[4 * I + 1], x[4 * I + 2], x[4 * I + 3]))
    }
    #[inline(always)]
    fn store(self, v: Self::V, y: &mut [f32; 16]) {
        for (v, y) in v.into_iter().zip(y.chunks_exact_mut(4)) {
            y[0] = f32x4_extract_lane::<0>(v);
            y[1] = f32x4_extract_lane::<1>(v);
            y[2] = f32x4_extract_lane::<2>(v);
            y[3] = f32x4_extract_lane::<3>(v);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_add(a[I], b[I]))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_sub(a[I], b[I]))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_mul(a[I], b[I]))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_div(a[I], b[I]))
    }
    // pmax(b, a) is `b < a ? a : b`.
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_pmax(b[I], a[I]))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each!(I => f32x4_pmin(b[I], a[I]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each!(I => f32x4_add(f32x4_mul(a[I], b[I]), c[I]))
    }
    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        each!(I => f32x4_nearest(v[I]))
    }
    #[inline(always)]
    fn pow2(self, v: Self::V) -> Self::V {
        each!(I => {
            let exponent = i32x4_add(i32x4_trunc_sat_f32x4(v[I]), i32x4_splat(127));
            i32x4_shl(exponent, 23)
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let v = f32x4_add(f32x4_add(v[0], v[1]), f32x4_add(v[2], v[3]));
        let v = f32x4_add(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
        f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)
    }
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let v = f32x4_pmax(f32x4_pmax(v[0], v[1]), f32x4_pmax(v[2], v[3]));
        let v = f32x4_pmax(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
        f32x4_extract_lane::<0>(f32x4_pmax(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
    }

    #[inline(always)]
    fn u8s(self, b: &[u8; 16]) -> Self::V {
        unsigned(load(b, 0))
    }
    #[inline(always)]
    fn i8s(self, b: &[u8; 16]) -> Self::V {
        signed(load(b, 0))
    }
    // Exponent and fraction moved into place are 2^-112 of the value, subnormal f16 included;
    // an infinity or NaN then still has to get f32's largest exponent.
    #[inline(always)]
    fn f16s(self, b: &[u8; 32]) -> Self::V {
        let h = halfwords(b);
        each!(I => {
            let sign = u32x4_shl(v128_and(h[I], u32x4_splat(0x8000)), 16);
            let magnitude = v128_and(h[I], u32x4_splat(0x7FFF));
            let scale = f32x4_splat(f32::from_bits((127 + 112) << 23));
            let scaled = f32x4_mul(u32x4_shl(magnitude, 13), scale);
            let special = u32x4_ge(magnitude, u32x4_splat(0x7C00));
            let top = v128_and(special, u32x4_splat(0x7F80_0000));
            v128_or(scaled, v128_or(sign, top))
        })
    }
    #[inline(always)]
    fn bf16s(self, b: &[u8; 32]) -> Self::V {
        let h = halfwords(b);
        each!(I => u32x4_shl(h[I], 16))
    }
    #[inline(always)]
    fn nibbles(self, b: &[u8; 16]) -> [Self::V; 2] {
        let b = load(b, 0);
        [
            unsigned(v128_and(b, u8x16_splat(15))),
            unsigned(u8x16_shr(b, 4)),
        ]
    }
    #[inline(always)]
    fn e2m1s(self, b: &[u8; 16]) -> [Self::V; 2] {
        let (b, table) = (load(b, 0), load(&E2M1.map(i8::cast_unsigned), 0));
        [
            signed(i8x16_swizzle(table, v128_and(b, u8x16_splat(15)))),
            signed(i8x16_swizzle(table, u8x16_shr(b, 4))),
        ]
    }
    #[inline(always)]
    fn add_16(self, v: Self::V, bits: u16) -> Self::V {
        let bits = u32::from(bits);
        each!(I => {
            let lanes = u32x4(1 << (4 * I), 2 << (4 * I), 4 << (4 * I), 8 << (4 * I));
            let set = u32x4_eq(v128_and(u32x4_splat(bits), lanes), lanes);
            f32x4_add(v[I], v128_and(set, f32x4_splat(16.0)))
        })
    }

    #[inline(always)]
    fn bytes(self, b: &[u8; 32]) -> Self::B {
        [load(b, 0), load(b, 16)]
    }
    #[inline(always)]
    fn shr<const N: i32>(self, b: Self::B) -> Self::B {
        b.map(|b| u8x16_shr(b, N as u32))
    }
    #[inline(always)]
    fn shl<const N: i32>(self, b: Self::B) -> Self::B {
        b.map(|b| u8x16_shl(b, N as u32))
    }
    #[inline(always)]
    fn and(self, b: Self::B, mask: u8) -> Self::B {
        b.map(|b| v128_and(b, u8x16_splat(mask)))
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        [v128_or(a[0], b[0]), v128_or(a[1], b[1])]
    }
    #[inline(always)]
    fn widen(self, b: Self::B) -> [Self::V; 2] {
        [unsigned(b[0]), unsigned(b[1])]
    }
}
