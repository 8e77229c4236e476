//! Shapes and constants of a model, under Hugging Face's field names, from GGUF metadata or
//! `config.json`, checked before anything is allocated.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::ops::Range;

use serde_json::Value;

use crate::nn::Activation;
use crate::weights::TensorInfo;
use crate::weights::gguf::Metadata;
use crate::{Error, Result};

/// No model has more; a larger number is a broken header.
const MOST_LAYERS: usize = 4096;
const MOST_HEADS: usize = 4096;
const LARGEST: usize = 1 << 24;

/// Shapes and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Architecture, as GGUF calls it: `llama`.
    pub architecture: String,
    /// C: width of the residual stream.
    pub hidden_size: usize,
    /// F: width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// H: query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides H.
    pub num_key_value_heads: usize,
    /// D: size of a head.
    pub head_dim: usize,
    /// V: number of tokens.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_position_embeddings: usize,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f32,
    /// Activation of the feed-forward block's gate.
    pub hidden_act: Activation,
    /// Rotary position embedding.
    pub rope: RopeConfig,
}

/// Rotary position embedding (arXiv:2104.09864) and its scalings.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Channels of a head that are rotated; even.
    pub dims: usize,
    /// Pairs (2i, 2i + 1), as GGUF stores llama; else (i, i + dims / 2), as Hugging Face does.
    pub adjacent: bool,
    /// Scaling for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are changed for contexts longer than the training's.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions divided by `factor` (arXiv:2306.15595).
    Linear {
        /// How many times longer.
        factor: f64,
    },
    /// NTK-aware: the base grows until the lowest frequency is divided by `factor`.
    Ntk {
        /// How many times longer.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, smooth between.
    Llama3 {
        /// How many times longer.
        factor: f64,
        /// Wavelengths above `original / low` are scaled fully.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// Context length of the training.
        original: f64,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// How many times longer.
        factor: f64,
        /// Rotations above which a frequency is kept (32).
        beta_fast: f64,
        /// Rotations below which it is scaled fully (1).
        beta_slow: f64,
        /// Context length of the training.
        original: f64,
        /// Factor on cosine and sine.
        attention_factor: f64,
        /// Ends of the ramp are whole pairs.
        truncate: bool,
    },
    /// GGUF's `rope_freqs.weight`: one divisor for each frequency.
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// NTK-aware scaling for a context of `length` tokens, as Hugging Face's `dynamic` has it.
    pub fn dynamic(factor: f64, original: f64, length: f64) -> Self {
        RopeScaling::Ntk {
            factor: factor * length.max(original) / original - (factor - 1.0),
        }
    }
}

impl RopeConfig {
    /// Cosine and sine, interleaved, for these positions: `(positions, dims / 2, 2)`.
    ///
    /// Angles are computed in f64 and reduced there: a shader's `sin` is only exact near zero.
    pub fn table(&self, positions: Range<usize>) -> Vec<f32> {
        let (frequencies, scale) = self.frequencies();
        let mut table = Vec::with_capacity(positions.len() * self.dims);
        for position in positions {
            for f in &frequencies {
                let angle = position as f64 * f;
                table.push((angle.cos() * scale) as f32);
                table.push((angle.sin() * scale) as f32);
            }
        }
        table
    }

