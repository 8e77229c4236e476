//! The files of one model: GGUF, in one file or several, or a folder with `config.json` and safetensors.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::gguf::{Metadata, split};
use super::safetensors::{SafetensorsHeader, SafetensorsIndex};
use super::source::{LocalFuture, check_range};
use super::{FileKind, TensorInfo, WeightSource, mxfp4, transposed};
use crate::chat::ChatTemplate;
use crate::models::{self, ModelConfig};
use crate::tokenizer::{Tokenizer, TokenizerData};
use crate::{DType, Error, Result};

/// Longest JSON or template file that is read whole; the largest tokenizers have about 35 MB.
const LONGEST_TEXT: u64 = 256 << 20;

/// What a model's files say before any tensor data is read.
pub struct ModelFiles {
    name: String,
    sources: Vec<Rc<dyn WeightSource>>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Why other tensors cannot be used.
    unusable: BTreeMap<String, String>,
    /// Shapes and constants of the model.
    pub config: ModelConfig,
    /// The tokenizer, if the files have one.
    pub tokenizer: Option<Tokenizer>,
    /// The chat template, if the files have one.
    pub template: Option<ChatTemplate>,
    /// GGUF metadata; `None` for safetensors.
    pub metadata: Option<Metadata>,
}

impl ModelFiles {
    /// Reads headers and texts of a model: a GGUF file, all files of a split one, or those of a Hugging Face folder
    /// (`config.json`, `*.safetensors` with their index, `tokenizer.json`, …) in any order.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] and [`Error::Unsupported`] naming the file and what is wrong with it.
    pub async fn open(sources: Vec<Rc<dyn WeightSource>>) -> Result<ModelFiles> {
        let Some(first) = sources.first() else {
            return Err(Error::Invalid("no model file given".into()));
        };
        // One file that is nothing we know is told as GGUF; among several it may be any text of a folder.
        let gguf = match FileKind::of(first.as_ref()).await? {
            FileKind::Gguf => true,
            FileKind::Safetensors => false,
            FileKind::Other(_) => sources.len() == 1,
        };
        if gguf {
            return ModelFiles::open_gguf(sources).await;
        }
        ModelFiles::open_folder(sources).await
    }

    /// A model of these tensors without files: for plans, nothing can be read.
    pub(crate) fn described(name: &str, config: ModelConfig, tensors: Vec<TensorInfo>) -> Self {
        ModelFiles {
            name: name.to_string(),
            sources: vec![Rc::new(NoBytes(name.to_string()))],
            tensors: tensors.into_iter().map(|t| (t.name.clone(), t)).collect(),
            unusable: BTreeMap::new(),
            config,
            tokenizer: None,
            template: None,
            metadata: None,
        }
    }

    /// The same model without its bytes: what a [plan](crate::plan) is made of.
    pub fn without_data(&self) -> ModelFiles {
        let tensors = self.tensors().cloned().collect();
        ModelFiles::described(&self.name, self.config.clone(), tensors)
    }

    async fn open_gguf(mut sources: Vec<Rc<dyn WeightSource>>) -> Result<ModelFiles> {
        let header = split::read(&mut sources).await?;
        let tensors: BTreeMap<_, _> = (header.tensors.into_iter())
            .map(|t| (t.name.clone(), t))
            .collect();
        let metadata = header.metadata;
        let config = models::config_from_gguf(&metadata, &tensors)?;
        let data = TokenizerData::from_gguf(&metadata)?;
        let tokenizer = data.map(Tokenizer::new).transpose()?;
        let template = metadata.opt_str("tokenizer.chat_template")?;
        let template = template.map(ChatTemplate::new).transpose()?;
        Ok(ModelFiles {
            name: sources[0].name().to_string(),
            sources,
            tensors,
            unusable: BTreeMap::new(),
            config,
            tokenizer,
            template,
            metadata: Some(metadata),
        })
    }

