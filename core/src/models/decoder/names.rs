//! Names of tensors that several families share: Hugging Face's and GGUF's.

/// Names that all these families share, Hugging Face's and GGUF's.
pub(in crate::models) const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
    (
        "model.layers.{}.input_layernorm.weight",
        "blk.{}.attn_norm.weight",
    ),
    (
        "model.layers.{}.self_attn.q_proj.weight",
        "blk.{}.attn_q.weight",
    ),
    (
        "model.layers.{}.self_attn.k_proj.weight",
        "blk.{}.attn_k.weight",
    ),
    (
        "model.layers.{}.self_attn.v_proj.weight",
        "blk.{}.attn_v.weight",
    ),
    (
        "model.layers.{}.self_attn.o_proj.weight",
        "blk.{}.attn_output.weight",
    ),
    (
        "model.layers.{}.self_attn.q_proj.bias",
        "blk.{}.attn_q.bias",
    ),
    (
        "model.layers.{}.self_attn.k_proj.bias",
        "blk.{}.attn_k.bias",
    ),
    (
        "model.layers.{}.self_attn.v_proj.bias",
        "blk.{}.attn_v.bias",
    ),
    (
        "model.layers.{}.self_attn.o_proj.bias",
        "blk.{}.attn_output.bias",
    ),
    (
        "model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    (
        "model.layers.{}.mlp.gate_proj.weight",
        "blk.{}.ffn_gate.weight",
    ),
    ("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    (
        "model.layers.{}.mlp.down_proj.weight",
        "blk.{}.ffn_down.weight",
    ),
    (
        "model.layers.{}.self_attn.q_norm.weight",
        "blk.{}.attn_q_norm.weight",
    ),
    (
        "model.layers.{}.self_attn.k_norm.weight",
        "blk.{}.attn_k_norm.weight",
    ),
];

/// Names of experts as the families after Mixtral have them.
pub(in crate::models) const EXPERTS: &[(&str, &str)] = &[
    (
        "model.layers.{}.mlp.gate.weight",
        "blk.{}.ffn_gate_inp.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.gate_proj.weight",
        "blk.{}.ffn_gate.{}.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.up_proj.weight",
        "blk.{}.ffn_up.{}.weight",
    ),
    (
        "model.layers.{}.mlp.experts.{}.down_proj.weight",
        "blk.{}.ffn_down.{}.weight",
    ),
];

/// Names that BLOOM and Falcon share.
pub(in crate::models) const TRANSFORMER_NAMES: &[(&str, &str)] = &[
    ("transformer.word_embeddings.weight", "token_embd.weight"),
    ("transformer.ln_f.weight", "output_norm.weight"),
    ("transformer.ln_f.bias", "output_norm.bias"),
    (
        "transformer.h.{}.input_layernorm.weight",
        "blk.{}.attn_norm.weight",
    ),
    (
        "transformer.h.{}.input_layernorm.bias",
        "blk.{}.attn_norm.bias",
    ),
    (
        "transformer.h.{}.self_attention.query_key_value.weight",
        "blk.{}.attn_qkv.weight",
    ),
    (
        "transformer.h.{}.self_attention.query_key_value.bias",
        "blk.{}.attn_qkv.bias",
    ),
    (
        "transformer.h.{}.self_attention.dense.weight",
        "blk.{}.attn_output.weight",
    ),
    (
        "transformer.h.{}.self_attention.dense.bias",
        "blk.{}.attn_output.bias",
    ),
    (
        "transformer.h.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    (
        "transformer.h.{}.post_attention_layernorm.bias",
        "blk.{}.ffn_norm.bias",
    ),
    (
        "transformer.h.{}.mlp.dense_h_to_4h.weight",
        "blk.{}.ffn_up.weight",
    ),
    (
        "transformer.h.{}.mlp.dense_h_to_4h.bias",
        "blk.{}.ffn_up.bias",
    ),
    (
        "transformer.h.{}.mlp.dense_4h_to_h.weight",
        "blk.{}.ffn_down.weight",
    ),
    (
        "transformer.h.{}.mlp.dense_4h_to_h.bias",
        "blk.{}.ffn_down.bias",
    ),
];
