//! Qwen3 (arXiv:2505.09388), whose heads of q and k are normalised, and Qwen3-MoE.

use super::{Family, decoder};

/// Dense.
pub static DENSE: Family = Family {
    gguf: "qwen3",
    hugging_face: &["Qwen3ForCausalLM"],
    adjacent: [false; 2],
    names: &[decoder::NAMES],
    refine: |_, _| {},
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};

/// Mixture of experts.
pub static MOE: Family = Family {
    gguf: "qwen3moe",
    hugging_face: &["Qwen3MoeForCausalLM"],
    adjacent: [false; 2],
    names: &[decoder::NAMES, decoder::EXPERTS],
    // GGUF files say nothing of it.
    refine: |config, _| {
        if let Some(moe) = &mut config.moe {
            moe.router.normalize = true;
        }
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
