//! Linear layers.

use std::ops::Range;

use super::Arrays;
use crate::kernels::{Params, matmul, matvec};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{ExpertMatrix, Loader, Part, Weight};
use crate::{DType, Error, Result};

/// Up to this many tokens a weight is read once per few tokens by `matvec`; above, `matmul`'s
/// tiles reuse what they read.
pub(super) const MATVEC_TOKENS: usize = 8;

/// `y = x W^T (+ b)`.
#[derive(Clone)]
pub struct Linear {
    /// `(N, K)`, this rank's part.
    pub(super) weight: Weight,
    pub(super) bias: Option<Tensor>,
    parallel: Parallel,
}

/// How ranks share a layer (arXiv:1909.08053, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parallel {
    /// Each has all of it, or a part of the outputs that others do not need.
    Own,
    /// Each has some inputs; products are summed over ranks.
    Row,
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
            .optional_vector(&format!("{name}.bias"), outputs, 0..outputs)
            .await?;
        Linear::with_bias(weight, bias)
    }

    /// Loads the rows `held` of `{name}.weight`, `(outputs, inputs)`, and of `{name}.bias`: a
    /// column-parallel layer (`Y_r = X A_r + b_r`, with `A = W^T`).
    ///
    /// # Errors
    ///
    /// Those of [`Loader::part`].
    pub async fn load_column(
        loader: &mut Loader<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
        held: Range<usize>,
    ) -> Result<Self> {
        let part = Part {
            rows: held.clone(),
            cols: 0..inputs,
        };
        let weight_name = format!("{name}.weight");
        let weight = loader.part(&weight_name, outputs, inputs, &part).await?;
        let bias = loader
            .optional_vector(&format!("{name}.bias"), outputs, held)
            .await?;
        Linear::with_bias(weight, bias)
    }

    /// Loads the rows `held` of several layers `(outputs, inputs)` as one that gives all their outputs, one after
    /// the other.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::part`].
    pub async fn load_columns(
        loader: &mut Loader<'_>,
        layers: &[(String, usize, Range<usize>)],
        inputs: usize,
    ) -> Result<Self> {
        let names: Vec<_> = (layers.iter())
            .map(|(name, ..)| format!("{name}.weight"))
            .collect();
        let matrices: Vec<_> = (names.iter().zip(layers))
            .map(|(name, (_, outputs, held))| (name.as_str(), *outputs, held.clone()))
            .collect();
        let weight = loader.stacked(&matrices, inputs).await?;
        let vectors: Vec<_> = (layers.iter())
            .map(|(name, outputs, held)| (format!("{name}.bias"), *outputs, held.clone()))
            .collect();
        let bias = loader.optional_vectors(&vectors).await?;
        Linear::with_bias(weight, bias)
    }

    /// Loads the columns `held` of `{name}.weight`, `(outputs, inputs)`, and `{name}.bias` on the first
    /// rank: a row-parallel layer, whose products are summed over ranks.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::part`].
    pub async fn load_row(
        loader: &mut Loader<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
        held: Range<usize>,
    ) -> Result<Self> {
        let part = Part {
            rows: 0..outputs,
            cols: held,
        };
        let weight_name = format!("{name}.weight");
        let weight = loader.part(&weight_name, outputs, inputs, &part).await?;
        let bias = match loader.placement().tp.me {
            0 => {
                let name = format!("{name}.bias");
                loader.optional_vector(&name, outputs, 0..outputs).await?
            }
            _ => None,
        };
        Ok(Linear::with_bias(weight, bias)?.row_parallel())
    }

    /// Loads one matrix of each of the experts `held`, of it this part, and the bias if there is one: a layer
    /// that gives the outputs of all of them.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::part`].
    pub async fn load_experts(
        loader: &mut Loader<'_>,
        matrix: &ExpertMatrix,
        held: Range<usize>,
        part: &Part,
    ) -> Result<Self> {
        let weight = loader.expert_matrix(matrix, held.clone(), part).await?;
        let bias = loader.expert_bias(matrix, held, part.rows.clone()).await?;
        Linear::with_bias(weight, bias)
    }

    /// The same layer without its bias.
    pub fn without_bias(self) -> Self {
        Linear { bias: None, ..self }
    }

    /// The same layer as a rank's part of a row-parallel one: it has some of the inputs, and the bias on
    /// the first rank only.
    pub fn row_parallel(mut self) -> Self {
        self.parallel = Parallel::Row;
        self
    }

    /// A layer of this weight, without a bias.
    pub fn new(weight: Weight) -> Self {
        Linear {
            weight,
            bias: None,
            parallel: Parallel::Own,
        }
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
            bias => Ok(Linear {
                bias,
                ..Linear::new(weight)
            }),
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
        Linear::with_bias(weight, bias)
    }
}

impl Recording {
    /// `y = x W^T + b`: `(T, K)` to `(T, N)`. In a sequence-parallel step a row-parallel layer gives this
    /// rank's tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn linear(&mut self, x: &Tensor, linear: &Linear) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &[x.rows(), linear.weight.rows])?;
        self.product(x, linear, None, &y)?;
        match linear.parallel {
            Parallel::Own => Ok(y),
            Parallel::Row => self.sum_tokens(&y),
        }
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
        if linear.parallel == Parallel::Row && self.placement().splits_tokens(x.rows()) {
            let y = self.linear(x, linear)?;
            return self.add(&y, residual);
        }
        // The first rank adds it, so that the sum has it once.
        let is_first = linear.parallel == Parallel::Own || self.placement().tp.me == 0;
        let y = self.scratch(DType::F32, &[x.rows(), linear.weight.rows])?;
        self.product(x, linear, Some(residual).filter(|_| is_first), &y)?;
        match linear.parallel {
            Parallel::Own => Ok(y),
            Parallel::Row => self.all_reduce(&y),
        }
    }

    /// `y = residual + scale (x W^T + b)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::linear`].
    pub fn linear_residual_scaled(
        &mut self,
        x: &Tensor,
        linear: &Linear,
        residual: &Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        if scale == 1.0 {
            return self.linear_residual(x, linear, residual);
        }
        let y = self.linear(x, linear)?;
        self.add_scaled(residual, &y, scale)
    }

    /// `y = x W^T + b` into a given tensor `y` `(T, N)`, of a layer that is not row-parallel.
    ///
    /// # Errors
    ///
    /// As [`Recording::linear`].
    pub fn linear_into(&mut self, x: &Tensor, linear: &Linear, y: &Tensor) -> Result<()> {
        if linear.parallel == Parallel::Row {
            return Err(Error::Invalid(
                "linear: a row-parallel layer gives a new tensor".into(),
            ));
        }
        self.product(x, linear, None, y)
    }

    /// `x W^T + b + residual` with what this rank has of W.
    pub(super) fn product(
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
                .dtype("W", slice.tensor.dtype)
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
                None,
                None,
            ];
            self.push(kernel, params, bindings)?;
        }
        Ok(())
    }
}
