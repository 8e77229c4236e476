//! Attention, and masks of scores that are in memory.

use super::{Array, Call, ElementType, Example, Input, Op, Output, Setting};
use crate::kernels::attention::Call as AttentionCall;
use crate::kernels::attention_rules::{Mask, MaskKind, Rules, alibi_slopes};
use crate::kernels::{attention_mask, attention_scores, kv_append};
use crate::kv_cache::{KvDType, row_bytes};
use crate::nn::{Operands, Softmax};
use crate::tensor::Tensor;
use crate::{DType, Result};

const MASK_KINDS: &[&str] = &["auto", "additive", "seen", "hidden"];
const MASK_DOC: &str = "auto: bool is seen, other types additive; additive: added to the score, \
                        -1e30 and below hides; seen: 0 hides; hidden: more than 0.99 hides";
const OFFSET_DOC: &str = "position of the first token among the keys";
const PREFIX_DOC: &str = "keys that causal tokens see in any case";
const WINDOW_DOC: &str = "keys at this distance and beyond are hidden; 0 for none";

pub static OPS: &[Op] = &[
    Op {
        name: "attention",
        kinds: &["Attention", "scaled_dot_product_attention"],
        systems: &[],
        summary: "y = softmax(rules(scale q k^T)) v with grouped heads, online softmax \
                  (arXiv:2205.14135); a token that sees no key gives zeros",
        inputs: &[
            Input::new("q", "any", "(B H T D), or (B T H*D) with q_num_heads"),
            Input::new("k", "any", "(B KVH S D), or (B S KVH*D) with kv_num_heads"),
            Input::new("v", "any", "(B KVH S DV), or (B S KVH*DV)"),
            Input::optional(
                "mask",
                "any",
                "broadcast to (B H T S); keys past its end are hidden",
            ),
            Input::optional("past_key", "B G P D", "keys before k"),
            Input::optional("past_value", "B G P DV", "values before v"),
            Input::optional(
                "kv_lengths",
                "B",
                "keys of each sequence, the rest is padding",
            ),
            Input::optional(
                "slopes",
                "H",
                "ALiBi: slope * (key - token) is added to the score",
            ),
            Input::optional(
                "sinks",
                "H",
                "a score without a value in each head's softmax",
            ),
        ],
        settings: &[
            Setting::int("q_num_heads", 0, "H, for q of three axes"),
            Setting::int("kv_num_heads", 0, "KVH, for k and v of three axes"),
            Setting::maybe_float("scale", "of the scores; 1 / sqrt(D) when left out"),
            Setting::flag("is_causal", false, "token t sees keys 0 to offset + t"),
            Setting::maybe_int("offset", "position of the first token; P when left out"),
            Setting::int("prefix", 0, PREFIX_DOC),
            Setting::int("window", 0, WINDOW_DOC),
            Setting::float(
                "softcap",
                0.0,
                "scores become c tanh(score / c); 0 for none",
            ),
            Setting::choice("mask_kind", "auto", MASK_KINDS, MASK_DOC),
            Setting::choice(
                "kv",
                "f32",
                &["f32", "f16", "q8_0"],
                "type of keys and values",
            ),
            Setting::flag("return_qk", false, "give qk_matmul_output"),
            Setting::int(
                "qk_matmul_output_mode",
                0,
                "0: scores, 1: after softcap, 2: after masks too, 3: after softmax",
            ),
        ],
        outputs: &[
            Output::new("y", "any", "(B H T DV), or (B T H*DV) for q of three axes"),
            Output::new(
                "present_key",
                "any",
                "(B KVH P+S D), where there is past_key",
            ),
            Output::new("present_value", "any", "(B KVH P+S DV), likewise"),
            Output::new("qk_matmul_output", "any", "(B H T P+S), with return_qk"),
        ],
        bound: 1e-9,
        record: |c| Box::pin(attention(c)),
        examples: attention_examples,
    },
    Op {
        name: "attention_mask",
        kinds: &[],
        systems: &["attention mask"],
        summary: "x where the mask shows the key, mask_value where it hides it; by default a mask \
                  hides where it is more than 0.99",
        inputs: &[
            Input::new("x", "any", "scores: (T S), (H T S) or (B H T S)"),
            Input::optional("mask", "any", "(T S), (B T S) for all heads, or (B H T S)"),
        ],
        settings: &[
            Setting::float("mask_value", -10000.0, "of hidden keys; may be -inf"),
            Setting::choice("mask_kind", "hidden", MASK_KINDS, MASK_DOC),
            Setting::flag("is_causal", false, "token t sees keys 0 to offset + t"),
            Setting::int("offset", 0, OFFSET_DOC),
            Setting::int("prefix", 0, PREFIX_DOC),
            Setting::int("window", 0, WINDOW_DOC),
        ],
        outputs: &[Output::new("y", "any", "as x")],
        bound: 1e-12,
        record: |c| Box::pin(mask_scores(c)),
        examples: || {
            let hidden: Vec<f32> = (0..2 * 4 * 6).map(|i| f32::from(i % 3 == 0)).collect();
            let seen = Array {
                dtype: ElementType::Bool,
                shape: vec![4, 6],
                bytes: (0..24).map(|i| u8::from(i % 5 != 0)).collect(),
            };
            vec![
                Example::new()
                    .random("x", &[2, 3, 4, 6])
                    .input("mask", Array::f32(&[2, 4, 6], &hidden)),
                Example::new()
                    .random("x", &[3, 4, 6])
                    .input("mask", seen)
                    .set("mask_kind", "auto")
                    .set("mask_value", "-inf")
                    .set("is_causal", "true")
                    .set("offset", "2"),
                Example::new()
                    .random("x", &[5, 9])
                    .set("is_causal", "true")
                    .set("offset", "4")
                    .set("window", "3")
                    .set("prefix", "6"),
            ]
        },
    },
    Op {
        name: "alibi_mask",
        kinds: &[],
        systems: &["ALiBi mask"],
        summary: "x + slope[h] * j for keys j <= t + offset, mask_value for others \
                  (arXiv:2108.12409)",
        inputs: &[
            Input::new("x", "any", "scores: (H T S) or (B H T S)"),
            Input::optional("slopes", "H", "the paper's for H heads when left out"),
        ],
        settings: &[
            Setting::float("mask_value", -10000.0, "of hidden keys; may be -inf"),
            Setting::int("offset", 0, OFFSET_DOC),
            Setting::float("max_bias", 8.0, "slopes are 2^(-max_bias (i + 1) / H)"),
            Setting::flag("is_causal", true, "without it all keys are seen"),
        ],
        outputs: &[Output::new("y", "any", "as x")],
        bound: 1e-12,
        record: |c| Box::pin(alibi(c)),
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 12, 4, 6])
                    .set("offset", "2"),
                Example::new()
                    .random("x", &[2, 3, 5])
                    .random("slopes", &[2])
                    .set("is_causal", "false"),
                Example::new()
                    .random("x", &[6, 3, 5])
                    .set("max_bias", "4")
                    .set("mask_value", "-inf"),
            ]
        },
    },
];

