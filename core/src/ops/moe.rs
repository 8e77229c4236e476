//! Mixtures of experts: blocks of which each token uses some.

use std::ops::Range;

use super::activation::{NAMES, chosen};
use super::mlp::size;
use super::{Array, Call, ElementType, Example, Input, Op, Output, Setting};
use crate::nn::{Experts, GatedMlp, Linear, Router, Score};
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Result};

pub static OPS: &[Op] = &[MOE, MOE_EXPERTS];

const X: Input = Input::new("x", "T C", "");
const GATE: Input = Input::optional("gate.weight", "E F C", "left out: plain blocks");
const UP: Input = Input::new("up.weight", "E F C", "");
const ACTIVATION: Setting = Setting::choice("activation", "silu", NAMES, "of the gate, or of up");

pub(super) const SCORE: Setting = Setting::choice(
    "score",
    "softmax",
    &["softmax", "softmax_of_chosen", "sigmoid"],
    "what probabilities are made of",
);

/// The setting `score`.
pub(super) fn score(c: &Call<'_>) -> Score {
    match c.settings.choice("score") {
        "sigmoid" => Score::Sigmoid,
        "softmax_of_chosen" => Score::SoftmaxOfChosen,
        _ => Score::Softmax,
    }
}

/// Matrices of some experts, `(..., rows, cols)`, one below the other, and their biases.
pub(super) async fn layer(c: &Call<'_>, name: &str, held: &Range<usize>) -> Result<Linear> {
    let weight = format!("{name}.weight");
    let float;
    let (dtype, array) = match c.array(&weight) {
        array if let ElementType::Weight(dtype) = array.dtype => (dtype, array),
        array => {
            float = array.to_float(DType::F32);
            (DType::F32, &float)
        }
    };
    let (all, matrix) = array.shape.split_at(array.shape.len() - 2);
    let expert = array.bytes.len() / all.iter().product::<usize>();
    let bytes = &array.bytes[held.start * expert..held.end * expert];
    let shape = [held.len(), matrix[0], matrix[1]];
    let weights = Weight::of_experts(c.device(), &weight, dtype, shape, bytes).await?;
    let name = format!("{name}.bias");
    let bias = match c.has(&name) {
        true => {
            let values = c.array(&name).to_f32();
            let values = &values[held.start * shape[1]..held.end * shape[1]];
            Some(c.floats(&name, &[values.len()], values).await?)
        }
        false => None,
    };
    Linear::with_bias(weights, bias)
}

/// Those of `count` that are held.
pub(super) async fn experts(c: &Call<'_>, count: usize, held: Range<usize>) -> Result<Experts> {
    let gate = match c.has("gate.weight") {
        true => Some(layer(c, "gate", &held).await?),
        false => None,
    };
    let layers = [layer(c, "up", &held).await?, layer(c, "down", &held).await?];
    Experts::new(count, held, gate, layers, chosen(c)).map_err(|e| c.error(e))
}

const MOE_EXPERTS: Op = Op {
    name: "moe_experts",
    kinds: &[],
    systems: &[],
    summary: "sum of each token's experts, act(gate x) up x through down, weighed (arXiv:1701.06538, eq. 1)",
    inputs: &[
        X,
        Input::new(
            "experts",
            "T k",
            "of each token; others than 0 to E - 1 are left out",
        ),
        Input::new("probs", "T k", "weights of the sum"),
        GATE,
        UP,
        Input::new("down.weight", "E O F", ""),
        Input::optional("gate.bias", "E F", ""),
        Input::optional("up.bias", "E F", ""),
        Input::optional("down.bias", "E O", ""),
        Input::optional("residual", "T O", "added to the sum"),
        Input::optional(
            "shared",
            "T O",
            "what a shared expert gave, added to the sum",
        ),
        Input::optional(
            "shared_gate",
            "T",
            "logits: shared is taken times their sigmoid",
        ),
    ],
    settings: &[
        ACTIVATION,
        Setting::maybe_float(
            "limit",
            "act(min(gate, limit)) (clamp(up, -limit, limit) + 1), gpt-oss' unit with quick_gelu and 7",
        ),
        Setting::int("first", 0, "first expert that is summed"),
        Setting::maybe_int("held", "how many are; all from there on when left out"),
    ],
    outputs: &[Output::new("y", "T O", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let first = c.settings.size("first")?;
            let rest = c.axis("E").saturating_sub(first);
            let count = size(c, "held")?.unwrap_or(rest);
            if count == 0 || count > rest {
                return Err(c.error(format_args!(
                    "settings first {first} and held {count} are no part of {} experts",
                    c.axis("E")
                )));
            }
            let mut block = experts(c, c.axis("E"), first..first + count).await?;
            if let Some(limit) = c.settings.maybe_float("limit") {
                block = block.with_limit(limit as f32).map_err(|e| c.error(e))?;
            }
            let (x, ids) = (c.tensor("x").await?, c.index("experts").await?);
            let probs = c.tensor("probs").await?;
            let residual = c.optional("residual").await?;
            let shared = c.optional("shared").await?;
            let gate = c.optional("shared_gate").await?;
            let out = c.r.experts(&x, &ids, &block)?;
            let (residual, gate) = (residual.as_ref(), gate.as_ref());
            let y = match &shared {
                Some(shared) => {
                    let routed = [&out, &probs, &ids];
                    c.r.combine_shared(routed, residual, shared, gate, &block)?
                }
                None => c.r.combine(&out, &probs, &ids, residual, &block)?,
            };
            c.output("y", &y, &y.shape);
            Ok(())
        })
    },
    examples: || {
        let biased = |e: Example, count, hidden, outputs| {
            e.random("gate.bias", &[count, hidden])
                .random("up.bias", &[count, hidden])
                .random("down.bias", &[count, outputs])
        };
        // Few pairs; many; many of a rank's experts, half of them in f16.
        let few = gated([3, 2], [4, 6, 8, 7]);
        let many = plain([23, 2], [5, 9, 12, 12]).random("residual", &[23, 12]);
        let part = gated([40, 3], [8, 32, 16, 16])
            .random("shared", &[40, 16])
            .random("shared_gate", &[40])
            .half("up.weight");
        vec![
            biased(few, 4, 6, 7)
                .set("activation", "quick_gelu")
                .set("limit", "7"),
            many.set("activation", "relu"),
            part.set("first", "2").set("held", "5"),
            gated([2, 1], [3, 4, 8, 8]).random("shared", &[2, 8]),
        ]
    },
};

