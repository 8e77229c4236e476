//! Gradient of an activation function, `dx = dy act'(x)`.
//!
//! Params: `N` elements, `ACT` the number of an [`Activation`], `ALPHA` its parameter.

use super::activation::{act, variants};
use super::{Access, Activation, Binding, Case, HostArray, Kernel, Params, case};
use crate::device::cpu::{self, CpuDispatch};

pub use super::activation::params;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "activation_backward",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("dy", Access::Read),
        Binding::new("dx", Access::Write),
    ],
    uniforms: &["N"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

fn cpu(d: &CpuDispatch<'_>) {
    let (len, act, alpha) = (d.params.size("N"), act(d.params), d.params.number("ALPHA"));
    let (x, dy, mut dx) = (d.f32(0), d.f32(1), d.f32_mut(2));
    let (x, dy) = (&x[..len], &dy[..len]);
    cpu::for_each_part(&mut dx[..len], |start, dx| {
        for ((dx, dy), x) in dx.iter_mut().zip(&dy[start..]).zip(&x[start..]) {
            *dx = dy * act.derivative_f32(*x, alpha);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, dy, dx] = arrays else { return };
    let alpha = f64::from(p.number("ALPHA"));
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        *dx = *dy * act(p).derivative_f64(*x, alpha);
    }
}

fn cases() -> Vec<Case> {
    let case_of = |act: Activation, alpha: f32, x: &[f32]| Case {
        params: params(x.len(), act, alpha),
        arrays: vec![
            Some(HostArray::f32(&[x.len()], x)),
            Some(HostArray::random(7, &[x.len()])),
            Some(HostArray::zeros(&[x.len()])),
        ],
        bound: 1e-11,
    };
    let mut cases = Vec::new();
    for act in Activation::ALL {
        cases.push(case_of(*act, act.alpha(), &case::random(1, 1031)));
        // By themselves, so that large results do not hide a wrong small one; kinks included.
        let negative: Vec<f32> = (0..200).map(|i| -0.04 * i as f32).collect();
        cases.push(case_of(*act, act.alpha(), &negative));
        let kinks = [-1e4, -3.0, -0.0, 0.0, 3.0, 1e4];
        cases.push(case_of(*act, act.alpha(), &kinks));
        if act.has_alpha() {
            cases.push(case_of(*act, 1.75, &negative));
        }
    }
    for len in [1, 255, 256, 257, 40_000] {
        cases.push(case_of(Activation::Gelu, 1.0, &case::random(2, len)));
    }
    cases
}
