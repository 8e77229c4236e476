//! Gradients of noisy top-k routing's losses by its clean logits and by what the noise's deviation is
//! made of, from those by importance and load (arXiv:1701.06538, eq. 3 to 11).
//!
//! Params: `T` tokens, `E` experts, `K`, `M` columns of `experts`: K + 1, or K where there are no more experts.

use super::noisy_load::{best, inputs, rival};
use super::noisy_logits::deviation;
use super::router_loss::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "noisy_top_k_backward",
    bindings: &[
        Binding::new("clean", Access::Read),
        Binding::new("raw", Access::Read),
        Binding::new("noisy", Access::Read),
        Binding::new("experts", Access::Read),
        Binding::new("d_importance", Access::Read),
        Binding::new("d_load", Access::Read),
        Binding::new("d_clean", Access::Write),
        Binding::new("d_raw", Access::Write),
    ],
    uniforms: &["T", "E", "K", "M"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(tokens: usize, experts: usize, k: usize) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("E", experts as u32)
        .u32("K", k as u32)
        .u32("M", experts.min(k + 1) as u32)
}

/// One token's numbers.
struct Token<'a> {
    k: usize,
    clean: &'a [f64],
    raw: &'a [f64],
    noisy: &'a [f64],
    best: &'a [usize],
}

impl Token<'_> {
    /// Gradients by the clean logits and by raw.
    fn gradients(&self, d_importance: &[f64], d_load: &[f64]) -> [Vec<f64>; 2] {
        let (count, top) = (self.clean.len(), &self.best[..self.k]);
        let mut d_noisy = vec![0.0; count];
        let largest = self.noisy[top[0]];
        let weights: Vec<f64> = top
            .iter()
            .map(|e| (self.noisy[*e] - largest).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        let parts = top
            .iter()
            .zip(&weights)
            .map(|(e, w)| w / sum * d_importance[*e]);
        let mean: f64 = parts.sum();
        for (e, weight) in top.iter().zip(&weights) {
            d_noisy[*e] = weight / sum * (d_importance[*e] - mean);
        }
        let (mut d_clean, mut d_deviation) = (vec![0.0; count], vec![0.0; count]);
        if self.best.len() > self.k {
            for e in 0..count {
                let (rival, deviation) = (rival(self.best, e), deviation(self.raw[e]));
                let u = (self.clean[e] - self.noisy[rival]) / deviation;
                let density = (-0.5 * u * u).exp() / std::f64::consts::TAU.sqrt();
                let slope = d_load[e] * density / deviation;
                d_clean[e] = slope;
                d_deviation[e] = -slope * u;
                d_noisy[rival] -= slope;
            }
        }
        let d_raw = (0..count).map(|e| {
            let noise = (self.noisy[e] - self.clean[e]) / deviation(self.raw[e]);
            (d_deviation[e] + d_noisy[e] * noise) / (1.0 + (-self.raw[e]).exp())
        });
        let d_raw = d_raw.collect();
        for (d, noisy) in d_clean.iter_mut().zip(d_noisy) {
            *d += noisy;
        }
        [d_clean, d_raw]
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (count, most) = (p.size("E"), p.size("M"));
    let wide = |i: usize, len: usize| -> Vec<f64> {
        d.f32(i)[..len].iter().map(|x| f64::from(*x)).collect()
    };
    let all = p.size("T") * count;
    let [clean, raw, noisy] = [0, 1, 2].map(|i| wide(i, all));
    let [d_importance, d_load] = [4, 5].map(|i| wide(i, count));
    let experts = d.u32(3);
    let experts = &*experts;
    for which in 0..2 {
        cpu::for_each_row(&mut d.f32_mut(6 + which), count, p.size("T"), |t, to| {
            let row = t * count..(t + 1) * count;
            let token = Token {
                k: p.size("K"),
                clean: &clean[row.clone()],
                raw: &raw[row.clone()],
                noisy: &noisy[row],
                best: &best(&experts[t * most..][..most], count),
            };
            let gradients = token.gradients(&d_importance, &d_load);
            for (to, gradient) in to.iter_mut().zip(&gradients[which]) {
                *to = *gradient as f32;
            }
        });
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (count, most) = (p.size("E"), p.size("M"));
    for t in 0..p.size("T") {
        let row = t * count..(t + 1) * count;
        let best: Vec<usize> = (arrays[3][t * most..][..most].iter())
            .map(|e| *e as usize)
            .collect();
        let token = Token {
            k: p.size("K"),
            clean: &arrays[0][row.clone()],
            raw: &arrays[1][row.clone()],
            noisy: &arrays[2][row.clone()],
            best: &best,
        };
        let [d_clean, d_raw] = token.gradients(&arrays[4], &arrays[5]);
        arrays[6][row.clone()].copy_from_slice(&d_clean);
        arrays[7][row].copy_from_slice(&d_raw);
    }
}

fn cases() -> Vec<Case> {
    let case_of = |tokens: usize, count: usize, k: usize| {
        let mut arrays = inputs(tokens, count, count.min(k + 1));
        arrays.push(Some(HostArray::random(4, &[count])));
        arrays.push(Some(HostArray::random(5, &[count])));
        arrays.extend([(); 2].map(|()| Some(HostArray::zeros(&[tokens, count]))));
        Case {
            params: params(tokens, count, k),
            arrays,
            bound: 1e-10,
        }
    };
    vec![
        case_of(1, 1, 1),
        case_of(23, 8, 2),
        case_of(70, 33, 1),
        case_of(5, 4, 4),
    ]
}
