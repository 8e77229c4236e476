//! Counts the pairs of a token and an expert: `counts[FIRST + e] = |{i < T: experts[i] = e}|` for `e < E`.
//!
//! Params: `T` pairs, `E` experts, `FIRST` of their counts. Switch `ADD`: they are added to what was counted before, and
//! wrap around. Pairs of an expert that there is not are left out.

use super::expert_order::random_experts;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_count",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::new("counts", Access::Write),
    ],
    uniforms: &["T", "E", "FIRST"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call; `add`: to what was counted before.
pub fn params(pairs: usize, experts: usize, first: usize, add: bool) -> Params {
    Params::new()
        .u32("T", pairs as u32)
        .u32("E", experts as u32)
        .u32("FIRST", first as u32)
        .bool("ADD", add)
}

fn variants(p: &Params, _: &Limits) -> Vec<Variant> {
    // E is at most 512.
    vec![Variant::new("experts", [p.get("E").div_ceil(64), 1, 1]).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (experts, mut counts) = (d.u32(0), d.write::<u32>(1));
    let counts = &mut counts[p.size("FIRST")..][..p.size("E")];
    if !p.is("ADD") {
        counts.fill(0);
    }
    for expert in &experts[..p.size("T")] {
        if let Some(count) = counts.get_mut(*expert as usize) {
            *count = count.wrapping_add(1);
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let first = p.size("FIRST");
    if !p.is("ADD") {
        arrays[1][first..first + p.size("E")].fill(0.0);
    }
    for i in 0..p.size("T") {
        let expert = arrays[0][i] as usize;
        if expert < p.size("E") {
            arrays[1][first + expert] += 1.0;
        }
    }
}

fn cases() -> Vec<Case> {
    let case_of = |(pairs, experts, first, len, add): (usize, usize, usize, usize, bool)| {
        let before: Vec<u32> = (0..len).map(|i| 5 + (i * 37 % 11) as u32).collect();
        Case {
            params: params(pairs, experts, first, add),
            arrays: vec![
                Some(HostArray::u32(
                    &[pairs],
                    &random_experts(6, pairs, experts + 1),
                )),
                Some(HostArray::u32(&[len], &before)),
            ],
            bound: 0.0,
        }
    };
    let sizes = [
        (1, 1, 0, 1, true),
        (2, 8, 8, 24, true),
        (129, 5, 3, 8, false),
        (1031, 64, 0, 64, false),
        (4096, 512, 512, 1029, true),
    ];
    sizes.into_iter().map(case_of).collect()
}
