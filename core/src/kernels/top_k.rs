//! The `TOP` largest elements along an axis and their indices, in falling order; ties by smaller
//! index. NaNs come before everything, with their own bits, so that the host sees them. Or the
//! `TOP` smallest in rising order, NaNs last.
//!
//! Params: `T` rows, `C` elements along the axis, `INNER` (see [`Axis`]), `TOP` (at most `C`), `FIRST`:
//! index of the first element, where x is a rank's part of the axis. Switch: `SMALLEST`.

use super::argmax::order;
use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "top_k",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("values", Access::Write),
        Binding::new("ids", Access::Write),
    ],
    uniforms: &["T", "C", "INNER", "TOP", "FIRST"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// The largest `TOP` for which a long row's elements are not compared each with each.
pub const MOST: usize = 128;

/// Parameters of a call with `FIRST` 0; `top` is held to the axis' length.
pub fn params(axis: Axis, top: usize, smallest: bool) -> Params {
    axis.params()
        .u32("TOP", top.min(axis.len) as u32)
        .bool("SMALLEST", smallest)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (rows, columns) = (p.get("T"), p.get("C"));
    let groups = fold(rows, limits);
    let variant = |name, size| Variant::new(name, groups).set("WG", size);
    let workgroup = variant("workgroup", limits.max_workgroup_size.min(256));
    let narrow = variant("narrow", 8);
    let elements = rows.saturating_mul(columns).div_ceil(64);
    let count = Variant::new("count", fold(elements, limits))
        .set("WG", 64)
        .flag("COUNT");
    if p.size("TOP") > MOST {
        return vec![count];
    }
    let selects = match limits.kind {
        DeviceKind::SoftwareGpu => [narrow, workgroup],
        _ => [workgroup, narrow],
    };
    // Where both are tested, small rows are enough for the one that compares each with each.
    match columns {
        0..=256 => [count].into_iter().chain(selects).collect(),
        257..=2048 => selects.into_iter().chain([count]).collect(),
        _ => selects.into(),
    }
}

/// One number to sort by: the order, inverted for the largest, then the index.
fn key(x: f32, index: usize, smallest: bool) -> u64 {
    let order = if smallest { order(x) } else { !order(x) };
    u64::from(order) << 32 | index as u64
}

fn cpu(d: &CpuDispatch<'_>) {
    let (axis, top) = (Axis::from(d.params), d.params.size("TOP"));
    let smallest = d.params.is("SMALLEST");
    let (x, mut values, mut ids) = (d.f32(0), d.f32_mut(1), d.write::<u32>(2));
    let x = &*x;
    let (block, start) = (top * axis.inner, d.params.get("FIRST"));
    cpu::for_each_row(&mut ids, block, axis.outer, |outer, ids| {
        for inner in 0..axis.inner {
            let t = outer * axis.inner + inner;
            let row = x[axis.at(t, 0)..].iter().step_by(axis.inner);
            let row = row.take(axis.len).enumerate();
            let mut keys: Vec<u64> = row.map(|(c, x)| key(*x, c, smallest)).collect();
            if top < keys.len() {
                keys.select_nth_unstable(top);
                keys.truncate(top);
            }
            keys.sort_unstable();
            for (i, key) in keys.into_iter().enumerate() {
                ids[i * axis.inner + inner] = start + key as u32;
            }
        }
    });
    let ids = &*ids;
    cpu::for_each_row(&mut values, block, axis.outer, |outer, values| {
        for (i, value) in values.iter_mut().enumerate() {
            let t = outer * axis.inner + i % axis.inner;
            *value = x[axis.at(t, (ids[outer * block + i] - start) as usize)];
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis::from(p);
    let to = Axis {
        len: p.size("TOP"),
        ..axis
    };
    // NaN is above everything; adding 0 makes -0 equal 0.
    let rises = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
        (false, false) => (a + 0.0).total_cmp(&(b + 0.0)),
        (a, b) => a.cmp(&b),
    };
    for t in 0..axis.rows() {
        let x: Vec<f64> = (0..axis.len).map(|c| arrays[0][axis.at(t, c)]).collect();
        let mut ids: Vec<usize> = (0..x.len()).collect();
        // A stable sort keeps ties in the order of their indices.
        ids.sort_by(|a, b| match p.is("SMALLEST") {
            true => rises(x[*a], x[*b]),
            false => rises(x[*b], x[*a]),
        });
        for (i, id) in ids.into_iter().take(to.len).enumerate() {
            arrays[1][to.at(t, i)] = x[id];
            arrays[2][to.at(t, i)] = (p.size("FIRST") + id) as f64;
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1),
        (7, 7),
        (128, 128),
        (300, 1),
        (1031, 40),
        (49152, 128),
    ];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(columns, top)| case_of(&case::random(1, columns), top))
        .collect();
    // Ties around the last place, everywhere, and between zeros of both signs.
    let steps: Vec<f32> = (0..1000).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
    cases.push(case_of(&steps, 100));
    cases.push(case_of(&[2.5; 70_000], 64));
    let zeros: Vec<f32> = (0..50).map(|i| [0.0, -0.0, -1.0][i % 3]).collect();
    cases.push(case_of(&zeros, 20));
    let mut special = case::random(5, 500);
    special[3] = f32::INFINITY;
    special[80] = f32::NAN;
    special[81] = f32::NEG_INFINITY;
    special[499] = -f32::NAN;
    cases.push(case_of(&special, 10));
    let mut masked = vec![f32::NEG_INFINITY; 300];
    masked[200] = -1.0;
    cases.push(case_of(&masked, 30));
    let axis = |outer, len, inner| Axis { outer, len, inner };
    for (axis, top) in [
        (axis(5, 64, 1), 8),
        (axis(2, 33, 7), 33),
        (axis(1, 300, 5), 129),
        (axis(3, 1031, 2), 9),
        (axis(1, 9, 1), 4),
    ] {
        let mut x = case::random(7, axis.elements());
        x[3] = f32::NAN;
        x[4] = -f32::INFINITY;
        cases.push(case_along(axis, &x, top, true));
        cases.push(case_along(axis, &x, top, false));
    }
    for (len, top) in [(40, 40), (300, 7), (3001, 128)] {
        let mut case = case_of(&case::random(9, len), top);
        case.params = case.params.u32("FIRST", 24_576);
        cases.push(case);
    }
    cases
}

fn case_of(x: &[f32], top: usize) -> Case {
    case_along(Axis::last(1, x.len()), x, top, false)
}

fn case_along(axis: Axis, x: &[f32], top: usize, smallest: bool) -> Case {
    let (shape, out) = ([axis.outer, axis.len, axis.inner], axis.rows() * top);
    Case {
        params: params(axis, top, smallest),
        arrays: vec![
            Some(HostArray::f32(&shape, x)),
            Some(HostArray::zeros(&[axis.outer, top, axis.inner])),
            Some(HostArray::u32(
                &[axis.outer, top, axis.inner],
                &vec![0; out],
            )),
        ],
        bound: 0.0,
    }
}
