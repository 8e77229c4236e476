//! Gated recurrent unit over whole sequences, one layer and direction; the products with the
//! inputs are computed before, all times at once.
//!
//! Params: those of [`Sequence`], the gates' order `R`, `Z`, `C`, switches `BIAS`, `LENGTHS` (an
//! entry's own number of times; later ones give y = 0), `INIT` (h holds the first state;
//! otherwise it is 0) and `RESET_AFTER` (the reset gate multiplies the product with the state, as
//! in PyTorch and ONNX's `linear_before_reset`; otherwise the state itself).
//!
//! Source: arXiv:1406.1078; PyTorch, `torch.nn.GRU`; ONNX, `GRU`.

use super::sequence::{SIZES, dot, for_each_unit, sigmoid, sigmoid64, variants};
use super::{Access, Binding, Case, HostArray, Kernel, Params, sequence};
use crate::device::cpu::CpuDispatch;

pub use super::sequence::Sequence;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gru",
    bindings: &[
        Binding::new("gates", Access::Read),
        Binding::new("w", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::optional("lengths", Access::Read),
        Binding::new("y", Access::Write),
        Binding::new("h", Access::Write),
        Binding::optional("reset", Access::Write),
    ],
    uniforms: sequence::UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Which part of the gates is reset gate, update gate and candidate.
pub type Order = [u32; 3];

/// PyTorch's order: reset, update, new.
pub const PYTORCH: Order = [0, 1, 2];

/// ONNX's order: update, reset, hidden.
pub const ONNX: Order = [1, 0, 2];

/// Which optional parts a call has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// A bias of the products with the state.
    pub bias: bool,
    /// Lengths of the sequences.
    pub lengths: bool,
    /// A first state.
    pub init: bool,
    /// The reset gate multiplies the product with the state; the binding `reset` is left out.
    pub reset_after: bool,
}

/// Parameters of a call.
pub fn params(sequence: &Sequence, [r, z, c]: Order, parts: Parts) -> Params {
    (sequence.params())
        .u32("R", r)
        .u32("Z", z)
        .u32("C", c)
        .bool("BIAS", parts.bias)
        .bool("LENGTHS", parts.lengths)
        .bool("INIT", parts.init)
        .bool("RESET_AFTER", parts.reset_after)
}

