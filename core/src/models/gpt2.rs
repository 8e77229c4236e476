//! GPT-2 ("Language Models are Unsupervised Multitask Learners", 2019): a row for each position, LayerNorm, biases.

use super::{Family, Positions, decoder};
use crate::nn::Activation;

/// See the [module](self).
pub static FAMILY: Family = Family {
    gguf: "gpt2",
    hugging_face: &["GPT2LMHeadModel"],
    adjacent: [false; 2],
    names: &[&[
        ("transformer.wte.weight", "token_embd.weight"),
        ("transformer.wpe.weight", "position_embd.weight"),
        ("transformer.ln_f.weight", "output_norm.weight"),
        ("transformer.ln_f.bias", "output_norm.bias"),
        ("transformer.h.{}.ln_1.weight", "blk.{}.attn_norm.weight"),
        ("transformer.h.{}.ln_1.bias", "blk.{}.attn_norm.bias"),
        ("transformer.h.{}.ln_2.weight", "blk.{}.ffn_norm.weight"),
        ("transformer.h.{}.ln_2.bias", "blk.{}.ffn_norm.bias"),
        // Inputs by outputs.
        (
            "transformer.h.{}.attn.c_attn.weight",
            "blk.{}.attn_qkv.transposed",
        ),
        ("transformer.h.{}.attn.c_attn.bias", "blk.{}.attn_qkv.bias"),
        (
            "transformer.h.{}.attn.c_proj.weight",
            "blk.{}.attn_output.transposed",
        ),
        (
            "transformer.h.{}.attn.c_proj.bias",
            "blk.{}.attn_output.bias",
        ),
        (
            "transformer.h.{}.mlp.c_fc.weight",
            "blk.{}.ffn_up.transposed",
        ),
        ("transformer.h.{}.mlp.c_fc.bias", "blk.{}.ffn_up.bias"),
        (
            "transformer.h.{}.mlp.c_proj.weight",
            "blk.{}.ffn_down.transposed",
        ),
        ("transformer.h.{}.mlp.c_proj.bias", "blk.{}.ffn_down.bias"),
    ]],
    refine: |config, _| {
        config.positions = Positions::Learned;
        config.hidden_act = Activation::GeluTanh;
        decoder::four_times(config);
    },
    load: |loader, context| Box::pin(decoder::load(loader, context)),
};
