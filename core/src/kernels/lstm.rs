//! Long short-term memory over whole sequences, one layer and direction; the products with the
//! inputs are computed before, all times at once.
//!
//! Params: those of [`Sequence`], the gates' order `I`, `F`, `G`, `O`, switches `BIAS`,
//! `PEEPHOLE`, `LENGTHS` (an entry's own number of times; later ones give y = 0) and `INIT`
//! (h and c hold the first state; otherwise it is 0).
//!
//! Source: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; PyTorch,
//! `torch.nn.LSTM`; ONNX, `LSTM`.

use super::sequence::{SIZES, dot, for_each_unit, sigmoid, sigmoid64, variants};
use super::{Access, Binding, Case, HostArray, Kernel, Params, sequence};
use crate::device::cpu::CpuDispatch;

pub use super::sequence::Sequence;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "lstm",
    bindings: &[
        Binding::new("gates", Access::Read),
        Binding::new("w", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::optional("peephole", Access::Read),
        Binding::optional("lengths", Access::Read),
        Binding::new("y", Access::Write),
        Binding::new("h", Access::Write),
        Binding::new("c", Access::Write),
    ],
    uniforms: sequence::UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Which part of the gates is input, forget, cell and output gate.
pub type Order = [u32; 4];

/// PyTorch's order: input, forget, cell, output.
pub const PYTORCH: Order = [0, 1, 2, 3];

/// ONNX's order: input, output, forget, cell.
pub const ONNX: Order = [0, 2, 3, 1];

/// Which optional parts a call has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// A bias of the products with the state.
    pub bias: bool,
    /// Weights from the cells to the gates.
    pub peephole: bool,
    /// Lengths of the sequences.
    pub lengths: bool,
    /// A first state.
    pub init: bool,
}

/// Parameters of a call.
pub fn params(sequence: &Sequence, [i, f, g, o]: Order, parts: Parts) -> Params {
    (sequence.params())
        .u32("I", i)
        .u32("F", f)
        .u32("G", g)
        .u32("O", o)
        .bool("BIAS", parts.bias)
        .bool("PEEPHOLE", parts.peephole)
        .bool("LENGTHS", parts.lengths)
        .bool("INIT", parts.init)
}

