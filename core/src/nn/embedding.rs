//! Token embedding.

use super::Linear;
use crate::kernels::{Params, embedding};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weight};
use crate::{DType, Result};

/// A row per token.
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// A table of this weight, `(V, C)`.
    pub fn new(weight: Weight) -> Self {
        Embedding { weight }
    }

    /// Loads the tensor `name`, `(V, C)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        vocab: usize,
        channels: usize,
    ) -> Result<Self> {
        let weight = loader.weight(name, vocab, channels).await?;
        Ok(Embedding::new(weight))
    }

    /// The output layer of a model that ties it to the embedding.
    pub fn tied(&self) -> Linear {
        Linear::new(self.weight.clone())
    }
}

impl Recording {
    /// Rows of the tokens `(T,)`: `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a shape does not fit.
    pub fn embedding(&mut self, tokens: &Tensor, embedding: &Embedding) -> Result<Tensor> {
        let weight = &embedding.weight;
        let y = self.scratch(DType::F32, &[tokens.len(), weight.cols])?;
        for slice in &weight.slices {
            let params = Params::new()
                .u32("C", weight.cols as u32)
                .dtype("W", weight.dtype)
                .u32("T", tokens.len() as u32)
                .u32("ROW0", slice.first as u32)
                .u32("N", slice.rows as u32);
            let bindings = [tokens, &slice.tensor, &y].map(|t| Some(t.clone()));
            self.push(&embedding::KERNEL, params, bindings.into())?;
        }
        Ok(y)
    }
}
