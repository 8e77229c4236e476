//! Cross-entropy along an axis and its gradient. With a row's label y, log-probabilities
//! `l = log_softmax(x)` (or x itself: the negative log-likelihood loss), class weights w and the target
//! `q_c = w_c ((1 - s) [c = y] + s / C)` (label smoothing s, arXiv:1512.00567, as PyTorch has it):
//! `loss = -sum q l`, `dx_c = up (p_c sum q - q_c)`.
//!
//! A label equal to `IGNORE` gives loss and gradient 0, another that is not below C gives NaN.
//!
//! Params: `T` rows, `C` classes, `INNER` (see [`Axis`]), `IGNORE`, `SMOOTHING`. Switches: `NLL`,
//! `SMOOTH` (smoothing is not 0), `CLASS_WEIGHT`, `DY` (up is given) and `DY_ONE` (one for all rows),
//! `TOTAL` (up is divided by it), `LOSS`, `LOG_PROB`, `D_LOGITS` (what is wanted).

use super::axis::row_variants;
use super::label_weight::labels;
use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "cross_entropy",
    bindings: &[
        Binding::new("logits", Access::Read),
        Binding::new("labels", Access::Read),
        Binding::optional("class_weight", Access::Read),
        Binding::optional("dy", Access::Read),
        Binding::optional("total", Access::Read),
        Binding::optional("loss", Access::Write),
        Binding::optional("log_prob", Access::Write),
        Binding::optional("d_logits", Access::Write),
    ],
    uniforms: &["T", "C", "INNER", "IGNORE", "SMOOTHING"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with all other switches off.
pub fn params(axis: Axis, ignore: i32, smoothing: f32, nll: bool) -> Params {
    axis.params()
        .u32("IGNORE", ignore as u32)
        .f32("SMOOTHING", smoothing)
        .bool("SMOOTH", smoothing != 0.0)
        .bool("NLL", nll)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let axis = Axis::from(p);
    let nll = p.is("NLL");
    let input = |binding: usize| d.has(binding).then(|| d.f32(binding));
    let (logits, labels) = (d.f32(0), d.u32(1));
    let (logits, labels) = (&*logits, &*labels);
    let (class_weight, dy, total) = (input(2), input(3), input(4));
    let class_weight = class_weight.as_deref();
    let weight = |c: usize| class_weight.map_or(1.0, |w| f64::from(w[c]));
    let soft = f64::from(p.number("SMOOTHING")) / axis.len as f64;
    let hard = 1.0 - f64::from(p.number("SMOOTHING"));
    // What a row's log-probabilities are below its logits.
    let mut levels = vec![0.0; axis.rows()];
    if !nll {
        levels_of(logits, axis, &mut levels);
    }
    let log_prob = |t: usize, c: usize| f64::from(logits[axis.at(t, c)]) - levels[t];
    // The label, or what the row gives without one.
    let label = |t: usize| match labels[t] {
        label if label == p.get("IGNORE") => Err(0.0),
        label if label as usize >= axis.len => Err(f32::NAN),
        label => Ok(label as usize),
    };
    if d.has(5) {
        for (t, loss) in d.f32_mut(5)[..axis.rows()].iter_mut().enumerate() {
            *loss = label(t).map_or_else(
                |nothing| nothing,
                |label| {
                    let mut sum = hard * weight(label) * log_prob(t, label);
                    if soft != 0.0 {
                        let all = (0..axis.len).map(|c| weight(c) * log_prob(t, c));
                        sum += soft * all.sum::<f64>();
                    }
                    -sum as f32
                },
            );
        }
    }
    let block = axis.len * axis.inner;
    let row_of = |outer: usize, i: usize| outer * axis.inner + i % axis.inner;
    if d.has(6) {
        cpu::for_each_row(&mut d.f32_mut(6), block, axis.outer, |outer, out| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = log_prob(row_of(outer, i), i / axis.inner) as f32;
            }
        });
    }
    if d.has(7) {
        let total = total.map_or(1.0, |t| f64::from(t[0]));
        let one = p.is("DY_ONE");
        let dy = dy.as_deref();
        let up = |t: usize| dy.map_or(1.0, |dy| f64::from(dy[if one { 0 } else { t }])) / total;
        let weights: f64 = (0..axis.len).map(weight).sum();
        cpu::for_each_row(&mut d.f32_mut(7), block, axis.outer, |outer, out| {
            for (i, out) in out.iter_mut().enumerate() {
                let (t, c) = (row_of(outer, i), i / axis.inner);
                let slope = label(t).map(|label| {
                    let own = if c == label { hard * weight(c) } else { 0.0 };
                    let target = own + soft * weight(c);
                    let all = hard * weight(label) + soft * weights;
                    let p = if nll { 0.0 } else { log_prob(t, c).exp() };
                    (up(t) * (p * all - target)) as f32
                });
                *out = slope.unwrap_or_else(|nothing| nothing);
            }
        });
    }
}

