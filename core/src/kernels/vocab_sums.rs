//! What a rank that holds some classes of the vocabulary knows of each row's cross-entropy. With the
//! label y and m the largest logit of all ranks' classes, row t gives
//! `(sum_c exp(x_c - m), x_y - m, sum_c (x_c - m))`; the second is 0 where the rank does not hold y.
//!
//! Summed over ranks they are what [`vocab_cross_entropy`](super::vocab_cross_entropy) needs
//! (Megatron-LM, arXiv:1909.08053, section 3).
//!
//! Params: `T` rows, `C` classes of this rank, `FIRST` of them in the vocabulary. Switch: `SMOOTH`
//! (the third is wanted, else it is 0).

use super::axis::row_variants;
use super::label_weight::labels;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "vocab_sums",
    bindings: &[
        Binding::new("logits", Access::Read),
        Binding::new("labels", Access::Read),
        Binding::new("largest", Access::Read),
        Binding::new("sums", Access::Write),
    ],
    uniforms: &["T", "C", "FIRST"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call for classes `first .. first + classes`.
pub fn params(rows: usize, classes: usize, first: usize, smoothing: f32) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("C", classes as u32)
        .u32("FIRST", first as u32)
        .switch("SMOOTH", smoothing != 0.0)
}

/// A row's three sums; `exp` is of the caller's precision.
fn row_sums(
    p: &Params,
    row: impl Iterator<Item = f64> + Clone,
    label: u32,
    exp: fn(f64) -> f64,
) -> [f64; 3] {
    let held = label.checked_sub(p.get("FIRST"));
    let target = held.and_then(|y| row.clone().nth(y as usize));
    let all = if p.is("SMOOTH") {
        row.clone().sum()
    } else {
        0.0
    };
    [row.map(exp).sum(), target.unwrap_or(0.0), all]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (p, classes) = (d.params, d.params.size("C"));
    let (logits, labels, largest) = (d.f32(0), d.u32(1), d.f32(2));
    let (logits, labels, largest) = (&*logits, &*labels, &*largest);
    cpu::for_each_row(&mut d.f32_mut(3), 3, p.size("T"), |t, sums| {
        let row = &logits[t * classes..][..classes];
        let row = row.iter().map(|x| f64::from(x - largest[t]));
        let exp = |x: f64| f64::from((x as f32).exp());
        for (to, sum) in sums.iter_mut().zip(row_sums(p, row, labels[t], exp)) {
            *to = sum as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let classes = p.size("C");
    for t in 0..p.size("T") {
        let row = arrays[0][t * classes..][..classes].iter();
        let row = row.map(|x| x - arrays[2][t]);
        let sums = row_sums(p, row, arrays[1][t] as u32, f64::exp);
        arrays[3][3 * t..3 * t + 3].copy_from_slice(&sums);
    }
}

fn cases() -> Vec<Case> {
    // rows, this rank's classes, the first of them, all
    [
        (1, 1, 0, 1, 0.0),
        (9, 37, 0, 37, 0.1),
        (9, 6, 31, 37, 0.1),
        (33, 257, 514, 1031, 0.0),
        (5, 1031, 3, 5000, 0.2),
        (5000, 5, 10, 15, 0.2),
    ]
    .into_iter()
    .map(|(rows, classes, first, vocab, smoothing)| Case {
        params: params(rows, classes, first, smoothing),
        arrays: vec![
            Some(HostArray::random(1, &[rows, classes])),
            Some(HostArray::u32(&[rows], &labels(rows, vocab, -100))),
            Some(HostArray::f32(&[rows], &vec![20.0; rows])),
            Some(HostArray::zeros(&[rows, 3])),
        ],
        bound: 1e-10,
    })
    .collect()
}
