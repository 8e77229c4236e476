//! Rotary position embedding and attention over a cache.

use crate::kernels::{attention, kv_append, rope};
use crate::kv_cache::KvCache;
use crate::models::{ModelConfig, RopeConfig, RopeScaling};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;
use crate::{DType, Error, Result};

/// Floats of the table that are computed and written at once.
const PIECE: usize = 1 << 20;

/// Rotary position embedding (arXiv:2104.09864): a table of cosines and sines by position.
pub struct Rope {
    table: Tensor,
    dims: usize,
    adjacent: bool,
}

impl Rope {
    /// Computes the table for `positions` positions and puts it onto the device. The tensor
    /// `rope_freqs.weight`, if there is one, takes the place of the configured scaling.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn load(
        loader: &mut Loader<'_>,
        config: &RopeConfig,
        positions: usize,
    ) -> Result<Self> {
        let mut config = config.clone();
        // Llama 3's scaling as GGUF stores it: a divisor for each frequency.
        if loader.files().has("rope_freqs.weight") {
            let factors = loader.floats("rope_freqs.weight", config.dims / 2).await?;
            config.scaling = RopeScaling::Factors(factors);
        }
        let shape = [positions, config.dims / 2, 2];
        // At 131,072 positions and heads of 128 channels the whole table has 64 MiB.
        let step = (PIECE / config.dims).max(1);
        let pieces = (0..positions)
            .step_by(step)
            .map(|first| config.table(first..positions.min(first + step)));
        Ok(Rope {
            table: loader.upload("rope", &shape, pieces).await?,
            dims: config.dims,
            adjacent: config.adjacent,
        })
    }
}

/// Causal attention with grouped key/value heads (arXiv:2305.13245).
pub struct Attention {
    layer: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    scale: f32,
}

impl Attention {
    /// Attention of layer `layer`, scaled by `1 / sqrt(D)`.
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        Attention {
            layer,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_size: config.head_dim,
            scale: (1.0 / (config.head_dim as f64).sqrt()) as f32,
        }
    }
}

impl Recording {
    /// Rotates `x` `(T, heads * D)` in place by the positions that `step` says.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn rope(&mut self, x: &Tensor, rope: &Rope, head_size: usize, step: &Tensor) -> Result<()> {
        if !x.cols().is_multiple_of(head_size) {
            return Err(Error::Invalid(format!(
                "rope: {} channels are not heads of {head_size}",
                x.cols()
            )));
        }
        let heads = x.cols() / head_size;
        let params = rope::params(x.rows(), heads, head_size, rope.dims, rope.adjacent);
        let bindings = [x, &rope.table, step].map(|t| Some(t.clone()));
        self.push(&rope::KERNEL, params, bindings.into())
    }

    /// Appends `k`, `v` `(T, KVH * D)` to the layer's cache and attends with `q` `(T, H * D)`:
    /// `(T, H * D)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn attention(
        &mut self,
        [q, k, v]: [&Tensor; 3],
        a: &Attention,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let tokens = q.rows();
        let (k_cache, v_cache) = cache.layer(a.layer);
        let (s, f16) = (cache.capacity(), cache.is_f16());
        let params = kv_append::params(tokens, a.kv_heads, a.head_size, s, f16);
        let bindings = [k, v, k_cache, v_cache, step].map(|t| Some(t.clone()));
        self.push(&kv_append::KERNEL, params, bindings.into())?;

        let y = self.scratch(DType::F32, &[tokens, a.heads * a.head_size])?;
        let params = attention::params(tokens, a.heads, a.kv_heads, a.head_size, s, a.scale, f16);
        let bindings = [q, k_cache, v_cache, step, &y].map(|t| Some(t.clone()));
        self.push(&attention::KERNEL, params, bindings.into())?;
        Ok(y)
    }
}
