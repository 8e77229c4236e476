//! An activation function of every element, `y = act(x)`.
//!
//! Params: `N` elements, `ACT` the number of an [`Activation`], `ALPHA` its parameter.

use super::{Access, Activation, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "activation",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize, act: Activation, alpha: f32) -> Params {
    (Params::new().u32("N", len as u32))
        .u32("ACT", act.number())
        .f32("ALPHA", alpha)
}

/// Elements of an invocation.
const EACH: u32 = 4;

pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = p.get("N").div_ceil(64 * EACH);
    let variant = Variant::new("elements", fold(groups, limits));
    vec![variant.set("WG", 64).set("EACH", EACH)]
}

/// The function that a call names; the identity for an unknown number, as in the shader.
pub(super) fn act(p: &Params) -> Activation {
    Activation::from_number(p.get("ACT")).unwrap_or(Activation::Identity)
}

fn cpu(d: &CpuDispatch<'_>) {
    let (len, act) = (d.params.size("N"), act(d.params));
    let alpha = d.params.number("ALPHA");
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &x[..len];
    cpu::for_each_part(&mut y[..len], |start, y| {
        for (y, x) in y.iter_mut().zip(&x[start..]) {
            *y = act.f32_alpha(*x, alpha);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, y] = arrays else { return };
    for (y, x) in y.iter_mut().zip(x) {
        *y = act(p).f64_alpha(*x, f64::from(p.number("ALPHA")));
    }
}

fn cases() -> Vec<Case> {
    let case_of = |act: Activation, alpha: f32, x: &[f32]| Case {
        params: params(x.len(), act, alpha),
        arrays: vec![
            Some(HostArray::f32(&[x.len()], x)),
            Some(HostArray::zeros(&[x.len()])),
        ],
        bound: 1e-11,
    };
    let mut cases = Vec::new();
    for act in Activation::ALL {
        cases.push(case_of(*act, act.alpha(), &case::random(1, 1031)));
        // By itself, so that large results do not hide a wrong small one.
        let negative: Vec<f32> = (0..200).map(|i| -0.04 * i as f32).collect();
        cases.push(case_of(*act, act.alpha(), &negative));
        if act.has_alpha() {
            cases.push(case_of(*act, 1.75, &negative));
        }
    }
    for len in [1, 255, 256, 257, 40_000] {
        cases.push(case_of(Activation::Silu, 1.0, &case::random(2, len)));
    }
    cases
}
