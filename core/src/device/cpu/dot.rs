//! Dot products of quantised rows with f32 vectors, and decoded rows.

use std::marker::PhantomData;

use super::formats::{self, F16Table, Format, Sink, f16_table, with_format};
use super::simd::{Level, Simd, Task, dispatch, lanes, lanes_mut};
use crate::DType;

/// Vectors to multiply rows with, and their sums over the format's runs: those take the place of
/// a format's minimum or offset, so that a row costs nothing for them.
pub struct Activations<'a> {
    /// (T, K).
    x: &'a [f32],
    k: usize,
    /// (T, K / RUN): the run's sum times the format's factor, a sixteenth per lane.
    sums: Vec<f32>,
    run: usize,
}

impl<'a> Activations<'a> {
    /// Prepares the rows of `x`, each `k` long, for weights of type `dtype`.
    pub fn new(dtype: DType, x: &'a [f32], k: usize) -> Self {
        let (run, factor) = formats::sums(dtype);
        let sums = match run {
            0 => Vec::new(),
            _ => x
                .chunks_exact(run)
                .map(|x| x.iter().sum::<f32>() * (factor / 16.0))
                .collect(),
        };
        Activations { x, k, sums, run }
    }

    #[inline(always)]
    fn row(&self, t: usize) -> (&[f32], &[f32]) {
        let per_row = self.k.checked_div(self.run).unwrap_or(0);
        (
            &self.x[t * self.k..][..self.k],
            &self.sums[t * per_row..][..per_row],
        )
    }
}

/// The dot product of a row with T vectors.
struct DotSink<'a, S: Simd, const T: usize> {
    x: [&'a [f32]; T],
    sums: [&'a [f32]; T],
    acc: [S::V; T],
    mins: [S::V; T],
}

impl<S: Simd, const T: usize> Sink<S> for DotSink<'_, S, T> {
    #[inline(always)]
    fn plain(&mut self, s: S, at: usize, v: S::V) {
        for t in 0..T {
            self.acc[t] = s.fma(v, s.load(lanes(self.x[t], at)), self.acc[t]);
        }
    }

    #[inline(always)]
    fn run(&mut self, s: S, at: usize, q: S::V, scale: f32, _: f32) {
        for t in 0..T {
            let start = s.splat(self.sums[t][at / 16]);
            let p = s.fma(q, s.load(lanes(self.x[t], at)), start);
            self.acc[t] = s.fma(s.splat(scale), p, self.acc[t]);
        }
    }

    #[inline(always)]
    fn shifted(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, offset: f32) {
        for t in 0..T {
            let (x0, x1) = (lanes(self.x[t], at), lanes(self.x[t], at + 16));
            let p = if offset == 0.0 {
                s.mul(q[0], s.load(x0))
            } else {
                s.fma(q[0], s.load(x0), s.splat(self.sums[t][at / 32]))
            };
            let p = s.fma(q[1], s.load(x1), p);
            self.acc[t] = s.fma(s.splat(scale), p, self.acc[t]);
        }
    }

    #[inline(always)]
    fn affine(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, min: f32) {
        for t in 0..T {
            let (x0, x1) = (lanes(self.x[t], at), lanes(self.x[t], at + 16));
            let p = s.fma(q[1], s.load(x1), s.mul(q[0], s.load(x0)));
            self.acc[t] = s.fma(s.splat(scale), p, self.acc[t]);
            let sum = s.splat(self.sums[t][at / 32]);
            self.mins[t] = s.fma(s.splat(min), sum, self.mins[t]);
        }
    }
}

/// The row's values.
struct DecodeSink<'a>(&'a mut [f32]);

