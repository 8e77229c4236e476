//! The models that are compiled in, so that demo and tests need no download.

/// `builtin:tiny`, a GGUF: llama-shaped, about a million parameters, writes simple stories.
/// Trained by `tests/tools/tiny`; `core/data/README.md` says on what.
pub static TINY: &[u8] = include_bytes!("../data/tiny.gguf");

/// The name that stands for [`TINY`] wherever a model is named.
pub const TINY_NAME: &str = "builtin:tiny";

/// `builtin:tiny-moe`, a GGUF: a mixture of 8 experts made of [`TINY`], of which every token uses 2.
pub static TINY_MOE: &[u8] = include_bytes!("../data/tiny-moe.gguf");

/// The name that stands for [`TINY_MOE`].
pub const TINY_MOE_NAME: &str = "builtin:tiny-moe";

/// Names and bytes of all of them. A program that names only one holds only that one.
pub static MODELS: &[(&str, &[u8])] = &[(TINY_NAME, TINY), (TINY_MOE_NAME, TINY_MOE)];