impl Example {
    /// The same with an input in f16.
    fn half(mut self, name: &str) -> Self {
        for (_, array) in self.inputs.iter_mut().filter(|(n, _)| *n == name) {
            *array = array.to_float(DType::F16);
        }
        self
    }
}

/// Plain blocks: `[tokens, k]`, `[experts, hidden, channels, outputs]`.
pub(super) fn plain(
    [tokens, k]: [usize; 2],
    [count, hidden, channels, outputs]: [usize; 4],
) -> Example {
    let ids: Vec<i64> = (0..(tokens * k) as i64)
        .map(|i| match i % 9 {
            5 => -1,
            _ => i * i % count as i64,
        })
        .collect();
    Example::new()
        .random("x", &[tokens, channels])
        .input("experts", Array::i64(&[tokens, k], &ids))
        .random("probs", &[tokens, k])
        .random("up.weight", &[count, hidden, channels])
        .random("down.weight", &[count, outputs, hidden])
}

fn gated(tokens: [usize; 2], sizes: [usize; 4]) -> Example {
    plain(tokens, sizes).random("gate.weight", &sizes[..3])
}

const SHARED: [Input; 3] = [
    Input::optional(
        "shared.gate.weight",
        "S C",
        "of an expert that every token uses",
    ),
    Input::optional("shared.up.weight", "S C", "with it"),
    Input::optional("shared.down.weight", "C S", "with it"),
];

const MOE: Op = Op {
    name: "moe",
    kinds: &[],
    systems: &[],
    summary: "router, the k chosen experts of each token, and their sum (arXiv:2401.04088, section 2.1)",
    inputs: &[
        X,
        Input::new("router.weight", "E C", ""),
        Input::optional("router.bias", "E", "added to the scores that select"),
        GATE,
        UP,
        Input::new("down.weight", "E C F", ""),
        SHARED[0],
        SHARED[1],
        SHARED[2],
        Input::optional(
            "shared_gate.weight",
            "1 C",
            "its sigmoid weighs the shared expert",
        ),
    ],
    settings: &[
        Setting::int("k", 2, "experts of a token"),
        SCORE,
        Setting::flag("normalize", true, "divide the k probabilities by their sum"),
        Setting::float("scale", 1.0, "what they are multiplied by"),
        ACTIVATION,
    ],
    outputs: &[
        Output::new("y", "T C", ""),
        Output::new("experts", "T k", "best first"),
        Output::new("probs", "T k", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let router = Router {
                score: score(c),
                k: c.settings.size("k")?,
                normalize: c.settings.flag("normalize"),
                scale: c.settings.float("scale") as f32,
                groups: None,
            };
            let block = experts(c, c.axis("E"), 0..c.axis("E")).await?;
            let x = c.tensor("x").await?;
            let weight = Linear::new(c.weight("router.weight").await?);
            let bias = c.optional("router.bias").await?;
            let logits = c.r.linear(&x, &weight)?;
            let routed = c.r.route(&logits, bias.as_ref(), &router);
            let (ids, probs) = routed.map_err(|e| c.error(e))?;
            let out = c.r.experts(&x, &ids, &block)?;
            let y = match shared_expert(c, &x).await? {
                Some((shared, gate)) => {
                    let routed = [&out, &probs, &ids];
                    (c.r).combine_shared(routed, None, &shared, gate.as_ref(), &block)?
                }
                None => c.r.combine(&out, &probs, &ids, None, &block)?,
            };
            c.output("y", &y, &y.shape);
            c.output("experts", &ids, &ids.shape);
            c.output("probs", &probs, &probs.shape);
            Ok(())
        })
    },
    examples: || {
        let shared = moe_example(5, [4, 8, 12]).random("shared.gate.weight", &[10, 12]);
        vec![
            shared
                .random("shared.up.weight", &[10, 12])
                .random("shared.down.weight", &[12, 10])
                .random("shared_gate.weight", &[1, 12]),
            moe_example(19, [8, 6, 16])
                .random("router.bias", &[8])
                .set("k", "4")
                .set("score", "sigmoid")
                .set("scale", "2.5")
                .set("normalize", "false")
                .set("activation", "gelu_tanh"),
        ]
    },
};

