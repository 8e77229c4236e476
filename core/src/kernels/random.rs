//! Random words, uniform and normal numbers by Philox (see [`philox`](super::philox)).
//!
//! Params: `N` elements, those of [`Draw`], `DISTRIBUTION` and its two numbers, `A` and `B`.

use super::philox::{Draw, draw_uniforms, to_uniform};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "random",
    bindings: &[Binding::new("y", Access::Write)],
    uniforms: draw_uniforms!("A", "B"),
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// 32-bit words.
    Words,
    /// `low + (high - low) u`, u inside (0, 1).
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// Normal numbers (Box and Muller 1958).
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        std: f32,
    },
}

/// Parameters of a call that draws `len` numbers.
pub fn params(len: usize, draw: Draw, distribution: Distribution) -> Params {
    let (number, a, b) = match distribution {
        Distribution::Words => (0, 0.0, 0.0),
        Distribution::Uniform { low, high } => (1, low, high - low),
        Distribution::Normal { mean, std } => (2, mean, std),
    };
    let params = draw.params(len).u32("DISTRIBUTION", number);
    params.f32("A", a).f32("B", b)
}

/// Elements of an invocation: as many as a block has words.
const EACH: u32 = 4;

pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = p.get("N").div_ceil(64 * EACH);
    let variant = Variant::new("elements", fold(groups, limits));
    vec![variant.set("WG", 64).set("EACH", EACH)]
}

/// Number `n` of a normal distribution of mean 0 and standard deviation 1.
fn normal(draw: &Draw, n: u32) -> f64 {
    let even = n - n % 2;
    let uniform = |n| f64::from(to_uniform(draw.word(n)));
    let radius = (-2.0 * uniform(even).ln()).sqrt();
    let angle = std::f64::consts::TAU * uniform(even + 1);
    radius * if n == even { angle.cos() } else { angle.sin() }
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (draw, a, b) = (Draw::from(p), p.number("A"), p.number("B"));
    let kind = p.get("DISTRIBUTION");
    cpu::for_each_part(&mut d.write::<u32>(0)[..p.size("N")], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let n = draw.number(start + i);
            *y = match kind {
                0 => draw.word(n),
                1 => (a + b * to_uniform(draw.word(n))).to_bits(),
                _ => (a + b * normal(&draw, n) as f32).to_bits(),
            };
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (draw, a, b) = (Draw::from(p), p.number("A"), p.number("B"));
    for (i, y) in arrays[0].iter_mut().enumerate() {
        let n = draw.number(i);
        *y = match p.get("DISTRIBUTION") {
            0 => f64::from(draw.word(n)),
            1 => f64::from(a) + f64::from(b) * f64::from(to_uniform(draw.word(n))),
            _ => f64::from(a) + f64::from(b) * normal(&draw, n),
        };
    }
}

fn cases() -> Vec<Case> {
    let whole = Draw::new(0, 0);
    let part = Draw {
        seed: 0xa409_3822_299f_31d0,
        stream: 3,
        first: 5,
        width: 7,
        stride: 19,
    };
    let mut cases = Vec::new();
    for (len, draw) in [(1, whole), (4, whole), (1031, whole), (70, part)] {
        let words = HostArray::u32(&[len], &vec![7; len]);
        cases.push(case_of(words, draw, Distribution::Words));
        for distribution in [
            Distribution::Uniform {
                low: -3.0,
                high: 4.0,
            },
            Distribution::Normal {
                mean: 0.5,
                std: 2.0,
            },
        ] {
            cases.push(case_of(HostArray::zeros(&[len]), draw, distribution));
        }
    }
    cases
}

fn case_of(y: HostArray, draw: Draw, distribution: Distribution) -> Case {
    Case {
        params: params(y.shape[0], draw, distribution),
        arrays: vec![Some(y)],
        bound: 1e-10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_variance_1_and_kurtosis_3() {
        let draw = Draw::new(1, 0);
        let numbers: Vec<f64> = (0..40_000).map(|n| normal(&draw, n)).collect();
        let moment = |k: i32| numbers.iter().map(|x| x.powi(k)).sum::<f64>() / 40_000.0;
        // Four standard errors: 1, sqrt 2 and sqrt 96 over sqrt 40000.
        assert!(moment(1).abs() < 4.0 * 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 4.0 * 0.0071, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 4.0 * 0.049, "{}", moment(4));
    }
}