impl<S: Simd> Sink<S> for DecodeSink<'_> {
    #[inline(always)]
    fn plain(&mut self, s: S, at: usize, v: S::V) {
        s.store(v, lanes_mut(self.0, at));
    }

    #[inline(always)]
    fn run(&mut self, s: S, at: usize, q: S::V, scale: f32, offset: f32) {
        let y = s.mul(s.add(q, s.splat(offset)), s.splat(scale));
        s.store(y, lanes_mut(self.0, at));
    }

    #[inline(always)]
    fn shifted(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, offset: f32) {
        self.run(s, at, q[0], scale, offset);
        self.run(s, at + 16, q[1], scale, offset);
    }

    #[inline(always)]
    fn affine(&mut self, s: S, at: usize, q: [S::V; 2], scale: f32, min: f32) {
        let (scale, min) = (s.splat(scale), s.splat(min));
        s.store(s.fma(q[0], scale, min), lanes_mut(self.0, at));
        s.store(s.fma(q[1], scale, min), lanes_mut(self.0, at + 16));
    }
}

/// Dot products of R rows with T vectors.
#[inline(always)]
fn dot_rows<S: Simd, F: Format, const R: usize, const T: usize>(
    s: S,
    f16s: &F16Table,
    rows: [&[u8]; R],
    x: &Activations<'_>,
    first: usize,
) -> [[f32; T]; R] {
    let zero = [s.splat(0.0); T];
    let (mut acc, mut mins) = ([zero; R], [zero; R]);
    let (mut xs, mut sums) = ([&[][..]; T], [&[][..]; T]);
    for t in 0..T {
        (xs[t], sums[t]) = x.row(first + t);
    }
    let whole = x.k / F::LEN;
    let per_block = F::LEN.checked_div(F::RUN).unwrap_or(0);
    for i in 0..whole {
        let (mut bx, mut bs) = ([&[][..]; T], [&[][..]; T]);
        for t in 0..T {
            bx[t] = &xs[t][i * F::LEN..][..F::LEN];
            bs[t] = &sums[t][i * per_block..][..per_block];
        }
        for r in 0..R {
            let block = &rows[r][i * F::BYTES..][..F::BYTES];
            let mut sink = DotSink {
                x: bx,
                sums: bs,
                acc: acc[r],
                mins: mins[r],
            };
            F::block(s, f16s, block, &mut sink);
            (acc[r], mins[r]) = (sink.acc, sink.mins);
        }
    }
    // Only float types can end within 16 elements.
    let rest = x.k - whole * F::LEN;
    if rest > 0 {
        let mut padded = [[0.0; 16]; T];
        for t in 0..T {
            padded[t][..rest].copy_from_slice(&xs[t][whole * F::LEN..]);
        }
        for r in 0..R {
            let mut block = [0; 64];
            let tail = &rows[r][whole * F::BYTES..];
            block[..tail.len()].copy_from_slice(tail);
            let mut sink = DotSink {
                x: [&[][..]; T],
                sums: [&[][..]; T],
                acc: acc[r],
                mins: mins[r],
            };
            for (x, padded) in sink.x.iter_mut().zip(&padded) {
                *x = padded;
            }
            F::block(s, f16s, &block[..F::BYTES], &mut sink);
            acc[r] = sink.acc;
        }
    }
    let mut out = [[0.0; T]; R];
    for r in 0..R {
        for t in 0..T {
            out[r][t] = s.sum(s.add(acc[r][t], mins[r][t]));
        }
    }
    out
}

/// Dot products of consecutive rows with all vectors.
///
/// The format is a type, so that each has a function of its own: with all of them in one, LLVM took minutes.
struct Rows<'a, 'y, 'o, F> {
    format: PhantomData<F>,
    row_bytes: usize,
    bytes: &'a [u8],
    x: &'a Activations<'a>,
    /// One slice per vector, with an element per row.
    out: &'y mut [&'o mut [f32]],
}

