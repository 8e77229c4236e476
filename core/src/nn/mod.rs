//! Layers: each pushes dispatches onto a [`Recording`](crate::recording::Recording). Model files read like the papers; element
//! types, slices and the choice of a kernel stay here.

mod activation;
mod arrays;
mod attention;
mod basic;
mod conv;
mod embedding;
mod expert_exchange;
mod experts;
mod gradient;
mod latent;
mod linear;
mod loss;
mod matrix;
mod mlp;
mod moe;
mod nested_moe;
mod noisy_router;
mod norm;
mod parallel;
mod quantized;
mod random;
mod recurrent;
mod router;
mod router_training;
mod sampling;
mod softmax;
mod transformer_ffn;

pub use arrays::Arrays;
pub(crate) use attention::Operands;
pub use attention::{Attention, Rope};
pub use conv::{Channels, Conv, Indices, Window};
pub use embedding::Embedding;
pub use expert_exchange::Exchange;
pub use experts::Experts;
pub use gradient::{LinearGradients, LinearParams, Llama3Gradients, MlpGradients};
pub use latent::LatentAttention;
pub use linear::Linear;
pub use loss::{Loss, LossKind, Reduction};
pub use matrix::Matrix;
pub use mlp::{GatedMlp, Llama3FeedForward, Mlp, gated_mlp_hidden, llama3_hidden, mlp_hidden};
pub use moe::Moe;
pub use nested_moe::NestedMoe;
pub use noisy_router::{LoadLoss, NoisyTopK};
pub use norm::{GroupNorm, LayerNorm, NormGradients, RmsNorm, RowNorm};
pub use quantized::{Activations, QuantizedLinear};
pub use random::GumbelSoftmax;
pub use recurrent::{Cell, Direction, Layout, Recurrent, States};
pub use router::{ExpertGroups, Router, Score, Worth};
pub use router_training::{Positions, Queue, RouterLoss, RouterLosses, Second, TwoExperts};
pub use softmax::Softmax;
pub use transformer_ffn::{TRANSFORMER_DROPOUT, TransformerFfn};

pub use crate::kernels::philox::Draw;
pub use crate::kernels::random::Distribution;
pub use crate::kernels::{Activation, Packing, gru, lstm};