/// Shapes of the arrays of an attention call.
struct Shapes {
    batch: usize,
    heads: usize,
    tokens: usize,
    size: usize,
    tokens_first: bool,
}

/// (B H T D), or (B T H*D) with `heads` heads.
fn shapes(c: &Call<'_>, name: &str, setting: &str) -> Result<Shapes> {
    let heads = c.settings.size(setting)?;
    match *c.shape(name) {
        [batch, n, tokens, size] => {
            if heads > 0 && heads != n {
                return Err(c.error(format_args!("{name} has {n} heads, {setting} is {heads}")));
            }
            Ok(Shapes {
                batch,
                heads: n,
                tokens,
                size,
                tokens_first: false,
            })
        }
        [batch, tokens, width] if heads > 0 && width.is_multiple_of(heads) => Ok(Shapes {
            batch,
            heads,
            tokens,
            size: width / heads,
            tokens_first: true,
        }),
        [_, _, width] => Err(c.error(format_args!(
            "{name} has {width} columns, which are not heads; {setting} is {heads}"
        ))),
        _ => Err(c.error(format_args!(
            "{name} has {} axes, expected (B H T D) or (B T H*D)",
            c.shape(name).len()
        ))),
    }
}

async fn attention(c: &mut Call<'_>) -> Result<()> {
    let q = shapes(c, "q", "q_num_heads")?;
    let k = shapes(c, "k", "kv_num_heads")?;
    let v = shapes(c, "v", "kv_num_heads")?;
    let fits = q.batch == k.batch
        && q.size == k.size
        && (k.batch, k.heads, k.tokens) == (v.batch, v.heads, v.tokens)
        && k.tokens_first == v.tokens_first
        && q.heads.is_multiple_of(k.heads);
    if !fits {
        let shape = |name| super::call::shown(c.shape(name));
        return Err(c.error(format_args!(
            "shapes of q {}, k {} and v {} do not fit: batch and D must be equal, KVH must divide H",
            shape("q"),
            shape("k"),
            shape("v")
        )));
    }
    if !q.size.is_multiple_of(2) || !v.size.is_multiple_of(2) {
        return Err(c.error(format_args!(
            "head sizes {} and {} must be even",
            q.size, v.size
        )));
    }
    if c.has("past_key") != c.has("past_value") {
        return Err(c.error("past_key and past_value come together"));
    }
    let past = match c.has("past_key") {
        true => c.axis("P"),
        false => 0,
    };
    let kv = c.settings.choice("kv").parse::<KvDType>()?.dtype();
    let keys = past + k.tokens;
    let offset = c.settings.maybe_int("offset").unwrap_or(past as i64);
    let step = step(c, offset).await?;
    let mask_at = [q.batch, q.heads, q.tokens, keys];
    let (mask, mask_tensor) = mask(c, mask_at, false).await?;
    let rules = Rules {
        kv_lengths: c.has("kv_lengths"),
        alibi: c.has("slopes"),
        softcap: c.settings.float("softcap") as f32,
        mask,
        ..rules(c)?
    };
    let mut call = AttentionCall {
        batch: q.batch,
        v_head_size: v.size,
        kv,
        heads_first: !q.tokens_first,
        tokens_first: k.tokens_first,
        rules,
        ..AttentionCall::causal(q.tokens, q.heads, k.heads, q.size, keys)
    };
    if let Some(scale) = c.settings.maybe_float("scale") {
        call.scale = scale as f32;
    }
    let (mut k_tensor, mut v_tensor) = (c.tensor("k").await?, c.tensor("v").await?);
    let return_qk = c.settings.flag("return_qk");
    // Scores and outputs are of f32 keys; attention itself reads the cache.
    let mut cached = None;
    if past > 0 {
        let into = joined(c, &call, DType::F32, past, [&k_tensor, &v_tensor]).await?;
        c.output("present_key", &into[0], &[q.batch, k.heads, keys, q.size]);
        c.output("present_value", &into[1], &[q.batch, k.heads, keys, v.size]);
        if kv != DType::F32 {
            cached = Some(joined(c, &call, kv, past, [&k_tensor, &v_tensor]).await?);
        }
        [k_tensor, v_tensor] = into;
        call.tokens_first = false;
    } else if kv != DType::F32 {
        cached = Some(joined(c, &call, kv, 0, [&k_tensor, &v_tensor]).await?);
    }
    let q_tensor = c.tensor("q").await?;
    let slopes = c.optional("slopes").await?;
    let sinks = c.optional("sinks").await?;
    let kv_lengths = match c.has("kv_lengths") {
        true => Some(c.index("kv_lengths").await?),
        false => None,
    };
    for (name, given) in [("slopes", &slopes), ("sinks", &sinks)] {
        if given.as_ref().is_some_and(|t| t.len() != q.heads) {
            return Err(c.error(format_args!("{name} is not of {} heads", q.heads)));
        }
    }
    if return_qk {
        let shape = [q.batch, q.heads, q.tokens, keys];
        let y = c.r.scratch(DType::F32, &shape)?;
        let bindings = [&q_tensor, &k_tensor, &y].map(|t| Some(t.clone()));
        let params = attention_scores::params(&call);
        c.r.push(&attention_scores::KERNEL, params, bindings.into())?;
        let mode = c.settings.int("qk_matmul_output_mode");
        if !(0..=3).contains(&mode) {
            return Err(c.error(format_args!(
                "setting qk_matmul_output_mode is {mode}, expected 0 to 3"
            )));
        }
        let capped = Rules {
            softcap: call.rules.softcap,
            ..Rules::full()
        };
        let (rules, with) = match mode {
            1 => (capped, [None, None, None]),
            _ => (
                call.rules.clone(),
                [mask_tensor.clone(), slopes.clone(), kv_lengths.clone()],
            ),
        };
        if mode > 0 {
            let params = attention_mask::params(shape, f32::NEG_INFINITY, &rules);
            let bindings = [Some(y.clone()), Some(step.clone())];
            let bindings = bindings.into_iter().chain(with).collect();
            c.r.push(&attention_mask::KERNEL, params, bindings)?;
        }
        let mut out = y;
        if mode == 3 {
            out = c.r.softmax(&out, &Softmax::default())?;
        }
        c.output("qk_matmul_output", &out, &shape);
    }
    let operands = |k, v| Operands {
        q: &q_tensor,
        k,
        v,
        step: &step,
        mask: mask_tensor.as_ref(),
        slopes: slopes.as_ref(),
        kv_lengths: kv_lengths.as_ref(),
        sinks: sinks.as_ref(),
        pages: None,
    };
    let y = match &cached {
        Some([k, v]) => {
            call.tokens_first = false;
            c.r.attend(call, operands(k, v))?
        }
        None => {
            call.kv = DType::F32;
            c.r.attend(call, operands(&k_tensor, &v_tensor))?
        }
    };
    let shape = match q.tokens_first {
        true => vec![q.batch, q.tokens, q.heads * v.size],
        false => vec![q.batch, q.heads, q.tokens, v.size],
    };
    c.output("y", &y, &shape);
    Ok(())
}