    async fn open_folder(sources: Vec<Rc<dyn WeightSource>>) -> Result<ModelFiles> {
        let files = Folder(&sources);
        let config_file = files.find("config.json").ok_or_else(|| {
            let names: Vec<_> = sources.iter().map(|s| base_name(s.name())).collect();
            Error::Invalid(format!(
                "safetensors need a config.json beside them; there are {}",
                names.join(", ")
            ))
        })?;
        let json = json(config_file).await?;
        let (mut sources, header) = weights(files).await?;
        let (config, family) = models::config_from_json(config_file.name(), &json)?;
        let packed = mxfp4::pair(&header, family, &mut sources)?;
        let mut tensors: BTreeMap<_, _> = packed.into_iter().map(|t| (t.name.clone(), t)).collect();
        let last = transposed::Last::default();
        for mut tensor in header.tensors {
            // One set of names inside: GGUF's.
            if let Some(name) = family.gguf_name(&tensor.name) {
                tensor.name = name;
            }
            let tensor = transposed::turn(tensor, &mut sources, &last);
            tensors.insert(tensor.name.clone(), tensor);
        }
        let unusable = (header.unusable.into_iter())
            .filter_map(|(name, reason)| Some((family.gguf_name(&name)?, reason)))
            .collect();
        let tokenizer_config = match files.find("tokenizer_config.json") {
            Some(file) => Some((file, text(file).await?)),
            None => None,
        };
        let tokenizer = match files.find("tokenizer.json") {
            Some(file) => {
                let config = tokenizer_config.as_ref().map(|(_, t)| t.as_slice());
                let tokenizer = Tokenizer::from_json(&text(file).await?, config)?;
                Some(tokenizer.with_eos(&eos_ids(&json))?)
            }
            None => None,
        };
        let template = match files.find("chat_template.jinja") {
            Some(file) => {
                let source = text(file).await?;
                let source = String::from_utf8(source)
                    .map_err(|e| Error::format(file.name(), format_args!("not UTF-8: {e}")))?;
                Some(source)
            }
            None => match &tokenizer_config {
                Some((file, config)) => {
                    let config: Value = serde_json::from_slice(config)
                        .map_err(|e| Error::format(file.name(), e))?;
                    config["chat_template"].as_str().map(str::to_string)
                }
                None => None,
            },
        };
        let name = config_file.name().trim_end_matches("config.json");
        let name = name.trim_end_matches(['/', '\\']);
        Ok(ModelFiles {
            name: if name.is_empty() { "model" } else { name }.to_string(),
            sources,
            tensors,
            unusable,
            config,
            tokenizer,
            template: template.as_deref().map(ChatTemplate::new).transpose()?,
            metadata: None,
        })
    }

    /// Rows of a matrix, if there is one of this name.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.tensors.get(name)?.shape.first().copied()
    }

    /// File or folder, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every tensor, by its GGUF name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors().map(|t| t.bytes).sum()
    }

    /// The element type that most bytes of weights have.
    pub fn main_dtype(&self) -> DType {
        let bytes = |dtype: &DType| -> u64 {
            let of = self.tensors().filter(|t| t.dtype == *dtype);
            of.map(|t| t.bytes).sum()
        };
        let most = DType::WEIGHTS.iter().copied().max_by_key(bytes);
        most.unwrap_or(DType::F32)
    }

    /// Is there a tensor of this name?
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Element type of the tensor called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        Ok(self.find(name)?.dtype)
    }

    fn find(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| {
            if let Some(reason) = self.unusable.get(name) {
                return Error::Unsupported {
                    what: format!("{}: {name}: {reason}", self.name),
                    supported: SafetensorsHeader::SUPPORTED.into(),
                };
            }
            let there = self.tensors.len();
            Error::format(
                format_args!("{}: {name}", self.name),
                format_args!("is missing; the file has {there} tensors"),
            )
        })
    }

    /// The tensor called `name`, which must have this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] naming the tensor and both shapes.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let found = self.find(name)?;
        // GGUF drops leading dimensions of 1.
        let trim = |s: &[usize]| {
            s.iter()
                .copied()
                .skip_while(|n| *n == 1)
                .collect::<Vec<_>>()
        };
        if trim(&found.shape) != trim(shape) {
            let reason = format!("has shape {:?}, expected {shape:?}", found.shape);
            let place = format!("{}: {name}", self.name);
            return Err(Error::format(place, reason));
        }
        Ok(found)
    }

    /// The tensor called `name`, which must be `count` matrices `(rows, cols)`, of three dimensions or one below the
    /// other.
    ///
    /// # Errors
    ///
    /// As [`ModelFiles::tensor`].
    pub fn matrices(&self, name: &str, [count, rows, cols]: [usize; 3]) -> Result<&TensorInfo> {
        let found = self.find(name)?;
        if Some(found.shape[..].to_vec()) == count.checked_mul(rows).map(|all| vec![all, cols]) {
            return Ok(found);
        }
        self.tensor(name, &[count, rows, cols])
    }

    /// The file that holds `tensor`.
    pub fn source(&self, tensor: &TensorInfo) -> &Rc<dyn WeightSource> {
        &self.sources[tensor.file]
    }
}

