//! The probability that an expert would be among the `K` best of a token, were its own noise drawn
//! again: what the smooth load of noisy top-k routing is the sum of (arXiv:1701.06538, eq. 9).
//!
//! Params: `N` elements, `E` experts, `K`, `M` columns of `experts`: K + 1, or K where there are no more experts.

use super::act::{phi, phi_f32};
use super::expert_scatter::variants;
use super::noisy_logits::deviation;
use super::{Access, Binding, Case, HostArray, Kernel, Params, case};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "noisy_load",
    bindings: &[
        Binding::new("clean", Access::Read),
        Binding::new("raw", Access::Read),
        Binding::new("noisy", Access::Read),
        Binding::new("experts", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N", "E", "K", "M"],
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
        .u32("M", experts.min(k + 1) as u32)
}

/// Whom expert `e` must beat; `best`: the K + 1 best.
pub(super) fn rival(best: &[usize], e: usize) -> usize {
    let (next, top) = best.split_last().expect("k is 1 or more");
    if top.contains(&e) {
        *next
    } else {
        best[best.len() - 2]
    }
}

/// One row of experts' numbers; one without a number gives the last.
pub(super) fn best(experts: &[u32], count: usize) -> Vec<usize> {
    experts
        .iter()
        .map(|e| (*e as usize).min(count - 1))
        .collect()
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (count, most) = (p.size("E"), p.size("M"));
    let (clean, raw, noisy, experts) = (d.f32(0), d.f32(1), d.f32(2), d.u32(3));
    let (clean, raw, noisy, experts) = (&*clean, &*raw, &*noisy, &*experts);
    cpu::for_each_row(&mut d.f32_mut(4), count, p.size("N") / count, |t, y| {
        if most == p.size("K") {
            return y.fill(1.0);
        }
        let best = best(&experts[t * most..][..most], count);
        for (e, y) in y.iter_mut().enumerate() {
            let i = t * count + e;
            let distance = clean[i] - noisy[t * count + rival(&best, e)];
            *y = phi_f32(distance / deviation(f64::from(raw[i])) as f32);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (count, most) = (p.size("E"), p.size("M"));
    let [clean, raw, noisy, experts, y] = arrays else {
        return;
    };
    for (i, y) in y.iter_mut().enumerate() {
        let t = i / count;
        if most == p.size("K") {
            *y = 1.0;
            continue;
        }
        let best: Vec<usize> = experts[t * most..][..most]
            .iter()
            .map(|e| *e as usize)
            .collect();
        let distance = clean[i] - noisy[t * count + rival(&best, i % count)];
        *y = phi(distance / deviation(raw[i]));
    }
}

/// Clean logits, what the deviation is made of, noisy logits, and the `most` best experts of each token.
pub(super) fn inputs(tokens: usize, count: usize, most: usize) -> Vec<Option<HostArray>> {
    let noisy = case::random(3, tokens * count);
    let experts = noisy.chunks(count).flat_map(|row| {
        let mut experts: Vec<u32> = (0..count as u32).collect();
        experts.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        experts.truncate(most);
        experts
    });
    let experts: Vec<u32> = experts.collect();
    let all = [tokens, count];
    vec![
        Some(HostArray::random(1, &all)),
        Some(HostArray::random(2, &all)),
        Some(HostArray::f32(&all, &noisy)),
        Some(HostArray::u32(&[tokens, most], &experts)),
    ]
}

fn cases() -> Vec<Case> {
    let case_of = |tokens: usize, count: usize, k: usize| {
        let mut arrays = inputs(tokens, count, count.min(k + 1));
        arrays.push(Some(HostArray::zeros(&[tokens, count])));
        Case {
            params: params(tokens, count, k),
            arrays,
            bound: 1e-10,
        }
    };
    vec![
        case_of(1, 1, 1),
        case_of(23, 8, 2),
        case_of(70, 33, 1),
        case_of(5, 4, 4),
    ]
}