/// Caches (B, KVH, S, D) of past and new keys and values.
async fn joined(
    c: &mut Call<'_>,
    call: &AttentionCall,
    kv: DType,
    past: usize,
    [k, v]: [&Tensor; 2],
) -> Result<[Tensor; 2]> {
    let sizes = [call.head_size, call.v_head_size];
    if let Some(size) = sizes.iter().find(|s| !s.is_multiple_of(kv.block_len())) {
        return Err(c.error(format_args!("heads of {size} are not whole {kv} blocks")));
    }
    let layout = c.device().limits().layout;
    let mut caches = Vec::new();
    for size in sizes {
        let rows = call.batch * call.kv_heads * call.capacity;
        let cache = match kv {
            DType::F32 => c.r.scratch(kv, &[rows, size])?,
            _ => c.r.scratch(
                DType::U32,
                &[(rows * row_bytes(kv, size, layout)).div_ceil(4)],
            )?,
        };
        caches.push(cache);
    }
    let caches: [Tensor; 2] = caches.try_into().expect("k and v");
    let mut append = kv_append::Call {
        batch: call.batch,
        tokens: past,
        kv_heads: call.kv_heads,
        head_size: call.head_size,
        v_head_size: call.v_head_size,
        capacity: call.capacity,
        kv,
        heads_first: true,
        paged: false,
    };
    if past > 0 {
        let (before_k, before_v) = (c.tensor("past_key").await?, c.tensor("past_value").await?);
        if before_k.len() != call.batch * call.kv_heads * past * call.head_size
            || before_v.len() != call.batch * call.kv_heads * past * call.v_head_size
        {
            return Err(c.error("past_key and past_value do not fit k and v"));
        }
        let start = step(c, 0).await?;
        c.r.kv_append(
            &append,
            [&before_k, &before_v],
            [&caches[0], &caches[1]],
            &start,
            None,
        )?;
    }
    append.tokens = call.capacity - past;
    append.heads_first = !call.tokens_first;
    let start = step(c, past as i64).await?;
    c.r.kv_append(&append, [k, v], [&caches[0], &caches[1]], &start, None)?;
    Ok(caches)
}

