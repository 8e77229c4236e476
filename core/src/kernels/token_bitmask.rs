//! Makes tokens impossible that a grammar does not allow, in place: their logits become -inf.
//!
//! Source: arXiv:2411.15100, section 3 (XGrammar's `apply_token_bitmask_inplace`).
//!
//! Params: `C` logits, those of tokens `FIRST .. FIRST + C`; bit `t % 32` of word `t / 32` of the
//! mask says whether token `t` is allowed.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "token_bitmask",
    bindings: &[
        Binding::new("mask", Access::Read),
        Binding::new("logits", Access::Write),
    ],
    uniforms: &["C", "FIRST"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters for the logits of all tokens.
pub fn params(logits: usize) -> Params {
    Params::new().u32("C", logits as u32).u32("FIRST", 0)
}

/// Words of a mask of `tokens` tokens.
pub fn words(tokens: usize) -> usize {
    tokens.div_ceil(32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    vec![Variant::new("logits", fold(p.get("C").div_ceil(256), limits)).set("WG", 256)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (mask, mut logits) = (d.u32(0), d.f32_mut(1));
    let first = d.params.size("FIRST");
    for (i, logit) in logits[..d.params.size("C")].iter_mut().enumerate() {
        let token = first + i;
        if mask[token / 32] >> (token % 32) & 1 == 0 {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    for i in 0..p.size("C") {
        let token = p.size("FIRST") + i;
        let word = arrays[0][token / 32] as u64;
        if (word / 2u64.pow((token % 32) as u32)).is_multiple_of(2) {
            arrays[1][i] = f64::NEG_INFINITY;
        }
    }
}

fn cases() -> Vec<Case> {
    // (logits, first, every how manyth token is allowed)
    let sizes = [
        (1, 0, 1),
        (32, 0, 2),
        (33, 0, 3),
        (257, 0, 1),
        (1031, 0, 700),
        (100, 57, 5),
        (900, 641, 7),
        (70_001, 32, 1000),
    ];
    sizes
        .into_iter()
        .map(|(logits, first, step)| {
            let mut mask = vec![0u32; words(first + logits)];
            for token in (0..first + logits).step_by(step) {
                mask[token / 32] |= 1 << (token % 32);
            }
            Case {
                params: params(logits).u32("FIRST", first as u32),
                arrays: vec![
                    Some(HostArray::u32(&[mask.len()], &mask)),
                    Some(HostArray::random(2, &[logits])),
                ],
                bound: 0.0,
            }
        })
        .collect()
}
