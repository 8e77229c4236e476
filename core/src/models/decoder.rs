//! Decoders of llama's shape: pre-norm blocks of causal self-attention and a gated MLP or a mixture of them. What
//! differs between families is data: [`ModelConfig`], names, and which tensors there are.

use std::ops::Range;
use std::rc::Rc;

use super::{Model, ModelConfig, Share};
use crate::comm::{Heads, Placement};
use crate::kv_cache::KvCache;
use crate::nn::{Attention, Embedding, GatedMlp, LatentAttention, Linear, Moe, RmsNorm, Rope};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;
use crate::{Error, Result};

/// Names that all these families share, Hugging Face's and GGUF's.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
    (
        "model.layers.{}.input_layernorm.weight",
        "blk.{}.attn_norm.weight",
    ),
    (
        "model.layers.{}.self_attn.q_proj.weight",
        "blk.{}.attn_q.weight",
    ),
    (
        "model.layers.{}.self_attn.k_proj.weight",
        "blk.{}.attn_k.weight",
    ),
    (
        "model.layers.{}.self_attn.v_proj.weight",
        "blk.{}.attn_v.weight",
    ),
    (
        "model.layers.{}.self_attn.o_proj.weight",
        "blk.{}.attn_output.weight",
    ),
    (
        "model.layers.{}.self_attn.q_proj.bias",
        "blk.{}.attn_q.bias",
    ),
    (
        "model.layers.{}.self_attn.k_proj.bias",
        "blk.{}.attn_k.bias",
    ),
    (
        "model.layers.{}.self_attn.v_proj.bias",
        "blk.{}.attn_v.bias",
    ),
    (
        "model.layers.{}.self_attn.o_proj.bias",
        "blk.{}.attn_output.bias",
    ),
    (
        "model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    (
        "model.layers.{}.mlp.gate_proj.weight",
        "blk.{}.ffn_gate.weight",
    ),
    ("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    (
        "model.layers.{}.mlp.down_proj.weight",
        "blk.{}.ffn_down.weight",
    ),
    (
        "model.layers.{}.self_attn.q_norm.weight",
        "blk.{}.attn_q_norm.weight",
    ),
    (
        "model.layers.{}.self_attn.k_norm.weight",
        "blk.{}.attn_k_norm.weight",
    ),
];

/// Names of experts as the families after Mixtral have them.
pub(super) const EXPERTS: &[(&str, &str)] = &[
    (
        "model.layers.{}.mlp.gate.weight",
        "blk.{}.ffn_gate_inp.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.gate_proj.weight",
        "blk.{}.ffn_gate.{}.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.up_proj.weight",
        "blk.{}.ffn_up.{}.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.down_proj.weight",
        "blk.{}.ffn_down.{}.weight",
    ),
];

/// See the [module](self).
struct Decoder {
    config: ModelConfig,
    placement: Rc<Placement>,
    share: Share,
    /// On the first stage.
    embedding: Option<Embedding>,
    rope: Rope,
    /// Of this stage.
    layers: Vec<Layer>,
    /// On the last stage: the last norm and the output layer.
    head: Option<(RmsNorm, Linear)>,
}

struct Layer {
    attn_norm: RmsNorm,
    attention: SelfAttention,
    o: Linear,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
}

enum SelfAttention {
    Heads(Box<HeadAttention>),
    Latent(Box<LatentAttention>),
}

struct HeadAttention {
    /// Of this rank's heads of q, then k, then v.
    qkv: Linear,
    /// Of all heads' channels together.
    norms: Option<RowNorms>,
    attention: Attention,
}

enum FeedForward {
    Dense(Box<GatedMlp>),
    Experts(Box<Moe>),
}

