//! StableLM (arXiv:2402.17834): LayerNorm, a quarter of each head turned.

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "stablelm",
    hugging_face: &["StableLmForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::NAMES,
        &[
            (
                "model.layers.{}.input_layernorm.bias",
                "blk.{}.attn_norm.bias",
            ),
            (
                "model.layers.{}.post_attention_layernorm.bias",
                "blk.{}.ffn_norm.bias",
            ),
            ("model.norm.bias", "output_norm.bias"),
        ],
    ],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
