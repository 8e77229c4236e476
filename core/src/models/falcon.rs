//! Falcon (arXiv:2311.16867): attention beside the feed-forward block, or behind one another with ALiBi (Falcon-RW).

use super::{Family, Origin, Positions, QkvOrder, decoder};
use crate::nn::Activation;

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "falcon",
    hugging_face: &["FalconForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::TRANSFORMER_NAMES,
        &[
            // Of the larger ones: that of the feed-forward block has the other one's name in GGUF.
            ("transformer.h.{}.ln_mlp.weight", "blk.{}.attn_norm.weight"),
            ("transformer.h.{}.ln_mlp.bias", "blk.{}.attn_norm.bias"),
            (
                "transformer.h.{}.ln_attn.weight",
                "blk.{}.attn_norm_2.weight",
            ),
            ("transformer.h.{}.ln_attn.bias", "blk.{}.attn_norm_2.bias"),
            ("lm_head.weight", "output.weight"),
        ],
    ],
    refine: |config, origin| {
        config.hidden_act = Activation::Gelu;
        match origin {
            Origin::Gguf => config.parallel_residual = true,
            Origin::HuggingFace(json) => {
                // Scores are scaled with their bias.
                if let Positions::Alibi { scale, .. } = &mut config.positions {
                    *scale = (config.head_dim as f32).sqrt().recip();
                }
                let larger = json["new_decoder_architecture"].as_bool() == Some(true);
                config.parallel_residual |= larger;
                if larger || json["multi_query"].as_bool() != Some(true) {
                    config.qkv = QkvOrder::Groups;
                }
            }
        }
        decoder::four_times(config);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
