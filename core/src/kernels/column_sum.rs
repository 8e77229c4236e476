//! Sum over rows, `y[c] = sum_t x[t, c]`: the gradient of a bias.
//!
//! Params: `T` rows, `C` columns.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "column_sum",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(rows: usize, columns: usize) -> Params {
    Params::new().u32("T", rows as u32).u32("C", columns as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let columns = p.get("C");
    let workgroup = Variant::new("workgroup", fold(columns.div_ceil(32), limits))
        .set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", fold(columns.div_ceil(8), limits))
        .set("WG", 8)
        .flag("SERIAL");
    if limits.kind == DeviceKind::SoftwareGpu {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

/// Columns that a thread adds up at a time.
const PART: usize = 64;

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("C"));
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &*x;
    cpu::for_each_chunk(&mut y[..columns], PART, |i, y| {
        let mut sums = [0.0; PART];
        for t in 0..rows {
            let x = &x[t * columns + i * PART..][..y.len()];
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += f64::from(*x);
            }
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = sum as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    for c in 0..columns {
        arrays[1][c] = (0..p.size("T")).map(|t| arrays[0][t * columns + c]).sum();
    }
}

fn cases() -> Vec<Case> {
    [
        (1, 1),
        (1, 257),
        (7, 3),
        (32, 31),
        (33, 64),
        (1031, 33),
        (300, 131),
    ]
    .into_iter()
    .map(|(rows, columns)| Case {
        params: params(rows, columns),
        arrays: vec![
            Some(HostArray::random(1, &[rows, columns])),
            Some(HostArray::random(2, &[columns])),
        ],
        bound: 1e-11,
    })
    .collect()
}
