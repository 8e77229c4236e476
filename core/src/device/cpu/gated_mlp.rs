//! The first half of a gated MLP: two linear layers over the same x, and an activation.

use super::dot::{Activations, dot_into, row_bytes};
use super::matmul::{Finish, multiply};
use super::matvec::{FEW_TOKENS, Linear, columns, normalised, part_rows};
use super::simd::{Level, Simd, Task, dispatch, lanes, lanes_mut, math};
use super::{CpuDispatch, experts, parallel, scratch};
use crate::kernels::Params;
use crate::kernels::act::Activation;

/// `y[t, ROW0 + n] = act(gate_n . x_t (+ gate_bias_n)) (up_n . x_t (+ up_bias_n))`.
///
/// Bindings: x (T, K), gate (N, K), up (N, K), gate_bias?, up_bias?, y (T, NY), pairs?. Params: `K`,
/// `GATE`, `UP`, `ACT`, `T`, `N`, `ROW0`, `NY`, where rows begin: `GATE0`, `UP0`,
/// `GATE_BIAS0`, `UP_BIAS0`; `LIMIT`, `EPS`, and those of experts.
pub fn gated_mlp(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (x, gate, up, mut y) = (d.f32(0), d.bytes(1), d.bytes(2), d.f32_mut(5));
    let x = normalised(d, &x, 7);
    let biases = (d.has(3) && d.has(4)).then(|| (d.f32(3), d.f32(4)));
    let biases = biases.as_ref().map(|(gate, up)| {
        let (gate, up) = (&gate[p.size("GATE_BIAS0")..], &up[p.size("UP_BIAS0")..]);
        [gate, up]
    });
    let call = Linear {
        k: p.size("K"),
        tokens: p.size("T"),
        rows: p.size("N"),
        row0: p.size("ROW0"),
        ny: p.size("NY"),
        x: &x,
        bias: None,
        residual: None,
    };
    let level = Level::current();
    let unit = Unit::of(p);
    let dtypes = [p.format("GATE"), p.format("UP")];
    let row_bytes = dtypes.map(|dtype| row_bytes(dtype, call.k));
    let weights = [
        (dtypes[0], &gate[p.size("GATE0") * row_bytes[0]..]),
        (dtypes[1], &up[p.size("UP0") * row_bytes[1]..]),
    ];
    if p.is("EXPERTS") {
        let layer = |i: usize| experts::Layer {
            dtype: weights[i].0,
            bytes: weights[i].1,
            bias: biases.map(|b| b[i]),
        };
        let layers = [layer(0), layer(1)];
        return experts::products(d, 6, &layers, Some(&unit), call.row0, &mut y);
    }
    if call.tokens > FEW_TOKENS {
        let finish = |first: usize, stride: usize, gate: &mut [f32], up: &mut [f32]| {
            unit.finish(level, biases, (first, stride), gate, up);
        };
        return multiply(&call, &weights, Finish::Gated(&finish), &mut y);
    }
    let x = &x[..call.tokens * call.k];
    let xs = weights.map(|(dtype, _)| Activations::new(dtype, x, call.k));
    let part = part_rows(call.rows, row_bytes[0] + row_bytes[1]);
    parallel::for_each(columns(&mut y, &call, part), |i, mut out| {
        scratch::with(call.tokens * part, |other| {
            let mut other: Vec<&mut [f32]> = other.chunks_mut(part).collect();
            for (other, out) in other.iter_mut().zip(&out) {
                *other = &mut std::mem::take(other)[..out.len()];
            }
            let bytes = |j: usize| &weights[j].1[i * part * row_bytes[j]..];
            dot_into(level, weights[0].0, bytes(0), &xs[0], &mut out);
            dot_into(level, weights[1].0, bytes(1), &xs[1], &mut other);
            for (gate, up) in out.iter_mut().zip(&mut other) {
                if let Some(biases) = biases {
                    for (sums, bias) in [&mut **gate, &mut **up].into_iter().zip(biases) {
                        let bias = &bias[i * part..];
                        sums.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                    }
                }
                unit.apply(level, gate, up);
            }
        });
    });
}

/// What makes one product of two.
pub struct Unit {
    act: Activation,
    limit: Option<f32>,
}

impl Unit {
    /// A call's.
    pub fn of(p: &Params) -> Self {
        Unit {
            act: Activation::from_number(p.get("ACT")).unwrap_or(Activation::Identity),
            limit: p.is("CLAMP").then(|| p.number("LIMIT")),
        }
    }

    /// `gate[i] = act(gate[i]) up[i]`, or that of clamped ones; `up` is used up.
    pub fn apply(&self, level: Level, gate: &mut [f32], up: &mut [f32]) {
        if let Some(limit) = self.limit {
            // Not f32::min, which hides a NaN.
            let high = gate.iter_mut().filter(|g| **g > limit);
            high.for_each(|g| *g = limit);
            up.iter_mut()
                .for_each(|u| *u = u.clamp(-limit, limit) + 1.0);
        }
        gated(level, self.act, gate, up);
    }

    /// The same of tiles of rows from `first` on, after their biases; rows are `stride` apart.
    pub fn finish(
        &self,
        level: Level,
        biases: Option<[&[f32]; 2]>,
        (first, stride): (usize, usize),
        gate: &mut [f32],
        up: &mut [f32],
    ) {
        if let Some([gate_bias, up_bias]) = biases {
            for (tile, bias) in [(&mut *gate, gate_bias), (&mut *up, up_bias)] {
                for (row, bias) in tile.chunks_mut(stride).zip(&bias[first..]) {
                    row.iter_mut().for_each(|y| *y += bias);
                }
            }
        }
        self.apply(level, gate, up);
    }
}

/// `gate[i] = act(gate[i]) up[i]`.
pub fn gated(level: Level, act: Activation, gate: &mut [f32], up: &[f32]) {
    dispatch(level, Gated { act, gate, up });
}

struct Gated<'a> {
    act: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Task for Gated<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Gated { act, gate, up } = self;
        match act {
            Activation::Silu => each(s, gate, up, math::silu),
            Activation::GeluTanh => each(s, gate, up, math::gelu_tanh),
            Activation::QuickGelu => each(s, gate, up, math::quick_gelu),
            Activation::Sigmoid => each(s, gate, up, math::sigmoid),
            _ => {
                for (g, u) in gate.iter_mut().zip(up) {
                    *g = act.f32(*g) * u;
                }
            }
        }
    }
}

#[inline(always)]
fn each<S: Simd>(s: S, gate: &mut [f32], up: &[f32], act: impl Fn(S, S::V) -> S::V) {
    let whole = gate.len() / 16 * 16;
    for i in (0..whole).step_by(16) {
        let (g, u) = (s.load(lanes(gate, i)), s.load(lanes(up, i)));
        s.store(s.mul(act(s, g), u), lanes_mut(gate, i));
    }
    let (mut g, mut u) = ([0.0; 16], [0.0; 16]);
    let rest = gate.len() - whole;
    g[..rest].copy_from_slice(&gate[whole..]);
    u[..rest].copy_from_slice(&up[whole..whole + rest]);
    let y = s.mul(act(s, s.load(&g)), s.load(&u));
    s.store(y, &mut g);
    gate[whole..].copy_from_slice(&g[..rest]);
}
