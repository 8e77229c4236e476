//! Makes tokens that occurred less likely, in place: a logit below 0 is multiplied by the
//! penalty, another divided by it.
//!
//! Source: arXiv:1909.05858, section 4.1, with the sign rule of Hugging Face's
//! `RepetitionPenaltyLogitsProcessor`, which keeps a negative logit from rising.
//!
//! Params: `N` ids, which are distinct; `C` logits (ids from `C` on are ignored); `PENALTY`.

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
    uniforms: &["N", "C", "PENALTY"],
    variants,
    cpu,
    reference,
    cases,
};

/// Parameters of a call.
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
    let penalty = d.params.number("PENALTY");
    for id in &ids[..d.params.size("N")] {
        if let Some(logit) = logits.get_mut(*id as usize) {
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
    for i in 0..p.size("N") {
        let id = arrays[0][i] as usize;
        if id < p.size("C") {
            let logit = arrays[1][id];
            arrays[1][id] = if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            };
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 1.5),
        (3, 100, 1.0),
        (64, 1031, 1.1),
        (65, 257, 0.5),
        (300, 5000, 1.3),
    ];
    sizes
        .into_iter()
        .map(|(count, logits, penalty)| {
            // 7 and the lengths have no common factor, so the ids differ; one is out of range.
            let mut ids: Vec<u32> = (0..count).map(|i| (i * 7 + 3) % logits).collect();
            if let Some(last) = ids.get_mut(2) {
                *last = logits;
            }
            Case {
                params: params(count as usize, logits as usize, penalty),
                arrays: vec![
                    Some(HostArray::u32(&[ids.len()], &ids)),
                    Some(HostArray::random(2, &[logits as usize])),
                ],
                bound: 1e-13,
            }
        })
        .collect()
}
