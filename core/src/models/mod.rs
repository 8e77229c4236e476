//! Model families: one file each, found by architecture name in [`FAMILIES`].

mod config;
mod llama;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kv_cache::KvCache;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::gguf::Metadata;
use crate::weights::source::LocalFuture;
use crate::weights::{Loader, TensorInfo};
use crate::{Error, Result};

pub use config::{ModelConfig, RopeConfig, RopeScaling};

/// A decoder whose weights are on a device.
pub trait Model {
    /// Shapes and constants.
    fn config(&self) -> &ModelConfig;

    /// Records all layers for the tokens `(T,)` at the positions that `step` says; gives the
    /// residual stream `(T, C)` before the last norm.
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
    /// `logits` `(rows, V)` has.
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

/// Loads the model that the loader's files describe, for contexts up to `context` tokens.
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
