//! Differential entropy of each row, as of a normal distribution of the row's variance, in nats:
//! `y = ln(2 pi e var(x)) / 2`. A variance below 2^-126 counts as that.
//!
//! Params: `T` rows, `C` columns, `CORRECTION`: the variance divides by `C - CORRECTION` (0, or 1
//! for Bessel's).
//!
//! Source: Duan, Zhu, Lu 2013, "Differential entropy feature for EEG-based emotion
//! classification", doi:10.1109/NER.2013.6695876.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "differential_entropy",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C", "CORRECTION"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(rows: usize, columns: usize, correction: f32) -> Params {
    (Params::new().u32("T", rows as u32).u32("C", columns as u32)).f32("CORRECTION", correction)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let rows = p.get("T");
    let workgroup =
        Variant::new("workgroup", fold(rows, limits)).set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", fold(rows.div_ceil(8), limits))
        .set("WG", 8)
        .flag("SERIAL");
    if limits.kind == DeviceKind::SoftwareGpu && rows >= 8 {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

fn entropy(row: impl Iterator<Item = f64> + Clone, correction: f64) -> f64 {
    let count = row.clone().count() as f64;
    let mean = row.clone().sum::<f64>() / count;
    let squares: f64 = row.map(|x| (x - mean) * (x - mean)).sum();
    let variance = (squares / (count - correction)).max(f64::from(f32::MIN_POSITIVE));
    0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * variance).ln()
}

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("C"));
    let correction = f64::from(d.params.number("CORRECTION"));
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &x[..rows * columns];
    let part = (4096 / columns).max(1);
    cpu::for_each_chunk(&mut y[..rows], part, |i, y| {
        for (y, row) in y.iter_mut().zip(x[i * part * columns..].chunks(columns)) {
            *y = entropy(row.iter().map(|x| f64::from(*x)), correction) as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    for t in 0..p.size("T") {
        let row = arrays[0][t * columns..][..columns].iter().copied();
        arrays[1][t] = entropy(row, f64::from(p.number("CORRECTION")));
    }
}

fn cases() -> Vec<Case> {
    let case_of = |rows: usize, columns: usize, correction, x: &[f32]| Case {
        params: params(rows, columns, correction),
        arrays: vec![
            Some(HostArray::f32(&[rows, columns], x)),
            Some(HostArray::random(9, &[rows])),
        ],
        bound: 1e-11,
    };
    let sizes = [
        (1, 2, 1.0),
        (1, 1031, 0.0),
        (2, 255, 1.0),
        (62, 200, 0.0),
        (33, 3, 0.0),
    ];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(rows, columns, correction)| {
            case_of(rows, columns, correction, &case::random(1, rows * columns))
        })
        .collect();
    // Far from zero; and rows without any variance.
    let far: Vec<f32> = case::random(2, 9 * 300)
        .iter()
        .map(|x| 0.25 * x + 64.0)
        .collect();
    cases.push(case_of(9, 300, 0.0, &far));
    cases.push(case_of(2, 1, 0.0, &[3.0, 0.0]));
    cases.push(case_of(9, 4, 1.0, &[0.5; 36]));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_variance_has_the_entropy_of_the_standard_normal_distribution() {
        let entropy = entropy([-1.0, 1.0].into_iter(), 0.0);
        assert!((entropy - 1.418_938_533_204_672_7).abs() < 1e-15);
    }
}
