//! WGSL compute kernels of Shardlight and the small preprocessor that makes one concrete text of a
//! kernel for one adapter, shape and set of element types.
//!
//! Adding a kernel is one `.wgsl` file and one line in [`KERNELS`]; a file for [`SHARED`] is
//! something that kernels import.

mod specialize;
#[cfg(any(target_arch = "wasm32", test))]
mod strip;

/// The text of a file.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! wgsl {
    ($file:literal) => {
        include_str!($file)
    };
}

/// The text of a file, without what only its readers need: a page loads all of them.
#[cfg(target_arch = "wasm32")]
macro_rules! wgsl {
    ($file:literal) => {{
        const SHORT: [u8; strip::length(include_str!($file))] = strip::strip(include_str!($file));
        match str::from_utf8(&SHORT) {
            Ok(text) => text,
            Err(_) => panic!("characters are never cut"),
        }
    }};
}

pub use specialize::{Constant, Specialization, SpecializeError, specialize};

/// A WGSL file: its name without the ending, and its text.
pub type Source = (&'static str, &'static str);

/// Every kernel, by name.
pub const KERNELS: &[Source] = &[
    ("activation", wgsl!("activation.wgsl")),
    ("activation_backward", wgsl!("activation_backward.wgsl")),
    ("add", wgsl!("add.wgsl")),
    ("all_reduce", wgsl!("all_reduce.wgsl")),
    ("argmax", wgsl!("argmax.wgsl")),
    ("attention", wgsl!("attention.wgsl")),
    ("attention_mask", wgsl!("attention_mask.wgsl")),
    ("attention_scores", wgsl!("attention_scores.wgsl")),
    ("column_sum", wgsl!("column_sum.wgsl")),
    ("conv", wgsl!("conv.wgsl")),
    ("copy", wgsl!("copy.wgsl")),
    ("cross_entropy", wgsl!("cross_entropy.wgsl")),
    ("dequantize_linear", wgsl!("dequantize_linear.wgsl")),
    ("differential_entropy", wgsl!("differential_entropy.wgsl")),
    ("dropout", wgsl!("dropout.wgsl")),
    ("embedding", wgsl!("embedding.wgsl")),
    ("exchange_combine", wgsl!("exchange_combine.wgsl")),
    ("exchange_order", wgsl!("exchange_order.wgsl")),
    ("exchange_pack", wgsl!("exchange_pack.wgsl")),
    ("exchange_rows", wgsl!("exchange_rows.wgsl")),
    ("exchange_unpack", wgsl!("exchange_unpack.wgsl")),
    ("expert_combine", wgsl!("expert_combine.wgsl")),
    ("expert_count", wgsl!("expert_count.wgsl")),
    ("expert_nest", wgsl!("expert_nest.wgsl")),
    ("expert_order", wgsl!("expert_order.wgsl")),
    ("expert_positions", wgsl!("expert_positions.wgsl")),
    ("expert_scatter", wgsl!("expert_scatter.wgsl")),
    ("gated_activation", wgsl!("gated_activation.wgsl")),
    (
        "gated_activation_backward",
        wgsl!("gated_activation_backward.wgsl"),
    ),
    ("gated_mlp", wgsl!("gated_mlp.wgsl")),
    ("gemm", wgsl!("gemm.wgsl")),
    ("group_cross_entropy", wgsl!("group_cross_entropy.wgsl")),
    ("gru", wgsl!("gru.wgsl")),
    ("gumbel", wgsl!("gumbel.wgsl")),
    ("jitter", wgsl!("jitter.wgsl")),
    ("kv_append", wgsl!("kv_append.wgsl")),
    ("label_weight", wgsl!("label_weight.wgsl")),
    ("load_loss", wgsl!("load_loss.wgsl")),
    ("logit", wgsl!("logit.wgsl")),
    ("lstm", wgsl!("lstm.wgsl")),
    ("matmul", wgsl!("matmul.wgsl")),
    ("matmul_integer", wgsl!("matmul_integer.wgsl")),
    ("matvec", wgsl!("matvec.wgsl")),
    ("max_pool", wgsl!("max_pool.wgsl")),
    ("noisy_load", wgsl!("noisy_load.wgsl")),
    ("noisy_logits", wgsl!("noisy_logits.wgsl")),
    ("noisy_top_k_backward", wgsl!("noisy_top_k_backward.wgsl")),
    ("norm", wgsl!("norm.wgsl")),
    ("norm_backward", wgsl!("norm_backward.wgsl")),
    ("norm_backward_weight", wgsl!("norm_backward_weight.wgsl")),
    ("one_hot", wgsl!("one_hot.wgsl")),
    ("qkv_append", wgsl!("qkv_append.wgsl")),
    ("qkv_product", wgsl!("qkv_product.wgsl")),
    ("quantize_activations", wgsl!("quantize_activations.wgsl")),
    ("quantized_dot", wgsl!("quantized_dot.wgsl")),
    ("quantized_matmul", wgsl!("quantized_matmul.wgsl")),
    ("quantized_matvec", wgsl!("quantized_matvec.wgsl")),
    ("random", wgsl!("random.wgsl")),
    ("reduce_sum", wgsl!("reduce_sum.wgsl")),
    ("repeat_penalty", wgsl!("repeat_penalty.wgsl")),
    ("rope", wgsl!("rope.wgsl")),
    ("router", wgsl!("router.wgsl")),
    ("router_loss", wgsl!("router_loss.wgsl")),
    ("second_expert", wgsl!("second_expert.wgsl")),
    ("softmax", wgsl!("softmax.wgsl")),
    ("token_bitmask", wgsl!("token_bitmask.wgsl")),
    ("top_k", wgsl!("top_k.wgsl")),
    ("transpose", wgsl!("transpose.wgsl")),
    ("vocab_cross_entropy", wgsl!("vocab_cross_entropy.wgsl")),
    ("vocab_sums", wgsl!("vocab_sums.wgsl")),
];

