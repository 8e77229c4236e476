//! Qwen2 (arXiv:2407.10671), with biases of q, k and v, and Qwen2-MoE with a gated shared expert.

use super::{Family, decoder};

/// Dense.
pub static DENSE: Family = Family {
    gguf: "qwen2",
    hugging_face: &["Qwen2ForCausalLM"],
    adjacent: [false; 2],
    names: &[decoder::NAMES],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

/// Mixture of experts.
pub static MOE: Family = Family {
    gguf: "qwen2moe",
    hugging_face: &["Qwen2MoeForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::NAMES,
        decoder::EXPERTS,
        &[
            (
                "model.layers.{}.mlp.shared_expert_gate.weight",
                "blk.{}.ffn_gate_inp_shexp.weight",
            ),
            (
                "model.layers.{}.mlp.shared_expert.gate_proj.weight",
                "blk.{}.ffn_gate_shexp.weight",
            ),
            (
                "model.layers.{}.mlp.shared_expert.up_proj.weight",
                "blk.{}.ffn_up_shexp.weight",
            ),
            (
                "model.layers.{}.mlp.shared_expert.down_proj.weight",
                "blk.{}.ffn_down_shexp.weight",
            ),
        ],
    ],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
