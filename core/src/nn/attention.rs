//! Rotary position embedding and attention over a cache.

use crate::comm::Heads;
use crate::kernels::attention_rules::Rules;
use crate::kernels::pages::WORDS;
use crate::kernels::{attention, kv_append, qkv_append, rope};
use crate::kv_cache::KvCache;
use crate::models::{RopeConfig, RopeScaling};
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
        Rope::load_named(loader, "rope", &config, positions).await
    }

    /// Computes the table of this configuration, and nothing else, under a name.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn load_named(
        loader: &mut Loader<'_>,
        name: &str,
        config: &RopeConfig,
        positions: usize,
    ) -> Result<Self> {
        let shape = [positions, config.dims / 2, 2];
        // At 131,072 positions and heads of 128 channels the whole table has 64 MiB.
        let step = (PIECE / config.dims).max(1);
        let pieces = (0..positions)
            .step_by(step)
            .map(|first| config.table(first..positions.min(first + step)));
        Ok(Rope {
            table: loader.table(name, &shape, pieces).await?,
            dims: config.dims,
            adjacent: config.adjacent,
        })
    }
}

/// Attention with grouped key/value heads (arXiv:2305.13245) over a layer's cache.
pub struct Attention {
    /// Place of the layer in the cache.
    layer: usize,
    heads: Heads,
    head_size: usize,
    scale: f32,
    rules: Rules,
    slopes: Option<Tensor>,
    sinks: Option<Tensor>,
    /// Weights `(D,)` of the norms of heads of q and k, and epsilon.
    norms: Option<([Tensor; 2], f32)>,
}

impl Attention {
    /// Causal attention of a rank's heads of size `head_size` over layer `layer` of its cache, scaled by
    /// `1 / sqrt(D)`.
    pub fn new(heads: Heads, head_size: usize, layer: usize) -> Self {
        Attention {
            layer,
            heads,
            head_size,
            scale: (1.0 / (head_size as f64).sqrt()) as f32,
            rules: Rules::default(),
            slopes: None,
            sinks: None,
            norms: None,
        }
    }

    /// Heads of q and of k are RMS-normalised with weights `(D,)` (Qwen3, arXiv:2505.09388).
    pub fn with_norms(mut self, q: Tensor, k: Tensor, eps: f32) -> Self {
        self.norms = Some(([q, k], eps));
        self
    }

    /// Scores are multiplied by this instead.
    pub fn with_scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// A token sees the last `window` keys, its own included.
    pub fn with_window(mut self, window: usize) -> Self {
        self.rules.window = Some(window);
        self
    }

    /// Scores become `cap tanh(score / cap)` (arXiv:2408.00118).
    pub fn with_softcap(mut self, cap: f32) -> Self {
        self.rules.softcap = cap;
        self
    }

    /// ALiBi (arXiv:2108.12409): `slopes` (H,), as
    /// [`alibi_slopes`](crate::kernels::attention_rules::alibi_slopes) gives them.
    pub fn with_alibi(mut self, slopes: Tensor) -> Self {
        self.rules.alibi = true;
        self.slopes = Some(slopes);
        self
    }

    /// A learned score (H,) without a value in each head's softmax, as gpt-oss has it.
    pub fn with_sinks(mut self, sinks: Tensor) -> Self {
        self.sinks = Some(sinks);
        self
    }
}

/// The arrays of an attention call; see [`attention::Call`] for their shapes.
pub(crate) struct Operands<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub step: &'a Tensor,
    pub mask: Option<&'a Tensor>,
    pub slopes: Option<&'a Tensor>,
    pub kv_lengths: Option<&'a Tensor>,
    pub sinks: Option<&'a Tensor>,
    pub pages: Option<&'a Tensor>,
}

