//! Softmax over rows, `y = exp(x - max x) / sum exp(x - max x)`.
//!
//! An element of -inf is masked; a row of them gives zeros.
//!
//! Params: `T` rows, `C` columns.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "softmax",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C"],
    variants,
    cpu,
    reference,
    cases,
};

/// Parameters of a call.
pub fn params(rows: usize, columns: usize) -> Params {
    Params::new().u32("T", rows as u32).u32("C", columns as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let rows = p.get("T");
    let workgroup =
        Variant::new("workgroup", fold(rows, limits)).set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", fold(rows.div_ceil(8), limits))
        .set("WG", 8)
        .flag("SERIAL");
    // One long row is better shared even where barriers cost.
    if limits.kind == DeviceKind::SoftwareGpu && rows >= 8 {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("C"));
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &*x;
    cpu::for_each_row(&mut y, columns, rows, |t, y| {
        let x = &x[t * columns..][..columns];
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if largest == f32::NEG_INFINITY {
            y.fill(0.0);
            return;
        }
        let mut sum = 0.0;
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - largest).exp();
            sum += f64::from(*y);
        }
        let scale = (1.0 / sum) as f32;
        y.iter_mut().for_each(|y| *y *= scale);
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    for t in 0..p.size("T") {
        let row = t * columns..(t + 1) * columns;
        let largest = arrays[0][row.clone()]
            .iter()
            .fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let mut sum = 0.0;
        for i in row.clone() {
            let masked = arrays[0][i] == f64::NEG_INFINITY;
            arrays[1][i] = if masked {
                0.0
            } else {
                (arrays[0][i] - largest).exp()
            };
            sum += arrays[1][i];
        }
        if sum > 0.0 {
            row.for_each(|i| arrays[1][i] /= sum);
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [(1, 1), (1, 1031), (2, 255), (7, 256), (16, 257), (33, 3)];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(rows, columns)| case_of(rows, columns, &case::random(1, rows * columns)))
        .collect();
    // Row 1 is masked wholly, the others in part.
    let mut masked = case::random(2, 9 * 300);
    for (i, x) in masked.iter_mut().enumerate() {
        if i / 300 == 1 || i % 3 == 0 {
            *x = f32::NEG_INFINITY;
        }
    }
    cases.push(case_of(9, 300, &masked));
    let large: Vec<f32> = case::random(3, 5 * 64).iter().map(|x| x * 1e4).collect();
    cases.push(case_of(5, 64, &large));
    cases
}

fn case_of(rows: usize, columns: usize, x: &[f32]) -> Case {
    Case {
        params: params(rows, columns),
        arrays: vec![
            Some(HostArray::f32(&[rows, columns], x)),
            Some(HostArray::random(9, &[rows, columns])),
        ],
        bound: 1e-10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_all_masked_gives_zeros() {
        let mut arrays = vec![
            vec![f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY],
            vec![7.0; 4],
        ];
        reference(&params(2, 2), &mut arrays);
        assert_eq!(arrays[1], [0.0, 0.0, 1.0, 0.0]);
    }
}
