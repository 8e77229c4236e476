//! DeepSeek-V2 (arXiv:2405.04434) and V3 (arXiv:2412.19437): latent attention, shared experts, routed experts chosen
//! within groups, dense layers first.

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "deepseek2",
    hugging_face: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"],
    adjacent: [true; 2],
    names: &[
        decoder::NAMES,
        decoder::EXPERTS,
        &[
            (
                "model.layers.{}.self_attn.q_a_proj.weight",
                "blk.{}.attn_q_a.weight",
            ),
            (
                "model.layers.{}.self_attn.q_a_layernorm.weight",
                "blk.{}.attn_q_a_norm.weight",
            ),
            (
                "model.layers.{}.self_attn.q_b_proj.weight",
                "blk.{}.attn_q_b.weight",
            ),
            (
                "model.layers.{}.self_attn.kv_a_proj_with_mqa.weight",
                "blk.{}.attn_kv_a_mqa.weight",
            ),
            (
                "model.layers.{}.self_attn.kv_a_layernorm.weight",
                "blk.{}.attn_kv_a_norm.weight",
            ),
            (
                "model.layers.{}.self_attn.kv_b_proj.weight",
                "blk.{}.attn_kv_b.weight",
            ),
            (
                "model.layers.{}.mlp.gate.e_score_correction_bias",
                "blk.{}.exp_probs_b.bias",
            ),
            (
                "model.layers.{}.mlp.shared_experts.gate_proj.weight",
                "blk.{}.ffn_gate_shexp.weight",
            ),
            (
                "model.layers.{}.mlp.shared_experts.up_proj.weight",
                "blk.{}.ffn_up_shexp.weight",
            ),
            (
                "model.layers.{}.mlp.shared_experts.down_proj.weight",
                "blk.{}.ffn_down_shexp.weight",
            ),
        ],
    ],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
