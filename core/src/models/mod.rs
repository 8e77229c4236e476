//! Model families: one file each, found by architecture name in [`FAMILIES`].

mod config;
pub mod eeg;
mod llama;

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::kv_cache::{CacheShape, KvCache};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::gguf::Metadata;
use crate::weights::source::LocalFuture;
use crate::weights::{Loader, TensorInfo};
use crate::{Error, Result};

pub use config::{ModelConfig, RopeConfig, RopeScaling, yarn_attention_factor};

/// What of a model a rank holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Layers.
    pub layers: Range<usize>,
    /// Query heads of each.
    pub heads: Range<usize>,
    /// Key/value heads of each.
    pub kv_heads: Range<usize>,
    /// Hidden channels of each feed-forward block.
    pub hidden: Range<usize>,
    /// Rows of the embedding and of the output layer.
    pub vocab: Range<usize>,
}

/// A rank's part of a decoder, its weights on a device.
pub trait Model {
    /// Shapes and constants of the whole model.
    fn config(&self) -> &ModelConfig;

    /// What of it this rank holds.
    fn share(&self) -> &Share;

    /// What of keys and values this rank keeps.
    fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.share().layers.len(),
            kv_heads: self.share().kv_heads.len(),
            head_size: self.config().head_dim,
        }
    }

    /// Records this rank's layers for the tokens `(T,)` at the positions that `step` says; gives the
    /// residual stream `(T, C)` before the last norm. Stages but the first receive it, stages but the
    /// last send it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    fn forward(
        &self,
        r: &mut Recording,
        tokens: &Tensor,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor>;

    /// Records the last norm and the output layer for the rows `first ..` of `hidden`, as many as
    /// `logits` `(rows, V)` has, where V are this rank's rows of the vocabulary. Nothing on stages but
    /// the last.
    ///
    /// # Errors
    ///
    /// As [`Model::forward`].
    fn head(&self, r: &mut Recording, hidden: &Tensor, first: usize, logits: &Tensor)
    -> Result<()>;
}

/// A family of models.
pub struct Family {
    /// GGUF's `general.architecture`.
    pub gguf: &'static str,
    /// Names in `architectures` of `config.json`.
    pub hugging_face: &'static [&'static str],
    /// Hugging Face's tensor names and GGUF's, `{}` standing for the layer's number.
    pub names: &'static [(&'static str, &'static str)],
    /// Adds to or corrects what all families read from GGUF metadata.
    pub refine: fn(&mut ModelConfig),
    /// Puts the weights onto the device.
    pub load: Load,
}

/// Loads a model's weights for contexts of up to so many tokens.
pub type Load = for<'a> fn(&'a mut Loader<'_>, usize) -> LocalFuture<'a, Result<Box<dyn Model>>>;

/// Every family.
pub static FAMILIES: &[&Family] = &[&llama::FAMILY];

impl Family {
    /// GGUF's name for a tensor of Hugging Face's name, if this family has it.
    pub fn gguf_name(&self, name: &str) -> Option<String> {
        self.names.iter().find_map(|(theirs, ours)| {
            let Some((before, after)) = theirs.split_once("{}") else {
                return (*theirs == name).then(|| ours.to_string());
            };
            let layer = name.strip_prefix(before)?.strip_suffix(after)?;
            let digits = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| ours.replace("{}", layer))
        })
    }
}

fn unsupported(file: &str, name: &str) -> Error {
    let supported: Vec<_> = FAMILIES.iter().map(|f| f.gguf).collect();
    Error::Unsupported {
        what: format!("{file}: architecture {name:?}"),
        supported: supported.join(", "),
    }
}

