//! Which tokens go to which rank, since it holds one of their experts, and their places in its queue:
//! `counts[r]` tokens go to rank r, of which token t is number `places[r, t]`, `u32::MAX` if it does not.
//! The ranks `SHARE i .. SHARE (i + 1)` hold the experts `EACH i .. EACH (i + 1)`.
//!
//! Params: `T` tokens, `K` experts of each, `R` ranks, `EACH`, `SHARE`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, expert_order};
use crate::device::cpu::CpuDispatch;
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "exchange_order",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::new("counts", Access::Write),
        Binding::new("places", Access::Write),
    ],
    uniforms: &["R", "T", "K", "EACH", "SHARE"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// How experts lie on ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Ranks.
    pub ranks: usize,
    /// Experts that a rank holds, or of which it holds a part.
    pub each: usize,
    /// Ranks that hold parts of the same experts.
    pub share: usize,
}

impl Spread {
    /// Does a rank hold this expert?
    fn holds(&self, rank: usize, expert: u32) -> bool {
        let first = (rank / self.share * self.each) as u32;
        expert.wrapping_sub(first) < self.each as u32
    }
}

/// Parameters of a call.
pub fn params(tokens: usize, k: usize, spread: Spread) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("K", k as u32)
        .u32("R", spread.ranks as u32)
        .u32("EACH", spread.each as u32)
        .u32("SHARE", spread.share as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = [p.get("R"), 1, 1];
    let size = limits.max_workgroup_size.min(256);
    let workgroup = Variant::new("workgroup", groups).set("WG", size);
    let serial = Variant::new("serial", groups).flag("SERIAL");
    match limits.kind {
        DeviceKind::SoftwareGpu => vec![serial, workgroup],
        _ => vec![workgroup, serial],
    }
}

/// Writes places; gives the counts.
fn order(p: &Params, expert: impl Fn(usize) -> u32, mut put: impl FnMut(usize, u32)) -> Vec<u32> {
    let (tokens, k) = (p.size("T"), p.size("K"));
    let spread = Spread {
        ranks: p.size("R"),
        each: p.size("EACH"),
        share: p.size("SHARE"),
    };
    let mut counts = vec![0; spread.ranks];
    for (rank, count) in counts.iter_mut().enumerate() {
        for t in 0..tokens {
            let goes = (t * k..(t + 1) * k).any(|pair| spread.holds(rank, expert(pair)));
            put(rank * tokens + t, if goes { *count } else { u32::MAX });
            *count += u32::from(goes);
        }
    }
    counts
}

fn cpu(d: &CpuDispatch<'_>) {
    let (experts, mut places) = (d.u32(0), d.write::<u32>(2));
    let counts = order(d.params, |pair| experts[pair], |i, word| places[i] = word);
    d.write::<u32>(1)[..counts.len()].copy_from_slice(&counts);
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [experts, counts, places] = arrays else {
        return;
    };
    let expert = |pair: usize| experts[pair] as u32;
    let found = order(p, expert, |i, word| places[i] = f64::from(word));
    for (count, found) in counts.iter_mut().zip(found) {
        *count = f64::from(found);
    }
}

/// Places of the tokens with these experts, and the counts.
pub(super) fn ordered(
    tokens: usize,
    k: usize,
    spread: Spread,
    experts: &[u32],
) -> (Vec<u32>, Vec<u32>) {
    let mut places = vec![0; spread.ranks * tokens];
    let p = params(tokens, k, spread);
    let counts = order(&p, |pair| experts[pair], |i, word| places[i] = word);
    (places, counts)
}

fn cases() -> Vec<Case> {
    let case_of = |experts: &[u32], k: usize, [ranks, each, share]: [usize; 3]| {
        let tokens = experts.len() / k;
        let spread = Spread { ranks, each, share };
        Case {
            params: params(tokens, k, spread),
            arrays: vec![
                Some(HostArray::u32(&[tokens, k], experts)),
                Some(HostArray::u32(&[ranks], &vec![7; ranks])),
                Some(HostArray::u32(&[ranks, tokens], &vec![7; ranks * tokens])),
            ],
            bound: 0.0,
        }
    };
    let random = |tokens: usize, k, count| expert_order::random_experts(3, tokens * k, count);
    vec![
        case_of(&[0], 1, [1, 1, 1]),
        case_of(&random(5, 2, 8), 2, [2, 4, 1]),
        case_of(&random(64, 2, 8), 2, [4, 2, 1]),
        case_of(&random(257, 3, 60), 3, [6, 30, 3]),
        case_of(&random(1031, 8, 128), 8, [64, 4, 2]),
        // All go to the last rank; nobody goes anywhere.
        case_of(&[7; 66], 2, [4, 2, 1]),
        case_of(&[u32::MAX; 9], 1, [3, 5, 1]),
    ]
}
