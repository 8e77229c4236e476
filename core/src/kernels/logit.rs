//! Logits of probabilities, `y = ln(p / (1 - p))`, the inverse of the sigmoid: -inf for 0, inf for 1,
//! NaN outside.
//!
//! Params: `N` elements; `EPS`: when above 0, p is held to `EPS .. 1 - EPS` first.

use super::random::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "logit",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "EPS"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize, eps: f32) -> Params {
    Params::new().u32("N", len as u32).f32("EPS", eps)
}

fn logit(p: f64, eps: f32) -> f64 {
    let p = match eps > 0.0 {
        true => p.clamp(f64::from(eps), f64::from(1.0 - eps)),
        false => p,
    };
    (p / (1.0 - p)).ln()
}

fn cpu(d: &CpuDispatch<'_>) {
    let eps = d.params.number("EPS");
    let x = d.f32(0);
    let x = &*x;
    cpu::for_each_part(&mut d.f32_mut(1)[..d.params.size("N")], |start, y| {
        for (y, x) in y.iter_mut().zip(&x[start..]) {
            *y = logit(f64::from(*x), eps) as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, y] = arrays else { return };
    for (x, y) in x.iter().zip(y) {
        *y = logit(*x, p.number("EPS"));
    }
}

fn cases() -> Vec<Case> {
    let mut x: Vec<f32> = (0..1031).map(|i| i as f32 / 1030.0).collect();
    x[3] = 1e-30;
    x[4] = -0.5;
    x[5] = 0.99999994;
    x[6] = 0.500001;
    [(1, 0.0, 515), (1031, 0.0, 0), (1031, 1e-3, 0)]
        .into_iter()
        .map(|(len, eps, first)| Case {
            params: params(len, eps),
            arrays: vec![
                Some(HostArray::f32(&[len], &x[first..first + len])),
                Some(HostArray::zeros(&[len])),
            ],
            bound: 1e-11,
        })
        .collect()
}
