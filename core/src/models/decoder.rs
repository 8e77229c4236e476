//! Decoders: blocks of causal self-attention and a feed-forward block, gated or not, or a mixture of them, with norms before
//! or behind them. What differs between families is data: [`ModelConfig`], names, and which tensors there are.

use std::ops::Range;
use std::rc::Rc;

mod names;

use super::{Model, ModelConfig, Positions, QkvOrder, RopeScaling, Share};
use crate::comm::{Heads, Placement};
use crate::kv_cache::KvCache;
use crate::nn::{
    Activation, Attention, Embedding, GatedMlp, LatentAttention, LayerNorm, Linear, Mlp, Moe,
    Packing, RmsNorm, Rope, RowNorm, alibi_slopes,
};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;
use crate::{Error, Result};
pub(super) use names::{EXPERTS, NAMES, TRANSFORMER_NAMES};

/// See the [module](self).
struct Decoder {
    config: ModelConfig,
    placement: Rc<Placement>,
    share: Share,
    /// On the first stage.
    embedding: Option<Embedding>,
    /// A row for each position, and a norm of what both give; on the first stage.
    positions: Option<Embedding>,
    embedding_norm: Option<RowNorm>,
    ropes: Ropes,
    /// Of this stage.
    layers: Vec<Layer>,
    /// On the last stage: the last norm and the output layer.
    head: Option<(RowNorm, Linear)>,
}

struct Ropes {
    rope: Option<Rope>,
    /// Of layers with a window, where it is another one.
    local: Option<Rope>,
}

struct Layer {
    /// Before attention and before the feed-forward block; the second one is missing where they read the same.
    attn_norm: Option<RowNorm>,
    ffn_norm: Option<RowNorm>,
    /// Behind them.
    attn_post_norm: Option<RowNorm>,
    ffn_post_norm: Option<RowNorm>,
    windowed: bool,
    attention: SelfAttention,
    o: Linear,
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
    Plain(Box<Mlp>),
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
        let (c, d, eps) = (config.hidden_size, config.head_dim, config.norm_eps);
        let (h, kv) = (config.num_attention_heads, config.num_key_value_heads);
        if let Some(latent) = &config.latent {
            let (sizes, held) = ([c, h, place, context], heads.q.clone());
            let latent = LatentAttention::load(loader, &block, sizes, held, latent, eps).await?;
            return Ok(SelfAttention::Latent(Box::new(latent)));
        }
        let channels = |heads: &Range<usize>| heads.start * d..heads.end * d;
        let whole = name("attn_qkv");
        let qkv = match loader.files().has(&format!("{whole}.weight")) {
            true => {
                let rows = packed_heads(config.qkv, [h, kv], heads);
                let part = |part| (whole.clone(), (h + 2 * kv) * d, channels(&part));
                rows.into_iter().map(part).collect()
            }
            false => vec![
                (name("attn_q"), h * d, channels(&heads.q)),
                (name("attn_k"), kv * d, channels(&heads.kv)),
                (name("attn_v"), kv * d, channels(&heads.kv)),
            ],
        };
        let mut attention = Attention::new(heads.clone(), d, place);
        if let Some(scale) = config.multipliers.attention {
            attention = attention.with_scale(scale);
        }
        if let Some(window) = config.window(layer) {
            attention = attention.with_window(window);
        }
        if let Some(cap) = config.softcaps.attention {
            attention = attention.with_softcap(cap);
        }
        if let Positions::Alibi { max_bias, scale } = config.positions {
            let mut slopes = alibi_slopes(h, f64::from(max_bias));
            slopes.iter_mut().for_each(|slope| *slope *= scale);
            let slopes = std::iter::once(slopes[heads.q.clone()].to_vec());
            let label = format!("slopes {:?}", heads.q);
            let slopes = loader.table(&label, &[heads.q.len()], slopes).await?;
            attention = attention.with_alibi(slopes);
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
            let offset = config.norm_offset;
            let q = loader.vector_with(&q, d, 0..d, |w| w + offset).await?;
            let k = loader.vector_with(&k, d, 0..d, |w| w + offset).await?;
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
        rope: Option<&Rope>,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        match self {
            SelfAttention::Latent(latent) => {
                let rope = rope.ok_or_else(|| {
                    Error::Invalid("latent attention has rotary positions".into())
                })?;
                r.latent_attention(x, latent, rope, step, cache)
            }
            SelfAttention::Heads(heads) => {
                let mut qkv = r.linear(x, &heads.qkv)?;
                if let Some(norms) = &heads.norms {
                    qkv = norms.apply(r, &qkv)?;
                }
                r.self_attention(&qkv, &heads.attention, rope, step, cache)
            }
        }
    }
}