fn order(p: &Params) -> [usize; 3] {
    ["R", "Z", "C"].map(|gate| p.size(gate))
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (s, [r_part, z_part, c_part]) = (Sequence::of(p), order(p));
    let (gates, w) = (d.f32(0), d.f32(1));
    let bias = d.has(2).then(|| d.f32(2));
    let lengths = d.has(3).then(|| d.u32(3));
    let (gates, w, bias) = (&*gates, &*w, bias.as_deref());
    let len_of = |n: usize| {
        lengths
            .as_ref()
            .map_or(s.times, |l| s.times.min(l[n] as usize))
    };
    let lens: Vec<usize> = (0..s.entries).map(len_of).collect();
    let (mut y, mut h) = (d.f32_mut(4), d.f32_mut(5));
    let mut reset = d.has(6).then(|| d.f32_mut(6));
    let (hidden, len) = (s.hidden, s.entries * s.hidden);
    if !p.is("INIT") {
        (0..s.entries).for_each(|n| h[s.state(n)..][..hidden].fill(0.0));
    }
    let mut next = vec![0.0f32; len];
    for step in 0..s.times {
        let last = &*h;
        let product = |row: usize, state: &[f32]| bias.map_or(0.0, |b| b[row]) + dot(w, row, state);
        let of = |n: usize| &last[s.state(n)..][..hidden];
        let gates_of = |n: usize| &gates[s.gates(n, s.time(step, lens[n]))..];
        let gate = |part: usize, n: usize, j: usize| {
            let row = part * hidden + j;
            sigmoid(gates_of(n)[row] + product(row, of(n)))
        };
        if let Some(reset) = &mut reset {
            for_each_unit(&mut reset[..len], hidden, 1, |n, j, reset| {
                if step < lens[n] {
                    *reset = gate(r_part, n, j) * of(n)[j];
                }
            });
        }
        let reset = reset.as_deref();
        for_each_unit(&mut next, hidden, 3, |n, j, next| {
            if step >= lens[n] {
                return;
            }
            let row = c_part * hidden + j;
            let inner = match reset {
                Some(reset) => product(row, &reset[n * hidden..][..hidden]),
                None => gate(r_part, n, j) * product(row, of(n)),
            };
            let candidate = (gates_of(n)[row] + inner).tanh();
            let z = gate(z_part, n, j);
            *next = (1.0 - z) * candidate + z * of(n)[j];
        });
        for (n, &len) in lens.iter().enumerate() {
            let y = &mut y[s.y(n, s.time(step, len))..][..hidden];
            if step >= len {
                y.fill(0.0);
                continue;
            }
            let next = &next[n * hidden..][..hidden];
            h[s.state(n)..][..hidden].copy_from_slice(next);
            y.copy_from_slice(next);
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (s, order) = (Sequence::of(p), order(p));
    let hidden = s.hidden;
    for n in 0..s.entries {
        let len = if p.is("LENGTHS") {
            arrays[3][n] as usize
        } else {
            s.times
        }
        .min(s.times);
        let mut h = vec![0.0; hidden];
        if p.is("INIT") {
            h.copy_from_slice(&arrays[5][s.state(n)..][..hidden]);
        }
        for step in 0..s.times {
            let t = s.time(step, len);
            if step >= len {
                arrays[4][s.y(n, t)..][..hidden].fill(0.0);
                continue;
            }
            let product = |row: usize, state: &[f64]| {
                let bias = if p.is("BIAS") { arrays[2][row] } else { 0.0 };
                let w = &arrays[1][row * hidden..][..hidden];
                bias + w.iter().zip(state).map(|(w, h)| w * h).sum::<f64>()
            };
            let input = |part: usize, j: usize| arrays[0][s.gates(n, t) + order[part] * hidden + j];
            let gate = |part: usize, j: usize| {
                sigmoid64(input(part, j) + product(order[part] * hidden + j, &h))
            };
            let reset: Vec<f64> = (0..hidden).map(|j| gate(0, j)).collect();
            let reset_h: Vec<f64> = reset.iter().zip(&h).map(|(r, h)| r * h).collect();
            let next: Vec<f64> = (0..hidden)
                .map(|j| {
                    let row = order[2] * hidden + j;
                    let inner = match p.is("RESET_AFTER") {
                        true => reset[j] * product(row, &h),
                        false => product(row, &reset_h),
                    };
                    let z = gate(1, j);
                    (1.0 - z) * (input(2, j) + inner).tanh() + z * h[j]
                })
                .collect();
            h = next;
            arrays[4][s.y(n, t)..][..hidden].copy_from_slice(&h);
            if !p.is("RESET_AFTER") {
                arrays[6][n * hidden..][..hidden].copy_from_slice(&reset_h);
            }
        }
        arrays[5][s.state(n)..][..hidden].copy_from_slice(&h);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &(times, entries, hidden, batch_first, reverse)) in SIZES.iter().enumerate() {
        for reset_after in [false, true] {
            let parts = Parts {
                bias: i % 2 == 1,
                lengths: i == 3 || i == 4,
                init: i % 3 == 2,
                reset_after,
            };
            let mut s = Sequence::new(times, entries, hidden, 3 * hidden, batch_first);
            s.reverse = reverse;
            let order = if i % 2 == 0 { PYTORCH } else { ONNX };
            let lengths: Vec<u32> = (0..entries)
                .map(|n| ((3 * n) % (times + 2)) as u32)
                .collect();
            let unit = |seed, shape: &[usize]| HostArray::random(seed, shape);
            cases.push(Case {
                params: params(&s, order, parts),
                arrays: vec![
                    Some(unit(1, &[times * entries, 3 * hidden])),
                    Some(HostArray::scaled(2, &[3 * hidden, hidden], 0.3)),
                    parts.bias.then(|| unit(3, &[3 * hidden])),
                    parts.lengths.then(|| HostArray::u32(&[entries], &lengths)),
                    Some(unit(5, &[times * entries, hidden])),
                    Some(unit(6, &[entries, hidden])),
                    (!reset_after).then(|| unit(7, &[entries, hidden])),
                ],
                bound: 1e-9,
            });
        }
    }
    cases
}
