//! Model families: one file each, found by architecture name in [`FAMILIES`].

mod bloom;
mod config;
mod decoder;
mod deepseek2;
pub mod eeg;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_oss;
mod granite;
mod llama;
mod mpt;
mod olmo2;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
mod stablelm;

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

pub use config::{
    LatentConfig, ModelConfig, MoeConfig, Multipliers, Positions, QkvOrder, Softcaps, WindowConfig,
};
pub use rope::{RopeConfig, RopeScaling, yarn_attention_factor};

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
        let (layers, config) = (self.share().layers.len(), self.config());
        match &config.latent {
            // One head, which all read.
            Some(latent) => CacheShape {
                layers,
                kv_heads: 1,
                head_size: latent.kv_lora_rank + latent.qk_rope_head_dim,
                v_head_size: latent.kv_lora_rank,
            },
            None => CacheShape {
                layers,
                kv_heads: self.share().kv_heads.len(),
                head_size: config.head_dim,
                v_head_size: config.head_dim,
            },
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

    /// Records the last norm of `hidden` `(T, C)`; `None` on stages but the last.
    ///
    /// # Errors
    ///
    /// As [`Model::forward`].
    fn norm(&self, r: &mut Recording, hidden: &Tensor) -> Result<Option<Tensor>>;

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
    /// Whether rotary pairs are (2i, 2i + 1), in GGUF files and in Hugging Face's.
    pub adjacent: [bool; 2],
    /// Hugging Face's tensor names and GGUF's, `{}` standing for the numbers of a layer and of an expert.
    pub names: &'static [&'static [(&'static str, &'static str)]],
    /// Adds to or corrects what all families read.
    pub refine: fn(&mut ModelConfig, Origin<'_>),
    /// Puts the weights onto the device.
    pub load: Load,
}

/// What a configuration was read from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// GGUF's metadata.
    Gguf,
    /// `config.json`.
    HuggingFace(&'a Value),
}

/// Loads a model's weights for contexts of up to so many tokens.
pub type Load = for<'a> fn(&'a mut Loader<'_>, usize) -> LocalFuture<'a, Result<Box<dyn Model>>>;

/// Every family.
pub static FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &bloom::FAMILY,
    &deepseek2::FAMILY,
    &falcon::FAMILY,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt2::FAMILY,
    &gpt_oss::FAMILY,
    &granite::DENSE,
    &granite::MOE,
    &mpt::FAMILY,
    &olmo2::FAMILY,
    &olmoe::FAMILY,
    &phi3::FAMILY,
    &qwen2::DENSE,
    &qwen2::MOE,
    &qwen3::DENSE,
    &qwen3::MOE,
    &stablelm::FAMILY,
];

impl Family {
    /// GGUF's name for a tensor of Hugging Face's name, if this family has it. Files of a model without its output
    /// layer leave out what all names of the whole one begin with.
    pub fn gguf_name(&self, name: &str) -> Option<String> {
        let whole = ["", "model.", "transformer."].into_iter();
        (whole.map(|begin| format!("{begin}{name}"))).find_map(|name| self.whole_name(&name))
    }

    fn whole_name(&self, name: &str) -> Option<String> {
        let names = self.names.iter().copied().flatten();
        names
            .filter_map(|(theirs, ours)| Some((numbers(theirs, name)?, ours)))
            .map(|(numbers, ours)| {
                (numbers.iter()).fold(ours.to_string(), |ours, n| ours.replacen("{}", n, 1))
            })
            .next()
    }
}

/// What stands in `name` where `pattern` has `{}`, if these are numbers and all else is the same.
fn numbers<'a>(pattern: &str, mut name: &'a str) -> Option<Vec<&'a str>> {
    let mut numbers = Vec::new();
    for (i, text) in pattern.split("{}").enumerate() {
        if i > 0 {
            let end = name.find(|c: char| !c.is_ascii_digit());
            let (number, rest) = name.split_at(end.unwrap_or(name.len()));
            if number.is_empty() {
                return None;
            }
            numbers.push(number);
            name = rest;
        }
        name = name.strip_prefix(text)?;
    }
    name.is_empty().then_some(numbers)
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
    config.rope.adjacent = family.adjacent[0];
    (family.refine)(&mut config, Origin::Gguf);
    config.check(metadata.file())?;
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
    config.rope.adjacent = family.adjacent[1];
    (family.refine)(&mut config, Origin::HuggingFace(json));
    config.check(file)?;
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
    fn a_sliding_window_is_in_every_layer() {
        let all = Some(WindowConfig {
            tokens: 4096,
            period: 0,
        });
        assert_eq!(gguf(4096).unwrap().window, all);
        for used in [Value::Null, true.into()] {
            let config = json(4096.into(), used).unwrap();
            assert_eq!(config.window, all);
            assert_eq!([0, 1].map(|layer| config.window(layer)), [Some(4096); 2]);
        }
    }

    #[test]
    fn a_window_that_is_off_is_no_window() {
        assert_eq!(gguf(0).unwrap().window, None);
        assert_eq!(json(Value::Null, Value::Null).unwrap().window, None);
        assert_eq!(json(4096.into(), false.into()).unwrap().window, None);
    }

    #[test]
    fn names_of_layers_and_experts_become_ggufs() {
        let mixtral = |name: &str| llama::FAMILY.gguf_name(name);
        let expert = "model.layers.31.block_sparse_moe.experts.7.w3.weight";
        assert_eq!(mixtral(expert).as_deref(), Some("blk.31.ffn_up.7.weight"));
        assert_eq!(
            mixtral("model.norm.weight").as_deref(),
            Some("output_norm.weight")
        );
        for name in [
            "model.layers.x.block_sparse_moe.experts.7.w3.weight",
            "model.layers..input_layernorm.weight",
            "model.layers.1.input_layernorm.weight.more",
            "model.norm",
        ] {
            assert_eq!(mixtral(name), None, "{name}");
        }
    }

    #[test]
    fn experts_that_cannot_be_are_refused_with_their_numbers() {
        let told = |experts: Value, k: Value| {
            let json = serde_json::json!({
                "architectures": ["MixtralForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
                "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 4,
                "num_local_experts": experts, "num_experts_per_tok": k,
            });
            config_from_json("config.json", &json)
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(
            told(8.into(), 9.into()).as_deref(),
            Some("config.json: a token goes to 9 of 8 experts, expected 1 to 8")
        );
        assert_eq!(
            told(1000.into(), 2.into()).as_deref(),
            Some("config.json: 1000 experts, expected 1 to 512")
        );
        assert_eq!(
            told(8.into(), Value::Null).as_deref(),
            Some("config.json: num_experts_per_tok: is missing")
        );
    }
}
