//! Register-tiled products of f32 panels: C (M, N) = A (M, K) B (K, N), with A's elements
//! broadcast and vectors along N.

use super::simd::{Simd, lanes, lanes_mut};

/// A matrix's elements and the distance between its rows.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// Elements, row by row.
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// Sizes of a product; `n` is a multiple of 16.
#[derive(Clone, Copy)]
pub struct Size {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// C += A B, or C = A B unless `add`; C's rows are `stride` apart.
#[inline(always)]
pub fn gemm<S: Simd>(
    s: S,
    size: Size,
    a: Panel<'_>,
    b: Panel<'_>,
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    let mut column = 0;
    while column < size.n {
        let left = size.n - column;
        let b = Panel {
            data: &b.data[column..],
            ..b
        };
        let c = &mut c[column..];
        if S::WIDE && left >= 64 {
            rows::<S, 4>(s, size, a, b, c, stride, add);
            column += 64;
        } else if S::WIDE && left >= 32 {
            rows::<S, 2>(s, size, a, b, c, stride, add);
            column += 32;
        } else {
            rows::<S, 1>(s, size, a, b, c, stride, add);
            column += 16;
        }
    }
}

/// One column of tiles.
#[inline(always)]
fn rows<S: Simd, const NV: usize>(
    s: S,
    size: Size,
    a: Panel<'_>,
    b: Panel<'_>,
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    let mut m = 0;
    while m < size.m {
        let a = Panel {
            data: &a.data[m * a.stride..],
            ..a
        };
        let c = &mut c[m * stride..];
        match size.m - m {
            1 => tile::<S, 1, NV>(s, size.k, a, b, c, stride, add),
            2 => tile::<S, 2, NV>(s, size.k, a, b, c, stride, add),
            3 => tile::<S, 3, NV>(s, size.k, a, b, c, stride, add),
            4 | 5 => tile::<S, 4, NV>(s, size.k, a, b, c, stride, add),
            _ => tile::<S, 6, NV>(s, size.k, a, b, c, stride, add),
        }
        m += match size.m - m {
            5 => 4,
            left => left.min(6),
        };
    }
}

/// R rows of 16 NV columns, kept in registers.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant indices, so that the tile stays in registers"
)]
fn tile<S: Simd, const R: usize, const NV: usize>(
    s: S,
    k: usize,
    a: Panel<'_>,
    b: Panel<'_>,
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    let mut acc = [[s.splat(0.0); NV]; R];
    if add {
        for r in 0..R {
            for v in 0..NV {
                acc[r][v] = s.load(lanes(c, r * stride + 16 * v));
            }
        }
    }
    let mut rows = [&[][..]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &a.data[r * a.stride..][..k];
    }
    for i in 0..k {
        let b_row = &b.data[i * b.stride..][..16 * NV];
        let mut bv = [s.splat(0.0); NV];
        for (v, bv) in bv.iter_mut().enumerate() {
            *bv = s.load(lanes(b_row, 16 * v));
        }
        for r in 0..R {
            let w = s.splat(rows[r][i]);
            for v in 0..NV {
                acc[r][v] = s.fma(w, bv[v], acc[r][v]);
            }
        }
    }
    for r in 0..R {
        for v in 0..NV {
            s.store(acc[r][v], lanes_mut(c, r * stride + 16 * v));
        }
    }
}

/// `to[j * to_stride + i] = from[i * stride + j]` for `rows` i and `columns` j.
#[inline(always)]
pub fn transpose<S: Simd>(
    s: S,
    from: Panel<'_>,
    rows: usize,
    columns: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    for i in (0..rows).step_by(16) {
        for j in (0..columns).step_by(16) {
            let (height, width) = ((rows - i).min(16), (columns - j).min(16));
            if height == 16 && width == 16 {
                let mut block = [s.splat(0.0); 16];
                for (r, v) in block.iter_mut().enumerate() {
                    *v = s.load(lanes(from.data, (i + r) * from.stride + j));
                }
                for (r, v) in s.transpose(block).into_iter().enumerate() {
                    s.store(v, lanes_mut(to, (j + r) * to_stride + i));
                }
            } else {
                for r in 0..height {
                    for c in 0..width {
                        to[(j + c) * to_stride + i + r] = from.data[(i + r) * from.stride + j + c];
                    }
                }
            }
        }
    }
}
