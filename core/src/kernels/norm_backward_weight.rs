//! Gradients of RMSNorm and LayerNorm by weight and bias:
//! `d_weight[c] = sum_t dy[t, c] (x[t, c] - mean[t]) rstd[t]`, `d_bias[c] = sum_t dy[t, c]`.
//!
//! Params: `T` rows, `C` columns. Switch: `BIAS`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "norm_backward_weight",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("dy", Access::Read),
        Binding::new("stats", Access::Read),
        Binding::new("d_weight", Access::Write),
        Binding::optional("d_bias", Access::Write),
    ],
    uniforms: &["T", "C"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(rows: usize, columns: usize, bias: bool) -> Params {
    Params::new()
        .u32("T", rows as u32)
        .u32("C", columns as u32)
        .bool("BIAS", bias)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = fold(p.get("C").div_ceil(64), limits);
    vec![Variant::new("columns", groups).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("C"));
    let (x, dy, stats) = (d.f32(0), d.f32(1), d.f32(2));
    let (x, dy, stats) = (&*x, &*dy, &*stats);
    // A block of columns at a time, so that rows are read in order.
    let sums = |out: &mut [f32], term: &(dyn Fn(usize, usize) -> f64 + Sync)| {
        cpu::for_each_chunk(&mut out[..columns], 256, |block, out| {
            let mut sums = vec![0.0; out.len()];
            for t in 0..rows {
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum += term(t, t * columns + block * 256 + c);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum as f32;
            }
        });
    };
    sums(&mut d.f32_mut(3), &|t, i| {
        f64::from(dy[i]) * f64::from((x[i] - stats[2 * t]) * stats[2 * t + 1])
    });
    if d.has(4) {
        sums(&mut d.f32_mut(4), &|_, i| f64::from(dy[i]));
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("C");
    for c in 0..columns {
        let (mut by_weight, mut by_bias) = (0.0, 0.0);
        for t in 0..p.size("T") {
            let i = t * columns + c;
            let (mean, rstd) = (arrays[2][2 * t], arrays[2][2 * t + 1]);
            by_weight += arrays[1][i] * (arrays[0][i] - mean) * rstd;
            by_bias += arrays[1][i];
        }
        arrays[3][c] = by_weight;
        if p.is("BIAS") {
            arrays[4][c] = by_bias;
        }
    }
}

fn cases() -> Vec<Case> {
    [
        (1, 1, false),
        (3, 63, true),
        (17, 65, false),
        (130, 257, true),
    ]
    .into_iter()
    .map(|(rows, columns, bias)| Case {
        params: params(rows, columns, bias),
        arrays: vec![
            Some(HostArray::random(1, &[rows, columns])),
            Some(HostArray::random(2, &[rows, columns])),
            Some(HostArray::random(3, &[rows, 2])),
            Some(HostArray::zeros(&[columns])),
            bias.then(|| HostArray::zeros(&[columns])),
        ],
        bound: 1e-10,
    })
    .collect()
}
