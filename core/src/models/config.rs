//! Shapes and constants of a model, under Hugging Face's field names, from GGUF metadata or
//! `config.json`, checked before anything is allocated.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rope::{RopeConfig, gguf_scaling, json_scaling, yarn_attention_factor};
use crate::nn::{Activation, ExpertGroups, Router, Score, Worth};
use crate::weights::TensorInfo;
use crate::weights::gguf::Metadata;
use crate::{Error, Result};

/// No model has more; a larger number is a broken header.
const MOST_LAYERS: usize = 4096;
const MOST_HEADS: usize = 4096;
const MOST_EXPERTS: usize = 512;
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
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Activation of the feed-forward block.
    pub hidden_act: Activation,
    /// What tells positions apart.
    pub positions: Positions,
    /// Rotary position embedding, where positions are told by it.
    pub rope: RopeConfig,
    /// Base of its frequencies in layers that have a window, if that is another one, without scaling.
    pub local_rope_theta: Option<f64>,
    /// Layers whose attention sees the latest tokens only.
    pub window: Option<WindowConfig>,
    /// Constant factors.
    pub multipliers: Multipliers,
    /// Norms of q and k span all heads, not one.
    pub norms_whole_rows: bool,
    /// Norms subtract the mean.
    pub layer_norm: bool,
    /// Added to the norms' weights.
    pub norm_offset: f32,
    /// Attention and the feed-forward block read the same residual stream (GPT-J).
    pub parallel_residual: bool,
    /// Scores and logits become `cap tanh(x / cap)` (arXiv:2408.00118, section 2).
    pub softcaps: Softcaps,
    /// Rows of a matrix that gives q, k and v.
    pub qkv: QkvOrder,
    /// Multi-head latent attention.
    pub latent: Option<LatentConfig>,
    /// Mixture-of-experts blocks.
    pub moe: Option<MoeConfig>,
}

/// What tells positions apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Heads of q and k are turned.
    Rotary,
    /// A row for each position is added to the embedding.
    Learned,
    /// ALiBi (arXiv:2108.12409): keys that are further away count less.
    Alibi {
        /// The exponents of the slopes reach this.
        max_bias: f32,
        /// On the slopes.
        scale: f32,
    },
}

/// Limits that are approached smoothly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Softcaps {
    /// Of attention's scores.
    pub attention: Option<f32>,
    /// Of logits.
    pub logits: Option<f32>,
}

/// In which order a matrix has the rows of q, k and v.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QkvOrder {
    /// All heads of q, then k, then v.
    #[default]
    Blocks,
    /// For each key/value head its heads of q, then its k and v.
    Groups,
}

/// Sliding-window attention (arXiv:2004.05150, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Tokens that a layer sees, the present one included.
    pub tokens: usize,
    /// The layers that have a window: those whose number is not `period - 1` modulo `period`; all for 0.
    pub period: usize,
}

/// Constant factors that some models have (Granite: muP, arXiv:2203.03466).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// On embeddings.
    pub embedding: f32,
    /// On what a block adds to the residual stream.
    pub residual: f32,
    /// On attention's scores; `None`: `1 / sqrt(D)`.
    pub attention: Option<f32>,
    /// On logits.
    pub logits: f32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Multipliers {
            embedding: 1.0,
            residual: 1.0,
            attention: None,
            logits: 1.0,
        }
    }
}

/// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentConfig {
    /// Channels that q is projected down to, if it is.
    pub q_lora_rank: Option<usize>,
    /// Channels of the latent.
    pub kv_lora_rank: usize,
    /// Channels of a head of q and k that are not turned.
    pub qk_nope_head_dim: usize,
    /// Those that are.
    pub qk_rope_head_dim: usize,
    /// Channels of a head of v.
    pub v_head_dim: usize,
    /// On attention's scores; `None`: by the size of a head of q.
    pub scale: Option<f32>,
}

