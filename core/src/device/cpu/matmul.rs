//! Linear layers for many tokens: panels of weights are decoded once per 512 tokens and
//! multiplied by a register-tiled kernel.
//!
//! Tokens run along the vectors: x is transposed once, into groups of tokens that stay in the
//! second-level cache; weights are broadcast in the order in which they were decoded.

use super::dot::{decode_row, row_bytes};
use super::gemm::{Panel, Size, gemm, transpose};
use super::matvec::{Linear, columns};
use super::simd::{Level, Simd, Task, dispatch};
use super::{parallel, scratch, threads};
use crate::DType;

/// Tokens for which a panel of weights is decoded once.
const BLOCK_TOKENS: usize = 512;

/// Tokens of a group; 64 fill the accumulators of a wide vector unit.
const GROUP: usize = 64;

/// Elements of K between two visits of the accumulators: 512 × 64 of x are 128 KiB. A multiple
/// of every block length.
const BLOCK_K: usize = 512;

/// Most rows in a panel: 96 × 512 of w are 192 KiB.
const PANEL_ROWS: usize = 96;

/// Distance between rows of a tile: off the powers of two, which share cache sets.
const fn tile_stride(tokens: usize) -> usize {
    tokens.next_multiple_of(16) + 16
}

/// Makes the first weight's products what they shall be from both; told the first row of both, and
/// the distance between rows.
pub type Gate<'a> = dyn Fn(usize, usize, &mut [f32], &mut [f32]) + Sync + 'a;

/// What is done with finished tiles.
#[derive(Clone, Copy)]
pub enum Finish<'a> {
    /// Bias and residual are added.
    Linear,
    /// The first weight's products go through a function that also gets the second weight's.
    Gated(&'a Gate<'a>),
}

/// One linear layer.
pub fn matmul(call: &Linear<'_>, dtype: DType, w: &[u8], y: &mut [f32]) {
    multiply(call, &[(dtype, w)], Finish::Linear, y);
}

/// One or two linear layers over the same x.
pub fn multiply(call: &Linear<'_>, weights: &[(DType, &[u8])], finish: Finish<'_>, y: &mut [f32]) {
    let mut panel = PANEL_ROWS;
    while panel > 24 && call.rows.div_ceil(panel) < 3 * threads() {
        panel /= 2;
    }
    for first in (0..call.tokens).step_by(BLOCK_TOKENS) {
        let tokens = (call.tokens - first).min(BLOCK_TOKENS);
        let block = Linear {
            tokens,
            x: &call.x[first * call.k..][..tokens * call.k],
            residual: call.residual.map(|r| &r[first * call.ny..]),
            ..*call
        };
        multiply_block(&block, weights, finish, panel, &mut y[first * call.ny..]);
    }
}

fn multiply_block(
    call: &Linear<'_>,
    weights: &[(DType, &[u8])],
    finish: Finish<'_>,
    panel: usize,
    y: &mut [f32],
) {
    let level = Level::current();
    let padded = call.tokens.next_multiple_of(16);
    let stride = tile_stride(call.tokens);
    scratch::with(padded * call.k, |packed| {
        let groups = packed.chunks_mut(GROUP * call.k).collect();
        parallel::for_each(groups, |i, to: &mut [f32]| {
            let tokens = (call.tokens - i * GROUP).min(GROUP);
            let from = &call.x[i * GROUP * call.k..][..tokens * call.k];
            let k = call.k;
            dispatch(level, Pack { from, k, to });
        });
        let packed = &*packed;
        parallel::for_each(columns(y, call, panel), |i, mut out| {
            let tile_len = panel * stride;
            scratch::with((2 * tile_len) + panel * BLOCK_K, |memory| {
                let (tiles, decoded) = memory.split_at_mut(2 * tile_len);
                let (tile, other) = tiles.split_at_mut(tile_len);
                let first = i * panel;
                let rows = out[0].len();
                for (&(dtype, bytes), tile) in weights.iter().zip([&mut *tile, &mut *other]) {
                    let row_bytes = row_bytes(dtype, call.k);
                    let mut product = Multiply {
                        dtype,
                        bytes: &bytes[first * row_bytes..][..rows * row_bytes],
                        k: call.k,
                        packed,
                        tokens: padded,
                        rows,
                        decoded: &mut *decoded,
                        tile,
                        stride,
                    };
                    product.run(level);
                }
                if let Finish::Gated(f) = finish {
                    let len = rows * stride;
                    f(first, stride, &mut tile[..len], &mut other[..len]);
                }
                let out = &mut out;
                dispatch(level, Unpack { tile, stride, out });
                for (t, out) in out.iter_mut().enumerate() {
                    call.add(t, first, out);
                }
            });
        });
    });
}

