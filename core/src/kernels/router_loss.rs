//! Losses of a router and their gradient by its logits: the load-balancing loss
//! `AUX sum_t sum_e assigned[e] probs[t, e]` (arXiv:2101.03961, eq. 4), the z-loss
//! `Z sum_t ln(sum_e exp logits[t, e])^2` (arXiv:2202.08906, eq. 5), each token's part.
//!
//! Params: `T` tokens, `E` experts, `AUX`, `Z`. Switches: `SIGMOID`, probs are sigmoids divided by their sum
//! and not softmax; `BACKWARD`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "router_loss",
    bindings: &[
        Binding::new("logits", Access::Read),
        Binding::new("assigned", Access::Read),
        Binding::optional("probs", Access::Write),
        Binding::optional("aux", Access::Write),
        Binding::optional("z", Access::Write),
        Binding::optional("d_logits", Access::Write),
    ],
    uniforms: &["T", "E", "AUX", "Z"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(tokens: usize, experts: usize, [aux, z]: [f32; 2], sigmoid: bool) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("E", experts as u32)
        .f32("AUX", aux)
        .f32("Z", z)
        .bool("SIGMOID", sigmoid)
}

/// The same for the gradient.
pub fn backward(params: Params) -> Params {
    params.bool("BACKWARD", true)
}

/// A row for each token.
pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let tokens = p.get("T");
    let software = limits.kind == DeviceKind::SoftwareGpu;
    let workgroup = Variant::new("workgroup", fold(tokens, limits)).set("WG", 64);
    let size = if software { 8 } else { 64 };
    let serial = Variant::new("serial", fold(tokens.div_ceil(size), limits))
        .set("WG", size)
        .flag("SERIAL");
    if software {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

/// What is made of one token's logits.
struct Token {
    probs: Vec<f64>,
    softmax: Vec<f64>,
    mean: f64,
    log_sum: f64,
}

impl Token {
    fn of(logits: &[f64], assigned: &[f64], is_sigmoid: bool) -> Self {
        let largest = logits.iter().fold(f64::MIN, |a, b| a.max(*b));
        let exp: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
        let sum: f64 = exp.iter().sum();
        let softmax: Vec<f64> = exp.iter().map(|e| e / sum).collect();
        let probs = match is_sigmoid {
            true => {
                let scores: Vec<f64> = logits.iter().map(|l| sigmoid(*l)).collect();
                let sum = scores.iter().sum::<f64>() + 1e-20;
                scores.iter().map(|s| s / sum).collect()
            }
            false => softmax.clone(),
        };
        Token {
            mean: probs.iter().zip(assigned).map(|(p, n)| p * n).sum(),
            log_sum: largest + sum.ln(),
            probs,
            softmax,
        }
    }

    /// The gradient by logit `e`.
    fn slope(&self, e: usize, logit: f64, assigned: f64, p: &Params) -> f64 {
        let own = match p.is("SIGMOID") {
            true => sigmoid(-logit),
            false => 1.0,
        };
        let aux = f64::from(p.number("AUX")) * self.probs[e] * own * (assigned - self.mean);
        aux + 2.0 * f64::from(p.number("Z")) * self.log_sum * self.softmax[e]
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (tokens, count) = (p.size("T"), p.size("E"));
    let logits = d.f32(0);
    let logits = &*logits;
    let assigned: Vec<f64> = d.u32(1)[..count].iter().map(|n| f64::from(*n)).collect();
    let token = |t: usize| {
        let row: Vec<f64> = logits[t * count..][..count]
            .iter()
            .map(|l| f64::from(*l))
            .collect();
        let token = Token::of(&row, &assigned, p.is("SIGMOID"));
        (row, token)
    };
    if p.is("BACKWARD") {
        cpu::for_each_row(&mut d.f32_mut(5), count, tokens, |t, d_logits| {
            let (row, token) = token(t);
            for (e, d) in d_logits.iter_mut().enumerate() {
                *d = token.slope(e, row[e], assigned[e], p) as f32;
            }
        });
        return;
    }
    cpu::for_each_row(&mut d.f32_mut(2), count, tokens, |t, probs| {
        for (to, prob) in probs.iter_mut().zip(token(t).1.probs) {
            *to = prob as f32;
        }
    });
    cpu::for_each_row(&mut d.f32_mut(3), 1, tokens, |t, aux| {
        aux[0] = (f64::from(p.number("AUX")) * token(t).1.mean) as f32;
    });
    cpu::for_each_row(&mut d.f32_mut(4), 1, tokens, |t, z| {
        z[0] = (f64::from(p.number("Z")) * token(t).1.log_sum.powi(2)) as f32;
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let count = p.size("E");
    for t in 0..p.size("T") {
        let row = arrays[0][t * count..][..count].to_vec();
        let token = Token::of(&row, &arrays[1], p.is("SIGMOID"));
        if p.is("BACKWARD") {
            for e in 0..count {
                arrays[5][t * count + e] = token.slope(e, row[e], arrays[1][e], p);
            }
            continue;
        }
        arrays[3][t] = f64::from(p.number("AUX")) * token.mean;
        arrays[4][t] = f64::from(p.number("Z")) * token.log_sum * token.log_sum;
        arrays[2][t * count..][..count].copy_from_slice(&token.probs);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, experts) in [(1, 1), (23, 8), (5, 131), (70, 3)] {
        for is_sigmoid in [false, true] {
            for is_backward in [false, true] {
                let params = params(tokens, experts, [0.3, 0.1], is_sigmoid);
                let all = [tokens, experts];
                let counts: Vec<u32> = (0..experts as u32).map(|e| e * 7 % 11).collect();
                let result =
                    |is_there: bool, shape: &[usize]| is_there.then(|| HostArray::zeros(shape));
                cases.push(Case {
                    params: if is_backward {
                        backward(params)
                    } else {
                        params
                    },
                    arrays: vec![
                        Some(HostArray::random(1, &all)),
                        Some(HostArray::u32(&[experts], &counts)),
                        result(!is_backward, &all),
                        result(!is_backward, &[tokens]),
                        result(!is_backward, &[tokens]),
                        result(is_backward, &all),
                    ],
                    bound: 1e-10,
                });
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_what_small_steps_give() {
        let logits = [0.3, -1.2, 2.0, 0.7];
        let assigned = [3.0, 0.0, 5.0, 1.0];
        for is_sigmoid in [false, true] {
            let p = params(1, 4, [0.25, 0.5], is_sigmoid);
            let loss = |logits: &[f64]| {
                let token = Token::of(logits, &assigned, is_sigmoid);
                0.25 * token.mean + 0.5 * token.log_sum.powi(2)
            };
            let token = Token::of(&logits, &assigned, is_sigmoid);
            for e in 0..4 {
                let moved = |step: f64| {
                    let mut moved = logits;
                    moved[e] += step;
                    loss(&moved)
                };
                let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let got = token.slope(e, logits[e], assigned[e], &p);
                assert!((got - want).abs() < 1e-8, "{got} and {want}");
            }
        }
    }
}
