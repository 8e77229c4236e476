//! WGSL compute kernels of Shardlight and the small preprocessor that makes one concrete text of a
//! kernel for one adapter, shape and set of element types.
//!
//! Adding a kernel is one `.wgsl` file and one line in [`KERNELS`]; a file for [`SHARED`] is
//! something that kernels import.

mod specialize;

pub use specialize::{Constant, Specialization, SpecializeError, specialize};

/// A WGSL file: its name without the ending, and its text.
pub type Source = (&'static str, &'static str);

/// Every kernel, by name.
pub const KERNELS: &[Source] = &[
    ("activation", include_str!("activation.wgsl")),
    (
        "activation_backward",
        include_str!("activation_backward.wgsl"),
    ),
    ("add", include_str!("add.wgsl")),
    ("all_reduce", include_str!("all_reduce.wgsl")),
    ("argmax", include_str!("argmax.wgsl")),
    ("attention", include_str!("attention.wgsl")),
    ("attention_mask", include_str!("attention_mask.wgsl")),
    ("attention_scores", include_str!("attention_scores.wgsl")),
    ("column_sum", include_str!("column_sum.wgsl")),
    ("conv", include_str!("conv.wgsl")),
    ("copy", include_str!("copy.wgsl")),
    ("cross_entropy", include_str!("cross_entropy.wgsl")),
    ("dequantize_linear", include_str!("dequantize_linear.wgsl")),
    (
        "differential_entropy",
        include_str!("differential_entropy.wgsl"),
    ),
    ("dropout", include_str!("dropout.wgsl")),
    ("embedding", include_str!("embedding.wgsl")),
    ("exchange_combine", include_str!("exchange_combine.wgsl")),
    ("exchange_order", include_str!("exchange_order.wgsl")),
    ("exchange_pack", include_str!("exchange_pack.wgsl")),
    ("exchange_rows", include_str!("exchange_rows.wgsl")),
    ("exchange_unpack", include_str!("exchange_unpack.wgsl")),
    ("expert_combine", include_str!("expert_combine.wgsl")),
    ("expert_count", include_str!("expert_count.wgsl")),
    ("expert_nest", include_str!("expert_nest.wgsl")),
    ("expert_order", include_str!("expert_order.wgsl")),
    ("expert_positions", include_str!("expert_positions.wgsl")),
    ("expert_scatter", include_str!("expert_scatter.wgsl")),
    ("gated_activation", include_str!("gated_activation.wgsl")),
    (
        "gated_activation_backward",
        include_str!("gated_activation_backward.wgsl"),
    ),
    ("gated_mlp", include_str!("gated_mlp.wgsl")),
    ("gemm", include_str!("gemm.wgsl")),
    (
        "group_cross_entropy",
        include_str!("group_cross_entropy.wgsl"),
    ),
    ("gru", include_str!("gru.wgsl")),
    ("gumbel", include_str!("gumbel.wgsl")),
    ("jitter", include_str!("jitter.wgsl")),
    ("kv_append", include_str!("kv_append.wgsl")),
    ("label_weight", include_str!("label_weight.wgsl")),
    ("load_loss", include_str!("load_loss.wgsl")),
    ("logit", include_str!("logit.wgsl")),
    ("lstm", include_str!("lstm.wgsl")),
    ("matmul", include_str!("matmul.wgsl")),
    ("matmul_integer", include_str!("matmul_integer.wgsl")),
    ("matvec", include_str!("matvec.wgsl")),
    ("max_pool", include_str!("max_pool.wgsl")),
    ("noisy_load", include_str!("noisy_load.wgsl")),
    ("noisy_logits", include_str!("noisy_logits.wgsl")),
    (
        "noisy_top_k_backward",
        include_str!("noisy_top_k_backward.wgsl"),
    ),
    ("norm", include_str!("norm.wgsl")),
    ("norm_backward", include_str!("norm_backward.wgsl")),
    (
        "norm_backward_weight",
        include_str!("norm_backward_weight.wgsl"),
    ),
    ("one_hot", include_str!("one_hot.wgsl")),
    ("qkv_append", include_str!("qkv_append.wgsl")),
    ("qkv_product", include_str!("qkv_product.wgsl")),
    (
        "quantize_activations",
        include_str!("quantize_activations.wgsl"),
    ),
    ("quantized_dot", include_str!("quantized_dot.wgsl")),
    ("quantized_matmul", include_str!("quantized_matmul.wgsl")),
    ("quantized_matvec", include_str!("quantized_matvec.wgsl")),
    ("random", include_str!("random.wgsl")),
    ("reduce_sum", include_str!("reduce_sum.wgsl")),
    ("repeat_penalty", include_str!("repeat_penalty.wgsl")),
    ("rope", include_str!("rope.wgsl")),
    ("router", include_str!("router.wgsl")),
    ("router_loss", include_str!("router_loss.wgsl")),
    ("second_expert", include_str!("second_expert.wgsl")),
    ("softmax", include_str!("softmax.wgsl")),
    ("top_k", include_str!("top_k.wgsl")),
    ("transpose", include_str!("transpose.wgsl")),
    (
        "vocab_cross_entropy",
        include_str!("vocab_cross_entropy.wgsl"),
    ),
    ("vocab_sums", include_str!("vocab_sums.wgsl")),
];

