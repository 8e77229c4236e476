//! What ranks gave for a token, summed in their order:
//! `y[t, c] = sum_r rows[r, places[r, t], c] (+ shared_expert[t, c] (sigmoid(gate[t]))) (+ residual[t, c])`, over the ranks
//! that the token went to. It is NaN if one of the token's probabilities is: it could not be routed.
//!
//! Params: `R` ranks, `T` tokens, `C` channels, `K` experts of a token, `ROOM` rows of a rank. Switches: `RESIDUAL`,
//! `SHARED`, `GATE`.

use super::exchange_order::{Spread, ordered};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, expert_order, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "exchange_combine",
    bindings: &[
        Binding::new("rows", Access::Read),
        Binding::new("places", Access::Read),
        Binding::new("probs", Access::Read),
        Binding::optional("residual", Access::Read),
        Binding::optional("shared_expert", Access::Read),
        Binding::optional("gate", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["R", "T", "C", "K", "ROOM"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call without switches: those of [`exchange_pack`](super::exchange_pack::params).
pub use super::exchange_pack::params;

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = p.get("T").saturating_mul(p.get("C")).div_ceil(64);
    vec![Variant::new("elements", fold(groups, limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (ranks, tokens, channels) = (p.size("R"), p.size("T"), p.size("C"));
    let (k, room) = (p.size("K"), p.size("ROOM"));
    let (rows, places, probs) = (d.f32(0), d.u32(1), d.f32(2));
    let optional = [3, 4, 5].map(|i| d.has(i).then(|| d.f32(i)));
    let [residual, shared, gate] = optional.each_ref().map(Option::as_deref);
    let (rows, places, probs) = (&*rows, &*places, &*probs);
    cpu::for_each_row(&mut d.f32_mut(6), channels, tokens, |t, y| {
        y.fill(0.0);
        let mut add = |row: &[f32], scale: f32| {
            for (y, x) in y.iter_mut().zip(row) {
                *y += scale * x;
            }
        };
        for rank in 0..ranks {
            let place = places[rank * tokens + t];
            if place != u32::MAX {
                let row = rank * room + place as usize;
                add(&rows[row * channels..][..channels], 1.0);
            }
        }
        if let Some(shared) = shared {
            let gate = gate.map_or(1.0, |g| 1.0 / (1.0 + (-g[t]).exp()));
            add(&shared[t * channels..][..channels], gate);
        }
        if let Some(residual) = residual {
            add(&residual[t * channels..][..channels], 1.0);
        }
        if probs[t * k..(t + 1) * k].iter().any(|p| p.is_nan()) {
            // A token must not go nowhere without a word.
            y.fill(f32::NAN);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (ranks, tokens, channels) = (p.size("R"), p.size("T"), p.size("C"));
    let k = p.size("K");
    for t in 0..tokens {
        for c in 0..channels {
            let i = t * channels + c;
            let mut sum = 0.0;
            for rank in 0..ranks {
                let place = arrays[1][rank * tokens + t];
                if place != f64::from(u32::MAX) {
                    sum += arrays[0][(rank * p.size("ROOM") + place as usize) * channels + c];
                }
            }
            for prob in &arrays[2][t * k..(t + 1) * k] {
                if prob.is_nan() {
                    sum += prob;
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
        ([1, 1, 1], [1, 1, 1], 1),
        ([5, 64, 2], [2, 4, 1], 6),
        ([67, 33, 3], [6, 4, 3], 67),
        ([40, 130, 8], [4, 16, 1], 41),
    ];
    let mut cases = Vec::new();
    for (i, (size, [ranks, each, share], room)) in sizes.into_iter().enumerate() {
        let [tokens, channels, k] = size;
        let spread = Spread { ranks, each, share };
        let experts = expert_order::random_experts(5, tokens * k, ranks / share * each);
        let (places, counts) = ordered(tokens, k, spread, &experts);
        // What lies beyond a rank's rows is no number.
        let mut rows = case::random(1, ranks * room * channels);
        for (rows, count) in rows.chunks_mut(room * channels).zip(&counts) {
            rows[*count as usize * channels..].fill(f32::NAN);
        }
        for (residual, shared, gate) in [
            (false, false, false),
            (true, false, false),
            (i % 2 == 0, true, i % 2 == 1),
            (i % 2 == 1, true, i % 2 == 0),
        ] {
            let random = |seed, on: bool| on.then(|| HostArray::random(seed, &[tokens, channels]));
            cases.push(Case {
                params: (params(ranks, size, room).switch("RESIDUAL", residual))
                    .switch("SHARED", shared)
                    .switch("GATE", gate),
                arrays: vec![
                    Some(HostArray::f32(&[ranks, room, channels], &rows)),
                    Some(HostArray::u32(&[ranks, tokens], &places)),
                    Some(HostArray::random(3, &[tokens, k])),
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
