//! Products of matrices in device memory, transposed, sliced and broadcast without copies.

use std::ops::Range;

use crate::kernels::gemm::{self, Gemm, Strides};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// A view of an f32 tensor as a matrix, or a batch of them.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    tensor: &'a Tensor,
    /// First element.
    first: usize,
    /// Length and stride of each axis; the last two are rows and columns.
    axes: Vec<(usize, usize)>,
}

impl<'a> Matrix<'a> {
    /// The last two axes; those before are a batch. A vector is one row.
    pub fn of(tensor: &'a Tensor) -> Self {
        let mut shape = tensor.shape.clone();
        while shape.len() < 2 {
            shape.insert(0, 1);
        }
        Matrix::shaped(tensor, &shape)
    }

    /// All axes but the last as rows.
    pub fn flat(tensor: &'a Tensor) -> Self {
        Matrix::shaped(tensor, &[tensor.rows(), tensor.cols()])
    }

    fn shaped(tensor: &'a Tensor, shape: &[usize]) -> Self {
        let mut stride = 1;
        let mut axes: Vec<_> = (shape.iter().rev())
            .map(|&len| {
                let axis = (len, stride);
                stride *= len;
                axis
            })
            .collect();
        axes.reverse();
        Matrix {
            tensor,
            first: 0,
            axes,
        }
    }

    /// Rows and columns exchanged.
    pub fn transposed(mut self) -> Self {
        let last = self.axes.len() - 1;
        self.axes.swap(last - 1, last);
        self
    }

    /// Some of the columns.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn columns(mut self, range: Range<usize>) -> Self {
        let last = self.axes.len() - 1;
        let (len, stride) = self.axes[last];
        assert!(range.end <= len, "columns {range:?} of {len}");
        self.first += range.start * stride;
        self.axes[last].0 = range.len();
        self
    }

    /// Rows, columns.
    pub fn size(&self) -> (usize, usize) {
        let last = self.axes.len() - 1;
        (self.axes[last - 1].0, self.axes[last].0)
    }

    fn batch(&self) -> &[(usize, usize)] {
        &self.axes[..self.axes.len() - 2]
    }

    /// Lengths of the axes.
    fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|(len, _)| *len).collect()
    }

    /// Strides for the axes `shape`: axes of length 1, and those that are missing in front, are
    /// repeated.
    fn broadcast(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let missing = shape.len().checked_sub(self.axes.len())?;
        let mut strides = vec![0; missing];
        for (&(len, stride), &wanted) in self.axes.iter().zip(&shape[missing..]) {
            strides.push(match len {
                _ if len == wanted => stride,
                1 => 0,
                _ => return None,
            });
        }
        Some(strides)
    }
}

/// A batch axis: its length, and the strides of a, b, c and y.
type Axis = (usize, [usize; 4]);

impl Recording {
    /// `alpha a b (+ beta c)`: `(..., M, K)` by `(..., K, N)` to `(..., M, N)`. Batches are
    /// broadcast as NumPy broadcasts; c is broadcast to the result.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn gemm(
        &mut self,
        alpha: f32,
        a: &Matrix<'_>,
        b: &Matrix<'_>,
        c: Option<(f32, &Matrix<'_>)>,
    ) -> Result<Tensor> {
        let (a_batch, b_batch) = (a.batch(), b.batch());
        let rank = a_batch.len().max(b_batch.len());
        let mut shape = Vec::with_capacity(rank + 2);
        for i in 0..rank {
            // Aligned at the end; missing axes have length 1.
            let len = |batch: &[(usize, usize)]| {
                let at = (i + batch.len()).checked_sub(rank);
                at.map_or(1, |at| batch[at].0)
            };
            shape.push(match (len(a_batch), len(b_batch)) {
                (1, n) | (n, 1) => n,
                (n, m) if n == m => n,
                _ => return Err(unfit(a, b)),
            });
        }
        shape.extend([a.size().0, b.size().1]);
        let y = self.scratch(DType::F32, &shape)?;
        self.gemm_into(alpha, a, b, c, &Matrix::of(&y))?;
        Ok(y)
    }

