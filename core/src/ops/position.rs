//! Rotary position embedding.

use super::attention::step;
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::kernels::rope;
use crate::models::{RopeConfig, RopeScaling, yarn_attention_factor};
use crate::tensor::Tensor;

const SCALINGS: &[&str] = &["none", "linear", "ntk", "dynamic", "yarn", "llama3"];

pub static OPS: &[Op] = &[Op {
    name: "rope",
    kinds: &["RotaryEmbedding", "rotary_embedding"],
    systems: &["rotary"],
    summary: "turns pairs (a, b) of a head's channels: a cos - b sin, b cos + a sin \
              (arXiv:2104.09864); angles from cos and sin arrays or from theta and a scaling",
    inputs: &[
        Input::new("x", "any", "(B H T D), or (B T H*D) with num_heads"),
        Input::optional(
            "cos_cache",
            "any",
            "(positions, pairs), or (B T pairs) without positions",
        ),
        Input::optional("sin_cache", "any", "as cos_cache"),
        Input::optional(
            "positions",
            "any",
            "(B T) or (T); (2 B T) or (2 T) with two_d",
        ),
    ],
    settings: &[
        Setting::int("num_heads", 0, "H, for x of three axes"),
        Setting::flag(
            "interleaved",
            false,
            "pairs are (2i, 2i+1), else (i, i + half)",
        ),
        Setting::int(
            "rotary_embedding_dim",
            0,
            "channels that are turned; 0 for all",
        ),
        Setting::flag(
            "two_d",
            false,
            "each half of the channels is turned by positions of its own (arXiv:2103.10360)",
        ),
        Setting::int(
            "offset",
            0,
            "position of the first token, without positions",
        ),
        Setting::float("theta", 10000.0, "base of the frequencies"),
        Setting::choice(
            "scaling",
            "none",
            SCALINGS,
            "linear (arXiv:2306.15595), ntk: base times factor^(d/(d-2)), dynamic: ntk by length, \
             yarn (arXiv:2309.00071), llama3",
        ),
        Setting::float("factor", 1.0, "how many times longer contexts are"),
        Setting::float("original", 8192.0, "context length of the training"),
        Setting::maybe_float(
            "length",
            "context length for dynamic; the positions when left out",
        ),
        Setting::float("low_freq_factor", 1.0, "llama3"),
        Setting::float("high_freq_factor", 4.0, "llama3"),
        Setting::float("beta_fast", 32.0, "yarn"),
        Setting::float("beta_slow", 1.0, "yarn"),
        Setting::maybe_float(
            "attention_factor",
            "yarn, on cos and sin; 0.1 ln(factor) + 1 when left out",
        ),
        Setting::flag("truncate", true, "yarn: ends of the ramp are whole pairs"),
    ],
    outputs: &[Output::new("y", "any", "as x")],
    bound: 1e-12,
    record: |c| Box::pin(record(c)),
    examples: || {
        let ids = |shape: &[usize]| {
            let len = shape.iter().product::<usize>() as i64;
            Array::i64(shape, &(0..len).map(|i| i * 5 % 17).collect::<Vec<_>>())
        };
        let x = || Example::new().random("x", &[2, 4, 3, 8]);
        let scaled = |scaling| {
            x().set("scaling", scaling)
                .set("factor", "4")
                .set("original", "16")
                .set("offset", "20")
        };
        vec![
            x().random("cos_cache", &[20, 4])
                .random("sin_cache", &[20, 4])
                .input("positions", ids(&[2, 3])),
            Example::new()
                .random("x", &[2, 3, 32])
                .random("cos_cache", &[2, 3, 2])
                .random("sin_cache", &[2, 3, 2])
                .set("num_heads", "4")
                .set("interleaved", "true")
                .set("rotary_embedding_dim", "4"),
            x().input("positions", ids(&[2, 2, 3])).set("two_d", "true"),
            scaled("linear"),
            scaled("ntk").set("theta", "500"),
            scaled("dynamic").set("length", "40"),
            scaled("yarn"),
            scaled("yarn")
                .set("beta_fast", "16")
                .set("beta_slow", "2")
                .set("attention_factor", "1.5")
                .set("truncate", "false"),
            scaled("llama3")
                .set("low_freq_factor", "1")
                .set("high_freq_factor", "4"),
        ]
    },
}];