    /// Radians per position of each pair, and the factor on cosine and sine.
    fn frequencies(&self) -> (Vec<f64>, f64) {
        let half = self.dims / 2;
        let base = |i: usize| self.theta.powf(-2.0 * i as f64 / self.dims as f64);
        let each = |f: &dyn Fn(usize, f64) -> f64| (0..half).map(|i| f(i, base(i))).collect();
        match &self.scaling {
            RopeScaling::None => (each(&|_, f| f), 1.0),
            RopeScaling::Linear { factor } => (each(&|_, f| f / factor), 1.0),
            RopeScaling::Ntk { factor } => {
                let (dims, n) = (self.dims as f64, (self.dims as f64 - 2.0).max(1.0));
                let theta = self.theta * factor.powf(dims / n);
                let grown = |i: usize, _: f64| theta.powf(-2.0 * i as f64 / dims);
                (each(&grown), 1.0)
            }
            RopeScaling::Factors(factors) => (
                each(&|i, f| f / f64::from(factors.get(i).copied().unwrap_or(1.0))),
                1.0,
            ),
            &RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let scaled = |_: usize, f: f64| {
                    let wavelength = 2.0 * PI / f;
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        f / factor
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                (each(&scaled), 1.0)
            }
            &RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original,
                attention_factor,
                truncate,
            } => {
                // The pair that turns `rotations` times over the original context.
                let pair = |rotations: f64| {
                    self.dims as f64 * (original / (rotations * 2.0 * PI)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (low, high) = match truncate {
                    true => (pair(beta_fast).floor(), pair(beta_slow).ceil()),
                    false => (pair(beta_fast), pair(beta_slow)),
                };
                let (low, high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
                let span = if high > low { high - low } else { 0.001 };
                let scaled = |i: usize, f: f64| {
                    let kept = 1.0 - ((i as f64 - low) / span).clamp(0.0, 1.0);
                    f / factor * (1.0 - kept) + f * kept
                };
                (each(&scaled), attention_factor)
            }
        }
    }
}

/// YaRN's factor on cosine and sine when the file gives none: `0.1 mscale ln(factor) + 1`.
pub fn yarn_attention_factor(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * mscale * factor.ln() + 1.0
    }
}

impl ModelConfig {
    /// Reads the keys `{architecture}.*` that GGUF defines for decoders of llama's shape.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] naming the key.
    pub fn from_gguf(m: &Metadata, tensors: &BTreeMap<String, TensorInfo>) -> Result<Self> {
        let architecture = m.str("general.architecture")?.to_string();
        let key = |name: &str| format!("{architecture}.{name}");
        let size = |name: &str| m.u32(&key(name)).map(|v| v as usize);
        let opt_size = |name: &str| m.opt_u32(&key(name)).map(|v| v.map(|v| v as usize));
        let hidden_size = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let head_dim = match opt_size("attention.key_length")? {
            Some(d) => d,
            None if heads == 0 => 0,
            None => hidden_size / heads,
        };
        let embedding = tensors.get("token_embd.weight");
        let embedding = embedding.ok_or_else(|| {
            Error::format(
                m.file(),
                "token_embd.weight is missing; not a language model",
            )
        })?;
        let max = size("context_length")?;
        if let Some(window) = opt_size("attention.sliding_window")?.filter(|w| *w > 0) {
            return Err(Error::Unsupported {
                what: format!("{}: sliding window of {window} tokens", m.file()),
                supported: "attention to the whole context".into(),
            });
        }
        let config = ModelConfig {
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: opt_size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size: embedding.rows(),
            max_position_embeddings: max,
            rms_norm_eps: m.f32(&key("attention.layer_norm_rms_epsilon"))?,
            hidden_act: Activation::Silu,
            rope: RopeConfig {
                theta: f64::from(m.opt_f32(&key("rope.freq_base"))?.unwrap_or(10_000.0)),
                dims: opt_size("rope.dimension_count")?.unwrap_or(head_dim),
                adjacent: true,
                scaling: gguf_scaling(m, &architecture, max)?,
            },
            architecture,
        };
        config.check(m.file())?;
        Ok(config)
    }