/// What kernels import.
pub const SHARED: &[Source] = &[
    ("activation", include_str!("shared/activation.wgsl")),
    (
        "activation_derivative",
        include_str!("shared/activation_derivative.wgsl"),
    ),
    (
        "attention_rules",
        include_str!("shared/attention_rules.wgsl"),
    ),
    (
        "attention_serial",
        include_str!("shared/attention_serial.wgsl"),
    ),
    (
        "attention_subgroup",
        include_str!("shared/attention_subgroup.wgsl"),
    ),
    ("attention_tile", include_str!("shared/attention_tile.wgsl")),
    (
        "attention_workgroup",
        include_str!("shared/attention_workgroup.wgsl"),
    ),
    ("axis", include_str!("shared/axis.wgsl")),
    ("bf16", include_str!("shared/bf16.wgsl")),
    ("draw", include_str!("shared/draw.wgsl")),
    ("experts", include_str!("shared/experts.wgsl")),
    ("f16", include_str!("shared/f16.wgsl")),
    ("f32", include_str!("shared/f32.wgsl")),
    ("gated", include_str!("shared/gated.wgsl")),
    ("kv_pack", include_str!("shared/kv_pack.wgsl")),
    ("kv_store", include_str!("shared/kv_store.wgsl")),
    ("linear", include_str!("shared/linear.wgsl")),
    ("mxfp4", include_str!("shared/mxfp4.wgsl")),
    ("negative_log", include_str!("shared/negative_log.wgsl")),
    ("order", include_str!("shared/order.wgsl")),
    ("packed_dot", include_str!("shared/packed_dot.wgsl")),
    ("philox", include_str!("shared/philox.wgsl")),
    ("q4_0", include_str!("shared/q4_0.wgsl")),
    ("q4_1", include_str!("shared/q4_1.wgsl")),
    ("q4_k", include_str!("shared/q4_k.wgsl")),
    ("q5_0", include_str!("shared/q5_0.wgsl")),
    ("q5_1", include_str!("shared/q5_1.wgsl")),
    ("q5_k", include_str!("shared/q5_k.wgsl")),
    ("q6_k", include_str!("shared/q6_k.wgsl")),
    ("q8_0", include_str!("shared/q8_0.wgsl")),
    ("quantized", include_str!("shared/quantized.wgsl")),
    ("reduce", include_str!("shared/reduce.wgsl")),
    ("row", include_str!("shared/row.wgsl")),
    ("rows", include_str!("shared/rows.wgsl")),
    ("sequence", include_str!("shared/sequence.wgsl")),
    ("serial", include_str!("shared/serial.wgsl")),
    ("tiles", include_str!("shared/tiles.wgsl")),
    ("upstream", include_str!("shared/upstream.wgsl")),
    ("vec8", include_str!("shared/vec8.wgsl")),
    ("x", include_str!("shared/x.wgsl")),
];

/// The text of a kernel as it lies on disk.
pub fn kernel(name: &str) -> Option<&'static str> {
    find(KERNELS, name)
}

/// The text of an importable file as it lies on disk.
pub fn shared(name: &str) -> Option<&'static str> {
    find(SHARED, name)
}

fn find(list: &[Source], name: &str) -> Option<&'static str> {
    list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
