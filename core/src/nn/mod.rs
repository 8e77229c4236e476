//! Layers: each pushes dispatches onto a [`Recording`](crate::recording::Recording). Model files read like the papers; element
//! types, slices and the choice of a kernel stay here.

mod attention;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod sampling;

pub use attention::{Attention, Rope};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::GatedMlp;
pub use norm::RmsNorm;

pub use crate::kernels::Activation;
