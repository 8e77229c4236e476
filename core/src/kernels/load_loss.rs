//! The losses of noisy top-k routing, `COEFF (cv2(importance) + cv2(load))` with the squared
//! coefficient of variation `cv2 = variance / (mean^2 + 1e-10)`, and their gradients (arXiv:1701.06538, eq. 7
//! and 11).
//!
//! Params: `E` experts, `DEGREES` by which the variance is divided, `COEFF`.

use super::reduce_sum::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "load_loss",
    bindings: &[
        Binding::new("importance", Access::Read),
        Binding::new("load", Access::Read),
        Binding::new("loss", Access::Write),
        Binding::new("d_importance", Access::Write),
        Binding::new("d_load", Access::Write),
    ],
    uniforms: &["E", "DEGREES", "COEFF"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call; `unbiased`: the variance is divided by E - 1 (by 1 for one expert).
pub fn params(experts: usize, coeff: f32, unbiased: bool) -> Params {
    let degrees = (experts - usize::from(unbiased)).max(1);
    Params::new()
        .u32("E", experts as u32)
        .u32("DEGREES", degrees as u32)
        .f32("COEFF", coeff)
}

/// `COEFF cv2(x)` and its gradient.
fn spread(p: &Params, x: &[f64]) -> (f64, Vec<f64>) {
    let (count, degrees) = (p.size("E") as f64, p.size("DEGREES") as f64);
    let coeff = f64::from(p.number("COEFF"));
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / degrees;
    let below = mean * mean + 1e-10;
    let slope = |x: &f64| {
        let rises = 2.0 * (x - mean) / degrees;
        coeff * (rises - variance / below * 2.0 * mean / count) / below
    };
    (coeff * variance / below, x.iter().map(slope).collect())
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let mut loss = 0.0;
    for i in 0..2 {
        let x: Vec<f64> = d.f32(i)[..p.size("E")]
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        let (part, slopes) = spread(p, &x);
        loss += part;
        for (to, slope) in d.f32_mut(3 + i).iter_mut().zip(slopes) {
            *to = slope as f32;
        }
    }
    d.f32_mut(2)[0] = loss as f32;
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [a, b] = [0, 1].map(|i| spread(p, &arrays[i]));
    arrays[2][0] = a.0 + b.0;
    (arrays[3], arrays[4]) = (a.1, b.1);
}

fn cases() -> Vec<Case> {
    let positive = |seed, len: usize| {
        let values = super::case::random(seed, len);
        HostArray::f32(
            &[len],
            &values.iter().map(|x| x.abs() + 0.5).collect::<Vec<_>>(),
        )
    };
    let case_of = |experts: usize, unbiased: bool| Case {
        params: params(experts, 0.5, unbiased),
        arrays: vec![
            Some(positive(1, experts)),
            Some(positive(2, experts)),
            Some(HostArray::zeros(&[1])),
            Some(HostArray::zeros(&[experts])),
            Some(HostArray::zeros(&[experts])),
        ],
        bound: 1e-9,
    };
    vec![
        case_of(8, true),
        case_of(8, false),
        case_of(300, true),
        case_of(2, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_what_small_steps_give() {
        let x = [3.0, 1.0, 4.5, 0.25];
        let p = params(4, 0.5, true);
        for e in 0..4 {
            let moved = |step: f64| {
                let mut moved = x;
                moved[e] += step;
                spread(&p, &moved).0
            };
            let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((spread(&p, &x).1[e] - want).abs() < 1e-9);
        }
    }
}
