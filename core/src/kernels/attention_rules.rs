//! Which keys a token attends to, and what is done to the scores before the softmax: shared by
//! [`attention`](super::attention) and [`attention_mask`](super::attention_mask), as the text in
//! `shaders/shared/attention_rules.wgsl` is.
//!
//! Params: switches `FULL`, `PREFIXED`, `WINDOWED`, `KV_LENGTHS`, `CAPPED`, `ALIBI`, `ABSOLUTE`,
//! `MASK`, `MASK_SEEN`, `MASK_HIDDEN`, `ADJUSTED` (a score depends on more than q and k); numbers
//! `PREFIX`, `WINDOW`, `SOFTCAP`; strides `MASK_B`, `MASK_H`, `MASK_T` and row length `MASK_S`.

use std::ops::Range;

use super::{HostArray, Params, case};
use crate::device::cpu::{CpuDispatch, Elements};

/// Additive masks hide a key from here down: below every score.
pub const LOWEST: f32 = -1e30;

/// Which keys a token attends to, and what is done to the scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Token t sees keys `0 ..= pos + t`; else all.
    pub causal: bool,
    /// Keys that causal tokens see in any case (arXiv:1910.10683, figure 4).
    pub prefix: usize,
    /// Keys at a distance of this or more are hidden.
    pub window: Option<usize>,
    /// A buffer says how many keys each sequence has.
    pub kv_lengths: bool,
    /// Scores become `c tanh(score / c)`, before masks; 0 for none.
    pub softcap: f32,
    /// Scores grow by a slope of the head times the key's distance (arXiv:2108.12409).
    pub alibi: bool,
    /// The index instead of the distance: the same softmax, other scores.
    pub alibi_absolute: bool,
    /// A mask array.
    pub mask: Option<Mask>,
}

/// What a mask's elements mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskKind {
    /// f32, added to the score; [`LOWEST`] and below hides the key.
    Additive,
    /// u32, 0 hides the key.
    Seen,
    /// f32, more than 0.99 hides the key.
    Hidden,
}

/// A mask array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// What its elements mean.
    pub kind: MaskKind,
    /// Batch, heads, tokens, keys; 1 in the first three broadcasts. Keys past the last are hidden.
    pub shape: [usize; 4],
}

impl Default for Rules {
    /// Causal and nothing else.
    fn default() -> Self {
        Rules {
            causal: true,
            prefix: 0,
            window: None,
            kv_lengths: false,
            softcap: 0.0,
            alibi: false,
            alibi_absolute: false,
            mask: None,
        }
    }
}

impl Rules {
    /// All keys, scores as they are.
    pub fn full() -> Self {
        Rules {
            causal: false,
            ..Rules::default()
        }
    }

    /// Sets what the shader, the CPU code and the reference read. `SOFTCAP` is only there when it
    /// is used, so that plain calls have one pipeline.
    pub fn set(&self, p: Params) -> Params {
        let kind = self.mask.map(|m| m.kind);
        let [_, heads, tokens, keys] = self.mask.map_or([1, 1, 1, 0], |m| m.shape);
        let stride = |which: usize, value: usize| match self.mask {
            Some(m) if m.shape[which] > 1 => value as u32,
            _ => 0,
        };
        let capped = self.softcap > 0.0;
        let p = p
            .switch("FULL", !self.causal)
            .switch("PREFIXED", self.causal && self.prefix > 0)
            .switch("WINDOWED", self.window.is_some())
            .switch("KV_LENGTHS", self.kv_lengths)
            .switch("CAPPED", capped)
            .switch("ALIBI", self.alibi)
            .switch("ABSOLUTE", self.alibi && self.alibi_absolute)
            .switch("MASK", self.mask.is_some())
            .switch("MASK_SEEN", kind == Some(MaskKind::Seen))
            .switch("MASK_HIDDEN", kind == Some(MaskKind::Hidden))
            .switch("ADJUSTED", capped || self.alibi || self.mask.is_some())
            .u32("PREFIX", self.prefix.min(1 << 30) as u32)
            .u32("WINDOW", self.window.unwrap_or(0).min(1 << 30) as u32)
            .u32("MASK_B", stride(0, heads * tokens * keys))
            .u32("MASK_H", stride(1, tokens * keys))
            .u32("MASK_T", stride(2, keys))
            .u32("MASK_S", keys as u32);
        if capped {
            p.f32("SOFTCAP", self.softcap)
        } else {
            p
        }
    }
}

