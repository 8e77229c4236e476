//! The tokenizer's keys of GGUF metadata.

use super::TokenizerData;
use crate::Result;
use crate::weights::gguf::Metadata;

impl TokenizerData {
    /// Reads `tokenizer.ggml.*`; `None` when the file has no tokenizer.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Format`] naming a key whose value is of the wrong type.
    pub fn from_gguf(m: &Metadata) -> Result<Option<Self>> {
        let Some(model) = m.opt_str("tokenizer.ggml.model")? else {
            return Ok(None);
        };
        let strings = |key: &str| -> Result<Vec<String>> {
            let found = m.opt_strings(key)?;
            Ok(found.map_or(Vec::new(), |s| s.iter().map(str::to_string).collect()))
        };
        let text =
            |key: &str| -> Result<Option<String>> { Ok(m.opt_str(key)?.map(str::to_string)) };
        Ok(Some(TokenizerData {
            name: text("general.name")?,
            model: model.to_string(),
            pre: text("tokenizer.ggml.pre")?,
            tokens: strings("tokenizer.ggml.tokens")?,
            scores: m
                .opt_f32s("tokenizer.ggml.scores")?
                .map_or(Vec::new(), <[f32]>::to_vec),
            token_types: m
                .opt_i32s("tokenizer.ggml.token_type")?
                .map_or(Vec::new(), |t| t.into_owned()),
            merges: strings("tokenizer.ggml.merges")?,
            bos: m.opt_u32("tokenizer.ggml.bos_token_id")?,
            eos: m.opt_u32("tokenizer.ggml.eos_token_id")?,
            unk: m.opt_u32("tokenizer.ggml.unknown_token_id")?,
            pad: m.opt_u32("tokenizer.ggml.padding_token_id")?,
            eot: m.opt_u32("tokenizer.ggml.eot_token_id")?,
            add_bos: m.opt_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: m.opt_bool("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: m.opt_bool("tokenizer.ggml.add_space_prefix")?,
        }))
    }
}
