//! What [`exchange_pack`](super::exchange_pack) has put together, taken apart by the rank that got it: of the first
//! `counts[s, ME]` rows of rank s the channels, experts and probabilities. Of the others channels stay what they were,
//! experts are `u32::MAX`, which there is not, and probabilities 0.
//!
//! Params: `R` ranks, `ROOM` rows of each, `C` channels, `K` experts of a token, `ME`.

use super::exchange_pack::{width, words};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "exchange_unpack",
    bindings: &[
        Binding::new("rows", Access::Read),
        Binding::new("counts", Access::Read),
        Binding::new("x", Access::Write),
        Binding::new("experts", Access::Write),
        Binding::new("probs", Access::Write),
    ],
    uniforms: &["R", "ROOM", "C", "K", "ME"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call of rank `me`, with `room` rows of each rank.
pub fn params(ranks: usize, room: usize, channels: usize, k: usize, me: usize) -> Params {
    Params::new()
        .u32("R", ranks as u32)
        .u32("ROOM", room as u32)
        .u32("C", channels as u32)
        .u32("K", k as u32)
        .u32("ME", me as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let words = p.get("C") + 2 * p.get("K");
    let rows = p.get("R") * p.get("ROOM");
    let groups = rows.saturating_mul(words).div_ceil(64);
    vec![Variant::new("words", fold(groups, limits)).set("WG", 64)]
}

/// Is there a row of this number?
fn is_there(p: &Params, row: usize, count: impl Fn(usize) -> usize) -> bool {
    let (rank, place) = (row / p.size("ROOM"), row % p.size("ROOM"));
    place < count(rank * p.size("R") + p.size("ME"))
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (channels, k) = (p.size("C"), p.size("K"));
    let (rows, counts) = (d.u32(0), d.u32(1));
    let (rows, counts) = (&*rows, &*counts);
    let width = width(channels, k);
    let all = p.size("R") * p.size("ROOM");
    let there = |row| is_there(p, row, |i| counts[i] as usize);
    cpu::for_each_row(&mut d.write::<u32>(2), channels, all, |row, x| {
        if there(row) {
            x.copy_from_slice(&rows[row * width..][..channels]);
        }
    });
    for (binding, first, nothing) in [(3, channels, u32::MAX), (4, channels + k, 0)] {
        let mut y = d.write::<u32>(binding);
        for (row, y) in y.chunks_exact_mut(k).take(all).enumerate() {
            match there(row) {
                true => y.copy_from_slice(&rows[row * width + first..][..k]),
                false => y.fill(nothing),
            }
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (channels, k) = (p.size("C"), p.size("K"));
    let [rows, counts, x, experts, probs] = arrays else {
        return;
    };
    for (row, words) in rows.chunks(width(channels, k)).enumerate() {
        let there = is_there(p, row, |i| counts[i] as usize);
        if there {
            x[row * channels..][..channels].copy_from_slice(&words[..channels]);
        }
        for j in 0..k {
            let [expert, prob] = [words[channels + j], words[channels + k + j]];
            experts[row * k + j] = if there { expert } else { f64::from(u32::MAX) };
            probs[row * k + j] = if there { prob } else { 0.0 };
        }
    }
}

fn cases() -> Vec<Case> {
    let case_of = |ranks: usize, room: usize, channels, k: usize, me| {
        let count = |i: usize| ((i * 13 + 2) % (room + 1)) as u32;
        let counts: Vec<u32> = (0..ranks * ranks).map(count).collect();
        Case {
            params: params(ranks, room, channels, k, me),
            arrays: vec![
                Some(words(1, &[ranks, room, width(channels, k)])),
                Some(HostArray::u32(&[ranks, ranks], &counts)),
                Some(words(2, &[ranks * room, channels])),
                Some(words(3, &[ranks * room, k])),
                Some(words(4, &[ranks * room, k])),
            ],
            bound: 0.0,
        }
    };
    vec![
        case_of(1, 2, 1, 1, 0),
        case_of(2, 6, 8, 2, 1),
        case_of(5, 13, 33, 3, 3),
        case_of(4, 10, 576, 8, 0),
    ]
}
