//! GroupSoftmax cross-entropy along an axis and its gradient. With the group g of a row's label,
//! `p = softmax(x)` and `P = sum of p over g's classes`: `loss = -ln P`,
//! `dx_c = up p_c (P - 1) / (P + eps)` for c in g, `up p_c` for the others. Where each class is a group
//! of its own, that is cross-entropy, but for eps.
//!
//! A label equal to `IGNORE` gives loss and gradient 0, another that is not below C gives NaN. A class
//! whose group is negative (as u32) belongs to the background group 0.
//!
//! Params: `T` rows, `C` classes, `INNER` (see [`Axis`]), `IGNORE`, `EPS`. Switches: `DY` (up is given)
//! and `DY_ONE` (one for all rows), `TOTAL` (up is divided by it), `LOSS`, `D_LOGITS` (what is wanted).

use super::axis::row_variants;
use super::label_weight::labels;
use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "group_cross_entropy",
    bindings: &[
        Binding::new("logits", Access::Read),
        Binding::new("labels", Access::Read),
        Binding::new("groups", Access::Read),
        Binding::optional("dy", Access::Read),
        Binding::optional("total", Access::Read),
        Binding::optional("loss", Access::Write),
        Binding::optional("d_logits", Access::Write),
    ],
    uniforms: &["T", "C", "INNER", "IGNORE", "EPS"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with all switches off.
pub fn params(axis: Axis, ignore: i32, eps: f32) -> Params {
    axis.params().u32("IGNORE", ignore as u32).f32("EPS", eps)
}

fn group_of(group: u32) -> u32 {
    if group >= 1 << 31 { 0 } else { group }
}

/// What a row's gradient needs.
#[derive(Clone, Copy, Default)]
struct Row {
    /// ln(sum(exp x)).
    level: f64,
    /// -ln P.
    loss: f64,
    group: u32,
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (axis, eps) = (Axis::from(p), f64::from(p.number("EPS")));
    let (logits, labels, groups) = (d.f32(0), d.u32(1), d.u32(2));
    let (logits, labels, groups) = (&*logits, &*labels, &*groups);
    let mut rows = vec![Row::default(); axis.rows()];
    cpu::for_each_chunk(&mut rows, 16, |chunk, rows| {
        for (i, row) in rows.iter_mut().enumerate() {
            let t = 16 * chunk + i;
            row.group = group_of(groups[labels[t].min(p.get("C") - 1) as usize]);
            let first = axis.at(t, 0);
            let x = || logits[first..].iter().step_by(axis.inner).zip(groups);
            let x = || x().take(axis.len);
            let log_sum = |group: Option<u32>| {
                let inside = |x: &(&f32, &u32)| group.is_none_or(|g| group_of(*x.1) == g);
                let largest = x().filter(inside).fold(f32::MIN, |a, x| a.max(*x.0));
                let terms = x().filter(inside).map(|x| f64::from((x.0 - largest).exp()));
                f64::from(largest) + terms.sum::<f64>().ln()
            };
            row.level = log_sum(None);
            row.loss = row.level - log_sum(Some(row.group));
        }
    });
    let nothing = |t: usize| match labels[t] {
        label if label == p.get("IGNORE") => Some(0.0),
        label if label as usize >= axis.len => Some(f32::NAN),
        _ => None,
    };
    if d.has(5) {
        for (t, loss) in d.f32_mut(5)[..axis.rows()].iter_mut().enumerate() {
            *loss = nothing(t).unwrap_or(rows[t].loss as f32);
        }
    }
    if d.has(6) {
        let total = if d.has(4) {
            f64::from(d.f32(4)[0])
        } else {
            1.0
        };
        let (dy, one) = (d.has(3).then(|| d.f32(3)), p.is("DY_ONE"));
        let dy = dy.as_deref();
        let up = |t: usize| dy.map_or(1.0, |dy| f64::from(dy[if one { 0 } else { t }])) / total;
        let block = axis.len * axis.inner;
        cpu::for_each_row(&mut d.f32_mut(6), block, axis.outer, |outer, out| {
            for (i, out) in out.iter_mut().enumerate() {
                let (t, c) = (outer * axis.inner + i % axis.inner, i / axis.inner);
                let (row, own) = (rows[t], (-rows[t].loss).exp());
                let p = (f64::from(logits[axis.at(t, c)]) - row.level).exp();
                let slope = match group_of(groups[c]) == row.group {
                    true => p * (own - 1.0) / (own + eps),
                    false => p,
                };
                *out = nothing(t).unwrap_or((up(t) * slope) as f32);
            }
        });
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis::from(p);
    let group = |c: usize, groups: &[f64]| match groups[c] {
        group if group >= f64::from(1u32 << 31) => 0.0,
        group => group,
    };
    for t in 0..axis.rows() {
        let x: Vec<f64> = (0..axis.len).map(|c| arrays[0][axis.at(t, c)]).collect();
        let largest = x.iter().fold(f64::MIN, |a, b| a.max(*b));
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        let probability: Vec<f64> = x.iter().map(|x| (x - largest).exp() / sum).collect();
        let label = arrays[1][t] as usize;
        let nothing = match (label as u32 == p.get("IGNORE"), label >= axis.len) {
            (true, _) => Some(0.0),
            (false, true) => Some(f64::NAN),
            (false, false) => None,
        };
        let inside = |c: usize| group(c, &arrays[2]) == group(label % axis.len, &arrays[2]);
        let inside: Vec<bool> = (0..axis.len).map(inside).collect();
        let own: f64 = (0..axis.len)
            .filter(|c| inside[*c])
            .map(|c| probability[c])
            .sum();
        let mut up = match (p.is("DY"), p.is("DY_ONE")) {
            (true, true) => arrays[3][0],
            (true, false) => arrays[3][t],
            _ => 1.0,
        };
        if p.is("TOTAL") {
            up /= arrays[4][0];
        }
        if p.is("LOSS") {
            arrays[5][t] = nothing.unwrap_or(-own.ln());
        }
        if p.is("D_LOGITS") {
            for c in 0..axis.len {
                let inside = if inside[c] {
                    (own - 1.0) / (own + f64::from(p.number("EPS")))
                } else {
                    1.0
                };
                arrays[6][axis.at(t, c)] = nothing.unwrap_or(up * probability[c] * inside);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let axis = |outer, len, inner| Axis { outer, len, inner };
    vec![
        case_of(axis(1, 1, 1), 1, false, &["LOSS", "D_LOGITS"]),
        case_of(axis(9, 37, 1), 9, false, &["LOSS", "D_LOGITS"]),
        case_of(axis(9, 37, 1), 37, false, &["LOSS"]),
        case_of(axis(3, 5, 6), 3, false, &["D_LOGITS", "DY"]),
        case_of(axis(12, 300, 1), 20, true, &["LOSS", "D_LOGITS"]),
        case_of(
            axis(2, 1031, 3),
            100,
            false,
            &["D_LOGITS", "DY", "DY_ONE", "TOTAL"],
        ),
    ]
}

/// `count` groups, of which every 11th class has none.
fn case_of(axis: Axis, count: usize, wrong: bool, switches: &[&'static str]) -> Case {
    let mut params = params(axis, -100, 1e-5);
    for switch in switches {
        params = params.bool(switch, true);
    }
    let (rows, shape) = (axis.rows(), [axis.outer, axis.len, axis.inner]);
    let mut labels = labels(rows, axis.len, -100);
    if wrong {
        labels[rows / 2] = axis.len as u32;
    }
    let group = |c: usize| {
        if c % 11 == 10 {
            u32::MAX
        } else {
            (c % count) as u32
        }
    };
    let groups: Vec<u32> = (0..axis.len).map(group).collect();
    let array = |on, array| params.is(on).then_some(array);
    let ups = if params.is("DY_ONE") { 1 } else { rows };
    Case {
        arrays: vec![
            Some(HostArray::random(1, &shape)),
            Some(HostArray::u32(&[rows], &labels)),
            Some(HostArray::u32(&[axis.len], &groups)),
            array("DY", HostArray::random(3, &[ups])),
            array("TOTAL", HostArray::f32(&[1], &[7.5])),
            array("LOSS", HostArray::zeros(&[rows])),
            array("D_LOGITS", HostArray::zeros(&shape)),
        ],
        params,
        bound: 1e-9,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cross_entropy;
    use super::*;

    /// Groups of one class each are cross-entropy; eps moves the gradient by less than that.
    #[test]
    fn groups_of_one_class_are_cross_entropy() {
        let axis = Axis::last(4, 10);
        let case = case_of(axis, 10, false, &["LOSS", "D_LOGITS"]);
        let arrays: Vec<Vec<f64>> = (case.arrays.iter())
            .map(|a| a.as_ref().map_or(Vec::new(), HostArray::to_f64))
            .collect();
        let mut grouped = arrays.clone();
        reference(
            &params(axis, -100, 0.0)
                .bool("LOSS", true)
                .bool("D_LOGITS", true),
            &mut grouped,
        );
        let none = Vec::new();
        let mut plain = vec![
            arrays[0].clone(),
            arrays[1].clone(),
            none.clone(),
            none.clone(),
        ];
        plain.extend([none.clone(), vec![0.0; 4], none, vec![0.0; 40]]);
        let call = cross_entropy::params(axis, -100, 0.0, false);
        let call = call.bool("LOSS", true).bool("D_LOGITS", true);
        (cross_entropy::KERNEL.reference)(&call, &mut plain);
        for (a, b) in [(5, 5), (6, 7)] {
            for (g, p) in grouped[a].iter().zip(&plain[b]) {
                assert!((g - p).abs() < 1e-12, "{g} is not {p}");
            }
        }
    }
}
