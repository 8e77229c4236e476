//! Linear layers over pairs of a token and an expert, each with its expert's rows of the weight.

use super::dot::{Activations, dot_into, row_bytes};
use super::gated_mlp::Unit;
use super::matmul::{Finish, multiply};
use super::matvec::{FEW_TOKENS, Linear, part_rows};
use super::simd::Level;
use super::{CpuDispatch, parallel, scratch};
use crate::DType;
use crate::kernels::expert_order::chosen;

/// A weight `(COUNT N, K)`, and its bias, both from the first expert's first row on.
pub struct Layer<'a> {
    pub dtype: DType,
    pub bytes: &'a [u8],
    pub bias: Option<&'a [f32]>,
}

impl Layer<'_> {
    /// Adds the bias of rows from `row` on.
    pub fn add_bias(&self, row: usize, out: &mut [f32]) {
        if let Some(bias) = self.bias {
            for (y, b) in out.iter_mut().zip(&bias[row..]) {
                *y += b;
            }
        }
    }
}

/// An expert's pairs, at most [`FEW_TOKENS`]: their rows of x, prepared for each layer.
struct Few<'a> {
    own: usize,
    x: Vec<Activations<'a>>,
}

/// The products of one layer, or of two that `unit` makes one of, into columns `column ..
/// column + N` of y. `binding`: where the pairs are.
pub fn products(
    d: &CpuDispatch<'_>,
    binding: usize,
    layers: &[Layer<'_>],
    unit: Option<&Unit>,
    column: usize,
    y: &mut [f32],
) {
    let p = d.params;
    let (k, rows, ny, share) = (p.size("K"), p.size("N"), p.size("NY"), p.size("DIV"));
    let (x, words) = (d.f32(0), d.u32(binding));
    let mut queues = vec![Vec::new(); p.size("COUNT")];
    for (pair, own) in chosen(p, |i| words[i]) {
        queues[own].push(pair);
    }
    let queues: Vec<_> = (queues.into_iter().enumerate())
        .filter(|(_, pairs)| !pairs.is_empty())
        .collect();
    let gathered: Vec<Vec<f32>> = (queues.iter())
        .map(|(_, pairs)| {
            let rows = pairs.iter().map(|pair| &x[pair / share * k..][..k]);
            rows.flatten().copied().collect()
        })
        .collect();
    let outs = y.chunks_exact_mut(ny).take(p.size("T"));
    let mut outs: Vec<_> = (outs.map(|y| Some(&mut y[column..][..rows]))).collect();
    let mut take = |pair: usize| outs[pair].take().into_iter();

    let bytes: usize = layers.iter().map(|l| row_bytes(l.dtype, k)).sum();
    let part = part_rows(rows, bytes);
    let (mut few, mut parts) = (Vec::new(), Vec::new());
    for ((own, pairs), x) in queues.iter().zip(&gathered) {
        let mut outs: Vec<&mut [f32]> = pairs.iter().flat_map(|pair| take(*pair)).collect();
        if pairs.len() > FEW_TOKENS {
            many(layers, unit, *own, (k, rows), x, &mut outs);
            continue;
        }
        let mut split: Vec<Vec<&mut [f32]>> = Vec::new();
        split.resize_with(rows.div_ceil(part), Vec::new);
        for out in outs {
            for (part, out) in split.iter_mut().zip(out.chunks_mut(part)) {
                part.push(out);
            }
        }
        let numbered = split.into_iter().enumerate();
        parts.extend(numbered.map(|(i, outs)| (few.len(), i * part, outs)));
        few.push(Few {
            own: *own,
            x: (layers.iter())
                .map(|l| Activations::new(l.dtype, x, k))
                .collect(),
        });
    }
    let level = Level::current();
    parallel::for_each(parts, |_, (i, first, mut outs)| {
        let few: &Few<'_> = &few[i];
        let row = few.own * rows + first;
        let product = |i: usize, outs: &mut [&mut [f32]]| {
            let layer = &layers[i];
            let bytes = &layer.bytes[row * row_bytes(layer.dtype, k)..];
            dot_into(level, layer.dtype, bytes, &few.x[i], outs);
            for out in outs {
                layer.add_bias(row, out);
            }
        };
        product(0, &mut outs);
        let Some(unit) = unit else { return };
        scratch::with(outs.len() * part, |memory| {
            let others = memory.chunks_mut(part).zip(&outs);
            let mut others: Vec<_> = others.map(|(m, out)| &mut m[..out.len()]).collect();
            product(1, &mut others);
            for (gate, up) in outs.iter_mut().zip(others) {
                unit.apply(level, gate, up);
            }
        });
    });
}

/// An expert's products with many rows of x, `(pairs, K)`.
fn many(
    layers: &[Layer<'_>],
    unit: Option<&Unit>,
    own: usize,
    (k, rows): (usize, usize),
    x: &[f32],
    outs: &mut [&mut [f32]],
) {
    let level = Level::current();
    let call = Linear {
        k,
        tokens: outs.len(),
        rows,
        row0: 0,
        ny: rows,
        x,
        bias: None,
        residual: None,
    };
    let weights: Vec<_> = (layers.iter())
        .map(|l| (l.dtype, &l.bytes[own * rows * row_bytes(l.dtype, k)..]))
        .collect();
    let biases = |i: usize| layers[i].bias.map(|b| &b[own * rows..][..rows]);
    scratch::with(outs.len() * rows, |y| {
        match unit {
            Some(unit) => {
                let biases = biases(0).zip(biases(1)).map(|(gate, up)| [gate, up]);
                let finish = |first: usize, stride: usize, gate: &mut [f32], up: &mut [f32]| {
                    unit.finish(level, biases, (first, stride), gate, up);
                };
                multiply(&call, &weights, Finish::Gated(&finish), y);
            }
            None => {
                let bias = biases(0);
                multiply(&Linear { bias, ..call }, &weights, Finish::Linear, y);
            }
        }
        for (out, y) in outs.iter_mut().zip(y.chunks_exact(rows)) {
            out.copy_from_slice(y);
        }
    });
}
