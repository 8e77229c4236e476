//! Linear layers for a few tokens: every row of the weight is read once and multiplied as it is
//! decoded.

use std::borrow::Cow;

use super::dot::{Activations, dot_into, row_bytes};
use super::simd::Level;
use super::{CpuDispatch, experts, matmul, parallel, threads};
use crate::DType;
use crate::kernels::norm::rms_norm;

/// Up to this many tokens rows are decoded for every four of them; [`matmul`] decodes once, but
/// through memory.
pub const FEW_TOKENS: usize = 8;

/// Bytes of weights below which a part is not worth handing to another thread: about 3 µs.
const PART_BYTES: usize = 32 << 10;

/// `y[t, ROW0 + n] = sum_k w[n, k] x[t, k] (+ bias[ROW0 + n]) (+ residual[t, ROW0 + n])`.
///
/// Bindings: x (T, K), w (N, K), bias? (NY), residual? (T, NY), y (T, NY). Params: `K`, `W`, `T`,
/// `N`, `ROW0`, `NY`. Serves the kernels `matvec` and `matmul`, also with `EXPERTS`; `matvec` with `NORM`.
pub fn linear(d: &CpuDispatch<'_>) {
    let p = d.params;
    if p.is("EXPERTS") {
        let (w, mut y) = (d.bytes(1), d.f32_mut(4));
        let bias = d.has(2).then(|| d.f32(2));
        let layer = experts::Layer {
            dtype: p.format("W"),
            bytes: &w,
            bias: bias.as_deref().map(|bias| &bias[p.size("ROW0")..]),
        };
        return experts::products(d, 5, &[layer], None, 0, &mut y);
    }
    let (x, w) = (d.f32(0), d.bytes(1));
    let bias = d.has(2).then(|| d.f32(2));
    let residual = d.has(3).then(|| d.f32(3));
    let call = Linear {
        k: p.size("K"),
        tokens: p.size("T"),
        rows: p.size("N"),
        row0: p.size("ROW0"),
        ny: p.size("NY"),
        x: &normalised(d, &x, 6),
        bias: bias.as_deref(),
        residual: residual.as_deref(),
    };
    product(&call, p.format("W"), &w, &mut d.f32_mut(4));
}

/// A call's x, with `NORM` RMS-normalised with the weight at the binding `norm`.
pub fn normalised<'a>(d: &CpuDispatch<'_>, x: &'a [f32], norm: usize) -> Cow<'a, [f32]> {
    if !d.params.is("NORM") {
        return Cow::Borrowed(x);
    }
    let (k, weight) = (d.params.size("K"), d.f32(norm));
    let mut x = x[..d.params.size("T") * k].to_vec();
    for row in x.chunks_exact_mut(k) {
        rms_norm(row, &weight, d.params.number("EPS"));
    }
    Cow::Owned(x)
}

/// A linear layer.
pub fn product(call: &Linear<'_>, dtype: DType, w: &[u8], y: &mut [f32]) {
    if call.tokens > FEW_TOKENS {
        return matmul::matmul(call, dtype, w, y);
    }
    let level = Level::current();
    let row_bytes = row_bytes(dtype, call.k);
    let activations = Activations::new(dtype, &call.x[..call.tokens * call.k], call.k);
    let part = part_rows(call.rows, row_bytes);
    let parts = columns(y, call, part);
    parallel::for_each(parts, |i, mut out| {
        let first = i * part;
        let bytes = &w[first * row_bytes..];
        dot_into(level, dtype, bytes, &activations, &mut out);
        for (t, out) in out.iter_mut().enumerate() {
            call.add(t, first, out);
        }
    });
}

/// Shapes and inputs of a linear layer.
pub struct Linear<'a> {
    /// Input width.
    pub k: usize,
    /// Tokens.
    pub tokens: usize,
    /// Rows of the weight's slice.
    pub rows: usize,
    /// Where the slice begins in the output.
    pub row0: usize,
    /// Output width.
    pub ny: usize,
    /// (T, K).
    pub x: &'a [f32],
    /// (NY).
    pub bias: Option<&'a [f32]>,
    /// (T, NY).
    pub residual: Option<&'a [f32]>,
}

impl Linear<'_> {
    /// Adds bias and residual to the outputs of token `t` from row `first` of the slice on.
    pub fn add(&self, t: usize, first: usize, out: &mut [f32]) {
        let at = self.row0 + first;
        if let Some(bias) = self.bias {
            for (y, b) in out.iter_mut().zip(&bias[at..]) {
                *y += b;
            }
        }
        if let Some(residual) = self.residual {
            for (y, r) in out.iter_mut().zip(&residual[t * self.ny + at..]) {
                *y += r;
            }
        }
    }
}

/// Rows per part when reading a row costs `bytes`: few parts per thread, none too small, each a
/// multiple of 16 rows (a cache line of outputs).
pub fn part_rows(rows: usize, bytes: usize) -> usize {
    let parts = (rows * bytes / PART_BYTES).clamp(1, 4 * threads());
    rows.div_ceil(parts).next_multiple_of(16)
}

/// The outputs of `call` in parts of `part` rows: for each the slices of all tokens.
pub fn columns<'y>(y: &'y mut [f32], call: &Linear<'_>, part: usize) -> Vec<Vec<&'y mut [f32]>> {
    let mut parts = Vec::new();
    parts.resize_with(call.rows.div_ceil(part), || Vec::with_capacity(call.tokens));
    for y in y.chunks_exact_mut(call.ny).take(call.tokens) {
        let slices = y[call.row0..][..call.rows].chunks_mut(part);
        for (slice, part) in slices.zip(&mut parts) {
            part.push(slice);
        }
    }
    parts
}