/// Shapes and constants of a GGUF model.
///
/// # Errors
///
/// [`Error::Unsupported`] for an unknown architecture, [`Error::Format`].
pub fn config_from_gguf(
    metadata: &Metadata,
    tensors: &BTreeMap<String, TensorInfo>,
) -> Result<ModelConfig> {
    let name = metadata.str("general.architecture")?;
    let family = FAMILIES.iter().find(|f| f.gguf == name);
    let family = family.ok_or_else(|| unsupported(metadata.file(), name))?;
    let mut config = ModelConfig::from_gguf(metadata, tensors)?;
    (family.refine)(&mut config);
    Ok(config)
}

/// Shapes and constants of a Hugging Face model, and its family.
///
/// # Errors
///
/// As [`config_from_gguf`].
pub fn config_from_json(file: &str, json: &Value) -> Result<(ModelConfig, &'static Family)> {
    let name = json["architectures"][0]
        .as_str()
        .or(json["model_type"].as_str());
    let name = name.ok_or_else(|| Error::format(file, "has no architectures"))?;
    let family = FAMILIES
        .iter()
        .find(|f| f.hugging_face.contains(&name) || f.gguf == name);
    let family = family.ok_or_else(|| unsupported(file, name))?;
    let mut config = ModelConfig::from_json(file, json, family.gguf)?;
    (family.refine)(&mut config);
    Ok((config, family))
}

/// Loads the part of the loader's rank of the model that its files describe, for contexts up to
/// `context` tokens.
///
/// # Errors
///
/// [`Error::Format`] for tensors that are missing or misshapen, [`Error::OutOfMemory`].
pub async fn load(loader: &mut Loader<'_>, context: usize) -> Result<Box<dyn Model>> {
    let name = &loader.files().config.architecture;
    let family = FAMILIES.iter().find(|f| f.gguf == name);
    let family = family.ok_or_else(|| unsupported(loader.files().name(), name))?;
    (family.load)(loader, context).await
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::DType;
    use crate::weights::gguf::{MetaValue, Writer};
    use crate::weights::{BytesSource, ModelFiles};

    /// A header of llama's shape with a window of so many tokens.
    fn gguf(window: u32) -> Result<ModelConfig> {
        let number = MetaValue::U32;
        let bytes = Writer::new()
            .metadata("general.architecture", MetaValue::String("llama".into()))
            .metadata("llama.embedding_length", number(64))
            .metadata("llama.feed_forward_length", number(128))
            .metadata("llama.block_count", number(2))
            .metadata("llama.attention.head_count", number(4))
            .metadata("llama.context_length", number(512))
            .metadata("llama.attention.sliding_window", number(window))
            .metadata(
                "llama.attention.layer_norm_rms_epsilon",
                MetaValue::F32(1e-5),
            )
            .tensor(
                "token_embd.weight",
                DType::F32,
                &[4, 64],
                vec![0; 4 * 64 * 4],
            )
            .to_bytes()?;
        let source = Rc::new(BytesSource::new("m.gguf", bytes));
        Ok(pollster::block_on(ModelFiles::open(vec![source]))?.config)
    }

    fn json(window: Value, used: Value) -> Result<ModelConfig> {
        let json = serde_json::json!({
            "architectures": ["MistralForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 4,
            "sliding_window": window, "use_sliding_window": used,
        });
        config_from_json("config.json", &json).map(|(config, _)| config)
    }

    #[test]
    fn a_sliding_window_is_refused_by_name() {
        let supported = "supported: attention to the whole context";
        assert_eq!(
            gguf(4096).unwrap_err().to_string(),
            format!("m.gguf: sliding window of 4096 tokens; {supported}")
        );
        for used in [Value::Null, true.into()] {
            assert_eq!(
                json(4096.into(), used).unwrap_err().to_string(),
                format!("config.json: sliding_window of 4096 tokens; {supported}")
            );
        }
    }

    #[test]
    fn a_window_that_is_off_is_no_window() {
        assert!(gguf(0).is_ok());
        assert!(json(Value::Null, Value::Null).is_ok());
        assert!(json(4096.into(), false.into()).is_ok());
    }
}
