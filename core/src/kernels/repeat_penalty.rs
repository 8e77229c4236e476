//! Makes tokens that occurred less likely, in place: a logit below 0 is multiplied by the
//! penalty, another divided by it.
//!
//! Source: arXiv:1909.05858, section 4.1, with the sign rule of Hugging Face's
//! `RepetitionPenaltyLogitsProcessor`, which keeps a negative logit from rising.
//!
//! Params: `N` ids, which are distinct; `C` logits, those of ids `FIRST .. FIRST + C` (others are
//! ignored); `PENALTY`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "repeat_penalty",
    bindings: &[
        Binding::new("ids", Access::Read),
        Binding::new("logits", Access::Write),
    ],
    uniforms: &["N", "C", "PENALTY", "FIRST"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with `FIRST` 0.
pub fn params(ids: usize, logits: usize, penalty: f32) -> Params {
    Params::new()
        .u32("N", ids as u32)
        .u32("C", logits as u32)
        .f32("PENALTY", penalty)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    vec![Variant::new("ids", fold(p.get("N").div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (ids, mut logits) = (d.u32(0), d.f32_mut(1));
    let logits = &mut logits[..d.params.size("C")];
    let (penalty, first) = (d.params.number("PENALTY"), d.params.get("FIRST"));
    for id in &ids[..d.params.size("N")] {
        let place = id.checked_sub(first);
        if let Some(logit) = place.and_then(|i| logits.get_mut(i as usize)) {
            *logit = if *logit < 0.0 {
                *logit * penalty
            } else {
                *logit / penalty
            };
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let penalty = f64::from(p.number("PENALTY"));
    let held = p.size("FIRST")..p.size("FIRST") + p.size("C");
    for i in 0..p.size("N") {
        let id = arrays[0][i] as usize;
        if held.contains(&id) {
            let logit = arrays[1][id - held.start];
            arrays[1][id - held.start] = if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            };
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 0, 1.5),
        (3, 100, 0, 1.0),
        (64, 1031, 0, 1.1),
        (65, 257, 0, 0.5),
        (65, 100, 157, 0.5),
        (300, 5000, 0, 1.3),
        (300, 900, 641, 1.3),
    ];
    sizes
        .into_iter()
        .map(|(count, logits, first, penalty)| {
            // 7 and the lengths have no common factor, so the ids differ; one is out of range.
            let all = first + logits;
            let mut ids: Vec<u32> = (0..count).map(|i| (i * 7 + 3) % all).collect();
            if let Some(last) = ids.get_mut(2) {
                *last = all;
            }
            Case {
                params: params(count as usize, logits as usize, penalty).u32("FIRST", first),
                arrays: vec![
                    Some(HostArray::u32(&[ids.len()], &ids)),
                    Some(HostArray::random(2, &[logits as usize])),
                ],
                bound: 1e-13,
            }
        })
        .collect()
}