fn moe_example(tokens: usize, [count, hidden, channels]: [usize; 3]) -> Example {
    Example::new()
        .random("x", &[tokens, channels])
        .random("router.weight", &[count, channels])
        .random("gate.weight", &[count, hidden, channels])
        .random("up.weight", &[count, hidden, channels])
        .random("down.weight", &[count, channels, hidden])
}

/// What the shared expert makes of `x`, and the logits of its gate.
async fn shared_expert(c: &mut Call<'_>, x: &Tensor) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let given = SHARED.iter().filter(|i| c.has(i.name)).count();
    let gated = c.has("shared_gate.weight");
    if given == 0 && !gated {
        return Ok(None);
    }
    if given < SHARED.len() {
        let names = SHARED.map(|i| i.name).join(", ");
        return Err(c.error(format_args!(
            "a shared expert has {names}; give all or none"
        )));
    }
    let [gate, up, down] = SHARED.map(|i| i.name);
    let gate = Linear::new(c.weight(gate).await?);
    let up = Linear::new(c.weight(up).await?);
    let down = Linear::new(c.weight(down).await?);
    let block = GatedMlp::new(gate, up, down, chosen(c))?;
    let y = c.r.gated_mlp(x, &block)?;
    let logits = match gated {
        true => {
            let weight = Linear::new(c.weight("shared_gate.weight").await?);
            Some(c.r.linear(x, &weight)?)
        }
        false => None,
    };
    Ok(Some((y, logits)))
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{find, nmse, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    fn call(op: &str, example: &Example) -> Result<Vec<f32>> {
        let (inputs, settings) = example.call();
        let ran = block_on(run(&CpuDevice::new(), find(op)?, inputs, &settings))?;
        Ok(ran.outputs["y"].to_f32())
    }

    #[test]
    fn ranks_results_sum_to_those_of_one() {
        let all = gated([40, 3], [8, 32, 16, 16]);
        let want = call("moe_experts", &all).unwrap();
        let part = |first, held| {
            let example = all.clone().set("first", first).set("held", held);
            call("moe_experts", &example).unwrap()
        };
        let sums = part("0", "3").into_iter().zip(part("3", "5"));
        let sums: Vec<f32> = sums.map(|(a, b)| a + b).collect();
        assert!(nmse(&sums, &want) < 1e-12);
        let told = call("moe_experts", &all.set("first", "6").set("held", "3"));
        assert_eq!(
            told.unwrap_err().to_string(),
            "moe_experts: settings first 6 and held 3 are no part of 8 experts"
        );
    }

    #[test]
    fn gpt_oss_experts_clamp_what_they_multiply() {
        // One expert of one channel: y = (clamp(up x) + 1) gate x sigmoid(1.702 gate x).
        let one = |gate: f32, up: f32| {
            let scalar = |x: f32| Array::f32(&[1, 1, 1], &[x]);
            let example = Example::new()
                .input("x", Array::f32(&[1, 1], &[1.0]))
                .input("experts", Array::i64(&[1, 1], &[0]))
                .input("probs", Array::f32(&[1, 1], &[1.0]))
                .input("gate.weight", scalar(gate))
                .input("up.weight", scalar(up))
                .input("down.weight", scalar(1.0))
                .set("activation", "quick_gelu")
                .set("limit", "7");
            call("moe_experts", &example).unwrap()[0]
        };
        let unit = |gate: f32, up: f32| (up + 1.0) * gate / (1.0 + (-1.702 * gate).exp());
        for (gate, up, held) in [
            (0.5, -0.25, (0.5, -0.25)),
            (9.0, 8.0, (7.0, 7.0)),
            (-9.0, -30.0, (-9.0, -7.0)),
        ] {
            let (got, want) = (one(gate, up), unit(held.0, held.1));
            assert!((got - want).abs() < 1e-4 * want.abs(), "{gate} {up}: {got}");
        }
    }

    #[test]
    fn half_a_shared_expert_is_refused() {
        let example = moe_example(5, [4, 8, 12]).random("shared_gate.weight", &[1, 12]);
        assert_eq!(
            call("moe", &example).unwrap_err().to_string(),
            "moe: a shared expert has shared.gate.weight, shared.up.weight, shared.down.weight; give all or none"
        );
    }
}
