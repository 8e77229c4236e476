//! Values of the chosen experts, spread over all experts: `y[t, e] = values[t, i]` where
//! `experts[t, i] = e`, else 0. 32-bit words of any type.
//!
//! Params: `N` elements of the result, `E` experts, `K` chosen ones of a token.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_scatter",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::new("values", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "E", "K"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(tokens: usize, experts: usize, k: usize) -> Params {
    Params::new()
        .u32("N", (tokens * experts) as u32)
        .u32("E", experts as u32)
        .u32("K", k as u32)
}

pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = fold(p.get("N").div_ceil(64), limits);
    vec![Variant::new("elements", groups).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (count, k) = (p.size("E"), p.size("K"));
    let (experts, values) = (d.u32(0), d.u32(1));
    let (experts, values) = (&*experts, &*values);
    cpu::for_each_row(
        &mut d.write::<u32>(2),
        count,
        p.size("N") / count,
        |t, y| {
            y.fill(0);
            for i in t * k..(t + 1) * k {
                if let Some(y) = y.get_mut(experts[i] as usize) {
                    *y = values[i];
                }
            }
        },
    );
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (count, k) = (p.size("E"), p.size("K"));
    let [experts, values, y] = arrays else { return };
    for (i, y) in y.iter_mut().enumerate() {
        let (t, e) = (i / count, i % count);
        let found = (t * k..(t + 1) * k).find(|j| experts[*j] == e as f64);
        *y = found.map_or(0.0, |j| values[j]);
    }
}

fn cases() -> Vec<Case> {
    let case_of = |tokens: usize, count: usize, k: usize, whole: bool| {
        let expert = |i: usize| match i {
            9 => u32::MAX,
            i => ((i / k * 5 + i % k) % count) as u32,
        };
        let experts: Vec<u32> = (0..tokens * k).map(expert).collect();
        let zeros: Vec<u32> = vec![7; tokens * count];
        let (values, y) = match whole {
            true => (
                HostArray::u32(&[tokens, k], &experts),
                HostArray::u32(&[tokens, count], &zeros),
            ),
            false => (
                HostArray::random(2, &[tokens, k]),
                HostArray::zeros(&[tokens, count]),
            ),
        };
        Case {
            params: params(tokens, count, k),
            arrays: vec![
                Some(HostArray::u32(&[tokens, k], &experts)),
                Some(values),
                Some(y),
            ],
            bound: 0.0,
        }
    };
    vec![
        case_of(1, 1, 1, false),
        case_of(23, 8, 2, false),
        case_of(130, 33, 5, true),
    ]
}
