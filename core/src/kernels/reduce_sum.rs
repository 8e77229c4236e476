//! Sum of all elements, or, divided by a number on the device, their mean: `y = sum x / total`.
//!
//! Params: `N` elements. Switch: `TOTAL`; a total of 0 gives NaN.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "reduce_sum",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("total", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize, total: bool) -> Params {
    Params::new().u32("N", len as u32).bool("TOTAL", total)
}

/// One workgroup for all: there is one result.
pub(super) fn variants(_: &Params, limits: &Limits) -> Vec<Variant> {
    let variant = |name| Variant::new(name, [1, 1, 1]);
    vec![
        variant("workgroup").set("WG", limits.max_workgroup_size.min(256)),
        variant("serial").set("WG", 1).flag("SERIAL"),
    ]
}

fn cpu(d: &CpuDispatch<'_>) {
    let sum: f64 = d.f32(0)[..d.params.size("N")]
        .iter()
        .map(|x| f64::from(*x))
        .sum();
    let total = if d.has(1) {
        f64::from(d.f32(1)[0])
    } else {
        1.0
    };
    d.f32_mut(2)[0] = match total == 0.0 {
        true => f32::NAN,
        false => (sum / total) as f32,
    };
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let sum: f64 = arrays[0].iter().sum();
    arrays[2][0] = match p.is("TOTAL") {
        true if arrays[1][0] == 0.0 => f64::NAN,
        true => sum / arrays[1][0],
        false => sum,
    };
}

fn cases() -> Vec<Case> {
    [
        (1, None),
        (1031, None),
        (7, Some(2.5)),
        (300, Some(0.0)),
        (40_000, Some(123.0)),
    ]
    .into_iter()
    .map(|(len, total)| Case {
        params: params(len, total.is_some()),
        arrays: vec![
            Some(HostArray::random(1, &[len])),
            total.map(|total| HostArray::f32(&[1], &[total])),
            Some(HostArray::zeros(&[1])),
        ],
        bound: 1e-9,
    })
    .collect()
}