impl<F: Format> Rows<'_, '_, '_, F> {
    #[inline(always)]
    fn tokens<S: Simd, const R: usize, const T: usize>(&mut self, s: S, first: usize) {
        let f16s = f16_table();
        let row_bytes = self.row_bytes;
        let out = &mut self.out[first..first + T];
        let rows = out[0].len();
        let row = |n: usize| &self.bytes[n * row_bytes..][..row_bytes];
        let mut n = 0;
        while n + R <= rows {
            let mut slices = [&[][..]; R];
            for (r, slice) in slices.iter_mut().enumerate() {
                *slice = row(n + r);
            }
            let sums = dot_rows::<S, F, R, T>(s, f16s, slices, self.x, first);
            for r in 0..R {
                for t in 0..T {
                    out[t][n + r] = sums[r][t];
                }
            }
            n += R;
        }
        while n < rows {
            let [sums] = dot_rows::<S, F, 1, T>(s, f16s, [row(n)], self.x, first);
            for t in 0..T {
                out[t][n] = sums[t];
            }
            n += 1;
        }
    }
}

impl<F: Format> Task for Rows<'_, '_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tokens = self.out.len();
        let mut t = 0;
        while t + 4 <= tokens {
            self.tokens::<S, 1, 4>(s, t);
            t += 4;
        }
        if t + 2 <= tokens {
            self.tokens::<S, 1, 2>(s, t);
            t += 2;
        }
        if t < tokens {
            self.tokens::<S, 2, 1>(s, t);
        }
    }
}

/// Bytes of a row of `k` elements.
///
/// # Panics
///
/// If `k` is not a whole number of blocks.
pub fn row_bytes(dtype: DType, k: usize) -> usize {
    let bytes = dtype.bytes(k);
    bytes
        .unwrap_or_else(|| panic!("{dtype}: a row of {k} elements is not a whole number of blocks"))
}

/// `out[t][n]` = row `n` of `bytes` times vector `t` of `x`, for as many rows and vectors as
/// `out` has.
///
/// # Panics
///
/// If `bytes` or `x` have fewer.
pub fn dot_into(
    level: Level,
    dtype: DType,
    bytes: &[u8],
    x: &Activations<'_>,
    out: &mut [&mut [f32]],
) {
    let row_bytes = row_bytes(dtype, x.k);
    with_format!(dtype, F => {
        let format = PhantomData::<F>;
        dispatch(level, Rows { format, row_bytes, bytes, x, out })
    })
}

/// The dot product of a weight's row in the file's layout with `x`.
///
/// # Panics
///
/// If `row` is not `x.len()` elements of `dtype`.
pub fn dot(level: Level, dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    let mut y = [0.0];
    let activations = Activations::new(dtype, x, x.len());
    dot_into(level, dtype, row, &activations, &mut [&mut y]);
    y[0]
}

/// A row to be decoded.
struct Decode<'a, F> {
    format: PhantomData<F>,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl<F: Format> Task for Decode<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f16s = f16_table();
        let mut blocks = self.bytes.chunks_exact(F::BYTES);
        let mut values = self.out.chunks_exact_mut(F::LEN);
        for (block, y) in blocks.by_ref().zip(values.by_ref()) {
            F::block(s, f16s, block, &mut DecodeSink(y));
        }
        let rest = values.into_remainder();
        if !rest.is_empty() {
            let (mut block, mut y) = (vec![0; F::BYTES], [0.0; 16]);
            let tail = blocks.remainder();
            block[..tail.len()].copy_from_slice(tail);
            F::block(s, f16s, &block, &mut DecodeSink(&mut y));
            rest.copy_from_slice(&y[..rest.len()]);
        }
    }
}

/// Decodes whole blocks in the file's layout.
///
/// # Panics
///
/// If `bytes` is not `out.len()` elements of `dtype`.
pub fn decode_row(level: Level, dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), row_bytes(dtype, out.len()), "{dtype} row");
    with_format!(dtype, F => {
        let format = PhantomData::<F>;
        dispatch(level, Decode { format, bytes, out })
    })
}
