//! Gradients of linear layers and feed-forward blocks. Intermediate results are computed again;
//! parameters are plain f32 tensors, as a training program holds them.

use super::Matrix;
use crate::kernels::{Activation, Packing, column_sum};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Result};

/// A linear layer's parameters.
#[derive(Clone, Copy, Debug)]
pub struct LinearParams<'a> {
    /// `(N, K)`
    pub weight: &'a Tensor,
    /// `(N,)`
    pub bias: Option<&'a Tensor>,
}

/// Gradients by a linear layer's parameters.
#[derive(Clone, Debug)]
pub struct LinearGradients {
    /// `(N, K)`
    pub weight: Tensor,
    /// `(N,)`, if the layer has a bias.
    pub bias: Option<Tensor>,
}

/// Gradients of a block of two linear layers.
#[derive(Clone, Debug)]
pub struct MlpGradients {
    /// By the input.
    pub x: Tensor,
    /// By the first layer's parameters.
    pub fc1: LinearGradients,
    /// By the second layer's parameters.
    pub fc2: LinearGradients,
}

/// Gradients of [`super::Llama3FeedForward`].
#[derive(Clone, Debug)]
pub struct Llama3Gradients {
    /// By the input.
    pub x: Tensor,
    /// By the gate's weight `(F, C)`.
    pub w1: Tensor,
    /// By the output's weight `(C, F)`.
    pub w2: Tensor,
    /// By the other weight `(F, C)`.
    pub w3: Tensor,
}

impl Recording {
    /// Sum over all rows of `x` `(T, C)`: `(C,)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn column_sum(&mut self, x: &Tensor) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &[x.cols()])?;
        let params = column_sum::params(x.rows(), x.cols());
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(&column_sum::KERNEL, params, bindings.into())?;
        Ok(y)
    }

    /// `x W^T + b`.
    pub(super) fn affine(&mut self, x: &Tensor, p: LinearParams<'_>) -> Result<Tensor> {
        let bias = p.bias.map(Matrix::of);
        let weight = Matrix::flat(p.weight).transposed();
        let bias = bias.as_ref().map(|b| (1.0, b));
        self.gemm(1.0, &Matrix::flat(x), &weight, bias)
    }

    /// Gradients of [`Recording::linear`]: by `x` `(T, K)`, and by the parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn linear_backward(
        &mut self,
        x: &Tensor,
        p: LinearParams<'_>,
        dy: &Tensor,
    ) -> Result<(Tensor, LinearGradients)> {
        let dy_rows = Matrix::flat(dy);
        let dx = self.gemm(1.0, &dy_rows, &Matrix::flat(p.weight), None)?;
        let weight = self.gemm(1.0, &dy_rows.transposed(), &Matrix::flat(x), None)?;
        let bias = match p.bias {
            Some(_) => Some(self.column_sum(dy)?),
            None => None,
        };
        Ok((dx, LinearGradients { weight, bias }))
    }

    /// Gradients of [`Recording::mlp`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn mlp_backward(
        &mut self,
        x: &Tensor,
        fc1: LinearParams<'_>,
        fc2: LinearParams<'_>,
        activation: Activation,
        dy: &Tensor,
    ) -> Result<MlpGradients> {
        let z = self.affine(x, fc1)?;
        let h = self.activate(&z, activation)?;
        let (dh, fc2) = self.linear_backward(&h, fc2, dy)?;
        let dz = self.activation_backward(&z, &dh, activation, activation.alpha())?;
        let (x, fc1) = self.linear_backward(x, fc1, &dz)?;
        Ok(MlpGradients { x, fc1, fc2 })
    }

    /// Gradients of [`Recording::gated_mlp`] with packed parameters, packed the same way.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn gated_mlp_backward(
        &mut self,
        x: &Tensor,
        fc1: LinearParams<'_>,
        fc2: LinearParams<'_>,
        (activation, packing): (Activation, Packing),
        dy: &Tensor,
    ) -> Result<MlpGradients> {
        let z = self.affine(x, fc1)?;
        let h = self.gated_activation(&z, activation, packing)?;
        let (dh, fc2) = self.linear_backward(&h, fc2, dy)?;
        let dz = self.gated_activation_backward(&z, &dh, activation, packing)?;
        let (x, fc1) = self.linear_backward(x, fc1, &dz)?;
        Ok(MlpGradients { x, fc1, fc2 })
    }

    /// Gradients of [`Recording::llama3_feed_forward`] with these weights.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn llama3_feed_forward_backward(
        &mut self,
        x: &Tensor,
        [w1, w2, w3]: [&Tensor; 3],
        dy: &Tensor,
    ) -> Result<Llama3Gradients> {
        let (act, packing) = (Activation::Silu, Packing::GateValue);
        let (rows, hidden) = (Matrix::flat(x), w1.rows());
        let z = self.scratch(DType::F32, &[x.rows(), 2 * hidden])?;
        let halves = |t| {
            let both = Matrix::flat(t);
            [
                both.clone().columns(0..hidden),
                both.columns(hidden..2 * hidden),
            ]
        };
        for (w, half) in [w1, w3].into_iter().zip(halves(&z)) {
            self.gemm_into(1.0, &rows, &Matrix::flat(w).transposed(), None, &half)?;
        }
        let h = self.gated_activation(&z, act, packing)?;
        let fc2 = LinearParams {
            weight: w2,
            bias: None,
        };
        let (dh, fc2) = self.linear_backward(&h, fc2, dy)?;
        let dz = self.gated_activation_backward(&z, &dh, act, packing)?;
        let [gate, up] = halves(&dz);
        let part = self.gemm(1.0, &gate, &Matrix::flat(w1), None)?;
        let part = Some((1.0, &Matrix::flat(&part)));
        Ok(Llama3Gradients {
            x: self.gemm(1.0, &up, &Matrix::flat(w3), part)?,
            w1: self.gemm(1.0, &gate.transposed(), &rows, None)?,
            w2: fc2.weight,
            w3: self.gemm(1.0, &up.transposed(), &rows, None)?,
        })
    }
}
