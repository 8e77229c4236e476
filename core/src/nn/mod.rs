//! Layers: each pushes dispatches onto a [`Recording`](crate::recording::Recording). Model files read like the papers; element
//! types, slices and the choice of a kernel stay here.

mod arrays;
mod attention;
mod basic;
mod conv;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod recurrent;
mod sampling;

pub use arrays::Arrays;
pub use attention::{Attention, Rope};
pub use conv::{Channels, Conv, Indices, Window};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::GatedMlp;
pub use norm::RmsNorm;
pub use recurrent::{Cell, Direction, Layout, Recurrent, States};

pub use crate::kernels::{Activation, gru, lstm};
