//! RMSNorm (arXiv:1910.07467), LayerNorm (arXiv:1607.06450) and GroupNorm (arXiv:1803.08494), each
//! optionally of a sum, `v = x + residual`, which it can write too:
//! `y = (v - mean v) / sqrt(mean (v - mean v)^2 + eps) * weight + bias`; RMSNorm takes the mean of v
//! as 0.
//!
//! Params: `T` rows, `C` elements of a row, `EPS`, `FIRST` row of x to read; `GROUPS` and `SPATIAL`
//! (elements of a channel) are 1 but for group norm, where row t is group `t % GROUPS`. Switches:
//! `CENTERED` (subtract the mean), `WEIGHT`, `BIAS`, `RESIDUAL`, `SUM`, `MEAN`, `RSTD`.

use super::axis::row_variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "norm",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("weight", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::optional("residual", Access::Read),
        Binding::new("y", Access::Write),
        Binding::optional("sum", Access::Write),
        Binding::optional("mean", Access::Write),
        Binding::optional("rstd", Access::Write),
    ],
    uniforms: &["T", "FIRST"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with all switches off: RMSNorm without weight.
pub fn params(rows: usize, columns: usize, eps: f32, first: usize) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("C", columns as u32)
        .f32("EPS", eps)
        .u32("FIRST", first as u32)
        .u32("GROUPS", 1)
        .u32("SPATIAL", 1)
}

/// Mean and 1 / standard deviation of a row; f64: as exact as the recorded references, and not
/// what costs time here.
pub(super) fn moments(v: &[f32], centered: bool, eps: f32) -> (f64, f64) {
    let len = v.len() as f64;
    let mean = if centered {
        v.iter().map(|v| f64::from(*v)).sum::<f64>() / len
    } else {
        0.0
    };
    let squares: f64 = v.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
    (mean, 1.0 / (squares / len + f64::from(eps)).sqrt())
}