/// Transposes a group of tokens; missing ones become zeros.
struct Pack<'a> {
    from: &'a [f32],
    k: usize,
    to: &'a mut [f32],
}

impl Task for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tokens, width) = (self.from.len() / self.k, self.to.len() / self.k);
        if tokens < width {
            self.to.fill(0.0);
        }
        let from = Panel {
            data: self.from,
            stride: self.k,
        };
        transpose(s, from, tokens, self.k, self.to, width);
    }
}

/// A panel of rows times all tokens: `tile[n * stride + t]`.
struct Multiply<'a> {
    dtype: DType,
    bytes: &'a [u8],
    k: usize,
    packed: &'a [f32],
    /// A multiple of 16.
    tokens: usize,
    rows: usize,
    decoded: &'a mut [f32],
    tile: &'a mut [f32],
    stride: usize,
}

impl Multiply<'_> {
    fn run(&mut self, level: Level) {
        let row_bytes = row_bytes(self.dtype, self.k);
        for k0 in (0..self.k).step_by(BLOCK_K) {
            let k = (self.k - k0).min(BLOCK_K);
            let at = k0 / self.dtype.block_len() * self.dtype.block_bytes();
            let bytes = k / self.dtype.block_len() * self.dtype.block_bytes();
            for n in 0..self.rows {
                let row = &self.bytes[n * row_bytes + at..][..bytes];
                let decoded = &mut self.decoded[n * BLOCK_K..][..k];
                decode_row(level, self.dtype, row, decoded);
            }
            dispatch(level, Block { of: self, k0, k });
        }
    }
}

/// The product of decoded weights, elements `k0..k0 + k` of their rows.
struct Block<'a, 'b> {
    of: &'a mut Multiply<'b>,
    k0: usize,
    k: usize,
}

impl Task for Block<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block { of, k0, k } = self;
        for first in (0..of.tokens).step_by(GROUP) {
            let n = (of.tokens - first).min(GROUP);
            let size = Size { m: of.rows, n, k };
            let w = Panel {
                data: of.decoded,
                stride: BLOCK_K,
            };
            let x = Panel {
                data: &of.packed[first * of.k + k0 * n..],
                stride: n,
            };
            gemm(s, size, w, x, &mut of.tile[first..], of.stride, k0 > 0);
        }
    }
}

/// Turns a tile into rows of outputs.
struct Unpack<'a, 'o> {
    tile: &'a [f32],
    stride: usize,
    out: &'a mut [&'o mut [f32]],
}

impl Task for Unpack<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut rows = [0.0; PANEL_ROWS * 16];
        let panel = self.out[0].len();
        for (i, out) in self.out.chunks_mut(16).enumerate() {
            let from = Panel {
                data: &self.tile[16 * i..],
                stride: self.stride,
            };
            transpose(s, from, panel, 16, &mut rows, PANEL_ROWS);
            for (out, row) in out.iter_mut().zip(rows.chunks(PANEL_ROWS)) {
                out.copy_from_slice(&row[..panel]);
            }
        }
    }
}
