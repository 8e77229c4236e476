//! Gradient of RMSNorm and LayerNorm by their input:
//! `dx = rstd (g - mean g - n mean(g n))`, `g = dy weight`, `n = (x - mean x) rstd`; RMSNorm takes the
//! means of x and g as 0. The mean and rstd of each row are left for
//! [`norm_backward_weight`](super::norm_backward_weight).
//!
//! Params: `T` rows, `C` columns, `EPS`. Switches: `CENTERED` (LayerNorm), `WEIGHT`, `STATS`.

use super::axis::row_variants;
use super::norm::moments;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "norm_backward",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("weight", Access::Read),
        Binding::new("dy", Access::Read),
        Binding::new("dx", Access::Write),
        Binding::optional("stats", Access::Write),
    ],
    uniforms: &["T"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call with all switches off.
pub fn params(rows: usize, columns: usize, eps: f32) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("C", columns as u32)
        .f32("EPS", eps)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (rows, columns, eps) = (p.size("T"), p.size("C"), p.number("EPS"));
    let centered = p.is("CENTERED");
    let (x, dy) = (d.f32(0), d.f32(2));
    let weight = d.has(1).then(|| d.f32(1));
    let (x, dy, weight) = (&*x, &*dy, weight.as_deref());
    cpu::for_each_row(&mut d.f32_mut(3), columns, rows, |t, dx| {
        let x = &x[t * columns..][..columns];
        let (mean, rstd) = moments(x, centered, eps);
        dx.copy_from_slice(&dy[t * columns..][..columns]);
        if let Some(weight) = weight {
            dx.iter_mut().zip(weight).for_each(|(g, w)| *g *= w);
        }
        let (mut level, mut along) = (0.0, 0.0);
        for (g, x) in dx.iter().zip(x) {
            level += f64::from(*g);
            along += f64::from(*g) * (f64::from(*x) - mean) * rstd;
        }
        level = if centered {
            level / columns as f64
        } else {
            0.0
        };
        along /= columns as f64;
        for (g, x) in dx.iter_mut().zip(x) {
            let n = (f64::from(*x) - mean) * rstd;
            *g = (rstd * (f64::from(*g) - level - n * along)) as f32;
        }
    });
    if d.has(4) {
        for (t, stats) in d.f32_mut(4).chunks_exact_mut(2).take(rows).enumerate() {
            let (mean, rstd) = moments(&x[t * columns..][..columns], centered, eps);
            stats.copy_from_slice(&[mean as f32, rstd as f32]);
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    let mean_of = |v: &[f64]| v.iter().sum::<f64>() / columns as f64;
    for t in 0..p.size("T") {
        let row = t * columns..(t + 1) * columns;
        let x = arrays[0][row.clone()].to_vec();
        let mut g = arrays[2][row.clone()].to_vec();
        if p.is("WEIGHT") {
            for c in 0..columns {
                g[c] *= arrays[1][c];
            }
        }
        let mut mean = 0.0;
        let mut level = 0.0;
        if p.is("CENTERED") {
            mean = mean_of(&x);
            level = mean_of(&g);
        }
        let squares: Vec<f64> = x.iter().map(|x| (x - mean).powi(2)).collect();
        let rstd = 1.0 / (mean_of(&squares) + f64::from(p.number("EPS"))).sqrt();
        let n: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let products: Vec<f64> = g.iter().zip(&n).map(|(g, n)| g * n).collect();
        let along = mean_of(&products);
        for (c, i) in row.enumerate() {
            arrays[3][i] = rstd * (g[c] - level - n[c] * along);
        }
        if p.is("STATS") {
            arrays[4][2 * t] = mean;
            arrays[4][2 * t + 1] = rstd;
        }
    }
}

fn cases() -> Vec<Case> {
    let all = ["CENTERED", "WEIGHT", "STATS"];
    vec![
        case_of(1, 7, &all),
        case_of(2, 255, &["WEIGHT", "STATS"]),
        case_of(9, 257, &["WEIGHT"]),
        case_of(3, 300, &[]),
        case_of(3, 64, &["CENTERED"]),
        case_of(5, 257, &["CENTERED", "WEIGHT"]),
        case_of(11, 1031, &all),
    ]
}

fn case_of(rows: usize, columns: usize, switches: &[&'static str]) -> Case {
    let mut params = params(rows, columns, 1e-5);
    for switch in switches {
        params = params.bool(switch, true);
    }
    let array = |on, array| params.is(on).then_some(array);
    Case {
        arrays: vec![
            Some(HostArray::random(1, &[rows, columns])),
            array("WEIGHT", HostArray::random(2, &[columns])),
            Some(HostArray::random(3, &[rows, columns])),
            Some(HostArray::zeros(&[rows, columns])),
            array("STATS", HostArray::zeros(&[rows, 2])),
        ],
        params,
        bound: 1e-10,
    }
}

#[cfg(test)]
mod tests {
    use super::super::norm;
    use super::*;

    /// The derivative of `sum(dy * norm(x))` by finite differences, against the reference.
    fn check(switches: &[&'static str]) {
        let case = case_of(2, 13, switches);
        let arrays: Vec<Vec<f64>> = (case.arrays.iter())
            .map(|a| a.as_ref().map_or(Vec::new(), HostArray::to_f64))
            .collect();
        let mut got = arrays.clone();
        reference(&case.params, &mut got);
        let mut forward = norm::params(2, 13, 1e-5, 0);
        for switch in ["CENTERED", "WEIGHT"] {
            forward = forward.bool(switch, case.params.is(switch));
        }
        let objective = |x: &[f64]| -> f64 {
            let none = Vec::new();
            let mut a = vec![x.to_vec(), arrays[1].clone(), none.clone(), none.clone()];
            a.extend([vec![0.0; 26], none.clone(), none.clone(), none]);
            (norm::KERNEL.reference)(&forward, &mut a);
            a[4].iter().zip(&arrays[2]).map(|(y, dy)| y * dy).sum()
        };
        for i in 0..26 {
            let moved = |by: f64| {
                let mut x = arrays[0].clone();
                x[i] += by;
                objective(&x)
            };
            let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (got[3][i] - want).abs() < 1e-6 * (1.0 + want.abs()),
                "{switches:?} {i}: {} is not {want}",
                got[3][i]
            );
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        check(&["WEIGHT"]);
        check(&["CENTERED", "WEIGHT"]);
        check(&["CENTERED"]);
    }
}
