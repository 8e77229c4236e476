//! Llama (arXiv:2302.13971) and what is shaped like it: Llama 2 and 3, SmolLM2, Mistral, Mixtral (arXiv:2401.04088).

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "llama",
    hugging_face: &[
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
    ],
    adjacent: [true, false],
    names: &[
        decoder::NAMES,
        &[
            (
                "model.layers.{}.block_sparse_moe.gate.weight",
                "blk.{}.ffn_gate_inp.weight",
            ),
            (
                "model.layers.{}.block_sparse_moe.experts.{}.w1.weight",
                "blk.{}.ffn_gate.{}.weight",
            ),
            (
                "model.layers.{}.block_sparse_moe.experts.{}.w2.weight",
                "blk.{}.ffn_down.{}.weight",
            ),
            (
                "model.layers.{}.block_sparse_moe.experts.{}.w3.weight",
                "blk.{}.ffn_up.{}.weight",
            ),
        ],
    ],
    refine: |config, _| {
        if let Some(moe) = &mut config.moe {
            moe.router.normalize = true;
        }
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
