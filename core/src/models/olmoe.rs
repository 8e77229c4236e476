//! OLMoE (arXiv:2409.02060): q and k are normalised over all heads together.

use super::{Family, decoder};

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "olmoe",
    hugging_face: &["OlmoeForCausalLM"],
    adjacent: [false; 2],
    names: &[decoder::NAMES, decoder::EXPERTS],
    refine: |config, _| config.norms_whole_rows = true,
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