impl SelfAttention {
    /// Loads this rank's heads of layer `layer`, the cache's layer `place`.
    async fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        heads: &Heads,
        [layer, place]: [usize; 2],
        context: usize,
    ) -> Result<Self> {
        let block = format!("blk.{layer}");
        let name = |part: &str| format!("{block}.{part}");
        let (c, d, eps) = (config.hidden_size, config.head_dim, config.rms_norm_eps);
        let (h, kv) = (config.num_attention_heads, config.num_key_value_heads);
        if let Some(latent) = &config.latent {
            let (sizes, held) = ([c, h, place, context], heads.q.clone());
            let latent = LatentAttention::load(loader, &block, sizes, held, latent, eps).await?;
            return Ok(SelfAttention::Latent(Box::new(latent)));
        }
        let channels = |heads: &Range<usize>| heads.start * d..heads.end * d;
        let qkv = [
            (name("attn_q"), h * d, channels(&heads.q)),
            (name("attn_k"), kv * d, channels(&heads.kv)),
            (name("attn_v"), kv * d, channels(&heads.kv)),
        ];
        let mut attention = Attention::new(heads.clone(), d, place);
        if let Some(scale) = config.multipliers.attention {
            attention = attention.with_scale(scale);
        }
        if let Some(window) = config.window(layer) {
            attention = attention.with_window(window);
        }
        let sinks = name("attn_sinks.weight");
        if let Some(sinks) = loader.optional_vector(&sinks, h, heads.q.clone()).await? {
            attention = attention.with_sinks(sinks);
        }
        let mut norms = None;
        if config.norms_whole_rows {
            norms = Some(RowNorms::load(loader, &block, [h, kv, d], eps).await?);
        } else if loader.files().has(&name("attn_q_norm.weight")) {
            let (q, k) = (name("attn_q_norm.weight"), name("attn_k_norm.weight"));
            let (q, k) = (loader.vector(&q, d).await?, loader.vector(&k, d).await?);
            attention = attention.with_norms(q, k, eps);
        }
        Ok(SelfAttention::Heads(Box::new(HeadAttention {
            qkv: Linear::load_columns(loader, &qkv, c).await?,
            norms,
            attention,
        })))
    }

    /// Attends with `x` `(T, C)`: `(T, H D)` of this rank's heads.
    fn apply(
        &self,
        r: &mut Recording,
        x: &Tensor,
        rope: &Rope,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        match self {
            SelfAttention::Latent(latent) => r.latent_attention(x, latent, rope, step, cache),
            SelfAttention::Heads(heads) => {
                let mut qkv = r.linear(x, &heads.qkv)?;
                if let Some(norms) = &heads.norms {
                    qkv = norms.apply(r, &qkv)?;
                }
                r.self_attention(&qkv, &heads.attention, Some(rope), step, cache)
            }
        }
    }
}

impl FeedForward {
    /// Hidden channels of each expert, or of the block, that this rank holds.
    fn held(&self) -> &Range<usize> {
        match self {
            FeedForward::Dense(mlp) => mlp.held(),
            FeedForward::Experts(moe) => moe.held(),
        }
    }
}

/// Loads a rank's part.
///
/// # Errors
///
/// Those of [`super::load`].
pub(super) async fn load(loader: &mut Loader<'_>, context: usize) -> Result<Box<dyn Model>> {
    let config = loader.files().config.clone();
    let placement = Rc::clone(loader.placement());
    let (c, f) = (config.hidden_size, config.intermediate_size);
    // Of what a head of attention gives.
    let d = config.latent.map_or(config.head_dim, |l| l.v_head_dim);
    let (h, kv) = (config.num_attention_heads, config.num_key_value_heads);
    let eps = config.rms_norm_eps;
    let block = loader.block("blk.0.attn_output.weight")?;
    let heads = placement.heads(h, kv, d, block)?;
    let held = heads.q.start * d..heads.q.end * d;

    let tied = !loader.files().has("output.weight");
    let mut embedding = None;
    if placement.is_first_stage() || (tied && placement.is_last_stage()) {
        let name = "token_embd.weight";
        let table = Embedding::load(loader, name, config.vocab_size, c).await?;
        embedding = Some(table.with_scale(config.multipliers.embedding));
    }
    let rope = Rope::load(loader, &config.rope, context).await?;
    let stage = placement.layers(config.num_hidden_layers)?;
    let mut hidden = 0..0;
    let mut layers = Vec::with_capacity(stage.len());
    for i in stage.clone() {
        let block_name = format!("blk.{i}");
        let places = [i, i - stage.start];
        let name = |part: &str| format!("blk.{i}.{part}");
        let scale = config.multipliers.residual;
        let ffn = match config.experts(i) {
            Some(moe) => {
                let act = config.hidden_act;
                let moe = Moe::load(loader, i, c, moe, act, scale).await?;
                FeedForward::Experts(Box::new(moe))
            }
            None => {
                let mlp = GatedMlp::load(loader, &block_name, c, f, config.hidden_act).await?;
                FeedForward::Dense(Box::new(mlp))
            }
        };
        hidden = ffn.held().clone();
        // gpt-oss' GGUF files have another name for it.
        let ffn_norm = match loader.files().has(&name("ffn_norm.weight")) {
            true => "ffn_norm",
            false => "post_attention_norm",
        };
        layers.push(Layer {
            attn_norm: RmsNorm::load(loader, &name("attn_norm"), c, eps).await?,
            attention: SelfAttention::load(loader, &config, &heads, places, context).await?,
            o: Linear::load_row(loader, &name("attn_output"), c, h * d, held.clone()).await?,
            ffn_norm: RmsNorm::load(loader, &name(ffn_norm), c, eps).await?,
            ffn,
        });
    }
    let share = Share {
        layers: stage,
        heads: heads.q,
        kv_heads: heads.kv,
        hidden,
        vocab: placement.vocab(config.vocab_size)?,
    };
    let mut head = None;
    if placement.is_last_stage() {
        // What is on logits may as well be on what they are made of.
        let scale = config.multipliers.logits;
        let norm = RmsNorm::load_scaled(loader, "output_norm", c, eps, scale).await?;
        let output = match &embedding {
            Some(embedding) if tied => embedding.tied(),
            _ => {
                let rows = share.vocab.clone();
                Linear::load_column(loader, "output", config.vocab_size, c, rows).await?
            }
        };
        head = Some((norm, output));
    }
    Ok(Box::new(Decoder {
        embedding: embedding.filter(|_| placement.is_first_stage()),
        config,
        placement,
        share,
        rope,
        layers,
        head,
    }))
}

