//! Linear layers.

use super::Arrays;
use crate::kernels::{Params, matmul, matvec};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weight};
use crate::{DType, Error, Result};

/// Up to this many tokens a weight is read once per few tokens by `matvec`; above, `matmul`'s
/// tiles reuse what they read.
pub(super) const MATVEC_TOKENS: usize = 8;

/// `y = x W^T (+ b)`.
pub struct Linear {
    /// `(N, K)`
    pub(super) weight: Weight,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// Loads `{name}.weight`, `(outputs, inputs)`, and `{name}.bias` if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let weight = loader.weight(&weight_name, outputs, inputs).await?;
        let bias = loader
            .optional_vector(&format!("{name}.bias"), outputs)
            .await?;
        Ok(Linear { weight, bias })
    }

    /// A layer of this weight, without a bias.
    pub fn new(weight: Weight) -> Self {
        Linear { weight, bias: None }
    }

    /// A layer of this weight `(N, K)` and bias `(N,)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the bias has another length.
    pub fn with_bias(weight: Weight, bias: Option<Tensor>) -> Result<Self> {
        match bias {
            Some(bias) if bias.len() != weight.rows => Err(Error::Invalid(format!(
                "linear: bias {:?}, expected ({},)",
                bias.shape, weight.rows
            ))),
            bias => Ok(Linear { weight, bias }),
        }
    }

    /// N, the length of an output.
    pub fn outputs(&self) -> usize {
        self.weight.rows
    }

    /// K, the length of an input.
    pub fn inputs(&self) -> usize {
        self.weight.cols
    }

    /// `{name}.weight` `(outputs, inputs)`, and `{name}.bias` if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Arrays::weight`].
    pub async fn from_arrays(arrays: &Arrays<'_>, name: &str) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let [outputs, inputs] = arrays.shape(&weight_name)?;
        let weight = arrays.weight(&weight_name, outputs, inputs).await?;
        let bias = arrays.optional(&format!("{name}.bias"), &[outputs]).await?;
        Ok(Linear { weight, bias })
    }
}

impl Recording {
    /// `y = x W^T + b`: `(T, K)` to `(T, N)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn linear(&mut self, x: &Tensor, linear: &Linear) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &[x.rows(), linear.weight.rows])?;
        self.linear_into(x, linear, None, &y)?;
        Ok(y)
    }

    /// `y = x W^T + b + residual`.
    ///
    /// # Errors
    ///
    /// As [`Recording::linear`].
    pub fn linear_residual(
        &mut self,
        x: &Tensor,
        linear: &Linear,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &[x.rows(), linear.weight.rows])?;
        self.linear_into(x, linear, Some(residual), &y)?;
        Ok(y)
    }

    /// The same into a given tensor `y` `(T, N)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::linear`].
    pub fn linear_into(
        &mut self,
        x: &Tensor,
        linear: &Linear,
        residual: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<()> {
        let weight = &linear.weight;
        if x.cols() != weight.cols || y.cols() != weight.rows || x.rows() != y.rows() {
            return Err(Error::Invalid(format!(
                "linear: x {:?} and a weight ({}, {}) do not give y {:?}",
                x.shape, weight.rows, weight.cols, y.shape
            )));
        }
        let kernel = if x.rows() <= MATVEC_TOKENS {
            &matvec::KERNEL
        } else {
            &matmul::KERNEL
        };
        for slice in &weight.slices {
            let params = Params::new()
                .u32("K", weight.cols as u32)
                .dtype("W", weight.dtype)
                .bool("BIAS", linear.bias.is_some())
                .bool("RESIDUAL", residual.is_some())
                .u32("T", x.rows() as u32)
                .u32("N", slice.rows as u32)
                .u32("ROW0", slice.first as u32)
                .u32("NY", weight.rows as u32);
            let bindings = vec![
                Some(x.clone()),
                Some(slice.tensor.clone()),
                linear.bias.clone(),
                residual.cloned(),
                Some(y.clone()),
            ];
            self.push(kernel, params, bindings)?;
        }
        Ok(())
    }
}