/// Mixture-of-experts blocks of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// E: experts of a block.
    pub num_experts: usize,
    /// F: width inside an expert.
    pub intermediate_size: usize,
    /// Width inside the shared experts together; 0 without.
    pub shared_intermediate_size: usize,
    /// gpt-oss' clamped SwiGLU.
    pub swiglu_limit: Option<f32>,
    /// How a token's experts are chosen.
    pub router: Router,
    /// Layers before the first that has experts.
    pub first_dense: usize,
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
        let window = opt_size("attention.sliding_window")?.filter(|w| *w > 0);
        let factor = |name: &str| m.opt_f32(&key(name));
        let intermediate_size = opt_size("feed_forward_length")?.unwrap_or(0);
        let moe = match opt_size("expert_count")?.unwrap_or(0) {
            0 => None,
            num_experts => {
                let hidden = opt_size("expert_feed_forward_length")?;
                let hidden = hidden.unwrap_or(intermediate_size);
                let shared = match opt_size("expert_shared_feed_forward_length")? {
                    Some(size) => size,
                    None => opt_size("expert_shared_count")?
                        .unwrap_or(0)
                        .saturating_mul(hidden),
                };
                Some(MoeConfig {
                    num_experts,
                    intermediate_size: hidden,
                    shared_intermediate_size: shared,
                    swiglu_limit: None,
                    router: Router {
                        k: size("expert_used_count")?,
                        normalize: m.opt_bool(&key("expert_weights_norm"))?.unwrap_or(false),
                        scale: factor("expert_weights_scale")?.unwrap_or(1.0),
                        // 2: sigmoid (llama.cpp, llm_expert_gating_func_type).
                        score: match opt_size("expert_gating_func")? {
                            Some(2) => Score::Sigmoid,
                            _ => Score::Softmax,
                        },
                        groups: match opt_size("expert_group_count")? {
                            None | Some(0 | 1) => None,
                            Some(count) => Some(ExpertGroups {
                                count,
                                kept: size("expert_group_used_count")?,
                                worth: match opt_size("expert_gating_func")? {
                                    Some(2) => Worth::TwoLargest,
                                    _ => Worth::Largest,
                                },
                            }),
                        },
                    },
                    first_dense: opt_size("leading_dense_block_count")?.unwrap_or(0),
                })
            }
        };
        let latent = match opt_size("attention.kv_lora_rank")? {
            None => None,
            Some(rank) => {
                // Of absorbed heads, and of those that the matrices have.
                let mla = |name: &str| match opt_size(&format!("{name}_mla"))? {
                    Some(size) => Ok(size),
                    None => size(name),
                };
                let turned = size("rope.dimension_count")?;
                let (whole, factor) = (
                    mla("attention.key_length")?,
                    m.opt_f32(&key("rope.scaling.factor"))?,
                );
                let mscale = m.opt_f32(&key("rope.scaling.yarn_log_multiplier"))?;
                Some(LatentConfig {
                    q_lora_rank: opt_size("attention.q_lora_rank")?.filter(|r| *r > 0),
                    kv_lora_rank: rank,
                    qk_nope_head_dim: whole.saturating_sub(turned),
                    qk_rope_head_dim: turned,
                    v_head_dim: mla("attention.value_length")?,
                    // GGUF has a tenth of what config.json calls mscale_all_dim.
                    scale: yarn_scale(
                        whole,
                        factor.map(f64::from),
                        mscale.map(|m| 10.0 * f64::from(m)),
                    ),
                })
            }
        };
        let one = |name: &str| Ok(factor(name)?.unwrap_or(1.0));
        Ok(ModelConfig {
            hidden_size,
            intermediate_size: match &moe {
                Some(moe) if intermediate_size == 0 => moe.intermediate_size,
                _ => intermediate_size,
            },
            num_hidden_layers: size("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: opt_size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size: embedding.rows(),
            max_position_embeddings: max,
            norm_eps: match m.opt_f32(&key("attention.layer_norm_rms_epsilon"))? {
                Some(eps) => eps,
                None => m.f32(&key("attention.layer_norm_epsilon"))?,
            },
            layer_norm: m
                .opt_f32(&key("attention.layer_norm_rms_epsilon"))?
                .is_none(),
            norm_offset: 0.0,
            parallel_residual: m.opt_bool(&key("use_parallel_residual"))?.unwrap_or(false),
            softcaps: Softcaps {
                attention: factor("attn_logit_softcapping")?.filter(|cap| *cap > 0.0),
                logits: factor("final_logit_softcapping")?.filter(|cap| *cap > 0.0),
            },
            qkv: QkvOrder::Blocks,
            positions: match factor("attention.max_alibi_bias")?.filter(|bias| *bias > 0.0) {
                Some(max_bias) => Positions::Alibi {
                    max_bias,
                    scale: 1.0,
                },
                None => Positions::Rotary,
            },
            local_rope_theta: None,
            hidden_act: Activation::Silu,
            rope: RopeConfig {
                theta: f64::from(m.opt_f32(&key("rope.freq_base"))?.unwrap_or(10_000.0)),
                dims: opt_size("rope.dimension_count")?.unwrap_or(head_dim),
                adjacent: true,
                scaling: gguf_scaling(m, &architecture, max)?,
            },
            window: window.map(|tokens| WindowConfig { tokens, period: 0 }),
            multipliers: Multipliers {
                embedding: one("embedding_scale")?,
                residual: one("residual_scale")?,
                attention: factor("attention.scale")?,
                logits: one("logit_scale")?.recip(),
            },
            norms_whole_rows: false,
            latent,
            moe,
            architecture,
        })
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
        // Older families have names of their own.
        let named = |names: &[&'static str]| {
            let there = names.iter().find(|name| !json[**name].is_null());
            there.copied().unwrap_or(names[0])
        };
        let hidden_size = size(named(&["hidden_size", "n_embd", "d_model"]))?;
        let heads = size(named(&["num_attention_heads", "n_head", "n_heads"]))?;
        let head_dim = match opt_size("head_dim")? {
            Some(d) => d,
            None if heads == 0 => 0,
            None => hidden_size / heads,
        };
        let windowed = json["use_sliding_window"].as_bool() != Some(false);
        let window = opt_size("sliding_window")?.filter(|w| windowed && *w > 0);
        let act = named(&[
            "hidden_act",
            "hidden_activation",
            "activation_function",
            "activation",
        ]);
        let act = json[act].as_str().unwrap_or("silu");
        let max = named(&["max_position_embeddings", "n_positions", "max_seq_len"]);
        let max = opt_size(max)?.unwrap_or(2048);
        // transformers 5 keeps rope's fields together, older versions beside the others.
        let rope = match &json["rope_parameters"] {
            Value::Null => &json["rope_scaling"],
            parameters => parameters,
        };
        // Layers with a window may have a rope of their own.
        let (rope, local) = match &rope["full_attention"] {
            Value::Null => (rope, &json["rope_local_base_freq"]),
            full => (full, &rope["sliding_attention"]["rope_theta"]),
        };
        let intermediate_size = named(&["intermediate_size", "ffn_hidden_size", "n_inner"]);
        let intermediate_size = opt_size(intermediate_size)?.unwrap_or(0);
        let experts = ["num_local_experts", "num_experts", "n_routed_experts"];
        let experts = experts.iter().find(|name| !json[**name].is_null());
        let moe = match experts {
            None => None,
            Some(name) => {
                let hidden = opt_size("moe_intermediate_size")?.unwrap_or(intermediate_size);
                let shared = match opt_size("shared_expert_intermediate_size")? {
                    Some(size) => size,
                    None => opt_size("n_shared_experts")?
                        .unwrap_or(0)
                        .saturating_mul(hidden),
                };
                Some(MoeConfig {
                    num_experts: size(name)?,
                    intermediate_size: hidden,
                    shared_intermediate_size: shared,
                    swiglu_limit: json["swiglu_limit"].as_f64().map(|v| v as f32),
                    router: Router {
                        k: size("num_experts_per_tok")?,
                        normalize: json["norm_topk_prob"].as_bool().unwrap_or(false),
                        scale: json["routed_scaling_factor"].as_f64().unwrap_or(1.0) as f32,
                        score: match json["scoring_func"].as_str() {
                            Some("sigmoid") => Score::Sigmoid,
                            _ => Score::Softmax,
                        },
                        groups: match (json["topk_method"].as_str(), opt_size("n_group")?) {
                            (None | Some("greedy"), _) | (_, None | Some(0 | 1)) => None,
                            (Some(method), Some(count)) => Some(ExpertGroups {
                                count,
                                kept: size("topk_group")?,
                                worth: match method {
                                    "noaux_tc" => Worth::TwoLargest,
                                    _ => Worth::Largest,
                                },
                            }),
                        },
                    },
                    first_dense: opt_size("first_k_dense_replace")?.unwrap_or(0),
                })
            }
        };
        // Every second layer, or a list that no family here has, would give other logits without a word.
        for (name, plain) in [("decoder_sparse_step", 1), ("moe_layer_freq", 1)] {
            if json[name].as_u64().is_some_and(|v| v != plain) {
                return Err(Error::Unsupported {
                    what: format!("{file}: {name} of {}", json[name]),
                    supported: "experts in every layer".into(),
                });
            }
        }
        if json["mlp_only_layers"]
            .as_array()
            .is_some_and(|l| !l.is_empty())
        {
            return Err(Error::Unsupported {
                what: format!("{file}: mlp_only_layers {}", json["mlp_only_layers"]),
                supported: "experts in every layer".into(),
            });
        }
        let latent = match opt_size("kv_lora_rank")? {
            None => None,
            Some(rank) => {
                let (nope, turned) = (size("qk_nope_head_dim")?, size("qk_rope_head_dim")?);
                let mscale = rope["mscale_all_dim"].as_f64().filter(|m| *m != 0.0);
                Some(LatentConfig {
                    q_lora_rank: opt_size("q_lora_rank")?,
                    kv_lora_rank: rank,
                    qk_nope_head_dim: nope,
                    qk_rope_head_dim: turned,
                    v_head_dim: size("v_head_dim")?,
                    scale: yarn_scale(nope.saturating_add(turned), rope["factor"].as_f64(), mscale),
                })
            }
        };
        let factor = |name: &str| json[name].as_f64().map(|v| v as f32);
        let theta = rope["rope_theta"].as_f64().or(json["rope_theta"].as_f64());
        let partial = rope["partial_rotary_factor"].as_f64();
        let partial = partial.or(json["partial_rotary_factor"].as_f64());
        let partial = partial.unwrap_or(1.0).clamp(0.0, 1.0);
        let layer_norm = named(&["layer_norm_eps", "layer_norm_epsilon"]);
        let epsilon = json["rms_norm_eps"].as_f64().or(json[layer_norm].as_f64());
        let layer_norm = json["rms_norm_eps"].is_null() && !json[layer_norm].is_null();
        let key_value_heads = match json["multi_query"].as_bool() {
            Some(true) if json["new_decoder_architecture"].as_bool() != Some(true) => Some(1),
            _ => opt_size(named(&["num_key_value_heads", "num_kv_heads"]))?,
        };
        let alibi = json["alibi"]
            .as_bool()
            .or(json["attn_config"]["alibi"].as_bool());
        let positions = match alibi {
            Some(true) => Positions::Alibi {
                max_bias: json["attn_config"]["alibi_bias_max"]
                    .as_f64()
                    .unwrap_or(8.0) as f32,
                scale: 1.0,
            },
            _ => Positions::Rotary,
        };
        Ok(ModelConfig {
            architecture: architecture.to_string(),
            hidden_size,
            intermediate_size,
            num_hidden_layers: size(named(&["num_hidden_layers", "n_layer", "n_layers"]))?,
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads.unwrap_or(heads),
            head_dim,
            vocab_size: size("vocab_size")?,
            max_position_embeddings: max,
            norm_eps: epsilon.unwrap_or(1e-6) as f32,
            layer_norm,
            norm_offset: 0.0,
            parallel_residual: json["use_parallel_residual"].as_bool() == Some(true)
                || json["parallel_attn"].as_bool() == Some(true),
            softcaps: Softcaps {
                attention: factor("attn_logit_softcapping"),
                logits: factor("final_logit_softcapping"),
            },
            qkv: QkvOrder::Blocks,
            positions,
            local_rope_theta: local.as_f64(),
            hidden_act: activation(file, act)?,
            rope: RopeConfig {
                theta: theta.unwrap_or(10_000.0),
                dims: match latent {
                    Some(latent) => latent.qk_rope_head_dim,
                    None => (head_dim as f64 * partial) as usize,
                },
                adjacent: false,
                scaling: json_scaling(file, rope, max)?,
            },
            window: window.map(|tokens| WindowConfig { tokens, period: 0 }),
            multipliers: Multipliers {
                embedding: factor("embedding_multiplier").unwrap_or(1.0),
                residual: factor("residual_multiplier").unwrap_or(1.0),
                attention: match factor("query_pre_attn_scalar") {
                    Some(size) => Some(size.sqrt().recip()),
                    None => factor("attention_multiplier"),
                },
                logits: factor("logits_scaling").unwrap_or(1.0).recip(),
            },
            norms_whole_rows: false,
            latent,
            moe,
        })
    }

    /// Refuses numbers that no model has, before anything is computed from them.
    pub(super) fn check(&self, file: &str) -> Result<()> {
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
        let rotary = self.positions == Positions::Rotary;
        if rotary
            && (!self.rope.dims.is_multiple_of(2)
                || self.rope.dims > self.head_dim
                || self.rope.dims == 0)
        {
            return fail(format!(
                "rope rotates {} of {} channels of a head",
                self.rope.dims, self.head_dim
            ));
        }
        if let Some(window) = self.window
            && window.tokens > 1 << 30
        {
            return fail(format!("sliding window of {} tokens", window.tokens));
        }
        let m = &self.multipliers;
        let factors = [
            m.embedding,
            m.residual,
            m.attention.unwrap_or(1.0),
            m.logits,
            self.softcaps.attention.unwrap_or(1.0),
            self.softcaps.logits.unwrap_or(1.0),
        ];
        if !factors.iter().all(|f| f.is_finite() && *f != 0.0) {
            return fail(format!("a multiplier is 0 or no number: {m:?}"));
        }
        if let Some(moe) = &self.moe {
            moe.check(file)?;
        }
        if let Some(latent) = &self.latent {
            let sizes = [
                latent.q_lora_rank.unwrap_or(1),
                latent.kv_lora_rank,
                latent.qk_nope_head_dim,
                latent.qk_rope_head_dim,
                latent.v_head_dim,
            ];
            if sizes.iter().any(|size| *size == 0 || *size > LARGEST) {
                return fail(format!("sizes of latent attention: {latent:?}"));
            }
        }
        let eps = self.norm_eps;
        if !(0.0..=1.0).contains(&eps) {
            return fail(format!("epsilon of the norms is {eps}, expected 0 to 1"));
        }
        let bases = [Some(self.rope.theta), self.local_rope_theta];
        if let Some(base) = (bases.into_iter().flatten()).find(|b| !b.is_finite() || *b <= 1.0) {
            return fail(format!("rope base is {base}, expected more than 1"));
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

impl MoeConfig {
    fn check(&self, file: &str) -> Result<()> {
        let fail = |reason: String| Err(Error::format(file, reason));
        let (experts, k) = (self.num_experts, self.router.k);
        if experts == 0 || experts > MOST_EXPERTS {
            return fail(format!("{experts} experts, expected 1 to {MOST_EXPERTS}"));
        }
        if k == 0 || k > experts {
            return fail(format!(
                "a token goes to {k} of {experts} experts, expected 1 to {experts}"
            ));
        }
        let sizes = [self.intermediate_size, self.shared_intermediate_size + 1];
        if sizes.iter().any(|size| *size == 0 || *size > LARGEST) {
            return fail(format!(
                "experts of {} and shared experts of {} channels",
                self.intermediate_size, self.shared_intermediate_size
            ));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Tokens that layer `layer` sees, if not all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.window?;
        let whole = window.period > 0 && layer % window.period == window.period - 1;
        (!whole).then_some(window.tokens)
    }

    /// The experts of layer `layer`.
    pub fn experts(&self, layer: usize) -> Option<&MoeConfig> {
        self.moe.as_ref().filter(|moe| layer >= moe.first_dense)
    }
}

/// YaRN's factor on the scores of heads of `size` channels, where there is one (DeepSeek-V2's modelling code).
fn yarn_scale(size: usize, factor: Option<f64>, mscale: Option<f64>) -> Option<f32> {
    let m = yarn_attention_factor(factor?, mscale?);
    Some((m * m / (size as f64).sqrt()) as f32)
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
