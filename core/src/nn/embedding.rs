//! Token embedding.

use super::Linear;
use crate::kernels::{Params, embedding};
use crate::kv_cache::KvCache;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Part, Weight};
use crate::{DType, Error, Result};

/// A row per token. Ranks may have different rows of it (arXiv:1909.08053, section 3).
pub struct Embedding {
    /// `(V, C)`, this rank's rows.
    weight: Weight,
    /// First of them.
    first: usize,
    vocab: usize,
    /// On every element.
    scale: f32,
}

impl Embedding {
    /// A table of this weight, `(V, C)`.
    pub fn new(weight: Weight) -> Self {
        Embedding {
            first: 0,
            vocab: weight.rows,
            weight,
            scale: 1.0,
        }
    }

    /// Elements are multiplied by this (Granite, Gemma).
    pub fn with_scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// This rank's rows, from `first` on, of a table of `vocab` rows.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are more.
    pub fn of_rank(weight: Weight, first: usize, vocab: usize) -> Result<Self> {
        if first + weight.rows > vocab {
            return Err(Error::Invalid(format!(
                "embedding: rows {first} + {} of {vocab}",
                weight.rows
            )));
        }
        Ok(Embedding {
            weight,
            first,
            vocab,
            scale: 1.0,
        })
    }

    /// Loads this rank's rows of the tensor `name`, `(V, C)`.
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
        let part = Part {
            rows: loader.placement().vocab(vocab)?,
            cols: 0..channels,
        };
        let weight = loader.part(name, vocab, channels, &part).await?;
        Embedding::of_rank(weight, part.rows.start, vocab)
    }

    /// The output layer of a model that ties it to the embedding.
    pub fn tied(&self) -> Linear {
        Linear::new(self.weight.clone())
    }
}

impl Recording {
    /// Adds to each row of `x` `(T, C)` that of its position, as `step` says, of a step of `count` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn add_positions(
        &mut self,
        x: &Tensor,
        positions: &Embedding,
        step: &Tensor,
        cache: &KvCache,
        count: usize,
    ) -> Result<()> {
        let weight = &positions.weight;
        if x.cols() != weight.cols || weight.rows < positions.vocab {
            return Err(Error::Invalid(format!(
                "positions: {} rows of {}, of {} channels, for {:?}",
                weight.rows, positions.vocab, weight.cols, x.shape
            )));
        }
        // Its own tokens, in a sequence-parallel step.
        let placement = self.placement();
        let first: usize = match placement.splits_tokens(count) {
            true => placement.token_lens(count)[..placement.tp.me].iter().sum(),
            false => 0,
        };
        for slice in &weight.slices {
            let (dtype, row0) = (slice.tensor.dtype, positions.first + slice.first);
            let params = embedding::params(x.rows(), weight.cols, dtype, row0, slice.rows);
            let params = params.bool("POSITIONS", true).u32("FIRST", first as u32);
            let params = match cache.pages() {
                Some(_) => params.bool("EACH", true),
                None => params,
            };
            let numbers = cache.pages().unwrap_or(step);
            let bindings = [numbers, &slice.tensor, x].map(|t| Some(t.clone()));
            self.push(&embedding::KERNEL, params, bindings.into())?;
        }
        Ok(())
    }

    /// Rows of the tokens `(T,)`: `(T, C)`, of this rank's tokens in a sequence-parallel step. A rank has
    /// zeros for tokens whose rows it does not have; ranks sum up.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a shape does not fit.
    pub fn embedding(&mut self, tokens: &Tensor, embedding: &Embedding) -> Result<Tensor> {
        let weight = &embedding.weight;
        let y = self.scratch(DType::F32, &[tokens.len(), weight.cols])?;
        let partial = weight.rows < embedding.vocab;
        for (i, slice) in weight.slices.iter().enumerate() {
            let params = Params::new()
                .u32("C", weight.cols as u32)
                .f32("SCALE", embedding.scale)
                .dtype("W", slice.tensor.dtype)
                .switch("ZERO", partial && i == 0)
                .u32("T", tokens.len() as u32)
                .u32("ROW0", (embedding.first + slice.first) as u32)
                .u32("N", slice.rows as u32);
            let bindings = [tokens, &slice.tensor, &y].map(|t| Some(t.clone()));
            self.push(&embedding::KERNEL, params, bindings.into())?;
        }
        match partial {
            true => self.sum_tokens(&y),
            false => Ok(y),
        }
    }
}
