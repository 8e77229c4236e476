//! Rotary position embedding: its constants, from GGUF metadata or `config.json`.

use std::f64::consts::PI;
use std::ops::Range;

use serde_json::Value;

use crate::weights::gguf::Metadata;
use crate::{Error, Result};

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
    pub(super) fn frequencies(&self) -> (Vec<f64>, f64) {
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

pub(super) fn gguf_scaling(m: &Metadata, architecture: &str, max: usize) -> Result<RopeScaling> {
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

pub(super) fn json_scaling(file: &str, rope: &Value, max: usize) -> Result<RopeScaling> {
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
