//! Index of the largest element of each row; the smallest index wins ties, and
//! [`NOT_A_NUMBER`] tells of a row that holds a NaN.
//!
//! Params: `T` rows, `C` columns.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "argmax",
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

/// The result for a row that holds a NaN.
pub const NOT_A_NUMBER: u32 = u32::MAX;

/// Parameters of a call.
pub fn params(rows: usize, columns: usize) -> Params {
    Params::new().u32("T", rows as u32).u32("C", columns as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = fold(p.get("T"), limits);
    let workgroup = Variant::new("workgroup", groups).set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", groups).set("WG", 8).flag("FEW");
    if limits.kind == DeviceKind::SoftwareGpu {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

/// A number's bits as a `u32` that sorts the same way; every NaN is `u32::MAX`, above infinity,
/// and -0 equals 0. The same as `shared/order.wgsl`.
pub(super) fn order(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude > 0x7F80_0000 {
        u32::MAX
    } else if bits == magnitude || magnitude == 0 {
        magnitude | 0x8000_0000
    } else {
        !bits
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("C"));
    let (x, mut y) = (d.f32(0), d.write::<u32>(1));
    let x = &*x;
    cpu::for_each_row(&mut y, 1, rows, |t, y| {
        // Two passes, of which the first, over all elements, runs in SIMD.
        let x = &x[t * columns..][..columns];
        let largest = x.iter().map(|v| order(*v)).max();
        y[0] = match largest {
            None | Some(u32::MAX) => NOT_A_NUMBER,
            Some(largest) => x
                .iter()
                .position(|v| order(*v) == largest)
                .map_or(NOT_A_NUMBER, |i| i as u32),
        };
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    for t in 0..p.size("T") {
        let row = &arrays[0][t * columns..(t + 1) * columns];
        let mut best = 0;
        for (c, x) in row.iter().enumerate() {
            if *x > row[best] {
                best = c;
            }
        }
        let holds_nan = row.iter().any(|x| x.is_nan());
        arrays[1][t] = f64::from(if holds_nan { NOT_A_NUMBER } else { best as u32 });
    }
}

fn cases() -> Vec<Case> {
    let sizes = [(1, 1), (1, 1031), (3, 256), (2, 7), (1, 49152)];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(rows, columns)| case_of(columns, &case::random(1, rows * columns)))
        .collect();
    // By row: all negative, ties, a NaN, infinities, all -inf, zeros of both signs, a NaN with the
    // sign bit.
    let mut special = vec![-3.0f32; 7 * 300];
    special[299] = -2.5;
    special[300..600].fill(1.5);
    special[600 + 77] = f32::NAN;
    special[600 + 78] = f32::INFINITY;
    special[900 + 5] = f32::NEG_INFINITY;
    special[900 + 299] = f32::INFINITY;
    special[900 + 298] = f32::INFINITY;
    special[1200..1500].fill(f32::NEG_INFINITY);
    special[1500 + 9] = -0.0;
    special[1500 + 10] = 0.0;
    special[1800 + 299] = -f32::NAN;
    cases.push(case_of(300, &special));
    cases
}

fn case_of(columns: usize, x: &[f32]) -> Case {
    let rows = x.len() / columns;
    Case {
        params: params(rows, columns),
        arrays: vec![
            Some(HostArray::f32(&[rows, columns], x)),
            Some(HostArray::u32(&[rows], &vec![7; rows])),
        ],
        bound: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argmax(row: &[f64]) -> u32 {
        let mut arrays = vec![row.to_vec(), vec![0.0]];
        reference(&params(1, row.len()), &mut arrays);
        arrays[1][0] as u32
    }

    #[test]
    fn the_smallest_index_wins_ties() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[-0.0, 0.0]), 0);
        assert_eq!(argmax(&[f64::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn a_nan_is_told() {
        assert_eq!(argmax(&[1.0, f64::NAN, 3.0]), NOT_A_NUMBER);
        assert_eq!(argmax(&[f64::NAN]), NOT_A_NUMBER);
    }

    #[test]
    fn order_sorts_as_numbers_do() {
        let rising = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -f32::MIN_POSITIVE,
            -1e-45,
            0.0,
            1e-45,
            1.0,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        assert!(rising.windows(2).all(|w| order(w[0]) < order(w[1])));
        assert_eq!(order(-0.0), order(0.0));
        assert_eq!(order(-f32::NAN), order(f32::NAN));
    }
}