/// The uniform that says where the first token stands.
pub(super) async fn step(c: &Call<'_>, pos: i64) -> Result<Tensor> {
    let pos = u32::try_from(pos).ok().filter(|p| *p < 1 << 30);
    let pos = pos.ok_or_else(|| c.error("the offset is negative or huge"))?;
    let words = [pos, 0, 0, 0];
    c.upload("step", DType::U32, &[4], bytemuck::cast_slice(&words))
        .await
}

/// The rules of the settings that all operators here share.
fn rules(c: &Call<'_>) -> Result<Rules> {
    let window = c.settings.size("window")?;
    Ok(Rules {
        causal: c.settings.flag("is_causal"),
        prefix: c.settings.size("prefix")?,
        window: (window > 0).then_some(window),
        ..Rules::default()
    })
}

/// The input `mask` for scores of shape `at`; with three axes, `per_sequence` says that the first
/// is the batch and not the heads.
async fn mask(
    c: &mut Call<'_>,
    at: [usize; 4],
    per_sequence: bool,
) -> Result<(Option<Mask>, Option<Tensor>)> {
    if !c.has("mask") {
        return Ok((None, None));
    }
    let shape = match *c.shape("mask") {
        [keys] => [1, 1, 1, keys],
        [tokens, keys] => [1, 1, tokens, keys],
        [batch, tokens, keys] if per_sequence => [batch, 1, tokens, keys],
        [heads, tokens, keys] => [1, heads, tokens, keys],
        [batch, heads, tokens, keys] => [batch, heads, tokens, keys],
        _ => return Err(c.error("mask has more than four axes")),
    };
    let broadcast = (0..3).all(|i| shape[i] == 1 || shape[i] == at[i]);
    if !broadcast || shape[3] > at[3] {
        return Err(c.error(format_args!(
            "mask has shape {}, expected one that broadcasts to {}",
            super::call::shown(c.shape("mask")),
            super::call::shown(&at)
        )));
    }
    let bool = c.array("mask").dtype == ElementType::Bool;
    let kind = match (c.settings.choice("mask_kind"), bool) {
        ("seen", _) | ("auto", true) => MaskKind::Seen,
        ("hidden", _) => MaskKind::Hidden,
        _ => MaskKind::Additive,
    };
    let tensor = match kind {
        MaskKind::Seen => {
            let seen: Vec<u32> = (c.array("mask").to_f32().iter())
                .map(|x| u32::from(*x != 0.0))
                .collect();
            c.upload("mask", DType::U32, &shape, bytemuck::cast_slice(&seen))
                .await?
        }
        _ => c.tensor("mask").await?,
    };
    Ok((Some(Mask { kind, shape }), Some(tensor)))
}

