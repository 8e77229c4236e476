use super::*;
use crate::kernels::case::random;

/// Runs every method on the same input and collects what it returns.
struct Everything<'a>(&'a [f32], &'a [u8; 32]);

impl Task for Everything<'_> {
    type Out = Vec<[f32; 16]>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<[f32; 16]> {
        let Everything(x, b) = self;
        let (u, v, w) = (
            s.load(lanes(x, 0)),
            s.load(lanes(x, 16)),
            s.load(lanes(x, 32)),
        );
        let bytes = s.bytes(b);
        let signed = s.and(s.shr::<3>(bytes), 0x1F);
        let mixed = s.or(s.and(s.shl::<2>(bytes), 0xE0), signed);
        let [wide0, wide1] = s.widen(mixed);
        let [low, high] = s.nibbles(lanes(b, 3));
        let [low4, high4] = s.e2m1s(lanes(b, 9));
        let whole = s.round(s.mul(u, s.splat(3.0)));
        let mut all = vec![
            s.splat(x[5]),
            s.halves(x[0], x[1]),
            s.add(u, v),
            s.sub(u, v),
            s.mul(u, v),
            s.div(u, s.add(s.mul(v, v), s.splat(1.0))),
            s.max(u, v),
            s.min(u, v),
            s.fma(u, v, w),
            whole,
            s.pow2(whole),
            s.splat(s.sum(u)),
            s.splat(s.max_lane(u)),
            s.u8s(lanes(b, 7)),
            s.i8s(lanes(b, 7)),
            s.f16s(b),
            s.bf16s(b),
            low,
            high,
            low4,
            high4,
            s.add_16(u, 0xA5C3),
            wide0,
            wide1,
        ];
        let mut rows = [u; 16];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = s.load(lanes(x, 16 * i));
        }
        all.extend(s.transpose(rows));
        all.push(s.sums(rows));
        let stored = |v| {
            let mut y = [0.0; 16];
            s.store(v, &mut y);
            y
        };
        all.into_iter().map(stored).collect()
    }
}

#[test]
fn every_level_computes_what_plain_rust_does() {
    for seed in 0..20 {
        let x = random(seed, 256);
        let noise = random(seed + 100, 32);
        // Bytes of every value; as f16 also subnormals.
        let b = std::array::from_fn(|i| (noise[i].to_bits() >> 7) as u8 & 0x7B);
        let want = dispatch(Level::Scalar, Everything(&x, &b));
        for level in Level::available() {
            let got = dispatch(level, Everything(&x, &b));
            assert_eq!(got.len(), want.len());
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                for (got, want) in got.iter().zip(want) {
                    let close = (got - want).abs() <= 1e-5 * want.abs().max(1.0);
                    assert!(close, "{level:?}, value {i}: want {want}, got {got}");
                }
            }
        }
    }
}

/// Applies a function to 16 numbers.
struct Apply([f32; 16], u8);

impl Task for Apply {
    type Out = [f32; 16];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 16] {
        let v = s.load(&self.0);
        let y = match self.1 {
            0 => math::exp(s, v),
            1 => math::silu(s, v),
            2 => math::gelu_tanh(s, v),
            3 => math::quick_gelu(s, v),
            4 => math::sigmoid(s, v),
            _ => s.f16s(bytemuck::cast_ref::<[u32; 8], [u8; 32]>(&[0x7C00_FC00; 8])),
        };
        let mut out = [0.0; 16];
        s.store(y, &mut out);
        out
    }
}

#[test]
fn exp_and_sigmoids_are_within_1e_6_of_f64() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for level in Level::available() {
        for i in -8600..8600 {
            let x = i as f32 * 0.01;
            let v = f64::from(x);
            let want = [
                v.exp(),
                v * sigmoid(v),
                v * sigmoid(1.595_769_121_605_730_8 * (v + 0.044715 * v * v * v)),
                v * sigmoid(1.702 * v),
                sigmoid(v),
            ];
            for (f, want) in want.into_iter().enumerate() {
                let got = f64::from(dispatch(level, Apply([x; 16], f as u8))[3]);
                // Where sigmoids vanish their exponent's rounding is magnified.
                let bound = if f == 0 {
                    1e-6 * want
                } else {
                    1e-6 * want.abs().max(1e-2)
                };
                let error = (got - want).abs();
                assert!(
                    error <= bound,
                    "{level:?}, {f} of {x}: want {want}, got {got}"
                );
            }
        }
    }
}

#[test]
fn exp_ends_in_zero_infinity_and_nan() {
    for level in Level::available() {
        let exp = |x: f32| dispatch(level, Apply([x; 16], 0))[0];
        for x in [-120.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{level:?}, {x}");
        }
        for x in [100.0, 1e30, f32::INFINITY] {
            assert_eq!(exp(x), f32::INFINITY, "{level:?}, {x}");
        }
        assert!(exp(f32::NAN).is_nan(), "{level:?}");
        let infinite = dispatch(level, Apply([0.0; 16], 9));
        assert_eq!(
            infinite[..2],
            [f32::NEG_INFINITY, f32::INFINITY],
            "{level:?}"
        );
    }
}