impl Recording {
    /// Rotates heads of `head_size` of `x` `(T, heads * D)` in place by the positions that `step` says, or `pages`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub(super) fn rope(
        &mut self,
        x: &Tensor,
        rope: &Rope,
        head_size: usize,
        step: &Tensor,
        pages: Option<&Tensor>,
    ) -> Result<()> {
        if !x.cols().is_multiple_of(head_size) || rope.dims > head_size {
            return Err(Error::Invalid(format!(
                "rope: {:?} are not heads of {head_size}, {} of them turned",
                x.shape, rope.dims
            )));
        }
        let call = rope::Call {
            batch: 1,
            tokens: x.rows(),
            heads: x.cols() / head_size,
            head_size,
            rot: rope.dims,
            adjacent: rope.adjacent,
            heads_first: false,
            positions: pages.is_some(),
            two_d: false,
            every: pages.map_or(1, |_| WORDS),
        };
        let mut bindings = [x, &rope.table, step].map(|t| Some(t.clone())).to_vec();
        bindings.push(pages.cloned());
        self.push(&rope::KERNEL, rope::params(&call), bindings)
    }

    /// Appends `k` `(T, D)` and `v` `(T, DV)`, one head each, to the layer's cache and attends with `q`
    /// `(T, H, D)`: `(T, H, DV)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub(super) fn attend_latent(
        &mut self,
        [q, k, v]: [&Tensor; 3],
        a: &Attention,
        v_head_size: usize,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let (k_cache, v_cache) = cache.layer(a.layer);
        let (capacity, kv) = (cache.capacity(), cache.dtype());
        let append = kv_append::Call {
            batch: 1,
            tokens: k.rows(),
            kv_heads: 1,
            head_size: a.head_size,
            v_head_size,
            capacity,
            kv,
            heads_first: false,
            paged: cache.pages().is_some(),
        };
        self.kv_append(&append, [k, v], [k_cache, v_cache], step, cache.pages())?;
        let causal = attention::Call::causal(k.rows(), a.heads.q.len(), 1, a.head_size, capacity);
        let call = attention::Call {
            v_head_size,
            scale: a.scale,
            kv,
            rules: a.rules.clone(),
            group: a.heads.group,
            first_head: a.heads.first(),
            ..causal
        };
        let operands = Operands {
            q,
            k: k_cache,
            v: v_cache,
            step,
            mask: None,
            slopes: None,
            kv_lengths: None,
            sinks: None,
            pages: cache.pages(),
        };
        self.attend(call, operands)
    }

    /// Self-attention between its projections: `qkv` `(T, (H + 2 KVH) D)` are those of this rank's heads, one
    /// after the other. Heads of q and k are normalised and turned, keys and values appended to the layer's
    /// cache, which q attends to: `(T, H D)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn self_attention(
        &mut self,
        qkv: &Tensor,
        a: &Attention,
        rope: Option<&Rope>,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let (tokens, head_size) = (qkv.rows(), a.head_size);
        let (k_cache, v_cache) = cache.layer(a.layer);
        let (capacity, kv) = (cache.capacity(), cache.dtype());
        let (heads, kv_heads) = (a.heads.q.len(), a.heads.kv.len());
        let rot = rope.map_or(0, |rope| rope.dims);
        if qkv.cols() != (heads + 2 * kv_heads) * head_size || rot > head_size {
            return Err(Error::Invalid(format!(
                "self_attention: {:?} is not {heads} + 2 * {kv_heads} heads of {head_size} channels, \
                 {rot} of them turned",
                qkv.shape
            )));
        }
        let call = qkv_append::Call {
            tokens,
            heads,
            kv_heads,
            head_size,
            capacity,
            kv,
            rope: rope.map(|rope| (rope.dims, rope.adjacent)),
            norm: a.norms.as_ref().map(|(_, eps)| *eps),
            paged: cache.pages().is_some(),
        };
        let q = self.scratch(DType::F32, &[tokens, heads * head_size])?;
        let weight = |i: usize| a.norms.as_ref().map(|(weights, _)| weights[i].clone());
        let bindings = vec![
            Some(qkv.clone()),
            rope.map(|rope| rope.table.clone()),
            weight(0),
            weight(1),
            Some(q.clone()),
            Some(k_cache.clone()),
            Some(v_cache.clone()),
            Some(step.clone()),
            cache.pages().cloned(),
        ];
        self.push(&qkv_append::KERNEL, qkv_append::params(&call), bindings)?;
        let call = attention::Call {
            scale: a.scale,
            kv,
            rules: a.rules.clone(),
            group: a.heads.group,
            first_head: a.heads.first(),
            ..attention::Call::causal(tokens, heads, kv_heads, head_size, capacity)
        };
        let operands = Operands {
            q: &q,
            k: k_cache,
            v: v_cache,
            step,
            mask: None,
            slopes: a.slopes.as_ref(),
            kv_lengths: None,
            sinks: a.sinks.as_ref(),
            pages: cache.pages(),
        };
        let mut y = self.attend(call, operands)?;
        y.shape = vec![tokens, heads * head_size];
        Ok(y)
    }

    /// Appends keys and values to caches.
    pub(crate) fn kv_append(
        &mut self,
        call: &kv_append::Call,
        [k, v]: [&Tensor; 2],
        [k_cache, v_cache]: [&Tensor; 2],
        step: &Tensor,
        pages: Option<&Tensor>,
    ) -> Result<()> {
        let mut bindings = [k, v, k_cache, v_cache, step]
            .map(|t| Some(t.clone()))
            .to_vec();
        bindings.push(pages.cloned());
        self.push(&kv_append::KERNEL, kv_append::params(call), bindings)
    }

    /// Attention in general: `(B, T, H, DV)`, or `(B, H, T, DV)` where the call says so.
    pub(crate) fn attend(&mut self, mut call: attention::Call, x: Operands<'_>) -> Result<Tensor> {
        let (batch, tokens, heads) = (call.batch, call.tokens, call.heads);
        let shape = match call.heads_first {
            true => [batch, heads, tokens, call.v_head_size],
            false => [batch, tokens, heads, call.v_head_size],
        };
        let y = self.scratch(DType::F32, &shape)?;
        (call.sinks, call.paged) = (x.sinks.is_some(), x.pages.is_some());
        let bindings = vec![
            Some(x.q.clone()),
            Some(x.k.clone()),
            Some(x.v.clone()),
            Some(x.step.clone()),
            Some(y.clone()),
            x.mask.cloned(),
            x.slopes.cloned(),
            x.kv_lengths.cloned(),
            x.sinks.cloned(),
            x.pages.cloned(),
        ];
        self.push(&attention::KERNEL, attention::params(&call), bindings)?;
        Ok(y)
    }
}