/// (B H T S) of scores with fewer axes.
fn scores(c: &Call<'_>) -> Result<[usize; 4]> {
    match *c.shape("x") {
        [tokens, keys] => Ok([1, 1, tokens, keys]),
        [heads, tokens, keys] => Ok([1, heads, tokens, keys]),
        [batch, heads, tokens, keys] => Ok([batch, heads, tokens, keys]),
        _ => Err(c.error(format_args!(
            "x has shape {}, expected (T S), (H T S) or (B H T S)",
            super::call::shown(c.shape("x"))
        ))),
    }
}

async fn mask_scores(c: &mut Call<'_>) -> Result<()> {
    let at = scores(c)?;
    let (mask, tensor) = mask(c, at, true).await?;
    let rules = Rules { mask, ..rules(c)? };
    apply(c, at, &rules, [tensor, None, None]).await
}

async fn alibi(c: &mut Call<'_>) -> Result<()> {
    let at = scores(c)?;
    let slopes = match c.optional("slopes").await? {
        Some(slopes) if slopes.len() != at[1] => {
            return Err(c.error(format_args!("slopes is not of {} heads", at[1])));
        }
        Some(slopes) => slopes,
        None => {
            let slopes = alibi_slopes(at[1], c.settings.float("max_bias"));
            c.floats("slopes", &[at[1]], &slopes).await?
        }
    };
    let rules = Rules {
        causal: c.settings.flag("is_causal"),
        alibi: true,
        alibi_absolute: true,
        ..Rules::default()
    };
    apply(c, at, &rules, [None, Some(slopes), None]).await
}

