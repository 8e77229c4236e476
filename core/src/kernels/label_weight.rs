//! What the mean of a loss is divided by: the sum of the class weights of the labels that are not
//! ignored, or without weights their number.
//!
//! Params: `T` labels, `C` classes, `IGNORE`. Switch: `CLASS_WEIGHT`.

use super::reduce_sum::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "label_weight",
    bindings: &[
        Binding::new("labels", Access::Read),
        Binding::optional("class_weight", Access::Read),
        Binding::new("total", Access::Write),
    ],
    uniforms: &["T", "C", "IGNORE"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call; a label equal to `ignore` counts nothing.
pub fn params(rows: usize, classes: usize, ignore: i32, class_weight: bool) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("C", classes as u32)
        .u32("IGNORE", ignore as u32)
        .bool("CLASS_WEIGHT", class_weight)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let weight = d.has(1).then(|| d.f32(1));
    let labels = d.u32(0);
    let counts = labels[..p.size("T")]
        .iter()
        .filter(|l| **l != p.get("IGNORE") && **l < p.get("C"));
    let weights = counts.map(|l| weight.as_ref().map_or(1.0, |w| f64::from(w[*l as usize])));
    d.f32_mut(2)[0] = weights.sum::<f64>() as f32;
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let mut total = 0.0;
    for label in &arrays[0] {
        let label = *label as u32;
        if label == p.get("IGNORE") || label >= p.get("C") {
            continue;
        }
        total += match p.is("CLASS_WEIGHT") {
            true => arrays[1][label as usize],
            false => 1.0,
        };
    }
    arrays[2][0] = total;
}

/// Labels of `rows` rows below `classes`, every fifth but the first `ignore`.
pub(super) fn labels(rows: usize, classes: usize, ignore: i32) -> Vec<u32> {
    let label = |t: usize| match t % 5 {
        4 => ignore as u32,
        _ => (t * 31 % classes) as u32,
    };
    (0..rows).map(label).collect()
}

fn cases() -> Vec<Case> {
    [
        (1, 1, -100, false),
        (300, 7, -100, false),
        (33, 40, 3, true),
        (1031, 5, -1, true),
    ]
    .into_iter()
    .map(|(rows, classes, ignore, weighted)| Case {
        params: params(rows, classes, ignore, weighted),
        arrays: vec![
            Some(HostArray::u32(&[rows], &labels(rows, classes, ignore))),
            weighted.then(|| HostArray::random(1, &[classes])),
            Some(HostArray::zeros(&[1])),
        ],
        bound: 1e-9,
    })
    .collect()
}
