//! MPT (MosaicML, 2023): ALiBi, norms without biases.

use super::{Family, decoder};
use crate::nn::Activation;

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "mpt",
    hugging_face: &["MptForCausalLM", "MPTForCausalLM"],
    adjacent: [false; 2],
    names: &[&[
        ("transformer.wte.weight", "token_embd.weight"),
        ("transformer.norm_f.weight", "output_norm.weight"),
        (
            "transformer.blocks.{}.norm_1.weight",
            "blk.{}.attn_norm.weight",
        ),
        (
            "transformer.blocks.{}.norm_2.weight",
            "blk.{}.ffn_norm.weight",
        ),
        (
            "transformer.blocks.{}.attn.Wqkv.weight",
            "blk.{}.attn_qkv.weight",
        ),
        (
            "transformer.blocks.{}.attn.out_proj.weight",
            "blk.{}.attn_output.weight",
        ),
        (
            "transformer.blocks.{}.ffn.up_proj.weight",
            "blk.{}.ffn_up.weight",
        ),
        (
            "transformer.blocks.{}.ffn.down_proj.weight",
            "blk.{}.ffn_down.weight",
        ),
    ]],
    refine: |config, _| {
        config.hidden_act = Activation::Gelu;
        decoder::four_times(config);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
