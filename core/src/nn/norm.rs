//! RMSNorm.

use crate::kernels::rms_norm;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;
use crate::{DType, Result};

/// `x / sqrt(mean(x^2) + eps) * weight` (arXiv:1910.07467).
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// A norm of this weight, `(C,)`.
    pub fn new(weight: Tensor, eps: f32) -> Self {
        RmsNorm { weight, eps }
    }

    /// Loads `{name}.weight`, `(C,)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::vector`].
    pub async fn load(loader: &mut Loader<'_>, name: &str, len: usize, eps: f32) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), len).await?;
        Ok(RmsNorm { weight, eps })
    }
}

impl Recording {
    /// Norm of every row of `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a shape does not fit.
    pub fn rms_norm(&mut self, x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
        self.rms_norm_rows(x, norm, 0, x.rows())
    }

    /// Norm of the rows `first .. first + rows` of `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn rms_norm_rows(
        &mut self,
        x: &Tensor,
        norm: &RmsNorm,
        first: usize,
        rows: usize,
    ) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &[rows, x.cols()])?;
        let params = rms_norm::params(rows, x.cols(), norm.eps, first);
        let bindings = [x, &norm.weight, &y].map(|t| Some(t.clone()));
        self.push(&rms_norm::KERNEL, params, bindings.into())?;
        Ok(y)
    }
}
