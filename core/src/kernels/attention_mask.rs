//! The [rules](super::attention_rules) of attention on scores that are in memory, in place: those
//! of hidden keys become a value. [`attention`](super::attention) needs no such array; this is for
//! who wants to see the scores, and for masks by themselves.
//!
//! Params: `B` sequences, `H` heads, `T` tokens, `S` keys, `VALUE` of hidden keys (may be -inf),
//! and those of the rules.

use super::attention_rules::{self, Adjust, Mask, MaskKind, Rules};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "attention_mask",
    bindings: &[
        Binding::new("x", Access::Write),
        Binding::new("step", Access::Uniform),
        Binding::optional("mask", Access::Read),
        Binding::optional("slopes", Access::Read),
        Binding::optional("kv_lengths", Access::Read),
    ],
    uniforms: &[
        "T", "S", "PREFIX", "WINDOW", "MASK_B", "MASK_H", "MASK_T", "MASK_S", "VALUE",
    ],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call on scores of `shape` (B, H, T, S).
pub fn params(shape: [usize; 4], value: f32, rules: &Rules) -> Params {
    let [batch, heads, tokens, keys] = shape;
    let p = Params::new()
        .u32("B", batch as u32)
        .u32("H", heads as u32)
        .u32("T", tokens as u32)
        .u32("S", keys as u32)
        .f32("VALUE", value);
    rules.set(p)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("B") * p.get("H") * p.get("T") * p.get("S");
    vec![Variant::new("elements", fold(elements.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (heads, tokens, keys) = (p.size("H"), p.size("T"), p.size("S"));
    let (mut x, value) = (d.f32_mut(0), p.number("VALUE"));
    let rules = Adjust::new(d, d.u32(1)[0] as usize, 2);
    let rows = p.size("B") * heads * tokens;
    cpu::for_each_row(&mut x, keys, rows, |row, x| {
        let (b, h, t) = (row / tokens / heads, row / tokens % heads, row % tokens);
        let seen = rules.keys(b, t);
        x[..seen.start].fill(value);
        x[seen.end..].fill(value);
        rules.row([b, h, t], seen.start, &mut x[seen.clone()]);
        let hidden = x[seen]
            .iter_mut()
            .filter(|x| **x <= attention_rules::LOWEST);
        hidden.for_each(|x| *x = value);
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (heads, tokens, keys) = (p.size("H"), p.size("T"), p.size("S"));
    let (pos, value) = (arrays[1][0] as usize, f64::from(p.number("VALUE")));
    for i in 0..p.size("B") * heads * tokens * keys {
        let (row, s) = (i / keys, i % keys);
        let at = [row / tokens / heads, row / tokens % heads, row % tokens];
        let extra = [&arrays[2][..], &arrays[3], &arrays[4]];
        let score = attention_rules::reference_score(p, extra, pos, at, s, arrays[0][i]);
        arrays[0][i] = if score == f64::NEG_INFINITY {
            value
        } else {
            score
        };
    }
}

fn cases() -> Vec<Case> {
    let mask = |kind, shape| Some(Mask { kind, shape });
    let causal = Rules::default;
    let calls = [
        ([1, 1, 1, 1], 0, -10000.0, causal()),
        ([1, 9, 7, 31], 24, -10000.0, causal()),
        ([2, 3, 5, 67], 3, f32::NEG_INFINITY, causal()),
        (
            [2, 3, 5, 67],
            0,
            -10000.0,
            Rules {
                mask: mask(MaskKind::Hidden, [2, 1, 5, 67]),
                ..Rules::full()
            },
        ),
        (
            [1, 12, 33, 40],
            7,
            -10000.0,
            Rules {
                alibi: true,
                alibi_absolute: true,
                ..causal()
            },
        ),
        (
            [1, 2, 65, 70],
            5,
            -3e38,
            Rules {
                window: Some(6),
                prefix: 9,
                softcap: 1.5,
                ..causal()
            },
        ),
        (
            [3, 2, 4, 19],
            0,
            f32::NEG_INFINITY,
            Rules {
                mask: mask(MaskKind::Additive, [1, 2, 1, 13]),
                kv_lengths: true,
                ..Rules::full()
            },
        ),
        (
            [1, 2, 4, 19],
            0,
            0.0,
            Rules {
                mask: mask(MaskKind::Seen, [1, 1, 4, 19]),
                window: Some(3),
                alibi: true,
                ..Rules::full()
            },
        ),
    ];
    let case = |(shape, pos, value, rules): ([usize; 4], usize, f32, Rules)| {
        let [mask, slopes, kv_lengths] =
            attention_rules::case_arrays(&rules, shape[1], &[0, 7, 19][..shape[0].min(3)]);
        Case {
            params: params(shape, value, &rules),
            arrays: vec![
                Some(HostArray::random(1, &shape)),
                Some(HostArray::step(pos)),
                mask,
                slopes,
                kv_lengths,
            ],
            bound: 1e-12,
        }
    };
    calls.into_iter().map(case).collect()
}
