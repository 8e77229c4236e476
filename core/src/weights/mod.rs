//! Where weights come from: byte sources and the two header formats.

pub mod source;

pub use source::{BytesSource, MappedBytes, WeightSource};