    /// The same into `y`, whose columns are neighbours.
    ///
    /// # Errors
    ///
    /// As [`Recording::gemm`].
    pub fn gemm_into(
        &mut self,
        alpha: f32,
        a: &Matrix<'_>,
        b: &Matrix<'_>,
        c: Option<(f32, &Matrix<'_>)>,
        y: &Matrix<'_>,
    ) -> Result<()> {
        let shape = y.shape();
        let (batch, (m, n)) = (&shape[..shape.len() - 2], y.size());
        let with = |rows, columns| {
            let mut shape = batch.to_vec();
            shape.extend([rows, columns]);
            shape
        };
        let k = a.size().1;
        let fits = a.size().0 == m && b.size() == (k, n);
        let strides = (a.broadcast(&with(m, k)), b.broadcast(&with(k, n)));
        let (Some(a_strides), Some(b_strides), true) = (strides.0, strides.1, fits) else {
            return Err(unfit(a, b));
        };
        let c_strides = c.map(|(_, c)| {
            let error = || {
                Error::Invalid(format!(
                    "gemm: c {:?} does not broadcast to {shape:?}",
                    c.shape()
                ))
            };
            c.broadcast(&shape).ok_or_else(error)
        });
        let c_strides = c_strides.transpose()?;
        let y_strides: Vec<usize> = y.axes.iter().map(|(_, stride)| *stride).collect();
        let none = vec![0; shape.len()];
        let all = [
            &a_strides,
            &b_strides,
            c_strides.as_ref().unwrap_or(&none),
            &y_strides,
        ];
        let axes = (0..batch.len()).map(|i| (batch[i], all.map(|strides| strides[i])));
        let (outer, inner) = split(merged(axes));

        let rank = shape.len();
        let mut call = Gemm::new(m, n, k);
        call.alpha = alpha;
        call.beta = c.map_or(0.0, |(beta, _)| beta);
        call.batch = inner.map(|(len, _)| len);
        let part = |i: usize, first: usize| Strides {
            first,
            batch: inner.map(|(_, strides)| strides[i]),
            row: all[i][rank - 2],
            column: all[i][rank - 1],
        };
        let bindings = vec![
            Some(a.tensor.clone()),
            Some(b.tensor.clone()),
            c.map(|(_, c)| c.tensor.clone()),
            Some(y.tensor.clone()),
        ];
        let begin = [a.first, b.first, c.map_or(0, |(_, c)| c.first), y.first];
        let calls: usize = outer.iter().map(|(len, _)| *len).product();
        for i in 0..calls {
            let mut first = begin;
            let mut left = i;
            for (len, strides) in outer.iter().rev() {
                for (first, stride) in first.iter_mut().zip(strides) {
                    *first += left % len * stride;
                }
                left /= len;
            }
            call.a = part(0, first[0]);
            call.b = part(1, first[1]);
            call.c = c.map(|_| part(2, first[2]));
            call.y = part(3, first[3]);
            self.push(&gemm::KERNEL, call.params(), bindings.clone())?;
        }
        Ok(())
    }
}

fn unfit(a: &Matrix<'_>, b: &Matrix<'_>) -> Error {
    Error::Invalid(format!(
        "gemm: matrices {:?} and {:?} have no product",
        a.shape(),
        b.shape()
    ))
}

/// Axes without those of length 1, neighbours joined where every array goes on from one to the
/// other.
fn merged(axes: impl Iterator<Item = Axis>) -> Vec<Axis> {
    let mut kept: Vec<Axis> = Vec::new();
    for (len, strides) in axes.filter(|(len, _)| *len != 1) {
        match kept.last_mut() {
            Some((before, outer)) if *outer == strides.map(|s| s * len) => {
                *before *= len;
                *outer = strides;
            }
            _ => kept.push((len, strides)),
        }
    }
    kept
}

/// The last two axes, which the kernel walks, and those before.
fn split(mut axes: Vec<Axis>) -> (Vec<Axis>, [Axis; 2]) {
    let mut last = || axes.pop().unwrap_or((1, [0; 4]));
    let (inner, outer) = (last(), last());
    (axes, [outer, inner])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Buffer;

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor::of(Buffer::new((), 0), DType::F32, shape)
    }

    fn calls(a: &[usize], b: &[usize], c: Option<&[usize]>) -> Result<(Vec<usize>, usize)> {
        let (a, b, c) = (tensor(a), tensor(b), c.map(tensor));
        let (a, b, c) = (Matrix::of(&a), Matrix::of(&b), c.as_ref().map(Matrix::of));
        let mut r = Recording::new();
        let y = r.gemm(1.0, &a, &b, c.as_ref().map(|c| (1.0, c)))?;
        Ok((y.shape, r.dispatches().count()))
    }

    #[test]
    fn a_batch_is_one_dispatch_when_two_axes_describe_it() {
        let known = [
            (vec![7, 2, 3], vec![3, 4], vec![7, 2, 4], 1),
            (vec![3, 1, 3, 4], vec![1, 2, 4, 2], vec![3, 2, 3, 2], 1),
            (
                vec![5, 6, 7, 2, 3],
                vec![5, 6, 7, 3, 4],
                vec![5, 6, 7, 2, 4],
                1,
            ),
            (
                vec![2, 1, 5, 2, 3],
                vec![3, 1, 3, 4],
                vec![2, 3, 5, 2, 4],
                2,
            ),
        ];
        for (a, b, shape, count) in known {
            assert_eq!(calls(&a, &b, None).unwrap(), (shape, count), "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = |a: &[usize], b: &[usize], c| calls(a, b, c).unwrap_err().to_string();
        assert_eq!(
            told(&[2, 3], &[4, 5], None),
            "gemm: matrices [2, 3] and [4, 5] have no product"
        );
        assert_eq!(
            told(&[2, 2, 3], &[3, 3, 5], None),
            "gemm: matrices [2, 2, 3] and [3, 3, 5] have no product"
        );
        assert_eq!(
            told(&[2, 3], &[3, 5], Some(&[3, 5])),
            "gemm: c [3, 5] does not broadcast to [2, 5]"
        );
    }
}