/// What kernels import.
pub const SHARED: &[Source] = &[
    ("activation", wgsl!("shared/activation.wgsl")),
    (
        "activation_derivative",
        wgsl!("shared/activation_derivative.wgsl"),
    ),
    ("attention_rules", wgsl!("shared/attention_rules.wgsl")),
    ("attention_serial", wgsl!("shared/attention_serial.wgsl")),
    (
        "attention_subgroup",
        wgsl!("shared/attention_subgroup.wgsl"),
    ),
    ("attention_tile", wgsl!("shared/attention_tile.wgsl")),
    (
        "attention_workgroup",
        wgsl!("shared/attention_workgroup.wgsl"),
    ),
    ("axis", wgsl!("shared/axis.wgsl")),
    ("bf16", wgsl!("shared/bf16.wgsl")),
    ("draw", wgsl!("shared/draw.wgsl")),
    ("experts", wgsl!("shared/experts.wgsl")),
    ("f16", wgsl!("shared/f16.wgsl")),
    ("f32", wgsl!("shared/f32.wgsl")),
    ("gated", wgsl!("shared/gated.wgsl")),
    ("kv_pack", wgsl!("shared/kv_pack.wgsl")),
    ("kv_store", wgsl!("shared/kv_store.wgsl")),
    ("linear", wgsl!("shared/linear.wgsl")),
    ("mxfp4", wgsl!("shared/mxfp4.wgsl")),
    ("negative_log", wgsl!("shared/negative_log.wgsl")),
    ("order", wgsl!("shared/order.wgsl")),
    ("packed_dot", wgsl!("shared/packed_dot.wgsl")),
    ("philox", wgsl!("shared/philox.wgsl")),
    ("q4_0", wgsl!("shared/q4_0.wgsl")),
    ("q4_1", wgsl!("shared/q4_1.wgsl")),
    ("q4_k", wgsl!("shared/q4_k.wgsl")),
    ("q5_0", wgsl!("shared/q5_0.wgsl")),
    ("q5_1", wgsl!("shared/q5_1.wgsl")),
    ("q5_k", wgsl!("shared/q5_k.wgsl")),
    ("q6_k", wgsl!("shared/q6_k.wgsl")),
    ("q8_0", wgsl!("shared/q8_0.wgsl")),
    ("quantized", wgsl!("shared/quantized.wgsl")),
    ("reduce", wgsl!("shared/reduce.wgsl")),
    ("row", wgsl!("shared/row.wgsl")),
    ("rows", wgsl!("shared/rows.wgsl")),
    ("sequence", wgsl!("shared/sequence.wgsl")),
    ("serial", wgsl!("shared/serial.wgsl")),
    ("tiles", wgsl!("shared/tiles.wgsl")),
    ("upstream", wgsl!("shared/upstream.wgsl")),
    ("vec8", wgsl!("shared/vec8.wgsl")),
    ("x", wgsl!("shared/x.wgsl")),
];

/// The text of a kernel as it lies on disk; in wasm without comments.
pub fn kernel(name: &str) -> Option<&'static str> {
    find(KERNELS, name)
}

/// The text of an importable file as it lies on disk; in wasm without comments.
pub fn shared(name: &str) -> Option<&'static str> {
    find(SHARED, name)
}

fn find(list: &[Source], name: &str) -> Option<&'static str> {
    list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