    /// Reads the fields of a `config.json`; `architecture` is GGUF's name for the family.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] naming the field.
    pub fn from_json(file: &str, json: &Value, architecture: &str) -> Result<Self> {
        let wrong = |name: &str, v: &Value| {
            let reason = match v {
                Value::Null => "is missing".to_string(),
                v => format!("is {v}, expected a number"),
            };
            Error::format(format_args!("{file}: {name}"), reason)
        };
        let opt_size = |name: &str| match &json[name] {
            Value::Null => Ok(None),
            v => match v.as_u64().and_then(|v| usize::try_from(v).ok()) {
                Some(v) => Ok(Some(v)),
                None => Err(wrong(name, v)),
            },
        };
        let size = |name: &str| opt_size(name)?.ok_or_else(|| wrong(name, &Value::Null));
        let hidden_size = size("hidden_size")?;
        let heads = size("num_attention_heads")?;
        let head_dim = match opt_size("head_dim")? {
            Some(d) => d,
            None if heads == 0 => 0,
            None => hidden_size / heads,
        };
        // Ignoring a window would give wrong text without a word.
        let window = json["sliding_window"].as_u64();
        if let Some(window) = window
            && json["use_sliding_window"].as_bool() != Some(false)
        {
            return Err(Error::Unsupported {
                what: format!("{file}: sliding_window of {window} tokens"),
                supported: "attention to the whole context".into(),
            });
        }
        let act = json["hidden_act"].as_str().unwrap_or("silu");
        let max = opt_size("max_position_embeddings")?.unwrap_or(2048);
        // transformers 5 keeps rope's fields together, older versions beside the others.
        let rope = match &json["rope_parameters"] {
            Value::Null => &json["rope_scaling"],
            parameters => parameters,
        };
        let theta = rope["rope_theta"].as_f64().or(json["rope_theta"].as_f64());
        let config = ModelConfig {
            architecture: architecture.to_string(),
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: opt_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: size("vocab_size")?,
            max_position_embeddings: max,
            rms_norm_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            hidden_act: activation(file, act)?,
            rope: RopeConfig {
                theta: theta.unwrap_or(10_000.0),
                dims: head_dim,
                adjacent: false,
                scaling: json_scaling(file, rope, max)?,
            },
        };
        config.check(file)?;
        Ok(config)
    }

    /// Refuses numbers that no model has, before anything is computed from them.
    fn check(&self, file: &str) -> Result<()> {
        let fail = |reason: String| Err(Error::format(file, reason));
        let sizes = [
            ("hidden size", self.hidden_size, LARGEST),
            ("feed-forward size", self.intermediate_size, LARGEST),
            ("number of layers", self.num_hidden_layers, MOST_LAYERS),
            ("number of heads", self.num_attention_heads, MOST_HEADS),
            (
                "number of key/value heads",
                self.num_key_value_heads,
                MOST_HEADS,
            ),
            ("head size", self.head_dim, 1024),
            ("vocabulary size", self.vocab_size, LARGEST),
            ("context length", self.max_position_embeddings, 1 << 30),
        ];
        for (what, value, most) in sizes {
            if value == 0 || value > most {
                return fail(format!("{what} is {value}, expected 1 to {most}"));
            }
        }
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv) {
            return fail(format!(
                "{heads} heads do not share {kv} key/value heads evenly"
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!("head size {} is odd", self.head_dim));
        }
        if !self.rope.dims.is_multiple_of(2)
            || self.rope.dims > self.head_dim
            || self.rope.dims == 0
        {
            return fail(format!(
                "rope rotates {} of {} channels of a head",
                self.rope.dims, self.head_dim
            ));
        }
        let eps = self.rms_norm_eps;
        if !(0.0..=1.0).contains(&eps) {
            return fail(format!("epsilon of the norms is {eps}, expected 0 to 1"));
        }
        if !self.rope.theta.is_finite() || self.rope.theta <= 1.0 {
            return fail(format!(
                "rope base is {}, expected more than 1",
                self.rope.theta
            ));
        }
        let (frequencies, scale) = self.rope.frequencies();
        if !frequencies.iter().all(|f| f.is_finite()) || !scale.is_finite() {
            return fail(format!(
                "rope scaling {:?} gives no numbers",
                self.rope.scaling
            ));
        }
        Ok(())
    }
}

fn activation(file: &str, name: &str) -> Result<Activation> {
    Activation::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Activation::ALL.iter().map(|a| a.name()).collect();
        Error::Unsupported {
            what: format!("{file}: hidden_act {name:?}"),
            supported: known.join(", "),
        }
    })
}

fn gguf_scaling(m: &Metadata, architecture: &str, max: usize) -> Result<RopeScaling> {
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let kind = m.opt_str(&key("type"))?.unwrap_or("none");
    let factor = f64::from(m.opt_f32(&key("factor"))?.unwrap_or(1.0));
    let original = m.opt_u32(&key("original_context_length"))?;
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor,
            beta_fast: f64::from(m.opt_f32(&key("yarn_beta_fast"))?.unwrap_or(32.0)),
            beta_slow: f64::from(m.opt_f32(&key("yarn_beta_slow"))?.unwrap_or(1.0)),
            original: original.map_or(max as f64, f64::from),
            attention_factor: match m.opt_f32(&key("attn_factor"))? {
                Some(f) => f64::from(f),
                None => yarn_attention_factor(factor, 1.0),
            },
            truncate: true,
        }),
        other => Err(Error::Unsupported {
            what: format!("{}: rope scaling {other:?}", m.file()),
            supported: "none, linear, yarn".into(),
        }),
    }
}

