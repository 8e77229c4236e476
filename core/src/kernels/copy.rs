//! A block along an axis moved from one tensor into another:
//! `y[o, TO + l, i] = x[o, FROM + l, i]` for `l < LEN`; the rest of y stays. Joining, slicing,
//! gathering and scattering along any axis are calls of it.
//!
//! Elements are words of 4 bytes, whatever they mean, and keep their bits.
//!
//! Params: `OUTER` and `INNER`, products of the lengths before and behind the axis; `X_LEN`, `Y_LEN`:
//! its length in x and y; `FROM`, `TO`, `LEN`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "copy",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["OUTER", "INNER", "X_LEN", "FROM", "Y_LEN", "TO", "LEN"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call for `len` steps along the axis, from `from` to `to`: the axis' length in x
/// and in y, and the first step there.
pub fn params(
    outer: usize,
    inner: usize,
    from: (usize, usize),
    to: (usize, usize),
    len: usize,
) -> Params {
    Params::new()
        .u32("OUTER", outer as u32)
        .u32("INNER", inner as u32)
        .u32("X_LEN", from.0 as u32)
        .u32("FROM", from.1 as u32)
        .u32("Y_LEN", to.0 as u32)
        .u32("TO", to.1 as u32)
        .u32("LEN", len as u32)
}

/// Elements of an invocation.
const EACH: u32 = 4;

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let words = p.get("OUTER") * p.get("LEN") * p.get("INNER");
    let variant = |name, elements: u32| {
        let groups = fold(elements.div_ceil(64 * EACH), limits);
        Variant::new(name, groups).set("WG", 64).set("EACH", EACH)
    };
    let whole = |name| (p.size(name) * p.size("INNER")).is_multiple_of(4);
    // One run has no rows to start in the middle of a four.
    let rows = p.get("OUTER") == 1 || ["X_LEN", "Y_LEN"].into_iter().all(whole);
    let elements = variant("elements", words);
    match rows && ["FROM", "TO", "LEN"].into_iter().all(whole) {
        true => vec![variant("fours", words / 4).flag("FOURS"), elements],
        false => vec![elements],
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (x, mut y) = (d.u32(0), d.write::<u32>(1));
    let words = |name| p.size(name) * p.size("INNER");
    let (x_row, y_row, run) = (words("X_LEN"), words("Y_LEN"), words("LEN"));
    let (from, to) = (words("FROM"), words("TO"));
    if p.get("OUTER") == 1 {
        let x = &x[from..from + run];
        return cpu::for_each_part(&mut y[to..to + run], |start, y| {
            y.copy_from_slice(&x[start..start + y.len()]);
        });
    }
    let x = &*x;
    cpu::for_each_row(&mut y, y_row, p.size("OUTER"), |o, y| {
        y[to..to + run].copy_from_slice(&x[o * x_row + from..][..run]);
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let inner = p.size("INNER");
    for o in 0..p.size("OUTER") {
        for l in 0..p.size("LEN") {
            for i in 0..inner {
                let from = (o * p.size("X_LEN") + p.size("FROM") + l) * inner + i;
                let to = (o * p.size("Y_LEN") + p.size("TO") + l) * inner + i;
                arrays[1][to] = arrays[0][from];
            }
        }
    }
}

fn cases() -> Vec<Case> {
    // outer, inner, (length, first) in x, the same in y, len
    let sizes = [
        (1, 1, (1, 0), (1, 0), 1),
        (1, 1, (1031, 6), (1026, 3), 1020),
        (1, 1, (1031, 8), (1030, 4), 1020),
        (3, 1, (33, 0), (99, 66), 33),
        (7, 5, (3, 1), (4, 2), 2),
        (2, 4, (19, 18), (5, 0), 1),
        (5, 64, (12, 4), (9, 1), 8),
        (2, 6, (10, 2), (8, 4), 4),
        (2, 513, (40, 0), (57, 17), 40),
    ];
    sizes
        .into_iter()
        .map(|(outer, inner, x, y, len)| Case {
            params: params(outer, inner, x, y, len),
            arrays: vec![
                Some(HostArray::random(1, &[outer, x.0, inner])),
                Some(HostArray::random(2, &[outer, y.0, inner])),
            ],
            bound: 0.0,
        })
        .collect()
}
