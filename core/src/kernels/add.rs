//! Sum of two tensors, `y = x + alpha z` (`torch.add`).
//!
//! Params: `N` elements, `ALPHA`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "add",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("z", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "ALPHA"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize, alpha: f32) -> Params {
    Params::new().u32("N", len as u32).f32("ALPHA", alpha)
}

/// Elements of an invocation.
const EACH: u32 = 4;

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = p.get("N").div_ceil(64 * EACH);
    let variant = Variant::new("elements", fold(groups, limits));
    vec![variant.set("WG", 64).set("EACH", EACH)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (len, alpha) = (d.params.size("N"), d.params.number("ALPHA"));
    let (x, z, mut y) = (d.f32(0), d.f32(1), d.f32_mut(2));
    let (x, z) = (&x[..len], &z[..len]);
    cpu::for_each_part(&mut y[..len], |start, y| {
        for ((y, x), z) in y.iter_mut().zip(&x[start..]).zip(&z[start..]) {
            *y = x + alpha * z;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, z, y] = arrays else { return };
    let alpha = f64::from(p.number("ALPHA"));
    for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
        *y = *x + alpha * *z;
    }
}

fn cases() -> Vec<Case> {
    [1, 63, 64, 65, 255, 256, 1031, 40_000]
        .into_iter()
        .flat_map(|len| [(len, 1.0), (len, -0.22)])
        .map(|(len, alpha)| Case {
            params: params(len, alpha),
            arrays: vec![
                Some(HostArray::random(1, &[len])),
                Some(HostArray::random(2, &[len])),
                Some(HostArray::zeros(&[len])),
            ],
            bound: 1e-13,
        })
        .collect()
}
