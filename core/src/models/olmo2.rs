//! OLMo 2 (arXiv:2501.00656): norms behind the blocks instead of before them.

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "olmo2",
    hugging_face: &["Olmo2ForCausalLM"],
    adjacent: [false; 2],
    names: &[
        &[
            (
                "model.layers.{}.post_attention_layernorm.weight",
                "blk.{}.post_attention_norm.weight",
            ),
            (
                "model.layers.{}.post_feedforward_layernorm.weight",
                "blk.{}.post_ffw_norm.weight",
            ),
        ],
        decoder::NAMES,
    ],
    refine: |config, _| config.norms_whole_rows = true,
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
