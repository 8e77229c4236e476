//! Gemma (arXiv:2403.08295), Gemma 2 (arXiv:2408.00118) and Gemma 3 (arXiv:2503.19786): scaled embeddings, norms before and
//! behind blocks, soft caps, windows in most layers.

use super::{Family, ModelConfig, Origin, decoder};
use crate::nn::Activation;

/// Norms of the second and third generation.
const NORMS: &[(&str, &str)] = &[
    (
        "model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight",
    ),
    (
        "model.layers.{}.pre_feedforward_layernorm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    (
        "model.layers.{}.post_feedforward_layernorm.weight",
        "blk.{}.post_ffw_norm.weight",
    ),
];

/// The first one.
pub static GEMMA: Family = Family {
    gguf: "gemma",
    hugging_face: &["GemmaForCausalLM"],
    adjacent: [false; 2],
    names: &[decoder::NAMES],
    refine,
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

/// Every second layer sees all tokens.
pub static GEMMA2: Family = Family {
    gguf: "gemma2",
    hugging_face: &["Gemma2ForCausalLM"],
    adjacent: [false; 2],
    names: &[NORMS, decoder::NAMES],
    refine: |config, origin| {
        refine(config, origin);
        windows(config, 2);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

/// Every sixth layer sees all tokens, and has another rope.
pub static GEMMA3: Family = Family {
    gguf: "gemma3",
    hugging_face: &["Gemma3ForCausalLM", "gemma3_text"],
    adjacent: [false; 2],
    names: &[NORMS, decoder::NAMES],
    refine: |config, origin| {
        refine(config, origin);
        windows(config, 6);
        // GGUF files say nothing of it.
        config.local_rope_theta.get_or_insert(10_000.0);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

fn refine(config: &mut ModelConfig, origin: Origin<'_>) {
    config.hidden_act = Activation::GeluTanh;
    config.multipliers.embedding = (config.hidden_size as f32).sqrt();
    // GGUF's weights have it in them.
    if let Origin::HuggingFace(_) = origin {
        config.norm_offset = 1.0;
    }
}

fn windows(config: &mut ModelConfig, period: usize) {
    if let Some(window) = &mut config.window {
        window.period = period;
    }
}
