//! gpt-oss (arXiv:2508.10925): attention sinks, a window in every other layer, biases, clamped SwiGLU.

use super::{Family, decoder};
use crate::nn::{Activation, Score};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "gpt-oss",
    hugging_face: &["GptOssForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::NAMES,
        &[
            (
                "model.layers.{}.self_attn.sinks",
                "blk.{}.attn_sinks.weight",
            ),
            (
                "model.layers.{}.mlp.router.weight",
                "blk.{}.ffn_gate_inp.weight",
            ),
            (
                "model.layers.{}.mlp.router.bias",
                "blk.{}.ffn_gate_inp.bias",
            ),
            // (E, C, 2 F), gate and up in turns.
            (
                "model.layers.{}.mlp.experts.gate_up_proj",
                "blk.{}.ffn_gate_up_exps.transposed",
            ),
            (
                "model.layers.{}.mlp.experts.gate_up_proj_bias",
                "blk.{}.ffn_gate_up_exps.bias",
            ),
            // Two tensors of bytes as one, `weights::mxfp4`; here gate's rows come first, then up's.
            (
                "model.layers.{}.mlp.experts.gate_up_proj_blocks",
                "blk.{}.ffn_gate_up_exps.weight",
            ),
            (
                "model.layers.{}.mlp.experts.gate_up_proj_scales",
                "blk.{}.ffn_gate_up_exps.scales",
            ),
            (
                "model.layers.{}.mlp.experts.down_proj_blocks",
                "blk.{}.ffn_down_exps.weight",
            ),
            (
                "model.layers.{}.mlp.experts.down_proj_scales",
                "blk.{}.ffn_down_exps.scales",
            ),
            (
                "model.layers.{}.mlp.experts.down_proj",
                "blk.{}.ffn_down_exps.transposed",
            ),
            (
                "model.layers.{}.mlp.experts.down_proj_bias",
                "blk.{}.ffn_down_exps.bias",
            ),
        ],
    ],
    refine: |config, _| {
        if let Some(window) = &mut config.window {
            window.period = 2;
        }
        if let Some(moe) = &mut config.moe {
            moe.router.score = Score::SoftmaxOfChosen;
            // GGUF files say nothing of it.
            moe.swiglu_limit.get_or_insert(7.0);
        }
        config.hidden_act = Activation::QuickGelu;
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