/// Slopes of ALiBi for any number of heads: `2^(-max_bias (i + 1) / n)`; when n is no power of two,
/// those of the power below it, and then every second of the power above.
///
/// Source: arXiv:2108.12409 and its authors' `get_slopes`; `max_bias` is 8 there.
pub fn alibi_slopes(heads: usize, max_bias: f64) -> Vec<f32> {
    let power = |n: usize, i: usize| (-max_bias * (i + 1) as f64 / n as f64).exp2() as f32;
    let whole = if heads.is_power_of_two() {
        heads
    } else {
        heads.next_power_of_two() / 2
    };
    let rest = (0..heads - whole).map(|i| power(2 * whole, 2 * i));
    (0..whole).map(|i| power(whole, i)).chain(rest).collect()
}

/// Where the row of a mask for token `t` of sequence `b` and head `h` starts.
pub(crate) fn mask_row(p: &Params, [b, h, t]: [usize; 3]) -> usize {
    b * p.size("MASK_B") + h * p.size("MASK_H") + t * p.size("MASK_T")
}

/// A mask's elements.
pub(crate) enum MaskValues<'a> {
    F32(Elements<'a, f32>),
    U32(Elements<'a, u32>),
}

/// Params and optional bindings as CPU code reads them; looked up once, since rows are many.
pub(crate) struct Adjust<'a> {
    params: &'a Params,
    pos: usize,
    keys: usize,
    full: bool,
    prefix: usize,
    window: Option<usize>,
    needed: bool,
    mask: Option<MaskValues<'a>>,
    slopes: Option<Elements<'a, f32>>,
    kv_lengths: Option<Elements<'a, u32>>,
}

impl<'a> Adjust<'a> {
    /// What `params` say, for calls without optional bindings.
    pub fn plain(params: &'a Params, pos: usize) -> Self {
        Adjust {
            params,
            pos,
            keys: params.size("S"),
            full: params.is("FULL"),
            prefix: params.size("PREFIX"),
            window: params.is("WINDOWED").then(|| params.size("WINDOW")),
            needed: params.is("ADJUSTED"),
            mask: None,
            slopes: None,
            kv_lengths: None,
        }
    }

    /// Borrows bindings `mask`, `slopes` and `kv_lengths`, which are numbers `first..first + 3`.
    pub fn new(d: &CpuDispatch<'a>, pos: usize, first: usize) -> Self {
        let p = d.params;
        Adjust {
            mask: d.has(first).then(|| match p.is("MASK_SEEN") {
                true => MaskValues::U32(d.u32(first)),
                false => MaskValues::F32(d.f32(first)),
            }),
            slopes: d.has(first + 1).then(|| d.f32(first + 1)),
            kv_lengths: d.has(first + 2).then(|| d.u32(first + 2)),
            ..Adjust::plain(p, pos)
        }
    }

    /// Keys that token `t` of sequence `b` sees.
    pub fn keys(&self, b: usize, t: usize) -> Range<usize> {
        let pos = self.pos + t;
        let mut end = self.keys;
        if let Some(lengths) = &self.kv_lengths {
            end = end.min(lengths[b] as usize);
        }
        if !self.full {
            end = end.min(self.prefix.max(pos + 1));
        }
        let mut first = 0;
        if let Some(window) = self.window {
            first = (pos + 1).saturating_sub(window);
            if self.full {
                end = end.min(pos + window);
            }
        }
        first.min(end)..end
    }

    /// Does `row` do anything?
    pub fn is_needed(&self) -> bool {
        self.needed
    }

