//! Cross-entropy of rows whose classes are spread over ranks, from the sums `(S, z, u)` of all of them
//! ([`vocab_sums`](super::vocab_sums)), and its gradient. With label y, smoothing s over V classes and m
//! the largest logit: `loss = ln S - (1 - s) z - s / V u`, and for a rank's classes
//! `dx_c = up (exp(x_c - m) / S - (1 - s) [c = y] - s / V)`.
//!
//! The values are those of [`cross_entropy`](super::cross_entropy): smoothing as PyTorch has it, over
//! the whole vocabulary. A label equal to `IGNORE` gives loss and gradient 0, another that is not below
//! V gives NaN.
//!
//! Params: `T` rows, `C` classes of this rank, `FIRST` of them, `VOCAB` classes in all, `IGNORE`,
//! `SMOOTHING`. Switches: `D_LOGITS` (y is the gradient instead of the loss), with it `DY` (up is given),
//! `DY_ONE` (one for all rows), `TOTAL` (up is divided by it).

use std::ops::Range;

use super::label_weight::labels;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "vocab_cross_entropy",
    bindings: &[
        Binding::new("labels", Access::Read),
        Binding::new("sums", Access::Read),
        Binding::optional("logits", Access::Read),
        Binding::optional("largest", Access::Read),
        Binding::optional("dy", Access::Read),
        Binding::optional("total", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C", "FIRST", "VOCAB", "IGNORE", "SMOOTHING"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call that gives the loss.
pub fn params(rows: usize, vocab: usize, ignore: i32, smoothing: f32) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("VOCAB", vocab as u32)
        .u32("IGNORE", ignore as u32)
        .f32("SMOOTHING", smoothing)
}

/// Parameters of one that gives the gradient by the logits of a rank's classes; `DY`, `DY_ONE` and
/// `TOTAL` are off.
pub fn backward_params(
    rows: usize,
    classes: Range<usize>,
    vocab: usize,
    ignore: i32,
    smoothing: f32,
) -> Params {
    params(rows, vocab, ignore, smoothing)
        .u32("C", classes.len() as u32)
        .u32("FIRST", classes.start as u32)
        .bool("D_LOGITS", true)
}

/// Elements of y in a row.
fn width(p: &Params) -> usize {
    if p.is("D_LOGITS") { p.size("C") } else { 1 }
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("T") * width(p) as u32;
    vec![Variant::new("elements", fold(elements.div_ceil(64), limits)).set("WG", 64)]
}

/// What `value` of a row with this label is.
fn held(p: &Params, label: u32, value: impl FnOnce() -> f64) -> f64 {
    match label {
        label if label == p.get("IGNORE") => 0.0,
        label if label >= p.get("VOCAB") => f64::NAN,
        _ => value(),
    }
}

/// Shares of the label and of every class in the target.
fn shares(p: &Params) -> (f64, f64) {
    let smoothing = f64::from(p.number("SMOOTHING"));
    (1.0 - smoothing, smoothing / f64::from(p.get("VOCAB")))
}

fn cpu(d: &CpuDispatch<'_>) {
    let (p, (hard, soft)) = (d.params, shares(d.params));
    let (labels, sums) = (d.u32(0), d.f32(1));
    let (labels, sums) = (&*labels, &*sums);
    let sum = |t: usize, i: usize| f64::from(sums[3 * t + i]);
    let mut y = d.f32_mut(6);
    if !p.is("D_LOGITS") {
        return cpu::for_each_row(&mut y, 1, p.size("T"), |t, y| {
            let loss = || sum(t, 0).ln() - hard * sum(t, 1) - soft * sum(t, 2);
            y[0] = held(p, labels[t], loss) as f32;
        });
    }
    let input = |binding: usize| d.has(binding).then(|| d.f32(binding));
    let (logits, largest, dy) = (d.f32(2), d.f32(3), input(4));
    let (logits, largest, dy) = (&*logits, &*largest, dy.as_deref());
    let total = input(5).map_or(1.0, |t| f64::from(t[0]));
    let (classes, one) = (width(p), p.is("DY_ONE"));
    cpu::for_each_row(&mut y, classes, p.size("T"), |t, y| {
        let up = dy.map_or(1.0, |dy| f64::from(dy[if one { 0 } else { t }])) / total;
        let row = &logits[t * classes..][..classes];
        for (c, (y, x)) in (p.get("FIRST")..).zip(y.iter_mut().zip(row)) {
            let own = if c == labels[t] { hard } else { 0.0 };
            let e = || f64::from((x - largest[t]).exp());
            *y = held(p, labels[t], || up * (e() / sum(t, 0) - own - soft)) as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let ((hard, soft), width) = (shares(p), width(p));
    let mut y = vec![0.0; p.size("T") * width];
    for (i, y) in y.iter_mut().enumerate() {
        let (t, c) = (i / width, p.size("FIRST") + i % width);
        let label = arrays[0][t] as u32;
        let sums = &arrays[1][3 * t..3 * t + 3];
        if !p.is("D_LOGITS") {
            *y = held(p, label, || sums[0].ln() - hard * sums[1] - soft * sums[2]);
            continue;
        }
        let mut up = match (p.is("DY"), p.is("DY_ONE")) {
            (true, true) => arrays[4][0],
            (true, false) => arrays[4][t],
            _ => 1.0,
        };
        if p.is("TOTAL") {
            up /= arrays[5][0];
        }
        let own = if c == label as usize { hard } else { 0.0 };
        let probability = (arrays[2][i] - arrays[3][t]).exp() / sums[0];
        *y = held(p, label, || up * (probability - own - soft));
    }
    arrays[6] = y;
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        loss_case(1, 1, 0.0),
        loss_case(9, 37, 0.1),
        loss_case(300, 1031, 0.0),
    ];
    // rows, first class, this rank's classes, all
    for (i, (rows, first, classes, vocab, smoothing)) in [
        (1, 0, 1, 1, 0.0),
        (9, 31, 6, 37, 0.1),
        (33, 514, 257, 1031, 0.0),
        (7, 3, 300, 5000, 0.2),
    ]
    .into_iter()
    .enumerate()
    {
        for (dy, one, total) in [
            (false, false, false),
            (true, false, false),
            (true, true, true),
        ] {
            let params = backward_params(rows, first..first + classes, vocab, -100, smoothing);
            let ups = if one { 1 } else { rows };
            let mut case = loss_case(rows, vocab, smoothing);
            case.params = params
                .bool("DY", dy)
                .bool("DY_ONE", one)
                .bool("TOTAL", total);
            case.arrays[2] = Some(HostArray::random(3 + i as u64, &[rows, classes]));
            case.arrays[3] = Some(HostArray::f32(&[rows], &vec![20.0; rows]));
            case.arrays[4] = dy.then(|| HostArray::random(4, &[ups]));
            case.arrays[5] = total.then(|| HostArray::f32(&[1], &[7.5]));
            case.arrays[6] = Some(HostArray::zeros(&[rows, classes]));
            cases.push(case);
        }
    }
    cases
}

fn loss_case(rows: usize, vocab: usize, smoothing: f32) -> Case {
    let mut labels = labels(rows, vocab, -100);
    if rows > 2 {
        labels[rows / 2] = vocab as u32;
    }
    let sums = (0..rows).flat_map(|t| [1.0 + t as f32, -0.1 * t as f32, -2.0 * t as f32]);
    let sums: Vec<f32> = sums.collect();
    let mut arrays = vec![
        Some(HostArray::u32(&[rows], &labels)),
        Some(HostArray::f32(&[rows, 3], &sums)),
    ];
    arrays.resize(6, None);
    arrays.push(Some(HostArray::zeros(&[rows])));
    Case {
        params: params(rows, vocab, -100, smoothing),
        arrays,
        bound: 1e-11,
    }
}
