//! Granite (arXiv:2405.04324), with muP's constant factors, and Granite-MoE.

use super::{Family, decoder};
use crate::nn::Score;

/// Dense.
pub static DENSE: Family = Family {
    gguf: "granite",
    hugging_face: &["GraniteForCausalLM"],
    adjacent: [true, false],
    names: &[decoder::NAMES],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

/// Mixture of experts.
pub static MOE: Family = Family {
    gguf: "granitemoe",
    hugging_face: &["GraniteMoeForCausalLM"],
    adjacent: [true, false],
    names: &[
        decoder::NAMES,
        &[
            (
                "model.layers.{}.block_sparse_moe.router.layer.weight",
                "blk.{}.ffn_gate_inp.weight",
            ),
            (
                "model.layers.{}.block_sparse_moe.input_linear.weight",
                "blk.{}.ffn_gate_up_exps.weight",
            ),
            (
                "model.layers.{}.block_sparse_moe.output_linear.weight",
                "blk.{}.ffn_down_exps.weight",
            ),
        ],
    ],
    refine: |config, _| {
        if let Some(moe) = &mut config.moe {
            moe.router.score = Score::SoftmaxOfChosen;
        }
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