    /// Adjusts the scores of keys from `first` on; hidden ones become -inf.
    pub fn row(&self, at: [usize; 3], first: usize, scores: &mut [f32]) {
        let (p, [_, h, t]) = (self.params, at);
        if p.is("CAPPED") {
            let cap = p.number("SOFTCAP");
            scores.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
        if let Some(slopes) = &self.slopes {
            let origin = if p.is("ABSOLUTE") { 0 } else { self.pos + t };
            let from = first as f32 - origin as f32;
            for (i, x) in scores.iter_mut().enumerate() {
                *x += slopes[h] * (from + i as f32);
            }
        }
        let Some(mask) = &self.mask else { return };
        let (row, len) = (mask_row(p, at), p.size("MASK_S"));
        let known = len.saturating_sub(first).min(scores.len());
        let (scores, past) = scores.split_at_mut(known);
        past.fill(f32::NEG_INFINITY);
        let hide = |x: &mut f32, hidden: bool| {
            if hidden {
                *x = f32::NEG_INFINITY;
            }
        };
        match mask {
            MaskValues::U32(mask) => {
                let mask = &mask[row + first.min(len)..][..known];
                scores
                    .iter_mut()
                    .zip(mask)
                    .for_each(|(x, m)| hide(x, *m == 0));
            }
            MaskValues::F32(mask) => {
                let mask = &mask[row + first.min(len)..][..known];
                if p.is("MASK_HIDDEN") {
                    scores
                        .iter_mut()
                        .zip(mask)
                        .for_each(|(x, m)| hide(x, *m > 0.99));
                } else {
                    for (x, m) in scores.iter_mut().zip(mask) {
                        *x += m;
                        hide(x, *m <= LOWEST);
                    }
                }
            }
        }
    }
}

/// The score of key `s` of the token at position `pos + t`, by the definition; -inf when hidden.
/// `mask`, `slopes` and `kv_lengths` are the reference's arrays, empty where they are not used.
pub(crate) fn reference_score(
    p: &Params,
    [mask, slopes, kv_lengths]: [&[f64]; 3],
    pos: usize,
    at: [usize; 3],
    s: usize,
    score: f64,
) -> f64 {
    let [b, h, t] = at;
    let i = pos + t;
    let causal = s <= i || (p.is("PREFIXED") && s < p.size("PREFIX"));
    let near = s + p.size("WINDOW") > i && s < i + p.size("WINDOW");
    if !(p.is("FULL") || causal)
        || (p.is("WINDOWED") && !(near || (!p.is("FULL") && s >= i)))
        || (p.is("KV_LENGTHS") && s >= kv_lengths[b] as usize)
    {
        return f64::NEG_INFINITY;
    }
    let mut y = score;
    if p.is("CAPPED") {
        let cap = f64::from(p.number("SOFTCAP"));
        y = cap * (y / cap).tanh();
    }
    if p.is("ALIBI") {
        let origin = if p.is("ABSOLUTE") { 0 } else { i };
        y += slopes[h] * (s as f64 - origin as f64);
    }
    if !p.is("MASK") {
        return y;
    }
    if s >= p.size("MASK_S") {
        return f64::NEG_INFINITY;
    }
    let m = mask[mask_row(p, at) + s];
    let hidden = match (p.is("MASK_SEEN"), p.is("MASK_HIDDEN")) {
        (true, _) => m == 0.0,
        (_, true) => m > 0.99,
        _ => m <= f64::from(LOWEST),
    };
    match hidden {
        true => f64::NEG_INFINITY,
        false if p.is("MASK_SEEN") || p.is("MASK_HIDDEN") => y,
        false => y + m,
    }
}

/// Arrays of a test case for `mask`, `slopes` and `kv_lengths`.
pub(crate) fn case_arrays(rules: &Rules, heads: usize, lengths: &[u32]) -> [Option<HostArray>; 3] {
    let mask = rules.mask.map(|mask| {
        let values = case::random(5, mask.shape.iter().product());
        match mask.kind {
            MaskKind::Seen => {
                let seen: Vec<u32> = values.iter().map(|x| u32::from(*x > -1.0)).collect();
                HostArray::u32(&mask.shape, &seen)
            }
            MaskKind::Hidden => HostArray::f32(&mask.shape, &values),
            MaskKind::Additive => {
                let some = values.iter().enumerate().map(|(i, x)| match i % 7 {
                    3 => f32::NEG_INFINITY,
                    5 => -3e38,
                    _ => *x,
                });
                HostArray::f32(&mask.shape, &some.collect::<Vec<f32>>())
            }
        }
    });
    let slopes = || HostArray::f32(&[heads], &alibi_slopes(heads, 8.0));
    [
        mask,
        rules.alibi.then(slopes),
        (rules.kv_lengths).then(|| HostArray::u32(&[lengths.len()], lengths)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper_for_any_number_of_heads() {
        let slopes = |n| alibi_slopes(n, 8.0);
        let powers = |from: i32, n: i32| (from..from + n).map(|i| (-i as f32).exp2());
        assert_eq!(slopes(8), powers(1, 8).collect::<Vec<_>>());
        // Recorded from the authors' get_slopes.
        let twelve: Vec<f32> = powers(1, 8)
            .chain((0..4).map(|i| (-0.5 - i as f32).exp2()))
            .collect();
        for (got, want) in slopes(12).iter().zip(&twelve) {
            assert!((got - want).abs() < 1e-7, "{got} {want}");
        }
        assert_eq!(slopes(1), [2f32.powi(-8)]);
        assert_eq!(slopes(71).len(), 71);
    }
}