impl FeedForward {
    /// Hidden channels of each expert, or of the block, that this rank holds.
    fn held(&self) -> &Range<usize> {
        match self {
            FeedForward::Dense(mlp) => mlp.held(),
            FeedForward::Plain(mlp) => mlp.held(),
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
    let first = placement.is_first_stage();
    let (mut positions, mut embedding_norm) = (None, None);
    if first && config.positions == Positions::Learned {
        let rows = config.max_position_embeddings;
        let table = loader.weight("position_embd.weight", rows, c).await?;
        positions = Some(Embedding::new(table));
    }
    if first && loader.files().has("token_embd_norm.weight") {
        embedding_norm = Some(norm(loader, &config, "token_embd_norm", 1.0).await?);
    }
    let ropes = Ropes::load(loader, &config, context).await?;
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
            None => FeedForward::load(loader, &block_name, [c, f], config.hidden_act).await?,
        };
        hidden = ffn.held().clone();
        let before = norms_before(loader, &config, &block_name);
        let mut norms = [None, None, None, None];
        let behind = ["post_attention_norm", "post_ffw_norm"].map(|part| {
            let there = !before.contains(&Some(part));
            (there && loader.files().has(&name(&format!("{part}.weight")))).then_some(part)
        });
        for (norm_of, part) in norms.iter_mut().zip(before.into_iter().chain(behind)) {
            if let Some(part) = part {
                *norm_of = Some(norm(loader, &config, &name(part), 1.0).await?);
            }
        }
        let [attn_norm, ffn_norm, attn_post_norm, ffn_post_norm] = norms;
        layers.push(Layer {
            attn_norm,
            ffn_norm,
            attn_post_norm,
            ffn_post_norm,
            windowed: config.window(i).is_some(),
            attention: SelfAttention::load(loader, &config, &heads, places, context).await?,
            o: Linear::load_row(loader, &name("attn_output"), c, h * d, held.clone()).await?,
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
        let cap = config.softcaps.logits.unwrap_or(1.0);
        let scale = config.multipliers.logits / cap;
        let norm = norm(loader, &config, "output_norm", scale).await?;
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
        embedding: embedding.filter(|_| first),
        positions,
        embedding_norm,
        config,
        placement,
        share,
        ropes,
        layers,
        head,
    }))
}

/// Feed-forward blocks that are four times as wide as the residual stream where nothing else is said.
pub(super) fn four_times(config: &mut ModelConfig) {
    if config.intermediate_size == 0 {
        config.intermediate_size = config.hidden_size.saturating_mul(4);
    }
}

/// The norm `name`, its weights and biases multiplied by `scale`.
async fn norm(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    name: &str,
    scale: f32,
) -> Result<RowNorm> {
    let (c, eps) = (config.hidden_size, config.norm_eps);
    if config.layer_norm {
        let norm = LayerNorm::load_scaled(loader, name, c, eps, scale).await?;
        return Ok(RowNorm::Layer(norm));
    }
    let norm = RmsNorm::load_mapped(loader, name, c, eps, config.norm_offset, scale).await?;
    Ok(RowNorm::Rms(norm))
}

