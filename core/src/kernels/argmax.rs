//! Index of the largest (or smallest) element along an axis; the smallest (or largest) index wins
//! ties, and [`NOT_A_NUMBER`] tells of a row that holds a NaN.
//!
//! Params: `T` rows, `C` elements along the axis, `INNER` (see [`Axis`]). Switches: `MIN` for the
//! smallest element, `LAST` for the largest index, `IDS`: the result is the element's entry in `ids`,
//! as where x holds the best of several ranks.

use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "argmax",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
        Binding::optional("ids", Access::Read),
    ],
    uniforms: &["T", "C", "INNER"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// The result for a row that holds a NaN.
pub const NOT_A_NUMBER: u32 = u32::MAX;

/// Parameters of a call without `ids`; `smallest` makes it argmin.
pub fn params(axis: Axis, smallest: bool, last: bool) -> Params {
    axis.params().bool("MIN", smallest).bool("LAST", last)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = fold(p.get("T"), limits);
    let workgroup = Variant::new("workgroup", groups).set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", groups).set("WG", 8).flag("FEW");
    if limits.kind == DeviceKind::SoftwareGpu || p.get("C") <= 64 {
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
    let axis = Axis::from(d.params);
    let (smallest, last) = (d.params.is("MIN"), d.params.is("LAST"));
    let (x, mut y) = (d.f32(0), d.write::<u32>(1));
    let ids = d.params.is("IDS").then(|| d.u32(2));
    let (x, ids) = (&*x, ids.as_deref());
    let key = move |x: &f32| match order(*x) {
        NOT_A_NUMBER => NOT_A_NUMBER,
        order if smallest => !order,
        order => order,
    };
    let index = move |t: usize| {
        let first = axis.at(t, 0);
        if axis.inner > 1 {
            let row = x[first..].iter().step_by(axis.inner).take(axis.len);
            return best(row.map(key), last);
        }
        // Two passes, of which the first, over all elements, runs in SIMD.
        let row = &x[first..first + axis.len];
        if smallest || last {
            return best(row.iter().map(key), last);
        }
        match row.iter().map(|v| order(*v)).max() {
            None | Some(NOT_A_NUMBER) => NOT_A_NUMBER,
            Some(largest) => row
                .iter()
                .position(|v| order(*v) == largest)
                .map_or(NOT_A_NUMBER, |i| i as u32),
        }
    };
    cpu::for_each_row(&mut y, 1, axis.rows(), |t, y| {
        y[0] = match (index(t), ids) {
            (NOT_A_NUMBER, _) => NOT_A_NUMBER,
            (i, Some(ids)) => ids[axis.at(t, i as usize)],
            (i, None) => i,
        };
    });
}

/// Index of the largest key, the first or last of equal ones.
fn best(keys: impl Iterator<Item = u32>, last: bool) -> u32 {
    let mut best = (0, NOT_A_NUMBER);
    for (i, key) in keys.enumerate() {
        if key > best.0 || (last && key == best.0) {
            best = (key, i as u32);
        }
    }
    match best.0 {
        NOT_A_NUMBER => NOT_A_NUMBER,
        _ => best.1,
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis::from(p);
    for t in 0..axis.rows() {
        let row: Vec<f64> = (0..axis.len).map(|c| arrays[0][axis.at(t, c)]).collect();
        let mut best = 0;
        for (c, x) in row.iter().enumerate() {
            let beats = match p.is("MIN") {
                true => *x < row[best],
                false => *x > row[best],
            };
            if beats || (p.is("LAST") && *x == row[best]) {
                best = c;
            }
        }
        arrays[1][t] = match (row.iter().any(|x| x.is_nan()), p.is("IDS")) {
            (true, _) => f64::from(NOT_A_NUMBER),
            (false, true) => arrays[2][axis.at(t, best)],
            (false, false) => best as f64,
        };
    }
}

fn cases() -> Vec<Case> {
    let axis = |outer, len, inner| Axis { outer, len, inner };
    let axes = [
        axis(1, 1, 1),
        axis(1, 1031, 1),
        axis(3, 256, 1),
        axis(2, 7, 1),
        axis(1, 49152, 1),
        axis(2, 33, 5),
        axis(1, 700, 3),
    ];
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
    let mut cases = Vec::new();
    for (smallest, last) in [(false, false), (true, false), (false, true), (true, true)] {
        for axis in axes {
            let x = case::random(1, axis.elements());
            cases.push(case_of(axis, smallest, last, &x));
        }
        cases.push(case_of(axis(7, 300, 1), smallest, last, &special));
        for (axis, x) in [
            (axis(7, 300, 1), special.clone()),
            (axis(2, 33, 5), case::random(1, 330)),
            (axis(5, 3, 1), case::random(3, 15)),
        ] {
            let mut case = case_of(axis, smallest, last, &x);
            let ids: Vec<u32> = (0..x.len() as u32).map(|i| 5000 - 2 * i).collect();
            case.params = case.params.bool("IDS", true);
            case.arrays[2] = Some(HostArray::u32(&[axis.outer, axis.len, axis.inner], &ids));
            cases.push(case);
        }
    }
    cases
}

fn case_of(axis: Axis, smallest: bool, last: bool, x: &[f32]) -> Case {
    let rows = axis.rows();
    Case {
        params: params(axis, smallest, last),
        arrays: vec![
            Some(HostArray::f32(&[axis.outer, axis.len, axis.inner], x)),
            Some(HostArray::u32(&[rows], &vec![7; rows])),
            None,
        ],
        bound: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argmax(row: &[f64]) -> u32 {
        let mut arrays = vec![row.to_vec(), vec![0.0]];
        reference(&params(Axis::last(1, row.len()), false, false), &mut arrays);
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
