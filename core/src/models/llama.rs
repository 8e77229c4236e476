//! Llama (arXiv:2302.13971) and what is shaped like it: Llama 2 and 3, SmolLM2, Mistral without a
//! sliding window.

use std::ops::Range;
use std::rc::Rc;

use super::{Family, Model, ModelConfig, Share};
use crate::Result;
use crate::comm::Placement;
use crate::kv_cache::KvCache;
use crate::nn::{Attention, Embedding, GatedMlp, Linear, RmsNorm, Rope};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "llama",
    hugging_face: &["LlamaForCausalLM", "MistralForCausalLM"],
    names: &[
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
    ],
    refine: |_| {},
    load: |loader, context| Box::pin(load(loader, context)),
};

struct Llama {
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
    /// Of this rank's heads of q, then k, then v.
    qkv: Linear,
    attention: Attention,
    o: Linear,
    ffn_norm: RmsNorm,
    mlp: GatedMlp,
}

async fn load(loader: &mut Loader<'_>, context: usize) -> Result<Box<dyn Model>> {
    let config = loader.files().config.clone();
    let placement = Rc::clone(loader.placement());
    let (c, f, d) = (
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    );
    let (h, kv) = (config.num_attention_heads, config.num_key_value_heads);
    let eps = config.rms_norm_eps;
    let block = loader.block("blk.0.attn_output.weight")?;
    let heads = placement.heads(h, kv, d, block)?;
    let channels = |heads: &Range<usize>| heads.start * d..heads.end * d;
    let (held_q, held_kv) = (channels(&heads.q), channels(&heads.kv));

    let tied = !loader.files().has("output.weight");
    let mut embedding = None;
    if placement.is_first_stage() || (tied && placement.is_last_stage()) {
        let name = "token_embd.weight";
        embedding = Some(Embedding::load(loader, name, config.vocab_size, c).await?);
    }
    let rope = Rope::load(loader, &config.rope, context).await?;
    let stage = placement.layers(config.num_hidden_layers)?;
    let mut hidden = 0..0;
    let mut layers = Vec::with_capacity(stage.len());
    for i in stage.clone() {
        let name = |part: &str| format!("blk.{i}.{part}");
        let qkv = [
            (name("attn_q"), h * d, held_q.clone()),
            (name("attn_k"), kv * d, held_kv.clone()),
            (name("attn_v"), kv * d, held_kv.clone()),
        ];
        let mlp = GatedMlp::load(loader, &format!("blk.{i}"), c, f, config.hidden_act).await?;
        hidden = mlp.held().clone();
        layers.push(Layer {
            attn_norm: RmsNorm::load(loader, &name("attn_norm"), c, eps).await?,
            qkv: Linear::load_columns(loader, &qkv, c).await?,
            attention: Attention::new(heads.clone(), d, i - stage.start),
            o: Linear::load_row(loader, &name("attn_output"), c, h * d, held_q.clone()).await?,
            ffn_norm: RmsNorm::load(loader, &name("ffn_norm"), c, eps).await?,
            mlp,
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
        let norm = RmsNorm::load(loader, "output_norm", c, eps).await?;
        let output = match &embedding {
            Some(embedding) if tied => embedding.tied(),
            _ => {
                let rows = share.vocab.clone();
                Linear::load_column(loader, "output", config.vocab_size, c, rows).await?
            }
        };
        head = Some((norm, output));
    }
    Ok(Box::new(Llama {
        embedding: embedding.filter(|_| placement.is_first_stage()),
        config,
        placement,
        share,
        rope,
        layers,
        head,
    }))
}

impl Model for Llama {
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
            let qkv = r.linear(&h, &layer.qkv)?;
            let rope = Some(&self.rope);
            let a = r.self_attention(&qkv, &layer.attention, rope, step, cache)?;
            x = r.linear_residual(&a, &layer.o, &x)?;
            let h = r.rms_norm(&x, &layer.ffn_norm)?;
            let h = r.gather_tokens(&h, count)?;
            let f = r.gated_hidden(&h, &layer.mlp)?;
            x = r.linear_residual(&f, &layer.mlp.down, &x)?;
        }
        if self.placement.is_last_stage() {
            return r.gather_tokens(&x, count);
        }
        r.send_hidden(&x)?;
        Ok(x)
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
