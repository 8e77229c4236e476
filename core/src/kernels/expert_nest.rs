//! Experts that are mixtures themselves, as one mixture: the i-th inner expert of outer expert e is expert `e E + i`, and its
//! probability for a token is the product of both (arXiv:1701.06538, appendix B).
//!
//! Params: `T` tokens, `K` outer experts of each, `J` inner experts of each of these, `E` inner experts that an outer one has.
//! A pair of an expert that there is not (`u32::MAX`: the router could not route) has none, and that router's probability.

use super::router::NOT_A_NUMBER;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, expert_order, fold};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_nest",
    bindings: &[
        Binding::new("outer_experts", Access::Read),
        Binding::new("outer_probs", Access::Read),
        Binding::new("inner_experts", Access::Read),
        Binding::new("inner_probs", Access::Read),
        Binding::new("experts", Access::Write),
        Binding::new("probs", Access::Write),
    ],
    uniforms: &["T", "K", "J", "E"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call for `tokens` tokens of `k` outer experts, of each of which `inner_k` of `experts` inner ones.
pub fn params(tokens: usize, [k, inner_k]: [usize; 2], experts: usize) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("K", k as u32)
        .u32("J", inner_k as u32)
        .u32("E", experts as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let pairs = p.get("T") * p.get("K") * p.get("J");
    vec![Variant::new("pairs", fold(pairs.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (inner_k, count) = (p.size("J"), p.get("E"));
    let pairs = p.size("T") * p.size("K") * inner_k;
    let (outer, outer_probs) = (d.u32(0), d.f32(1));
    let (inner, inner_probs) = (d.u32(2), d.f32(3));
    let (mut experts, mut probs) = (d.write::<u32>(4), d.f32_mut(5));
    let out = experts[..pairs].iter_mut().zip(&mut probs[..pairs]);
    for (i, (expert, prob)) in out.enumerate() {
        let (e, p) = (outer[i / inner_k], outer_probs[i / inner_k]);
        (*expert, *prob) = match (e, inner[i]) {
            (NOT_A_NUMBER, _) => (NOT_A_NUMBER, p),
            (_, NOT_A_NUMBER) => (NOT_A_NUMBER, inner_probs[i]),
            (e, own) => (e * count + own, p * inner_probs[i]),
        };
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (inner_k, count) = (p.size("J"), p.get("E"));
    let nowhere = f64::from(NOT_A_NUMBER);
    for i in 0..p.size("T") * p.size("K") * inner_k {
        let (outer, inner) = (arrays[0][i / inner_k], arrays[2][i]);
        let (p, q) = (arrays[1][i / inner_k], arrays[3][i]);
        (arrays[4][i], arrays[5][i]) = if outer == nowhere {
            (nowhere, p)
        } else if inner == nowhere {
            (nowhere, q)
        } else {
            (outer * f64::from(count) + inner, p * q)
        };
    }
}

fn cases() -> Vec<Case> {
    let case_of = |(tokens, k, inner_k, count): (usize, usize, usize, usize)| {
        let pairs = tokens * k;
        // Some that could not be routed.
        let chosen = |seed, n, count| {
            let mut ids = expert_order::random_experts(seed, n, count);
            ids.iter_mut()
                .skip(7)
                .step_by(11)
                .for_each(|id| *id = NOT_A_NUMBER);
            ids
        };
        Case {
            params: params(tokens, [k, inner_k], count),
            arrays: vec![
                Some(HostArray::u32(&[tokens, k], &chosen(1, pairs, 9))),
                Some(HostArray::random(2, &[tokens, k])),
                Some(HostArray::u32(
                    &[pairs, inner_k],
                    &chosen(3, pairs * inner_k, count),
                )),
                Some(HostArray::random(4, &[pairs, inner_k])),
                Some(HostArray::u32(&[pairs, inner_k], &vec![0; pairs * inner_k])),
                Some(HostArray::zeros(&[pairs, inner_k])),
            ],
            bound: 1e-13,
        }
    };
    let sizes = [(1, 1, 1, 1), (3, 2, 2, 4), (17, 3, 2, 5), (300, 8, 4, 16)];
    sizes.into_iter().map(case_of).collect()
}