/// Names of the norms before attention and before the feed-forward block, of those that there are.
fn norms_before(
    loader: &Loader<'_>,
    config: &ModelConfig,
    block: &str,
) -> [Option<&'static str>; 2] {
    let has = |part: &str| loader.files().has(&format!("{block}.{part}.weight"));
    if config.parallel_residual && !has("ffn_norm") {
        // Where there are two, the second is attention's.
        return match has("attn_norm_2") {
            true => [Some("attn_norm_2"), Some("attn_norm")],
            false => [Some("attn_norm"), None],
        };
    }
    match (has("attn_norm"), has("ffn_norm")) {
        (false, false) if has("post_attention_norm") && has("post_ffw_norm") => [None, None],
        // gpt-oss' GGUF files have another name for it.
        (_, false) if has("post_attention_norm") => {
            [Some("attn_norm"), Some("post_attention_norm")]
        }
        _ => [Some("attn_norm"), Some("ffn_norm")],
    }
}

/// Rows of q, k and v of these heads in a matrix of all, in heads.
fn packed_heads(order: QkvOrder, [heads, kv]: [usize; 2], held: &Heads) -> Vec<Range<usize>> {
    let of = |range: &Range<usize>, first: usize| first + range.start..first + range.end;
    match order {
        QkvOrder::Blocks => vec![
            held.q.clone(),
            of(&held.kv, heads),
            of(&held.kv, heads + kv),
        ],
        QkvOrder::Groups => {
            let group = heads / kv;
            let one = |place: usize| place..place + 1;
            let q = held
                .q
                .clone()
                .map(|q| one(q / group * (group + 2) + q % group));
            let of_kv =
                |which: usize| (held.kv.clone()).map(move |k| one(k * (group + 2) + group + which));
            q.chain(of_kv(0)).chain(of_kv(1)).collect()
        }
    }
}

impl Ropes {
    async fn load(loader: &mut Loader<'_>, config: &ModelConfig, context: usize) -> Result<Self> {
        if config.positions != Positions::Rotary {
            return Ok(Ropes {
                rope: None,
                local: None,
            });
        }
        let rope = Some(Rope::load(loader, &config.rope, context).await?);
        let mut local = None;
        if let (Some(theta), Some(_)) = (config.local_rope_theta, config.window) {
            let config = super::RopeConfig {
                theta,
                scaling: RopeScaling::None,
                ..config.rope.clone()
            };
            local = Some(Rope::load_named(loader, "local rope", &config, context).await?);
        }
        Ok(Ropes { rope, local })
    }

    fn of(&self, layer: &Layer) -> Option<&Rope> {
        self.local
            .as_ref()
            .filter(|_| layer.windowed)
            .or(self.rope.as_ref())
    }
}

impl FeedForward {
    /// A block without experts: gated, with gate and up in two matrices or in one, or plain.
    async fn load(
        loader: &mut Loader<'_>,
        block: &str,
        [channels, hidden]: [usize; 2],
        act: Activation,
    ) -> Result<Self> {
        let name = |part: &str| format!("{block}.{part}");
        let up = name("ffn_up");
        if loader.files().has(&name("ffn_gate.weight")) {
            let mlp = GatedMlp::load(loader, block, channels, hidden, act).await?;
            return Ok(FeedForward::Dense(Box::new(mlp)));
        }
        let rows = loader.files().rows(&format!("{up}.weight"));
        if rows == Some(2 * hidden) {
            let names = [up, name("ffn_down")];
            let mlp =
                GatedMlp::load_packed(loader, &names, channels, hidden, Packing::GateValue, act);
            return Ok(FeedForward::Dense(Box::new(mlp.await?)));
        }
        let names = [up, name("ffn_down")];
        let mlp = Mlp::load_named(loader, &names, [channels, hidden, channels], act).await?;
        Ok(FeedForward::Plain(Box::new(mlp)))
    }

