//! One-hot along an axis: `on` where the index is the row's id, else `off`. Ids from -1 to -C, as
//! u32, count from the end; others that are not below C give `off` only.
//!
//! Params: `N` elements of the result, `C` elements along the axis, `INNER` (see [`Axis`]), `ON`, `OFF`.

use super::random::variants;
use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "one_hot",
    bindings: &[
        Binding::new("ids", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "C", "INNER", "ON", "OFF"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with this axis in the result.
pub fn params(axis: Axis, on: f32, off: f32) -> Params {
    Params::new()
        .u32("N", axis.elements() as u32)
        .u32("C", axis.len as u32)
        .u32("INNER", axis.inner as u32)
        .f32("ON", on)
        .f32("OFF", off)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (columns, inner) = (p.size("C"), p.size("INNER"));
    let (on, off) = (p.number("ON"), p.number("OFF"));
    let ids = d.u32(0);
    let ids = &*ids;
    cpu::for_each_part(&mut d.f32_mut(1)[..p.size("N")], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let i = start + i;
            let id = ids[i / (columns * inner) * inner + i % inner] as i32;
            let c = (i / inner % columns) as i32;
            *y = if c == id || c == id.wrapping_add(columns as i32) && id < 0 {
                on
            } else {
                off
            };
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis {
        outer: p.size("N") / p.size("C") / p.size("INNER"),
        len: p.size("C"),
        inner: p.size("INNER"),
    };
    arrays[1].fill(f64::from(p.number("OFF")));
    for t in 0..axis.rows() {
        let id = i64::from(arrays[0][t] as u32 as i32);
        let place = if id < 0 { id + axis.len as i64 } else { id };
        if (0..axis.len as i64).contains(&place) {
            arrays[1][axis.at(t, place as usize)] = f64::from(p.number("ON"));
        }
    }
}

fn cases() -> Vec<Case> {
    let axis = |outer, len, inner| Axis { outer, len, inner };
    [axis(1, 1, 1), axis(7, 40, 1), axis(3, 5, 11)]
        .into_iter()
        .map(|axis| {
            // From two below the first to two beyond the last.
            let id = |t: usize| t as i32 * 7 % (2 * axis.len as i32 + 4) - axis.len as i32 - 2;
            let ids: Vec<u32> = (0..axis.rows()).map(|t| id(t + 1) as u32).collect();
            Case {
                params: params(axis, 1.0, -0.5),
                arrays: vec![
                    Some(HostArray::u32(&[axis.outer, axis.inner], &ids)),
                    Some(HostArray::random(1, &[axis.outer, axis.len, axis.inner])),
                ],
                bound: 0.0,
            }
        })
        .collect()
}