/// The source of a model that is only described.
struct NoBytes(String);

impl WeightSource for NoBytes {
    fn name(&self) -> &str {
        &self.0
    }

    fn len(&self) -> u64 {
        0
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        let end = check_range(&self.0, offset, out.len() as u64, 0);
        Box::pin(std::future::ready(end))
    }
}

/// Finds a folder's files by name.
#[derive(Clone, Copy)]
struct Folder<'a>(&'a [Rc<dyn WeightSource>]);

impl<'a> Folder<'a> {
    fn find(self, name: &str) -> Option<&'a dyn WeightSource> {
        let found = self.0.iter().find(|s| base_name(s.name()) == name)?;
        Some(found.as_ref())
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

async fn text(source: &dyn WeightSource) -> Result<Vec<u8>> {
    if source.len() > LONGEST_TEXT {
        let reason = format!("{} bytes, limit {LONGEST_TEXT}", source.len());
        return Err(Error::format(source.name(), reason));
    }
    let mut bytes = vec![0; source.len() as usize];
    source.read(0, &mut bytes).await?;
    Ok(bytes)
}

async fn json(source: &dyn WeightSource) -> Result<Value> {
    let bytes = text(source).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::format(source.name(), e))
}

/// The safetensors files in the order of their numbers, and their tensors.
async fn weights(files: Folder<'_>) -> Result<(Vec<Rc<dyn WeightSource>>, SafetensorsHeader)> {
    if let Some(file) = files.find("model.safetensors.index.json") {
        let index = SafetensorsIndex::parse(file.name(), &text(file).await?)?;
        let mut sources = Vec::new();
        let mut headers = Vec::new();
        for (i, name) in index.files.iter().enumerate() {
            let found = files.0.iter().find(|s| base_name(s.name()) == name);
            let found = found.ok_or_else(|| Error::io(name, "named by the index, not there"))?;
            headers.push(SafetensorsHeader::read(found.as_ref(), i).await?);
            sources.push(Rc::clone(found));
        }
        return Ok((sources, index.collect(headers)?));
    }
    let found: Vec<_> = (files.0.iter())
        .filter(|s| s.name().ends_with(".safetensors"))
        .collect();
    match found[..] {
        [file] => {
            let header = SafetensorsHeader::read(file.as_ref(), 0).await?;
            Ok((vec![Rc::clone(file)], header))
        }
        [] => Err(Error::Invalid("the folder has no .safetensors file".into())),
        _ => Err(Error::Invalid(format!(
            "{} .safetensors files and no model.safetensors.index.json",
            found.len()
        ))),
    }
}

/// `eos_token_id` of config.json: a number or a list.
fn eos_ids(config: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        other => id(other).into_iter().collect(),
    }
}