fn json_scaling(file: &str, rope: &Value, max: usize) -> Result<RopeScaling> {
    let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
    let number = |name: &str| {
        let value = rope[name].as_f64();
        value.ok_or_else(|| {
            let place = format!("{file}: rope scaling {}", kind.unwrap_or(""));
            Error::format(place, format_args!("has no number {name}"))
        })
    };
    let original = rope["original_max_position_embeddings"].as_f64();
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear {
            factor: number("factor")?,
        }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: original.unwrap_or(max as f64),
        }),
        Some("yarn") => {
            let original = original.unwrap_or(max as f64);
            let factor = rope["factor"].as_f64().unwrap_or(max as f64 / original);
            let scale = |name: &str| rope[name].as_f64().filter(|m| *m != 0.0);
            let attention = match (scale("mscale"), scale("mscale_all_dim")) {
                (Some(m), Some(all)) => {
                    yarn_attention_factor(factor, m) / yarn_attention_factor(factor, all)
                }
                _ => yarn_attention_factor(factor, 1.0),
            };
            Ok(RopeScaling::Yarn {
                factor,
                beta_fast: rope["beta_fast"].as_f64().unwrap_or(32.0),
                beta_slow: rope["beta_slow"].as_f64().unwrap_or(1.0),
                original,
                attention_factor: rope["attention_factor"].as_f64().unwrap_or(attention),
                truncate: rope["truncate"].as_bool().unwrap_or(true),
            })
        }
        Some(other) => Err(Error::Unsupported {
            what: format!("{file}: rope scaling {other:?}"),
            supported: "default, linear, llama3, yarn".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from the formulas of transformers' `modeling_rope_utils.py`, 16 channels, base 10,000.
    #[test]
    fn frequencies_are_scaled_as_transformers_does() {
        let yarn = |truncate| RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original: 2048.0,
            attention_factor: yarn_attention_factor(4.0, 1.0),
            truncate,
        };
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        let cases: [(RopeScaling, [f64; 5]); 5] = [
            (
                RopeScaling::Ntk { factor: 4.0 },
                [
                    0.259412817,
                    0.0672950096,
                    0.017457188,
                    0.00452861832,
                    7.90569415e-05,
                ],
            ),
            (
                RopeScaling::dynamic(2.0, 1024.0, 4096.0),
                [
                    0.239481356,
                    0.0573513199,
                    0.0137345719,
                    0.00328917389,
                    4.51753951e-05,
                ],
            ),
            (
                llama3,
                [0.316227766, 0.1, 0.0316227766, 0.01, 3.95284708e-05],
            ),
            (
                yarn(true),
                [0.316227766, 0.1, 0.025693506, 0.00625, 7.90569415e-05],
            ),
            (
                yarn(false),
                [
                    0.316227766,
                    0.1,
                    0.0238701923,
                    0.00505697152,
                    7.90569415e-05,
                ],
            ),
        ];
        for (scaling, want) in cases {
            let config = RopeConfig {
                theta: 10_000.0,
                dims: 16,
                adjacent: false,
                scaling,
            };
            let (frequencies, _) = config.frequencies();
            for (i, want) in [1, 2, 3, 4, 7].into_iter().zip(want) {
                let got = frequencies[i];
                let near = (got - want).abs() < 1e-8 * want.max(1e-3);
                assert!(near, "{:?}: pair {i}: {got}, want {want}", config.scaling);
            }
        }
        assert!((yarn_attention_factor(4.0, 1.0) - 1.138629436).abs() < 1e-9);
        assert!(RopeScaling::dynamic(2.0, 1024.0, 900.0) == RopeScaling::Ntk { factor: 1.0 });
    }
}
