//! Rows of tokens in the order in which ranks get them: row `places[r, t]` of rank r's `ROOM` is token t's channels, its
//! experts and their probabilities, `(C + 2 K)` words of 4 bytes that keep their bits. The rest stays.
//!
//! Params: `R` ranks, `T` tokens, `C` channels, `K` experts of a token, `ROOM`.

use super::exchange_order::{Spread, ordered};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, expert_order, fold};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "exchange_pack",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("experts", Access::Read),
        Binding::new("probs", Access::Read),
        Binding::new("places", Access::Read),
        Binding::new("rows", Access::Write),
    ],
    uniforms: &["R", "T", "C", "K", "ROOM"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Words of a row.
pub fn width(channels: usize, k: usize) -> usize {
    channels + 2 * k
}

/// Parameters of a call, with `room` rows for each rank.
pub fn params(ranks: usize, [tokens, channels, k]: [usize; 3], room: usize) -> Params {
    Params::new()
        .u32("R", ranks as u32)
        .u32("T", tokens as u32)
        .u32("C", channels as u32)
        .u32("K", k as u32)
        .u32("ROOM", room as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let words = p.get("C") + 2 * p.get("K");
    let groups = (p.get("R") * p.get("T")).saturating_mul(words).div_ceil(64);
    vec![Variant::new("words", fold(groups, limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (tokens, channels, k) = (p.size("T"), p.size("C"), p.size("K"));
    let (x, experts) = (d.u32(0), d.u32(1));
    let (probs, places) = (d.u32(2), d.u32(3));
    let (x, experts, probs, places) = (&*x, &*experts, &*probs, &*places);
    let width = width(channels, k);
    let room = p.size("ROOM") * width;
    cpu::for_each_row(&mut d.write::<u32>(4), room, p.size("R"), |rank, rows| {
        for t in 0..tokens {
            let place = places[rank * tokens + t] as usize;
            if let Some(row) = rows.chunks_exact_mut(width).nth(place) {
                let (own, pairs) = row.split_at_mut(channels);
                own.copy_from_slice(&x[t * channels..][..channels]);
                pairs[..k].copy_from_slice(&experts[t * k..][..k]);
                pairs[k..].copy_from_slice(&probs[t * k..][..k]);
            }
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (tokens, channels, k) = (p.size("T"), p.size("C"), p.size("K"));
    let [x, experts, probs, places, rows] = arrays else {
        return;
    };
    for (i, place) in places.iter().enumerate() {
        if *place == f64::from(u32::MAX) {
            continue;
        }
        let (rank, t) = (i / tokens, i % tokens);
        let row = (rank * p.size("ROOM") + *place as usize) * width(channels, k);
        for c in 0..channels {
            rows[row + c] = x[t * channels + c];
        }
        for j in 0..k {
            rows[row + channels + j] = experts[t * k + j];
            rows[row + channels + k + j] = probs[t * k + j];
        }
    }
}

/// Random floats as words, so that tests compare every bit.
pub(super) fn words(seed: u64, shape: &[usize]) -> HostArray {
    HostArray {
        dtype: DType::U32,
        ..HostArray::random(seed, shape)
    }
}

fn cases() -> Vec<Case> {
    let case_of = |tokens: usize, channels, k, [ranks, each, share]: [usize; 3], room| {
        let spread = Spread { ranks, each, share };
        let experts = expert_order::random_experts(5, tokens * k, ranks / share * each);
        let (places, _) = ordered(tokens, k, spread, &experts);
        Case {
            params: params(ranks, [tokens, channels, k], room),
            arrays: vec![
                Some(words(1, &[tokens, channels])),
                Some(HostArray::u32(&[tokens, k], &experts)),
                Some(words(2, &[tokens, k])),
                Some(HostArray::u32(&[ranks, tokens], &places)),
                Some(words(3, &[ranks, room, width(channels, k)])),
            ],
            bound: 0.0,
        }
    };
    vec![
        case_of(1, 1, 1, [1, 1, 1], 1),
        case_of(5, 8, 2, [2, 4, 1], 6),
        case_of(67, 33, 3, [6, 4, 3], 67),
        case_of(40, 576, 8, [4, 16, 1], 41),
    ]
}
