//! [`Simd`] in plain Rust: runs everywhere, and is what the others are tested against.

use half::{bf16, f16};

use super::Simd;
use crate::weights::dequant::E2M1;

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Scalar;

#[inline(always)]
fn map(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut y = a;
    for (y, b) in y.iter_mut().zip(b) {
        *y = f(*y, b);
    }
    y
}

impl Simd for Scalar {
    type V = [f32; 16];
    type B = [u8; 32];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn halves(self, low: f32, high: f32) -> [f32; 16] {
        std::array::from_fn(|i| if i < 8 { low } else { high })
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [f32; 16] {
        *x
    }
    #[inline(always)]
    fn store(self, v: [f32; 16], y: &mut [f32; 16]) {
        *y = v;
    }
    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        map(a, b, |a, b| if a < b { a } else { b })
    }
    // Not `mul_add`: without an instruction for it that is a slow library call.
    #[inline(always)]
    fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn round(self, v: [f32; 16]) -> [f32; 16] {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn pow2(self, v: [f32; 16]) -> [f32; 16] {
        v.map(|v| f32::from_bits(((v as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn sum(self, v: [f32; 16]) -> f32 {
        let mut y = v;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                y[i] += y[i + half];
            }
        }
        y[0]
    }
    #[inline(always)]
    fn max_lane(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(v[0], |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn u8s(self, b: &[u8; 16]) -> [f32; 16] {
        b.map(f32::from)
    }
    #[inline(always)]
    fn i8s(self, b: &[u8; 16]) -> [f32; 16] {
        b.map(|b| f32::from(b as i8))
    }
    #[inline(always)]
    fn f16s(self, b: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| f16::from_le_bytes([b[2 * i], b[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn bf16s(self, b: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| bf16::from_le_bytes([b[2 * i], b[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn nibbles(self, b: &[u8; 16]) -> [[f32; 16]; 2] {
        [b.map(|b| f32::from(b & 15)), b.map(|b| f32::from(b >> 4))]
    }
    #[inline(always)]
    fn e2m1s(self, b: &[u8; 16]) -> [[f32; 16]; 2] {
        let value = |q: u8| f32::from(E2M1[usize::from(q)]);
        [b.map(|b| value(b & 15)), b.map(|b| value(b >> 4))]
    }
    #[inline(always)]
    fn add_16(self, v: [f32; 16], bits: u16) -> [f32; 16] {
        std::array::from_fn(|i| v[i] + f32::from((bits >> i & 1) << 4))
    }

    #[inline(always)]
    fn bytes(self, b: &[u8; 32]) -> [u8; 32] {
        *b
    }
    #[inline(always)]
    fn shr<const N: i32>(self, b: [u8; 32]) -> [u8; 32] {
        b.map(|b| b >> N)
    }
    #[inline(always)]
    fn shl<const N: i32>(self, b: [u8; 32]) -> [u8; 32] {
        b.map(|b| b << N)
    }
    #[inline(always)]
    fn and(self, b: [u8; 32], mask: u8) -> [u8; 32] {
        b.map(|b| b & mask)
    }
    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn widen(self, b: [u8; 32]) -> [[f32; 16]; 2] {
        let part = |i: usize| std::array::from_fn(|j| f32::from(b[i + j]));
        [part(0), part(16)]
    }
}
