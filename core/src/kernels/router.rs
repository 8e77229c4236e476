//! The router of a mixture of experts: the `K` experts of each token, best first, and their
//! probabilities, from the token's logits.
//!
//! Params: `T` tokens, `E` experts (at most [`MOST_EXPERTS`]), `K` (at most [`MOST`]), `SCORE` (see [`Score`]),
//! `GROUPS` (at most [`MOST_GROUPS`]) and `GROUPS_KEPT`, `SCALE`. Switches: `BIAS`, `NORMALIZE`, `TWO` (see
//! [`Worth`]), `SCORED`: scores select, because of a bias or the sum of two; otherwise logits do, in whose order
//! scores are, so that every device chooses the same.

use super::argmax::order;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "router",
    bindings: &[
        Binding::new("logits", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::new("experts", Access::Write),
        Binding::new("probs", Access::Write),
    ],
    uniforms: &["T", "E", "SCALE"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// The largest E.
pub const MOST_EXPERTS: usize = 512;
/// The largest k.
pub const MOST: usize = 16;
/// The largest number of groups.
pub const MOST_GROUPS: usize = 32;
/// The expert of a token whose logits hold a NaN or infinity.
pub const NOT_A_NUMBER: u32 = u32::MAX;

/// What a probability is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts, before the choice.
    Softmax,
    /// Softmax over the chosen experts, after the choice.
    SoftmaxOfChosen,
    /// `1 / (1 + exp(-logit))`.
    Sigmoid,
}

/// What a group of experts is chosen by, of its scores with the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Its largest (DeepSeek-V2, arXiv:2405.04434).
    Largest,
    /// The sum of its two largest (DeepSeek-V3, arXiv:2412.19437).
    TwoLargest,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// T.
    pub tokens: usize,
    /// E.
    pub experts: usize,
    /// Experts of a token.
    pub k: usize,
    /// What a probability is made of.
    pub score: Score,
    /// Are the k probabilities divided by their sum?
    pub normalize: bool,
    /// What they are multiplied by then.
    pub scale: f32,
    /// Groups of neighbouring experts; divides E.
    pub groups: usize,
    /// Groups from which experts are chosen.
    pub groups_kept: usize,
    /// What a group is chosen by.
    pub worth: Worth,
    /// Is there a bias that is added to the scores for the choice only?
    pub bias: bool,
}

