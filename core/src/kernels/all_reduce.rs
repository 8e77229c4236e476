//! Sum of what several ranks of one device hold, in their order, or the largest:
//! `y[i] = p0[FIRST + i] + p1[FIRST + i] + ...`, bit for bit as [`comm::host`](crate::comm::host).
//!
//! Params: `N` elements of y, `FIRST`: place of its first one in the parts. Switches: `P1` to `P6` for
//! the parts that are there beside `p0` ([`MOST`] with it, since WebGPU promises eight storage
//! buffers), `MAX` for the largest element, NaN if any is.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::comm::Reduce;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch, Elements};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "all_reduce",
    bindings: &[
        Binding::new("p0", Access::Read),
        Binding::optional("p1", Access::Read),
        Binding::optional("p2", Access::Read),
        Binding::optional("p3", Access::Read),
        Binding::optional("p4", Access::Read),
        Binding::optional("p5", Access::Read),
        Binding::optional("p6", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "FIRST"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parts that one call can have. More are reduced in turns: y is `p0` of the next call.
pub const MOST: usize = 7;

/// Switches of the parts after the first.
const PARTS: [&str; MOST - 1] = ["P1", "P2", "P3", "P4", "P5", "P6"];

/// Parameters of a call for `n` elements from `first` on of `parts` parts, 1 to [`MOST`].
pub fn params(n: usize, first: usize, parts: usize, reduce: Reduce) -> Params {
    let p = Params::new()
        .u32("N", n as u32)
        .u32("FIRST", first as u32)
        .switch("MAX", reduce == Reduce::Max);
    let there = PARTS.iter().take(parts.saturating_sub(1));
    there.fold(p, |p, name| p.bool(name, true))
}

/// Elements of an invocation.
const EACH: u32 = 4;

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let variant = |name, elements: u32| {
        let groups = fold(elements.div_ceil(64 * EACH), limits);
        Variant::new(name, groups).set("WG", 64).set("EACH", EACH)
    };
    let (n, first) = (p.get("N"), p.get("FIRST"));
    let elements = variant("elements", n);
    match n.is_multiple_of(4) && first.is_multiple_of(4) && !p.is("MAX") {
        true => vec![variant("fours", n / 4).flag("FOURS"), elements],
        false => vec![elements],
    }
}

/// What the params say.
fn reduction(p: &Params) -> Reduce {
    match p.is("MAX") {
        true => Reduce::Max,
        false => Reduce::Sum,
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (n, first) = (d.params.size("N"), d.params.size("FIRST"));
    let reduce = reduction(d.params);
    let parts: Vec<Elements<'_, f32>> = (0..MOST).filter(|i| d.has(*i)).map(|i| d.f32(i)).collect();
    let parts: Vec<&[f32]> = parts.iter().map(|p| &p[first..first + n]).collect();
    let mut y = d.f32_mut(MOST);
    cpu::for_each_part(&mut y[..n], |start, y| {
        y.copy_from_slice(&parts[0][start..][..y.len()]);
        for part in &parts[1..] {
            for (y, x) in y.iter_mut().zip(&part[start..]) {
                *y = reduce.f32(*y, *x);
            }
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (n, first) = (p.size("N"), p.size("FIRST"));
    // Each sum is rounded to f32: the order of ranks is part of the definition.
    let reduce = |a: f64, b: f64| match reduction(p) {
        Reduce::Sum => f64::from((a + b) as f32),
        Reduce::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Reduce::Max => a.max(b),
    };
    for i in 0..n {
        let parts = arrays[..MOST].iter().filter(|part| !part.is_empty());
        let values = parts.map(|part| part[first + i]);
        arrays[MOST][i] = values.reduce(reduce).expect("p0 is there");
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 0, 1),
        (64, 4, 2),
        (65, 3, 2),
        (255, 0, 3),
        (1031, 7, 4),
        (1032, 8, 5),
        (300, 1, 6),
        (40_000, 0, 7),
    ];
    let mut cases = Vec::new();
    for (n, first, parts) in sizes {
        let part = |i: usize| case::random(i as u64 + 1, first + n + 5);
        let all: Vec<_> = (0..parts).map(part).collect();
        cases.push(case_of(n, first, Reduce::Sum, &all));
        cases.push(case_of(n, first, Reduce::Max, &all));
    }
    let special = [
        vec![1.0, f32::NAN, -1.0, f32::NEG_INFINITY, -0.0],
        vec![f32::INFINITY, 2.0, -2.0, f32::NEG_INFINITY, 0.0],
        vec![3.0, 4.0, -f32::NAN, -5.0, -1.0],
    ];
    cases.push(case_of(5, 0, Reduce::Max, &special));
    cases
}

fn case_of(n: usize, first: usize, reduce: Reduce, parts: &[Vec<f32>]) -> Case {
    let array = |x: &Vec<f32>| HostArray::f32(&[x.len()], x);
    let mut arrays: Vec<_> = (0..MOST).map(|i| parts.get(i).map(array)).collect();
    arrays.push(Some(HostArray::zeros(&[n])));
    Case {
        params: params(n, first, parts.len(), reduce),
        arrays,
        bound: 0.0,
    }
}