/// RMSNorm of all query heads' channels together, and of all key heads' (OLMoE, arXiv:2409.02060).
struct RowNorms {
    q: RmsNorm,
    k: RmsNorm,
    /// Query and key/value heads of every tensor-parallel rank, one after the other.
    ranks: Vec<Heads>,
    head_size: usize,
}

impl RowNorms {
    async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [heads, kv, d]: [usize; 3],
        eps: f32,
    ) -> Result<Self> {
        let placement = Rc::clone(loader.placement());
        let block = loader.block(&format!("{name}.attn_output.weight"))?;
        let ranks: Result<Vec<Heads>> = (0..placement.tp.len())
            .map(|rank| placement.heads_of(rank, heads, kv, d, block))
            .collect();
        let ranks = ranks?;
        if ranks.iter().map(|h| h.kv.len()).sum::<usize>() != kv {
            return Err(Error::Unsupported {
                what: format!("{name}.attn_k_norm: a norm of {kv} key heads that ranks share"),
                supported: "numbers of ranks that divide the key heads".into(),
            });
        }
        let (q, k) = (format!("{name}.attn_q_norm"), format!("{name}.attn_k_norm"));
        Ok(RowNorms {
            q: RmsNorm::load(loader, &q, heads * d, eps).await?,
            k: RmsNorm::load(loader, &k, kv * d, eps).await?,
            head_size: d,
            ranks,
        })
    }

    /// `qkv` with q and k normalised, for which a rank needs the other ranks' channels.
    fn apply(&self, r: &mut Recording, qkv: &Tensor) -> Result<Tensor> {
        let d = self.head_size;
        let own = &self.ranks[r.placement().tp.me];
        let (q, kv) = (own.q.len() * d, own.kv.len() * d);
        let lens = |of: &dyn Fn(&Heads) -> usize| self.ranks.iter().map(|h| of(h) * d).collect();
        let mut parts = Vec::with_capacity(3);
        let of: [(_, _, _, _, Vec<usize>); 2] = [
            (&self.q, 0, q, own.q.start * d, lens(&|h| h.q.len())),
            (&self.k, q, kv, own.kv.start * d, lens(&|h| h.kv.len())),
        ];
        for (norm, first, len, place, lens) in of {
            let own = r.columns(qkv, first, len)?;
            let whole = match self.ranks.len() {
                1 => own,
                _ => r.all_gather(&own, 1, lens)?,
            };
            let whole = r.rms_norm(&whole, norm)?;
            parts.push(match self.ranks.len() {
                1 => whole,
                _ => r.columns(&whole, place, len)?,
            });
        }
        parts.push(r.columns(qkv, q + kv, kv)?);
        r.concat_columns(&parts)
    }
}

impl Model for Decoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn share(&self) -> &Share {
        &self.share
    }

    fn forward(
        &self,
        r: &mut Recording,
        tokens: &Tensor,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let count = tokens.len();
        let mut x = match &self.embedding {
            Some(embedding) => r.embedding(tokens, embedding)?,
            None => r.receive_hidden(count, self.config.hidden_size)?,
        };
        for layer in &self.layers {
            let h = r.rms_norm(&x, &layer.attn_norm)?;
            let h = r.gather_tokens(&h, count)?;
            let a = (layer.attention).apply(r, &h, &self.rope, step, cache)?;
            let scale = self.config.multipliers.residual;
            x = r.linear_residual_scaled(&a, &layer.o, &x, scale)?;
            let h = r.rms_norm(&x, &layer.ffn_norm)?;
            x = match &layer.ffn {
                FeedForward::Dense(mlp) => {
                    let h = r.gather_tokens(&h, count)?;
                    let f = r.gated_hidden(&h, mlp)?;
                    r.linear_residual_scaled(&f, &mlp.down, &x, scale)?
                }
                FeedForward::Experts(moe) => r.moe(&h, &x, moe, count)?,
            };
        }
        if self.placement.is_last_stage() {
            return r.gather_tokens(&x, count);
        }
        r.send_hidden(&x)?;
        Ok(x)
    }

    fn norm(&self, r: &mut Recording, hidden: &Tensor) -> Result<Option<Tensor>> {
        let Some((norm, _)) = &self.head else {
            return Ok(None);
        };
        Ok(Some(r.rms_norm(hidden, norm)?))
    }

    fn head(
        &self,
        r: &mut Recording,
        hidden: &Tensor,
        first: usize,
        logits: &Tensor,
    ) -> Result<()> {
        let Some((norm, output)) = &self.head else {
            return Ok(());
        };
        let h = r.rms_norm_rows(hidden, norm, first, logits.rows())?;
        r.linear_into(&h, output, logits)
    }
}
