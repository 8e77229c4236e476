//! What a token's experts gave, weighed and summed:
//! `y[t, c] = sum_j probs[t, j] x[t K + j, c] (+ shared_expert[t, c] (sigmoid(gate[t]))) (+ residual[t, c])`.
//!
//! Params: `T` tokens, `C` channels, `K` pairs of a token, `FIRST` and `COUNT` of the experts whose
//! pairs are summed; a NaN among the other pairs' probs counts too: their token could not be routed. Switches: `RESIDUAL`, `SHARED`, `GATE`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, expert_order, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_combine",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("probs", Access::Read),
        Binding::new("experts", Access::Read),
        Binding::optional("residual", Access::Read),
        Binding::optional("shared_expert", Access::Read),
        Binding::optional("gate", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C", "K", "FIRST", "COUNT"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call without switches, for `tokens` tokens of `channels` channels with `k` experts
/// each, of which `first .. first + count` are summed.
pub fn params([tokens, channels, k]: [usize; 3], first: usize, count: usize) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("C", channels as u32)
        .u32("K", k as u32)
        .u32("FIRST", first as u32)
        .u32("COUNT", count as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = p.get("T").saturating_mul(p.get("C")).div_ceil(64);
    vec![Variant::new("elements", fold(groups, limits)).set("WG", 64)]
}

/// Is this expert's pair summed?
fn is_held(p: &Params, expert: u32) -> bool {
    expert.wrapping_sub(p.get("FIRST")) < p.get("COUNT")
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (tokens, channels, k) = (p.size("T"), p.size("C"), p.size("K"));
    let (x, probs, experts) = (d.f32(0), d.f32(1), d.u32(2));
    let optional = [3, 4, 5].map(|i| d.has(i).then(|| d.f32(i)));
    let [residual, shared, gate] = optional.each_ref().map(Option::as_deref);
    let (x, probs, experts) = (&*x, &*probs, &*experts);
    let mut y = d.f32_mut(6);
    cpu::for_each_row(&mut y, channels, tokens, |t, y| {
        y.fill(0.0);
        let mut add = |row: &[f32], scale: f32| {
            for (y, x) in y.iter_mut().zip(row) {
                *y += scale * x;
            }
        };
        let mut unrouted = 0.0f32;
        for pair in t * k..(t + 1) * k {
            if is_held(p, experts[pair]) {
                add(&x[pair * channels..][..channels], probs[pair]);
            } else if probs[pair].is_nan() {
                // A token must not go nowhere without a word.
                unrouted = f32::NAN;
            }
        }
        if let Some(shared) = shared {
            let gate = gate.map_or(1.0, |g| 1.0 / (1.0 + (-g[t]).exp()));
            add(&shared[t * channels..][..channels], gate);
        }
        if let Some(residual) = residual {
            add(&residual[t * channels..][..channels], 1.0);
        }
        if unrouted.is_nan() {
            y.fill(unrouted);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (tokens, channels, k) = (p.size("T"), p.size("C"), p.size("K"));
    for t in 0..tokens {
        for c in 0..channels {
            let i = t * channels + c;
            let mut sum = 0.0;
            for pair in t * k..(t + 1) * k {
                if is_held(p, arrays[2][pair] as u32) {
                    sum += arrays[1][pair] * arrays[0][pair * channels + c];
                } else if arrays[1][pair].is_nan() {
                    sum += arrays[1][pair];
                }
            }
            if p.is("SHARED") {
                let gate = match p.is("GATE") {
                    true => 1.0 / (1.0 + (-arrays[5][t]).exp()),
                    false => 1.0,
                };
                sum += arrays[4][i] * gate;
            }
            if p.is("RESIDUAL") {
                sum += arrays[3][i];
            }
            arrays[6][i] = sum;
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        ([1, 1, 1], 0, 1),
        ([3, 64, 2], 0, 8),
        ([5, 67, 3], 2, 3),
        ([33, 130, 8], 0, 64),
        ([2, 5000, 4], 1, 1),
    ];
    let mut cases = Vec::new();
    for (i, (size, first, count)) in sizes.into_iter().enumerate() {
        for (residual, shared, gate) in [
            (false, false, false),
            (true, false, false),
            (i % 2 == 0, true, i % 2 == 1),
            (i % 2 == 1, true, i % 2 == 0),
        ] {
            let [tokens, channels, k] = size;
            let pairs = tokens * k;
            let mut x = super::case::random(1, pairs * channels);
            let experts = expert_order::random_experts(2, pairs, first + count + 1);
            // What other ranks' pairs hold is no number.
            for (row, expert) in x.chunks_mut(channels).zip(&experts) {
                if !(first..first + count).contains(&(*expert as usize)) {
                    row.fill(f32::NAN);
                }
            }
            let random = |seed, on: bool| on.then(|| HostArray::random(seed, &[tokens, channels]));
            cases.push(Case {
                params: (params(size, first, count).switch("RESIDUAL", residual))
                    .switch("SHARED", shared)
                    .switch("GATE", gate),
                arrays: vec![
                    Some(HostArray::f32(&[pairs, channels], &x)),
                    Some(HostArray::random(3, &[tokens, k])),
                    Some(HostArray::u32(&[tokens, k], &experts)),
                    random(4, residual),
                    random(5, shared),
                    gate.then(|| HostArray::random(6, &[tokens])),
                    Some(HostArray::zeros(&[tokens, channels])),
                ],
                bound: 1e-11,
            });
        }
    }
    cases
}