fn order(p: &Params) -> [usize; 4] {
    ["I", "F", "G", "O"].map(|gate| p.size(gate))
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (s, order) = (Sequence::of(p), order(p));
    let (gates, w) = (d.f32(0), d.f32(1));
    let bias = d.has(2).then(|| d.f32(2));
    let peephole = d.has(3).then(|| d.f32(3));
    let lengths = d.has(4).then(|| d.u32(4));
    let (gates, w, bias, peephole) = (&*gates, &*w, bias.as_deref(), peephole.as_deref());
    let len_of = |n: usize| {
        lengths
            .as_ref()
            .map_or(s.times, |l| s.times.min(l[n] as usize))
    };
    let lens: Vec<usize> = (0..s.entries).map(len_of).collect();
    let (mut y, mut h, mut c) = (d.f32_mut(5), d.f32_mut(6), d.f32_mut(7));
    let hidden = s.hidden;
    if !p.is("INIT") {
        for n in 0..s.entries {
            h[s.state(n)..][..hidden].fill(0.0);
            c[s.state(n)..][..hidden].fill(0.0);
        }
    }
    let mut next = vec![[0.0f32; 2]; s.entries * hidden];
    for step in 0..s.times {
        let (last_h, last_c) = (&*h, &*c);
        for_each_unit(&mut next, hidden, 4, |n, j, next| {
            if step >= lens[n] {
                return;
            }
            let state = &last_h[s.state(n)..][..hidden];
            let gates = &gates[s.gates(n, s.time(step, lens[n]))..];
            let [mut i, mut f, g, mut o] = order.map(|part| {
                let row = part * hidden + j;
                gates[row] + bias.map_or(0.0, |b| b[row]) + dot(w, row, state)
            });
            let mut cell = last_c[s.state(n) + j];
            if let Some(p) = peephole {
                i += p[j] * cell;
                f += p[2 * hidden + j] * cell;
            }
            cell = sigmoid(f) * cell + sigmoid(i) * g.tanh();
            if let Some(p) = peephole {
                o += p[hidden + j] * cell;
            }
            *next = [sigmoid(o) * cell.tanh(), cell];
        });
        for (n, &len) in lens.iter().enumerate() {
            let y = &mut y[s.y(n, s.time(step, len))..][..hidden];
            if step >= len {
                y.fill(0.0);
                continue;
            }
            for (j, next) in next[n * hidden..][..hidden].iter().enumerate() {
                [h[s.state(n) + j], c[s.state(n) + j]] = *next;
                y[j] = next[0];
            }
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (s, order) = (Sequence::of(p), order(p));
    let hidden = s.hidden;
    for n in 0..s.entries {
        let len = if p.is("LENGTHS") {
            arrays[4][n] as usize
        } else {
            s.times
        }
        .min(s.times);
        let first = |state: &[f64]| match p.is("INIT") {
            true => state[s.state(n)..][..hidden].to_vec(),
            false => vec![0.0; hidden],
        };
        let (mut h, mut c) = (first(&arrays[6]), first(&arrays[7]));
        for step in 0..s.times {
            let t = s.time(step, len);
            if step >= len {
                arrays[5][s.y(n, t)..][..hidden].fill(0.0);
                continue;
            }
            let (last_h, last_c) = (h.clone(), c.clone());
            for j in 0..hidden {
                let [mut i, mut f, g, mut o] = order.map(|part| {
                    let row = part * hidden + j;
                    let mut sum = arrays[0][s.gates(n, t) + row];
                    if p.is("BIAS") {
                        sum += arrays[2][row];
                    }
                    for k in 0..hidden {
                        sum += arrays[1][row * hidden + k] * last_h[k];
                    }
                    sum
                });
                if p.is("PEEPHOLE") {
                    i += arrays[3][j] * last_c[j];
                    f += arrays[3][2 * hidden + j] * last_c[j];
                }
                c[j] = sigmoid64(f) * last_c[j] + sigmoid64(i) * g.tanh();
                if p.is("PEEPHOLE") {
                    o += arrays[3][hidden + j] * c[j];
                }
                h[j] = sigmoid64(o) * c[j].tanh();
            }
            arrays[5][s.y(n, t)..][..hidden].copy_from_slice(&h);
        }
        arrays[6][s.state(n)..][..hidden].copy_from_slice(&h);
        arrays[7][s.state(n)..][..hidden].copy_from_slice(&c);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &(times, entries, hidden, batch_first, reverse)) in SIZES.iter().enumerate() {
        let parts = Parts {
            bias: i % 2 == 1,
            peephole: i % 3 == 1,
            lengths: i == 3 || i == 4,
            init: i % 3 == 2,
        };
        let mut s = Sequence::new(times, entries, hidden, 4 * hidden, batch_first);
        s.reverse = reverse;
        let order = if i % 2 == 0 { PYTORCH } else { ONNX };
        let lengths: Vec<u32> = (0..entries)
            .map(|n| ((3 * n) % (times + 2)) as u32)
            .collect();
        let unit = |seed, shape: &[usize]| HostArray::random(seed, shape);
        cases.push(Case {
            params: params(&s, order, parts),
            arrays: vec![
                Some(unit(1, &[times * entries, 4 * hidden])),
                Some(HostArray::scaled(2, &[4 * hidden, hidden], 0.3)),
                parts.bias.then(|| unit(3, &[4 * hidden])),
                parts.peephole.then(|| unit(4, &[3 * hidden])),
                parts.lengths.then(|| HostArray::u32(&[entries], &lengths)),
                Some(unit(5, &[times * entries, hidden])),
                Some(unit(6, &[entries, hidden])),
                Some(unit(7, &[entries, hidden])),
            ],
            bound: 1e-9,
        });
    }
    // The second of two directions, side by side in y.
    let mut s = Sequence::new(6, 2, 5, 20, false);
    (s.y_time, s.y_entry, s.y_first, s.reverse) = (20, 10, 5, true);
    (s.state_entry, s.state_first) = (11, 6);
    cases.push(Case {
        params: params(&s, PYTORCH, Parts::default()),
        arrays: vec![
            Some(HostArray::random(1, &[12, 20])),
            Some(HostArray::random(2, &[20, 5])),
            None,
            None,
            None,
            Some(HostArray::random(5, &[6, 2, 2, 5])),
            Some(HostArray::random(6, &[2, 11])),
            Some(HostArray::random(7, &[2, 11])),
        ],
        bound: 1e-9,
    });
    cases
}
