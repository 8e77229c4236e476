//! BLOOM (arXiv:2211.05100): ALiBi, and a norm behind the embedding.

use super::{Family, Origin, Positions, QkvOrder, decoder};
use crate::nn::Activation;

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "bloom",
    hugging_face: &["BloomForCausalLM"],
    adjacent: [false; 2],
    names: &[
        decoder::TRANSFORMER_NAMES,
        &[
            (
                "transformer.word_embeddings_layernorm.weight",
                "token_embd_norm.weight",
            ),
            (
                "transformer.word_embeddings_layernorm.bias",
                "token_embd_norm.bias",
            ),
        ],
    ],
    refine: |config, origin| {
        config.hidden_act = Activation::GeluTanh;
        config.positions = Positions::Alibi {
            max_bias: 8.0,
            scale: 1.0,
        };
        if let Origin::HuggingFace(_) = origin {
            config.qkv = QkvOrder::Groups;
        }
        decoder::four_times(config);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