    /// What it adds to the residual stream, of `h` `(T, C)` of all tokens.
    fn apply(&self, r: &mut Recording, h: &Tensor) -> Result<Tensor> {
        match self {
            FeedForward::Dense(mlp) => r.gated_mlp(h, mlp),
            FeedForward::Plain(mlp) => r.mlp(h, mlp),
            FeedForward::Experts(_) => Err(Error::Unsupported {
                what: "experts in a block with norms behind it, or beside attention".into(),
                supported: "experts behind attention".into(),
            }),
        }
    }
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

impl Decoder {
    /// A block: `x` `(T, C)`, of this rank's tokens in a sequence-parallel step of `count`, to the same.
    fn layer(
        &self,
        r: &mut Recording,
        layer: &Layer,
        x: &Tensor,
        count: usize,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let scale = self.config.multipliers.residual;
        let normed = |r: &mut Recording, x: &Tensor, norm: &Option<RowNorm>| match norm {
            Some(norm) => r.row_norm(x, norm),
            None => Ok(x.clone()),
        };
        let h = normed(r, x, &layer.attn_norm)?;
        let h = r.gather_tokens(&h, count)?;
        let rope = self.ropes.of(layer);
        let a = (layer.attention).apply(r, &h, rope, step, cache)?;
        if self.config.parallel_residual {
            let h = match &layer.ffn_norm {
                Some(norm) => {
                    let h = r.row_norm(x, norm)?;
                    r.gather_tokens(&h, count)?
                }
                None => h,
            };
            let x = r.linear_residual_scaled(&a, &layer.o, x, scale)?;
            let f = layer.ffn.apply(r, &h)?;
            return r.add_scaled(&x, &f, scale);
        }
        let x = match &layer.attn_post_norm {
            None => r.linear_residual_scaled(&a, &layer.o, x, scale)?,
            Some(norm) => {
                let a = r.linear(&a, &layer.o)?;
                let a = r.row_norm(&a, norm)?;
                r.add_scaled(x, &a, scale)?
            }
        };
        let h = normed(r, &x, &layer.ffn_norm)?;
        if let Some(norm) = &layer.ffn_post_norm {
            let h = r.gather_tokens(&h, count)?;
            let f = layer.ffn.apply(r, &h)?;
            let f = r.row_norm(&f, norm)?;
            return r.add_scaled(&x, &f, scale);
        }
        match &layer.ffn {
            FeedForward::Dense(mlp) => {
                let h = r.gather_tokens(&h, count)?;
                let f = r.gated_hidden(&h, mlp)?;
                r.linear_residual_scaled(&f, &mlp.down, &x, scale)
            }
            FeedForward::Plain(mlp) => {
                let h = r.gather_tokens(&h, count)?;
                let f = r.mlp_inner(&h, mlp)?;
                r.linear_residual_scaled(&f, mlp.down(), &x, scale)
            }
            FeedForward::Experts(moe) => r.moe(&h, &x, moe, count),
        }
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
        if let Some(positions) = &self.positions {
            r.add_positions(&x, positions, step, cache, count)?;
        }
        if let Some(norm) = &self.embedding_norm {
            x = r.row_norm(&x, norm)?;
        }
        for layer in &self.layers {
            x = self.layer(r, layer, &x, count, step, cache)?;
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
        let scale = self.config.softcaps.logits.unwrap_or(1.0);
        let normed = r.row_norm(hidden, norm)?;
        match scale == 1.0 {
            true => Ok(Some(normed)),
            // The norm's weights have it in them.
            false => Ok(Some(r.add_scaled(&normed, &normed, scale - 1.0)?)),
        }
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
        let h = r.row_norm_rows(hidden, norm, first, logits.rows())?;
        match self.config.softcaps.logits {
            None => r.linear_into(&h, output, logits),
            Some(cap) => {
                let scaled = r.linear(&h, output)?;
                r.softcap_into(&scaled, cap, logits)
            }
        }
    }
}