async fn record(c: &mut Call<'_>) -> Result<()> {
    let heads = c.settings.size("num_heads")?;
    let (batch, tokens, heads, size, heads_first) = match *c.shape("x") {
        [batch, heads, tokens, size] => (batch, tokens, heads, size, true),
        [batch, tokens, width] if heads > 0 && width.is_multiple_of(heads) => {
            (batch, tokens, heads, width / heads, false)
        }
        _ => {
            return Err(c.error(format_args!(
                "x has shape {}, expected (B H T D), or (B T H*D) and num_heads",
                super::call::shown(c.shape("x"))
            )));
        }
    };
    let two_d = c.settings.flag("two_d");
    let parts = if two_d { 2 } else { 1 };
    let rot = match c.settings.size("rotary_embedding_dim")? {
        0 => size,
        rot => rot,
    };
    if rot > size || !rot.is_multiple_of(2 * parts) {
        return Err(c.error(format_args!(
            "{rot} of {size} channels cannot be turned in pairs"
        )));
    }
    let offset = c.settings.size("offset")?;
    // Of each token; without the input, counted from the offset.
    let positions = match c.has("positions") {
        true => Some(spread(c, parts, batch, tokens)?),
        false if two_d => return Err(c.error("two_d needs positions")),
        false => None,
    };
    let last = match &positions {
        Some(positions) => positions.iter().copied().max().unwrap_or(0) as usize,
        None => offset + tokens - 1,
    };
    let pairs = rot / 2 / parts;
    let (table, positions) = match (c.has("cos_cache"), c.has("sin_cache")) {
        (true, true) => given(c, [batch, tokens, pairs], last, positions).await?,
        (false, false) => {
            let (rows, values) = (last + 1, computed(c, 2 * pairs, last + 1)?);
            (
                c.floats("table", &[rows, 2 * pairs], &values).await?,
                positions,
            )
        }
        _ => return Err(c.error("cos_cache and sin_cache come together")),
    };
    let positions = match positions {
        None => None,
        Some(positions) => {
            let words = bytemuck::cast_slice(&positions);
            let shape = [positions.len()];
            Some(
                c.upload("positions", crate::DType::U32, &shape, words)
                    .await?,
            )
        }
    };
    let x = c.tensor("x").await?;
    let call = rope::Call {
        batch,
        tokens,
        heads,
        head_size: size,
        rot,
        adjacent: c.settings.flag("interleaved"),
        heads_first,
        positions: positions.is_some(),
        two_d,
        every: 1,
    };
    let step = step(c, offset as i64).await?;
    let bindings = vec![Some(x.clone()), Some(table), Some(step), positions];
    c.r.push(&rope::KERNEL, rope::params(&call), bindings)?;
    let shape = c.shape("x").to_vec();
    c.output("y", &x, &shape);
    Ok(())
}

/// Positions (parts, B, T); one row serves all sequences.
fn spread(c: &Call<'_>, parts: usize, batch: usize, tokens: usize) -> Result<Vec<u32>> {
    let words = c.words("positions")?;
    if let Some(far) = words.iter().find(|p| **p >= 1 << 24) {
        return Err(c.error(format_args!(
            "positions holds {}, expected 0 to {}",
            *far as i32,
            (1 << 24) - 1
        )));
    }
    if words.len() == parts * batch * tokens {
        return Ok(words);
    }
    if words.len() != parts * tokens {
        return Err(c.error(format_args!(
            "positions has shape {}, expected {parts} of {batch} x {tokens}",
            super::call::shown(c.shape("positions"))
        )));
    }
    let rows = words.chunks(tokens);
    Ok(rows.flat_map(|row| row.repeat(batch)).collect())
}

/// The table of the inputs, and positions in it.
async fn given(
    c: &Call<'_>,
    [batch, tokens, pairs]: [usize; 3],
    last: usize,
    positions: Option<Vec<u32>>,
) -> Result<(Tensor, Option<Vec<u32>>)> {
    let (cos, sin) = (c.array("cos_cache"), c.array("sin_cache"));
    let rows = cos.len() / pairs;
    let (expected, positions) = match (&cos.shape[..], positions) {
        // A row for each token.
        ([b, t, p], None) => (
            [*b, *t, *p] == [batch, tokens, pairs],
            Some((0..(batch * tokens) as u32).collect()),
        ),
        ([_, p], positions) => (*p == pairs && last < rows, positions),
        _ => (false, None),
    };
    if !expected || cos.shape != sin.shape {
        return Err(c.error(format_args!(
            "cos_cache has shape {} and sin_cache {}, expected ({} {pairs}) or ({batch} {tokens} \
             {pairs}) without positions",
            super::call::shown(&cos.shape),
            super::call::shown(&sin.shape),
            last + 1
        )));
    }
    let both = cos.to_f32().into_iter().zip(sin.to_f32());
    let values: Vec<f32> = both.flat_map(|(c, s)| [c, s]).collect();
    let table = c.floats("table", &[rows, 2 * pairs], &values).await?;
    Ok((table, positions))
}

/// The table of theta and the scaling.
fn computed(c: &Call<'_>, dims: usize, positions: usize) -> Result<Vec<f32>> {
    let set = |name| c.settings.float(name);
    let (factor, original) = (set("factor"), set("original"));
    let scaling = match c.settings.choice("scaling") {
        "linear" => RopeScaling::Linear { factor },
        "ntk" => RopeScaling::Ntk { factor },
        "dynamic" => {
            let length = c.settings.maybe_float("length").unwrap_or(positions as f64);
            RopeScaling::dynamic(factor, original, length)
        }
        "yarn" => RopeScaling::Yarn {
            factor,
            beta_fast: set("beta_fast"),
            beta_slow: set("beta_slow"),
            original,
            attention_factor: c
                .settings
                .maybe_float("attention_factor")
                .unwrap_or_else(|| yarn_attention_factor(factor, 1.0)),
            truncate: c.settings.flag("truncate"),
        },
        "llama3" => RopeScaling::Llama3 {
            factor,
            low: set("low_freq_factor"),
            high: set("high_freq_factor"),
            original,
        },
        _ => RopeScaling::None,
    };
    let config = RopeConfig {
        theta: set("theta"),
        dims,
        adjacent: false,
        scaling,
    };
    let table = config.table(0..positions);
    if table.iter().any(|x| !x.is_finite()) {
        return Err(c.error("theta and the scaling give no numbers"));
    }
    Ok(table)
}
