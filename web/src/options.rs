//! JavaScript values from and to Rust's, by way of JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shardlight::chat::Message;
use shardlight::comm::{Mesh, Sharding, SplitChoice};
use shardlight::device::{DeviceChoice, DeviceInfo};
use shardlight::kv_cache::KvDType;
use shardlight::profile::Profiling;
use shardlight::sampler::Sampling;
use shardlight::session::{GenerateOptions, SessionOptions};
use shardlight::{Error, Result};
use shardlight_tools::{Format, ToolChoice, Tools};
use wasm_bindgen::prelude::*;

use crate::browser;

/// Settings of `load`; all may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Load {
    device: Option<String>,
    tp: Option<usize>,
    pp: Option<usize>,
    ep: Option<usize>,
    sequence_parallel: bool,
    split: Option<SplitOption>,
    devices: Vec<String>,
    context_length: Option<usize>,
    kv: Option<Kv>,
    prefill_chunk: Option<usize>,
    /// Bytes.
    expert_cache: Option<u64>,
    expert_statistics: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kv {
    F16,
    F32,
    #[serde(rename = "q8_0")]
    Q8_0,
}

/// `"even"`, `"auto"`, or a share for each rank.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SplitOption {
    Name(String),
    Shares(Vec<f64>),
}

impl Load {
    /// The one device of an operator.
    pub fn device(&self) -> Result<DeviceChoice> {
        self.device.as_deref().unwrap_or("auto").parse()
    }

    /// How the model is shared among ranks, and on which devices.
    pub fn sharding(&self) -> Result<Sharding> {
        let device = self.device.as_deref().unwrap_or("auto");
        let names: Vec<&str> = match &self.devices[..] {
            [] => vec![device],
            names => names.iter().map(String::as_str).collect(),
        };
        Ok(Sharding {
            mesh: Mesh {
                tp: self.tp.unwrap_or(1),
                pp: self.pp.unwrap_or(1),
                ep: self.ep.unwrap_or(1),
                ..Mesh::default()
            },
            sequence_parallel: self.sequence_parallel,
            split: match &self.split {
                None => SplitChoice::Even,
                Some(SplitOption::Name(name)) => name.parse()?,
                Some(SplitOption::Shares(shares)) => SplitChoice::Of(shares.clone()),
            },
            devices: names.into_iter().map(str::parse).collect::<Result<_>>()?,
        })
    }

    pub fn session(&self) -> SessionOptions {
        let default = SessionOptions::default();
        SessionOptions {
            context_length: self.context_length,
            kv: match self.kv {
                None => default.kv,
                Some(Kv::F16) => KvDType::F16,
                Some(Kv::F32) => KvDType::F32,
                Some(Kv::Q8_0) => KvDType::Q8_0,
            },
            prefill_chunk: self.prefill_chunk.unwrap_or(default.prefill_chunk),
            expert_cache: self.expert_cache,
            expert_statistics: self.expert_statistics,
        }
    }
}

/// Settings of `generate`; all may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Generate {
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    repeat_last_n: Option<usize>,
    seed: Option<u64>,
    stop: Vec<String>,
    logprobs: Option<usize>,
    tools: Option<Value>,
    tool_choice: Value,
    /// Unless it is `false`, an answer may have several calls.
    pub parallel_tool_calls: Option<bool>,
    /// Measure kernels.
    profile: bool,
    /// The prompt is text to continue, not a message.
    pub raw: bool,
}

impl Generate {
    /// The functions that are offered.
    pub fn tools(&self) -> Result<Option<(Tools, ToolChoice)>> {
        let Some(list) = &self.tools else {
            let reason = "tool_choice: there are no tools to choose from";
            return match self.tool_choice {
                Value::Null => Ok(None),
                _ => Err(Error::Invalid(reason.into())),
            };
        };
        if self.raw {
            let reason = "tools: a raw prompt offers no functions; leave out raw or tools";
            return Err(Error::Invalid(reason.into()));
        }
        let tools = Tools::new(list)?;
        Ok(match ToolChoice::new(&self.tool_choice, &tools)? {
            ToolChoice::None => None,
            choice => Some((tools, choice)),
        })
    }

    /// The core's options, for calls in this form; without a seed each answer differs.
    pub fn options(self, form: Option<&Format>) -> GenerateOptions {
        let (all, sampling) = (GenerateOptions::default(), Sampling::default());
        GenerateOptions {
            max_tokens: self.max_tokens.unwrap_or(all.max_tokens),
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(sampling.temperature),
                top_k: self.top_k.unwrap_or(sampling.top_k),
                top_p: self.top_p.unwrap_or(sampling.top_p),
                min_p: self.min_p.unwrap_or(sampling.min_p),
                repeat_penalty: self.repeat_penalty.unwrap_or(sampling.repeat_penalty),
                repeat_last_n: self.repeat_last_n.unwrap_or(sampling.repeat_last_n),
                seed: self.seed.unwrap_or_else(|| js_sys::Date::now() as u64),
            },
            stop: self.stop,
            logprobs: self.logprobs,
            profile: self.profile.then_some(Profiling {
                clock: || browser::milliseconds() / 1e3,
                spans: 0,
            }),
            show: form.map_or(Vec::new(), |form| form.marks().map(str::to_owned).collect()),
            ..all
        }
    }
}

/// What is asked: text, or a conversation.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Messages(Vec<Message>),
}

/// What a device is called.
#[derive(Debug, Serialize)]
pub struct Device {
    name: String,
    backend: String,
    kind: String,
    driver: String,
}

impl From<&DeviceInfo> for Device {
    fn from(info: &DeviceInfo) -> Self {
        Device {
            name: info.name.clone(),
            backend: info.backend.clone(),
            kind: info.kind.to_string(),
            driver: info.driver.clone(),
        }
    }
}

/// Reads a JavaScript value; `what` names it in errors.
pub fn from_js<T: DeserializeOwned>(what: &str, value: &JsValue) -> Result<T> {
    let invalid = |reason: String| Error::Invalid(format!("{what}: {reason}"));
    let text = js_sys::JSON::stringify(value).map_err(|e| invalid(browser::reason(&e)))?;
    // JSON has no text for undefined and functions.
    let text = text.as_string().unwrap_or_else(|| "null".into());
    serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))
}

/// Reads an object of options; `undefined` and `null` are an empty one.
pub fn options_from_js<T: DeserializeOwned + Default>(value: &JsValue) -> Result<T> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    from_js("options", value)
}

/// Makes a JavaScript value.
pub fn to_js(value: &impl Serialize) -> Result<JsValue> {
    let text = serde_json::to_string(value).map_err(|e| Error::Invalid(e.to_string()))?;
    js_sys::JSON::parse(&text).map_err(|e| Error::Invalid(browser::reason(&e)))
}