/// Masks the uploaded x in place.
async fn apply(
    c: &mut Call<'_>,
    at: [usize; 4],
    rules: &Rules,
    extra: [Option<Tensor>; 3],
) -> Result<()> {
    let (x, value) = (c.tensor("x").await?, c.settings.float("mask_value") as f32);
    let step = step(c, c.settings.int("offset")).await?;
    let params = attention_mask::params(at, value, rules);
    let bindings = [Some(x.clone()), Some(step)].into_iter().chain(extra);
    c.r.push(&attention_mask::KERNEL, params, bindings.collect())?;
    let shape = c.shape("x").to_vec();
    c.output("y", &x, &shape);
    Ok(())
}

fn attention_examples() -> Vec<Example> {
    let qkv = |q: &[usize], k: &[usize], v: &[usize]| {
        let example = Example::new();
        example.random("q", q).random("k", k).random("v", v)
    };
    let bools: Vec<u8> = (0..24).map(|i| u8::from(i % 5 != 1)).collect();
    let seen = Array {
        dtype: ElementType::Bool,
        shape: vec![4, 6],
        bytes: bools,
    };
    vec![
        qkv(&[2, 9, 4, 8], &[2, 3, 6, 8], &[2, 3, 6, 10])
            .set("is_causal", "true")
            .set("softcap", "2"),
        qkv(&[2, 4, 72], &[2, 6, 24], &[2, 6, 30])
            .random("past_key", &[2, 3, 12, 8])
            .random("past_value", &[2, 3, 12, 10])
            .random("mask", &[4, 18])
            .random("sinks", &[9])
            .set("q_num_heads", "9")
            .set("kv_num_heads", "3")
            .set("scale", "0.3")
            .set("return_qk", "true")
            .set("qk_matmul_output_mode", "3"),
        qkv(&[2, 3, 4, 8], &[2, 3, 6, 8], &[2, 3, 6, 8])
            .input("kv_lengths", Array::i64(&[2], &[3, 6]))
            .input("mask", seen)
            .set("return_qk", "true")
            .set("qk_matmul_output_mode", "2"),
        qkv(&[1, 4, 5, 32], &[1, 2, 5, 32], &[1, 2, 5, 64])
            .random("slopes", &[4])
            .set("is_causal", "true")
            .set("kv", "q8_0")
            .set("window", "3"),
        qkv(&[1, 2, 1, 8], &[1, 1, 9, 8], &[1, 1, 9, 8])
            .set("is_causal", "true")
            .set("offset", "4")
            .set("prefix", "7")
            .set("kv", "f16"),
    ]
}
