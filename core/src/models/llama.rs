//! Llama (arXiv:2302.13971) and what is shaped like it: Llama 2 and 3, SmolLM2, Mistral without a
//! sliding window.

use super::{Family, Model, ModelConfig};
use crate::Result;
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
    embedding: Embedding,
    rope: Rope,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear,
}

struct Layer {
    attn_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    attention: Attention,
    o: Linear,
    ffn_norm: RmsNorm,
    mlp: GatedMlp,
}

async fn load(loader: &mut Loader<'_>, context: usize) -> Result<Box<dyn Model>> {
    let config = loader.files().config.clone();
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let eps = config.rms_norm_eps;

    let embedding = Embedding::load(loader, "token_embd.weight", config.vocab_size, c).await?;
    let rope = Rope::load(loader, &config.rope, context).await?;
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for i in 0..config.num_hidden_layers {
        let name = |part: &str| format!("blk.{i}.{part}");
        layers.push(Layer {
            attn_norm: RmsNorm::load(loader, &name("attn_norm"), c, eps).await?,
            q: Linear::load(loader, &name("attn_q"), q, c).await?,
            k: Linear::load(loader, &name("attn_k"), kv, c).await?,
            v: Linear::load(loader, &name("attn_v"), kv, c).await?,
            attention: Attention::new(&config, i),
            o: Linear::load(loader, &name("attn_output"), c, q).await?,
            ffn_norm: RmsNorm::load(loader, &name("ffn_norm"), c, eps).await?,
            mlp: GatedMlp::load(loader, &format!("blk.{i}"), c, f, config.hidden_act).await?,
        });
    }
    let norm = RmsNorm::load(loader, "output_norm", c, eps).await?;
    let output = if loader.files().has("output.weight") {
        Linear::load(loader, "output", config.vocab_size, c).await?
    } else {
        embedding.tied()
    };
    Ok(Box::new(Llama {
        config,
        embedding,
        rope,
        layers,
        norm,
        output,
    }))
}

impl Model for Llama {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn forward(
        &self,
        r: &mut Recording,
        tokens: &Tensor,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let mut x = r.embedding(tokens, &self.embedding)?;
        for layer in &self.layers {
            let h = r.rms_norm(&x, &layer.attn_norm)?;
            let q = r.linear(&h, &layer.q)?;
            let k = r.linear(&h, &layer.k)?;
            let v = r.linear(&h, &layer.v)?;
            r.rope(&q, &self.rope, self.config.head_dim, step)?;
            r.rope(&k, &self.rope, self.config.head_dim, step)?;
            let a = r.attention([&q, &k, &v], &layer.attention, step, cache)?;
            x = r.linear_residual(&a, &layer.o, &x)?;
            let h = r.rms_norm(&x, &layer.ffn_norm)?;
            let f = r.gated_hidden(&h, &layer.mlp)?;
            x = r.linear_residual(&f, &layer.mlp.down, &x)?;
        }
        Ok(x)
    }

    fn head(
        &self,
        r: &mut Recording,
        hidden: &Tensor,
        first: usize,
        logits: &Tensor,
    ) -> Result<()> {
        let h = r.rms_norm_rows(hidden, &self.norm, first, logits.rows())?;
        r.linear_into(&h, &self.output, None, logits)
    }
}
