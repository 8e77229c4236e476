//! Matrix products with any strides: both sides are packed into panels for [`super::gemm`].

use super::gemm::{Panel, Size, gemm as multiply};
use super::simd::{Level, Simd, Task, dispatch};
use super::{CpuDispatch, parallel, scratch, threads};
use crate::kernels::gemm::{Gemm, Strides};

/// Columns of a panel of b.
const GROUP: usize = 64;

/// Elements of K between two visits of the sums.
const BLOCK_K: usize = 512;

/// Most rows of y that a thread takes at once.
const PANEL_ROWS: usize = 96;

/// Distance between rows of a tile: off the powers of two, which share cache sets.
const STRIDE: usize = GROUP + 16;

/// `y = alpha a b (+ beta c)`.
///
/// Bindings: a, b, c?, y. Params: those of [`Gemm`].
pub fn gemm(d: &CpuDispatch<'_>) {
    let g = Gemm::of(d.params);
    let (a, b, mut y) = (d.f32(0), d.f32(1), d.f32_mut(3));
    let c = d.has(2).then(|| d.f32(2));
    let (a, b, c) = (&*a, &*b, c.as_deref());
    let mut panel = PANEL_ROWS;
    while panel > 6 && g.m.div_ceil(panel) < 3 * threads() {
        panel /= 2;
    }
    let padded = g.n.next_multiple_of(16);
    scratch::with(padded * g.k, |packed| {
        for i in 0..g.batch[0] * g.batch[1] {
            let batch = [i / g.batch[1], i % g.batch[1]];
            let groups = packed.chunks_mut(GROUP * g.k).collect();
            parallel::for_each(groups, |i, to: &mut [f32]| {
                let from = &b[g.b.at(batch, 0, i * GROUP)..];
                pack(from, g.b, g.k, (g.n - i * GROUP).min(GROUP), to);
            });
            let packed = &*packed;
            let y = &mut y[g.y.at(batch, 0, 0)..];
            let rows: Vec<&mut [f32]> = (y.chunks_mut(g.y.row.max(g.n)).take(g.m))
                .map(|row| &mut row[..g.n])
                .collect();
            let parts = split(rows, panel);
            parallel::for_each(parts, |i, mut rows| {
                let len = rows.len() * (BLOCK_K + STRIDE * g.n.div_ceil(GROUP));
                scratch::with(len, |memory| {
                    let (left, tiles) = memory.split_at_mut(rows.len() * BLOCK_K);
                    let first = i * panel;
                    let product = Product {
                        g: &g,
                        batch,
                        first,
                        a,
                        packed,
                        left,
                        tiles,
                        rows: &mut rows,
                    };
                    dispatch(Level::current(), product);
                    if let (Some(c), Some(strides)) = (c, g.c) {
                        for (i, row) in rows.iter_mut().enumerate() {
                            let c = &c[strides.at(batch, first + i, 0)..];
                            for (n, y) in row.iter_mut().enumerate() {
                                *y += g.beta * c[n * strides.column];
                            }
                        }
                    }
                });
            });
        }
    });
}

/// Lists of at most `len`, in order.
fn split<T>(items: Vec<T>, len: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::with_capacity(items.len().div_ceil(len));
    let mut items = items.into_iter();
    loop {
        let part: Vec<T> = items.by_ref().take(len).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

/// `columns` columns of b, each row padded with zeros to the panel's width.
fn pack(from: &[f32], strides: Strides, k: usize, columns: usize, to: &mut [f32]) {
    let width = to.len() / k;
    for (k, to) in to.chunks_exact_mut(width).enumerate() {
        let (to, padding) = to.split_at_mut(columns);
        let row = &from[k * strides.row..];
        if strides.column == 1 {
            to.copy_from_slice(&row[..columns]);
        } else {
            for (n, to) in to.iter_mut().enumerate() {
                *to = row[n * strides.column];
            }
        }
        padding.fill(0.0);
    }
}

/// `alpha a b` of some rows.
struct Product<'a, 'y> {
    g: &'a Gemm,
    batch: [usize; 2],
    first: usize,
    a: &'a [f32],
    packed: &'a [f32],
    /// Memory for these rows of a, BLOCK_K at a time.
    left: &'a mut [f32],
    /// Memory for the sums, a tile for each panel of b.
    tiles: &'a mut [f32],
    rows: &'a mut [&'y mut [f32]],
}

impl Task for Product<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (g, m) = (self.g, self.rows.len());
        for k0 in (0..g.k).step_by(BLOCK_K) {
            let k = (g.k - k0).min(BLOCK_K);
            for (i, left) in self.left.chunks_mut(BLOCK_K).enumerate() {
                let from = &self.a[g.a.at(self.batch, self.first + i, k0)..];
                for (j, left) in left[..k].iter_mut().enumerate() {
                    *left = from[j * g.a.column];
                }
            }
            for (i, tile) in self.tiles.chunks_mut(m * STRIDE).enumerate() {
                let n = (g.n - i * GROUP).min(GROUP).next_multiple_of(16);
                let left = Panel {
                    data: self.left,
                    stride: BLOCK_K,
                };
                let right = Panel {
                    data: &self.packed[i * GROUP * g.k + k0 * n..],
                    stride: n,
                };
                multiply(s, Size { m, n, k }, left, right, tile, STRIDE, k0 > 0);
            }
        }
        for (i, tile) in self.tiles.chunks(m * STRIDE).enumerate() {
            for (row, sums) in self.rows.iter_mut().zip(tile.chunks(STRIDE)) {
                let out = row[i * GROUP..].iter_mut().take(GROUP);
                for (y, sum) in out.zip(sums) {
                    *y = g.alpha * sum;
                }
            }
        }
    }
}
