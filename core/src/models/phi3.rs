//! Phi-3 (arXiv:2404.14219) and Phi-4: llama with q, k and v in one matrix, and gate and up in one.

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "phi3",
    hugging_face: &["Phi3ForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::NAMES,
        &[
            (
                "model.layers.{}.self_attn.qkv_proj.weight",
                "blk.{}.attn_qkv.weight",
            ),
            (
                "model.layers.{}.mlp.gate_up_proj.weight",
                "blk.{}.ffn_up.weight",
            ),
        ],
    ],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