/// Parameters of a call.
pub fn params(call: &Call) -> Params {
    let two = call.worth == Worth::TwoLargest && call.groups > 1;
    let score = match call.score {
        Score::Softmax => 0,
        Score::SoftmaxOfChosen => 1,
        Score::Sigmoid => 2,
    };
    Params::new()
        .u32("T", call.tokens as u32)
        .u32("E", call.experts as u32)
        .u32("K", call.k as u32)
        .u32("SCORE", score)
        .u32("GROUPS", call.groups as u32)
        .u32("GROUPS_KEPT", call.groups_kept as u32)
        .f32("SCALE", call.scale)
        .bool("BIAS", call.bias)
        .bool("NORMALIZE", call.normalize)
        .bool("TWO", two)
        .bool("SCORED", call.bias || two)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let tokens = p.get("T");
    let software = limits.kind == DeviceKind::SoftwareGpu;
    let workgroup = Variant::new("workgroup", fold(tokens, limits)).set("WG", 64);
    let size = if software { 8 } else { 64 };
    let serial = Variant::new("serial", fold(tokens.div_ceil(size), limits))
        .set("WG", size)
        .flag("SERIAL");
    if software || (p.get("E") <= 16 && tokens >= 4096) {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

/// The lowest number of a set of numbers.
trait Number: Copy + PartialOrd {
    const LOWEST: Self;
}

impl Number for f32 {
    const LOWEST: f32 = f32::MIN;
}

impl Number for f64 {
    const LOWEST: f64 = f32::MIN as f64;
}

/// Which experts are in the groups of most worth.
fn kept<N: Number + std::ops::Add<Output = N>>(p: &Params, values: &[N]) -> Vec<bool> {
    let groups = p.size("GROUPS");
    let len = values.len() / groups;
    let worth = |group: &[N]| {
        let (mut largest, mut second) = (N::LOWEST, N::LOWEST);
        for &v in group {
            if v > largest {
                (largest, second) = (v, largest);
            } else if v > second {
                second = v;
            }
        }
        match p.is("TWO") {
            true => largest + second,
            false => largest,
        }
    };
    let worths: Vec<N> = values.chunks(len).map(worth).collect();
    let before = |g: usize| {
        let ahead = |h: &usize| worths[*h] > worths[g] || (worths[*h] == worths[g] && *h < g);
        (0..groups).filter(ahead).count()
    };
    let kept: Vec<bool> = (0..groups)
        .map(|g| before(g) < p.size("GROUPS_KEPT"))
        .collect();
    (0..values.len()).map(|e| kept[e / len]).collect()
}

fn sigmoid(l: f32) -> f32 {
    let e = (-l.abs()).exp();
    if l >= 0.0 {
        1.0 / (1.0 + e)
    } else {
        e / (1.0 + e)
    }
}

/// Largest logit and sum of a softmax.
fn level(logits: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let largest = logits.clone().fold(f32::MIN, f32::max);
    let sum: f64 = logits.map(|l| f64::from((l - largest).exp())).sum();
    (largest, sum as f32)
}

fn is_bad(logits: &[f32]) -> bool {
    logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (tokens, count, k) = (p.size("T"), p.size("E"), p.size("K"));
    let bias = d.has(1).then(|| d.f32(1));
    let (logits, bias) = (d.f32(0), bias.as_deref());
    let logits = &*logits;
    let row = |t: usize| &logits[t * count..][..count];
    let score = p.get("SCORE");
    let mut experts = d.write::<u32>(2);
    cpu::for_each_row(&mut experts, k, tokens, |t, experts| {
        if is_bad(row(t)) {
            return experts.fill(NOT_A_NUMBER);
        }
        let mut values: Vec<f32> = row(t).iter().map(|l| l.max(f32::MIN)).collect();
        if p.is("SCORED") && score == 0 {
            let (largest, sum) = level(values.iter().copied());
            values
                .iter_mut()
                .for_each(|v| *v = (*v - largest).exp() / sum);
        }
        if p.is("SCORED") && score == 2 {
            values.iter_mut().for_each(|v| *v = sigmoid(*v));
        }
        for (v, b) in values.iter_mut().zip(bias.into_iter().flatten()) {
            *v += b;
        }
        // The highest first; of equal ones the lower number.
        let key = |e: usize| u64::from(!order(values[e])) << 32 | e as u64;
        let kept = kept(p, &values);
        let mut keys: Vec<u64> = (0..count).filter(|e| kept[*e]).map(key).collect();
        keys.select_nth_unstable(k - 1);
        keys[..k].sort_unstable();
        for (expert, key) in experts.iter_mut().zip(keys) {
            *expert = key as u32;
        }
    });
    let experts = &*experts;
    cpu::for_each_row(&mut d.f32_mut(3), k, tokens, |t, probs| {
        let experts = &experts[t * k..][..k];
        if experts[0] == NOT_A_NUMBER {
            return probs.fill(f32::NAN);
        }
        let chosen = experts.iter().map(|e| row(t)[*e as usize].max(f32::MIN));
        let (largest, sum) = match score {
            0 => level(row(t).iter().map(|l| l.max(f32::MIN))),
            _ => level(chosen.clone()),
        };
        for (prob, l) in probs.iter_mut().zip(chosen) {
            *prob = match score {
                2 => sigmoid(l),
                _ => (l - largest).exp() / sum,
            };
        }
        let sum = match p.is("NORMALIZE") {
            true => probs.iter().sum::<f32>() + 1e-20,
            false => 1.0,
        };
        let scale = p.number("SCALE") / sum;
        probs.iter_mut().for_each(|prob| *prob *= scale);
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (count, k) = (p.size("E"), p.size("K"));
    let softmax = |l: f64, over: &[f64]| {
        let largest = over.iter().fold(f64::LOWEST, |a, b| a.max(*b));
        (l - largest).exp() / over.iter().map(|x| (x - largest).exp()).sum::<f64>()
    };
    let sigmoid = |l: f64| 1.0 / (1.0 + (-l).exp());
    for t in 0..p.size("T") {
        let logits = &arrays[0][t * count..][..count];
        let to = t * k..(t + 1) * k;
        if logits.iter().any(|l| l.is_nan() || *l == f64::INFINITY) {
            arrays[2][to.clone()].fill(f64::from(NOT_A_NUMBER));
            arrays[3][to].fill(f64::NAN);
            continue;
        }
        let logits: Vec<f64> = logits.iter().map(|l| l.max(f64::LOWEST)).collect();
        let value = |e: usize| {
            let value = match (p.is("SCORED"), p.get("SCORE")) {
                (true, 0) => softmax(logits[e], &logits),
                (true, 2) => sigmoid(logits[e]),
                _ => logits[e],
            };
            value + if p.is("BIAS") { arrays[1][e] } else { 0.0 }
        };
        let values: Vec<f64> = (0..count).map(value).collect();
        let kept = kept(p, &values);
        let mut experts: Vec<usize> = (0..count).filter(|e| kept[*e]).collect();
        // A stable sort keeps the lower number first.
        experts.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        experts.truncate(k);
        let chosen: Vec<f64> = experts.iter().map(|e| logits[*e]).collect();
        let probs: Vec<f64> = (chosen.iter())
            .map(|l| match p.get("SCORE") {
                0 => softmax(*l, &logits),
                1 => softmax(*l, &chosen),
                _ => sigmoid(*l),
            })
            .collect();
        let sum = match p.is("NORMALIZE") {
            true => probs.iter().sum::<f64>() + 1e-20,
            false => 1.0,
        };
        for (i, at) in to.enumerate() {
            arrays[2][at] = experts[i] as f64;
            arrays[3][at] = probs[i] / sum * f64::from(p.number("SCALE"));
        }
    }
}

/// A call without groups, bias and scale.
pub fn plain(tokens: usize, experts: usize, k: usize, score: Score) -> Call {
    Call {
        tokens,
        experts,
        k,
        score,
        normalize: false,
        scale: 1.0,
        groups: 1,
        groups_kept: 1,
        worth: Worth::Largest,
        bias: false,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for score in [Score::Softmax, Score::SoftmaxOfChosen, Score::Sigmoid] {
        for (tokens, experts, k) in [(1, 1, 1), (23, 8, 2), (9, 131, 8), (3, 512, 16), (70, 4, 4)] {
            let mut call = plain(tokens, experts, k, score);
            cases.push(case_of(&call, None));
            call.normalize = true;
            call.scale = 2.5;
            call.bias = true;
            cases.push(case_of(&call, None));
        }
        for worth in [Worth::Largest, Worth::TwoLargest] {
            for (experts, k, groups, groups_kept) in [(256, 8, 8, 4), (60, 6, 20, 3), (6, 2, 6, 2)]
            {
                let mut call = plain(11, experts, k, score);
                (call.groups, call.groups_kept, call.worth) = (groups, groups_kept, worth);
                call.bias = worth == Worth::TwoLargest;
                cases.push(case_of(&call, None));
            }
        }
        // By row: ties, all equal, zeros of both signs, a NaN, a NaN with the sign bit, infinity, an expert
        // that is masked, numbers whose exponentials overflow.
        let rows = [
            [1.0f32, 2.0, 2.0, -1.0, 2.0, 0.0],
            [0.5; 6],
            [-0.0, 0.0, -0.0, -1.0, 0.0, -2.0],
            [0.0, f32::NAN, 1.0, 2.0, 3.0, 4.0],
            [0.0, 1.0, 2.0, 3.0, 4.0, -f32::NAN],
            [0.0, 1.0, f32::INFINITY, 3.0, 4.0, 5.0],
            [0.0, 1.0, f32::NEG_INFINITY, 3.0, 4.0, 5.0],
            [1e4, -1e4, 100.0, -100.0, 99.0, 3e38],
        ];
        let mut call = plain(rows.len(), 6, 3, score);
        cases.push(case_of(&call, Some(rows.as_flattened())));
        (call.groups, call.groups_kept) = (3, 2);
        cases.push(case_of(&call, Some(rows.as_flattened())));
    }
    cases
}

fn case_of(call: &Call, logits: Option<&[f32]>) -> Case {
    let (shape, out) = ([call.tokens, call.experts], [call.tokens, call.k]);
    let random = case::random(call.k as u64, call.tokens * call.experts);
    // Scores with a bias are rounded; a bias of this size makes none equal.
    let bias = HostArray::scaled(77, &[call.experts], 0.25);
    Case {
        params: params(call),
        arrays: vec![
            Some(HostArray::f32(&shape, logits.unwrap_or(&random))),
            call.bias.then_some(bias),
            Some(HostArray::u32(&out, &vec![7; call.tokens * call.k])),
            Some(HostArray::zeros(&out)),
        ],
        bound: 1e-11,
    }
}
