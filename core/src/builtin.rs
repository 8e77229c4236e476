//! The model that is compiled in, so that demo and tests need no download.

/// `builtin:tiny`, a GGUF: llama-shaped, about a million parameters, writes simple stories.
/// Trained by `tests/tools/tiny`; `core/data/README.md` says on what.
pub static TINY: &[u8] = include_bytes!("../data/tiny.gguf");

/// The name that stands for [`TINY`] wherever a model is named.
pub const TINY_NAME: &str = "builtin:tiny";
