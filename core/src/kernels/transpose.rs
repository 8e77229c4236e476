//! Matrices with rows and columns exchanged, `y[n, b, a] = x[n, a, b]`.
//!
//! Params: `N` matrices of `A` rows and `B` columns.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "transpose",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "A", "B"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(matrices: usize, rows: usize, columns: usize) -> Params {
    let p = Params::new().u32("N", matrices as u32);
    p.u32("A", rows as u32).u32("B", columns as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("N") * p.get("A") * p.get("B");
    vec![Variant::new("elements", fold(elements.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (matrices, rows, columns) = (d.params.size("N"), d.params.size("A"), d.params.size("B"));
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &*x;
    cpu::for_each_row(&mut y, rows, matrices * columns, |row, y| {
        let (n, b) = (row / columns, row % columns);
        let x = &x[n * rows * columns..];
        for (a, y) in y.iter_mut().enumerate() {
            *y = x[a * columns + b];
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (rows, columns) = (p.size("A"), p.size("B"));
    for n in 0..p.size("N") {
        for a in 0..rows {
            for b in 0..columns {
                arrays[1][(n * columns + b) * rows + a] = arrays[0][(n * rows + a) * columns + b];
            }
        }
    }
}

fn cases() -> Vec<Case> {
    [(1, 1, 1), (1, 7, 1), (3, 5, 37), (1, 64, 65), (2, 131, 63)]
        .into_iter()
        .map(|(n, a, b)| Case {
            params: params(n, a, b),
            arrays: vec![
                Some(HostArray::random(1, &[n, a, b])),
                Some(HostArray::zeros(&[n, b, a])),
            ],
            bound: 0.0,
        })
        .collect()
}