/// ln(sum(exp x)) of every row.
fn levels_of(x: &[f32], axis: Axis, levels: &mut [f64]) {
    cpu::for_each_chunk(levels, 16, |chunk, levels| {
        for (i, level) in levels.iter_mut().enumerate() {
            let first = axis.at(16 * chunk + i, 0);
            let row = || x[first..].iter().step_by(axis.inner).take(axis.len);
            let largest = row().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row().map(|x| f64::from((x - largest).exp())).sum();
            *level = f64::from(largest) + sum.ln();
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis::from(p);
    let smoothing = f64::from(p.number("SMOOTHING"));
    let classes = axis.len as f64;
    for t in 0..axis.rows() {
        let x: Vec<f64> = (0..axis.len).map(|c| arrays[0][axis.at(t, c)]).collect();
        let largest = x.iter().fold(f64::MIN, |a, b| a.max(*b));
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        let log_prob = |c: usize| match p.is("NLL") {
            true => x[c],
            false => x[c] - largest - sum.ln(),
        };
        let label = arrays[1][t] as u32;
        let mut up = match (p.is("DY"), p.is("DY_ONE")) {
            (true, true) => arrays[3][0],
            (true, false) => arrays[3][t],
            _ => 1.0,
        };
        if p.is("TOTAL") {
            up /= arrays[4][0];
        }
        let target: Vec<f64> = (0..axis.len)
            .map(|c| {
                let weight = match p.is("CLASS_WEIGHT") {
                    true => arrays[2][c],
                    false => 1.0,
                };
                let hard = if c == label as usize {
                    1.0 - smoothing
                } else {
                    0.0
                };
                weight * (hard + smoothing / classes)
            })
            .collect();
        let outside = label as usize >= axis.len;
        let held = |value: f64| match (label == p.get("IGNORE"), outside) {
            (true, _) => 0.0,
            (false, true) => f64::NAN,
            (false, false) => value,
        };
        if p.is("LOSS") {
            let loss: f64 = (0..axis.len).map(|c| -target[c] * log_prob(c)).sum();
            arrays[5][t] = held(loss);
        }
        for c in 0..axis.len {
            let i = axis.at(t, c);
            if p.is("LOG_PROB") {
                arrays[6][i] = log_prob(c);
            }
            if p.is("D_LOGITS") {
                let probability = if p.is("NLL") { 0.0 } else { log_prob(c).exp() };
                let all: f64 = target.iter().sum();
                arrays[7][i] = held(up * (probability * all - target[c]));
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let axis = |outer, len, inner| Axis { outer, len, inner };
    let (all, ce) = (["LOSS", "LOG_PROB", "D_LOGITS"], Call::default());
    vec![
        case_of(axis(1, 1, 1), ce, &all),
        case_of(axis(9, 37, 1), ce, &["LOSS"]),
        case_of(axis(9, 37, 1), ce, &["D_LOGITS"]),
        case_of(axis(3, 5, 6), ce.smooth(0.1), &["LOSS", "D_LOGITS", "DY"]),
        case_of(axis(16, 257, 1), ce.smooth(0.3).weighted(), &all),
        case_of(
            axis(2, 1031, 3),
            ce.weighted(),
            &["LOSS", "D_LOGITS", "DY", "TOTAL"],
        ),
        case_of(axis(7, 40, 2), ce, &["D_LOGITS", "DY", "DY_ONE", "TOTAL"]),
        case_of(axis(12, 300, 1), ce.wrong(), &["LOSS", "D_LOGITS"]),
        case_of(axis(9, 37, 1), ce.nll(), &["LOSS", "D_LOGITS"]),
        case_of(
            axis(3, 5, 4),
            ce.nll().weighted(),
            &["LOSS", "D_LOGITS", "DY"],
        ),
    ]
}

/// What a case varies beside the outputs.
#[derive(Clone, Copy, Default)]
struct Call {
    smoothing: f32,
    weighted: bool,
    nll: bool,
    /// Has a label that is out of range.
    wrong: bool,
}

impl Call {
    fn smooth(self, smoothing: f32) -> Self {
        Call { smoothing, ..self }
    }

    fn weighted(self) -> Self {
        Call {
            weighted: true,
            ..self
        }
    }

    fn nll(self) -> Self {
        Call { nll: true, ..self }
    }

    fn wrong(self) -> Self {
        Call {
            wrong: true,
            ..self
        }
    }
}

fn case_of(axis: Axis, call: Call, switches: &[&'static str]) -> Case {
    let mut params = params(axis, -100, call.smoothing, call.nll);
    params = params.bool("CLASS_WEIGHT", call.weighted);
    for switch in switches {
        params = params.bool(switch, true);
    }
    let (rows, shape) = (axis.rows(), [axis.outer, axis.len, axis.inner]);
    let mut labels = labels(rows, axis.len, -100);
    if call.wrong {
        labels[rows / 2] = axis.len as u32;
    }
    let array = |on, array| params.is(on).then_some(array);
    let ups = if params.is("DY_ONE") { 1 } else { rows };
    Case {
        arrays: vec![
            Some(HostArray::random(1, &shape)),
            Some(HostArray::u32(&[rows], &labels)),
            array("CLASS_WEIGHT", HostArray::random(2, &[axis.len])),
            array("DY", HostArray::random(3, &[ups])),
            array("TOTAL", HostArray::f32(&[1], &[7.5])),
            array("LOSS", HostArray::zeros(&[rows])),
            array("LOG_PROB", HostArray::zeros(&shape)),
            array("D_LOGITS", HostArray::zeros(&shape)),
        ],
        params,
        bound: 1e-10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's gradient against finite differences of its loss.
    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let ce = Call::default();
        for call in [ce, ce.smooth(0.2).weighted(), ce.nll().weighted()] {
            let axis = Axis {
                outer: 2,
                len: 5,
                inner: 3,
            };
            let case = case_of(axis, call, &["LOSS", "D_LOGITS", "DY"]);
            let arrays: Vec<Vec<f64>> = (case.arrays.iter())
                .map(|a| a.as_ref().map_or(Vec::new(), HostArray::to_f64))
                .collect();
            let run = |logits: Vec<f64>| {
                let mut a = arrays.clone();
                a[0] = logits;
                reference(&case.params, &mut a);
                a
            };
            let objective = |i: usize, by: f64| -> f64 {
                let mut logits = arrays[0].clone();
                logits[i] += by;
                let a = run(logits);
                a[5].iter().zip(&a[3]).map(|(loss, dy)| loss * dy).sum()
            };
            let got = run(arrays[0].clone()).swap_remove(7);
            for (i, got) in got.into_iter().enumerate() {
                let want = (objective(i, 1e-5) - objective(i, -1e-5)) / 2e-5;
                assert!(
                    (got - want).abs() < 1e-6 * (1.0 + want.abs()),
                    "{} {i}: {got} is not {want}",
                    case.params
                );
            }
        }
    }
}