/// RMSNorm of a row in place, as the kernel has it.
pub(crate) fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) {
    let scale = moments(row, false, eps).1 as f32;
    row.iter_mut()
        .zip(weight)
        .for_each(|(x, w)| *x = *x * scale * w);
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (columns, eps, first, rows) = (p.size("C"), p.number("EPS"), p.size("FIRST"), p.size("T"));
    let (groups, spatial, centered) = (p.size("GROUPS"), p.size("SPATIAL"), p.is("CENTERED"));
    let input = |binding: usize| d.has(binding).then(|| d.f32(binding));
    let (x, weight, bias, residual) = (d.f32(0), input(1), input(2), input(3));
    let (x, weight) = (&*x, weight.as_deref());
    let (bias, residual) = (bias.as_deref(), residual.as_deref());
    let values = |t: usize, v: &mut [f32]| {
        let row = (first + t) * columns..(first + t + 1) * columns;
        v.copy_from_slice(&x[row.clone()]);
        if let Some(residual) = residual {
            v.iter_mut().zip(&residual[row]).for_each(|(v, r)| *v += r);
        }
    };
    let channels = columns / spatial;
    cpu::for_each_row(&mut d.f32_mut(4), columns, rows, |t, y| {
        values(t, y);
        let (mean, scale) = moments(y, centered, eps);
        let (mean, scale) = (mean as f32, scale as f32);
        let first = t % groups * channels;
        // RMSNorm of models, for SIMD.
        if let (1, Some(weight), None) = (spatial, weight, bias) {
            let row = y.iter_mut().zip(&weight[first..]);
            return row.for_each(|(y, w)| *y = (*y - mean) * scale * w);
        }
        for (k, y) in y.chunks_mut(spatial).enumerate() {
            let weight = weight.map_or(1.0, |w| w[first + k]);
            let bias = bias.map_or(0.0, |b| b[first + k]);
            y.iter_mut()
                .for_each(|y| *y = (*y - mean) * scale * weight + bias);
        }
    });
    if d.has(5) {
        cpu::for_each_row(&mut d.f32_mut(5), columns, rows, values);
    }
    if d.has(6) || d.has(7) {
        let mut v = vec![0.0; columns];
        for t in 0..rows {
            values(t, &mut v);
            let (mean, scale) = moments(&v, centered, eps);
            if d.has(6) {
                d.f32_mut(6)[t] = mean as f32;
            }
            if d.has(7) {
                d.f32_mut(7)[t] = scale as f32;
            }
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (columns, first) = (p.size("C"), p.size("FIRST"));
    let channels = columns / p.size("SPATIAL");
    for t in 0..p.size("T") {
        let mut v = arrays[0][(first + t) * columns..][..columns].to_vec();
        if p.is("RESIDUAL") {
            for c in 0..columns {
                v[c] += arrays[3][(first + t) * columns + c];
            }
        }
        let mut mean = 0.0;
        if p.is("CENTERED") {
            mean = v.iter().sum::<f64>() / columns as f64;
        }
        let mut variance = 0.0;
        for v in &v {
            variance += (v - mean).powi(2) / columns as f64;
        }
        let rstd = 1.0 / (variance + f64::from(p.number("EPS"))).sqrt();
        for c in 0..columns {
            let k = t % p.size("GROUPS") * channels + c / p.size("SPATIAL");
            let mut y = (v[c] - mean) * rstd;
            if p.is("WEIGHT") {
                y *= arrays[1][k];
            }
            if p.is("BIAS") {
                y += arrays[2][k];
            }
            arrays[4][t * columns + c] = y;
            if p.is("SUM") {
                arrays[5][t * columns + c] = v[c];
            }
        }
        if p.is("MEAN") {
            arrays[6][t] = mean;
        }
        if p.is("RSTD") {
            arrays[7][t] = rstd;
        }
    }
}

fn cases() -> Vec<Case> {
    let rms = ["WEIGHT"].as_slice();
    let layer = ["CENTERED", "WEIGHT", "BIAS"].as_slice();
    let all = [
        "CENTERED", "WEIGHT", "BIAS", "RESIDUAL", "SUM", "MEAN", "RSTD",
    ];
    let mut cases = vec![
        case_of(1, 1, 0, rms),
        case_of(1, 576, 0, rms),
        case_of(2, 255, 1, rms),
        case_of(3, 256, 0, rms),
        case_of(5, 257, 2, rms),
        case_of(9, 1031, 0, rms),
        case_of(3, 300, 0, &[]),
        case_of(4, 257, 1, &["WEIGHT", "RESIDUAL"]),
        case_of(9, 67, 0, &["WEIGHT", "RESIDUAL", "SUM", "RSTD"]),
        case_of(1, 1, 0, layer),
        case_of(2, 255, 1, layer),
        case_of(5, 257, 0, layer),
        case_of(9, 1031, 0, layer),
        case_of(3, 300, 0, &["CENTERED"]),
        case_of(3, 300, 0, &["CENTERED", "BIAS"]),
        case_of(4, 257, 1, &["CENTERED", "WEIGHT", "BIAS", "RESIDUAL"]),
        case_of(9, 67, 2, &all),
    ];
    // (batch, groups, channels of a group, elements of a channel)
    for (batch, groups, channels, spatial) in [(1, 1, 1, 7), (3, 2, 2, 4), (2, 3, 5, 61)] {
        let mut case = case_of(batch * groups, channels * spatial, 0, layer);
        case.params = case
            .params
            .u32("GROUPS", groups as u32)
            .u32("SPATIAL", spatial as u32);
        case.arrays[1] = Some(HostArray::random(2, &[groups * channels]));
        case.arrays[2] = Some(HostArray::random(3, &[groups * channels]));
        cases.push(case);
    }
    cases
}

fn case_of(rows: usize, columns: usize, first: usize, switches: &[&'static str]) -> Case {
    let mut params = params(rows, columns, 1e-5, first);
    for switch in switches {
        params = params.bool(switch, true);
    }
    let array = |on, array| params.is(on).then_some(array);
    Case {
        arrays: vec![
            Some(HostArray::random(1, &[first + rows, columns])),
            array("WEIGHT", HostArray::random(2, &[columns])),
            array("BIAS", HostArray::random(3, &[columns])),
            array("RESIDUAL", HostArray::random(4, &[first + rows, columns])),
            Some(HostArray::zeros(&[rows, columns])),
            array("SUM", HostArray::zeros(&[rows, columns])),
            array("MEAN", HostArray::zeros(&[rows])),
            array("RSTD", HostArray::zeros(&[rows])),
        ],
        params,
        bound: 1e-10,
    }
}
