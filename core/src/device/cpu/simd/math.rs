//! Exponentials and sigmoids of vectors.

use super::Simd;

/// e^v to about 1e-7; 0 below -87.3, +inf above 88.7, NaN stays NaN.
///
/// v = n ln 2 + r with |r| <= ln 2 / 2, and Cephes' polynomial for e^r (S. L. Moshier, `expf`).
#[inline(always)]
pub fn exp<S: Simd>(s: S, v: S::V) -> S::V {
    let n = s.round(s.mul(v, s.splat(std::f32::consts::LOG2_E)));
    // Halving n keeps both factors of 2^n in range, for all results that are not 0 or infinite.
    let n = s.min(s.splat(140.0), s.max(s.splat(-160.0), n));
    // ln 2 in two parts; the first has so few bits that n times it is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), v);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let r = s.min(s.splat(1.0), s.max(s.splat(-1.0), r));
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
        1.0,
        1.0,
    ] {
        p = s.fma(p, r, s.splat(c));
    }
    let half = s.round(s.mul(n, s.splat(0.5)));
    s.mul(s.mul(p, s.pow2(half)), s.pow2(s.sub(n, half)))
}

/// 1 / (1 + e^-v).
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, v: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), v));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// v sigmoid(v).
#[inline(always)]
pub fn silu<S: Simd>(s: S, v: S::V) -> S::V {
    s.mul(v, sigmoid(s, v))
}

/// v (1 + tanh(0.79788456 (v + 0.044715 v^3))) / 2, by tanh(u) = 2 sigmoid(2 u) - 1.
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, v: S::V) -> S::V {
    let cubic = s.fma(s.mul(s.mul(v, v), s.splat(0.044_715)), v, v);
    s.mul(v, sigmoid(s, s.mul(cubic, s.splat(1.595_769))))
}

/// v sigmoid(1.702 v).
#[inline(always)]
pub fn quick_gelu<S: Simd>(s: S, v: S::V) -> S::V {
    s.mul(v, sigmoid(s, s.mul(v, s.splat(1.702))))
}
