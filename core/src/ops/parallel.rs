//! What tensor parallelism computes, every rank's shard by itself, one after the other on this
//! device: feed-forward blocks, and the reduction of partial sums in the order of ranks.

use super::activation::{NAMES, chosen};
use super::mlp::{X, give};
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::comm::Reduce;
use crate::kernels::all_reduce;
use crate::nn::{GatedMlp, Linear, Mlp};
use crate::recording::Recording;
use crate::shard::Shard;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

pub static OPS: &[Op] = &[ALL_REDUCE, PARALLEL_MLP, PARALLEL_GATED_MLP];

const ALL_REDUCE: Op = Op {
    name: "all_reduce",
    kinds: &[],
    systems: &[],
    summary: "x0 + x1 + ..., strictly from left to right, or the largest: what ranks of one device do with their \
              partial sums",
    inputs: &[
        Input::new("x0", "...", "what rank 0 holds"),
        Input::new("x1", "...", ""),
        Input::optional("x2", "...", ""),
        Input::optional("x3", "...", ""),
        Input::optional("x4", "...", ""),
        Input::optional("x5", "...", ""),
        Input::optional("x6", "...", ""),
    ],
    settings: &[Setting::choice(
        "reduce",
        "sum",
        &["sum", "max"],
        "max: NaN if any is",
    )],
    outputs: &[Output::new("y", "...", "")],
    bound: 1e-13,
    record: |c| {
        Box::pin(async move {
            let reduce = match c.settings.choice("reduce") {
                "max" => Reduce::Max,
                _ => Reduce::Sum,
            };
            let shape = c.shape("x0").to_vec();
            let mut parts = Vec::new();
            for name in PARTS {
                parts.extend(c.optional(name).await?);
            }
            let y = c.r.scratch(DType::F32, &shape)?;
            let params = all_reduce::params(y.len(), 0, parts.len(), reduce);
            let mut bindings: Vec<_> = parts.into_iter().map(Some).collect();
            bindings.resize(all_reduce::MOST, None);
            bindings.push(Some(y.clone()));
            c.r.push(&all_reduce::KERNEL, params, bindings)?;
            c.output("y", &y, &shape);
            Ok(())
        })
    },
    examples: || {
        let all = PARTS.into_iter();
        vec![
            all.fold(Example::new(), |e, name| e.random(name, &[3, 5])),
            Example::new()
                .random("x0", &[4, 3])
                .random("x1", &[4, 3])
                .set("reduce", "max"),
        ]
    },
};

const PARTS: [&str; all_reduce::MOST] = ["x0", "x1", "x2", "x3", "x4", "x5", "x6"];

const SHARDS: Output = Output::new("shards", "R", "hidden size of each rank's shard");
const Y: Output = Output::new("y", "... O", "");

pub(super) const WORLD_SIZE: Setting = Setting::int("world_size", 2, "number of ranks");
const SEQUENCE: Setting = Setting::flag(
    "sequence_parallel",
    true,
    "ranks hold equal parts of the tokens outside the block, so their number must divide",
);
const MULTIPLE: Setting = Setting::int(
    "multiple_of",
    128,
    "F is split in units of it; the first F / multiple_of mod R ranks hold one more",
);

const PARALLEL_MLP: Op = Op {
    name: "parallel_mlp",
    kinds: &["ParallelMLP"],
    systems: &["ParallelMLP", "sequence parallel"],
    summary: "mlp, fc1 column-parallel and fc2 row-parallel over world_size ranks; fc2's bias is added once \
              (flash-attn, modules/mlp.py; arXiv:1909.08053, section 3)",
    inputs: &[
        X,
        Input::new("fc1.weight", "F C", ""),
        Input::optional("fc1.bias", "F", ""),
        Input::new("fc2.weight", "O F", ""),
        Input::optional("fc2.bias", "O", ""),
    ],
    settings: &[
        WORLD_SIZE,
        SEQUENCE,
        MULTIPLE,
        Setting::choice("activation", "gelu", NAMES, "between the layers"),
    ],
    outputs: &[Y, SHARDS],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let x = c.tensor("x").await?;
            let (tokens, mut ranks) = (x.rows(), recordings(c)?);
            let mut found = Vec::new();
            for ((shard, range), r) in shards(c)?.into_iter().zip(&mut ranks) {
                let fc1 = part(c, "fc1", Part::Rows(range.clone()), true).await?;
                let fc2 = part(c, "fc2", Part::Columns(range), shard.rank == 0).await?;
                let mlp = Mlp::new(fc1, fc2.row_parallel(), chosen(c))?;
                let own = r.own_tokens(&flat(&x))?;
                let all = r.gather_tokens(&own, tokens)?;
                let y = r.mlp(&all, &mlp)?;
                found.push([r.gather_tokens(&y, tokens)?]);
            }
            give_first(c, &ranks, &found)
        })
    },
    examples: || {
        let example = |tokens| {
            Example::new()
                .random("x", &[tokens, 6])
                .random("fc1.weight", &[20, 6])
                .random("fc2.weight", &[5, 20])
                .set("multiple_of", "4")
        };
        vec![
            example(4)
                .random("fc1.bias", &[20])
                .random("fc2.bias", &[5]),
            example(3)
                .set("world_size", "4")
                .set("sequence_parallel", "false")
                .set("activation", "relu"),
        ]
    },
};

const PARALLEL_GATED_MLP: Op = Op {
    name: "parallel_gated_mlp",
    kinds: &["ParallelGatedMlp"],
    systems: &["ParallelGatedMlp"],
    summary: "gated_mlp over world_size ranks: a rank's fc1 is its slice of the value's rows and the same of the \
              gate's (flash-attn, modules/mlp.py)",
    inputs: &[
        X,
        Input::new("fc1.weight", "2F C", "gate and value, see packing"),
        Input::optional("fc1.bias", "2F", ""),
        Input::new("fc2.weight", "O F", ""),
        Input::optional("fc2.bias", "O", ""),
    ],
    settings: &[
        WORLD_SIZE,
        SEQUENCE,
        MULTIPLE,
        Setting::choice("activation", "sigmoid", NAMES, "of the gate"),
        Setting::choice(
            "packing",
            "value_gate",
            &["value_gate", "gate_value"],
            "which half of fc1 is the gate",
        ),
    ],
    outputs: &[Y, SHARDS],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let x = c.tensor("x").await?;
            let (tokens, mut ranks) = (x.rows(), recordings(c)?);
            let hidden = c.axis("F");
            let gate_first = c.settings.choice("packing") == "gate_value";
            let mut found = Vec::new();
            for ((shard, range), r) in shards(c)?.into_iter().zip(&mut ranks) {
                let second = range.start + hidden..range.end + hidden;
                let first = part(c, "fc1", Part::Rows(range.clone()), true).await?;
                let second = part(c, "fc1", Part::Rows(second), true).await?;
                let (gate, up) = if gate_first {
                    (first, second)
                } else {
                    (second, first)
                };
                let down = part(c, "fc2", Part::Columns(range), shard.rank == 0).await?;
                let mlp = GatedMlp::new(gate, up, down.row_parallel(), chosen(c))?;
                let own = r.own_tokens(&flat(&x))?;
                let all = r.gather_tokens(&own, tokens)?;
                let y = r.gated_mlp(&all, &mlp)?;
                found.push([r.gather_tokens(&y, tokens)?]);
            }
            give_first(c, &ranks, &found)
        })
    },
    examples: || {
        let example = |tokens| {
            Example::new()
                .random("x", &[tokens, 6])
                .random("fc1.weight", &[40, 6])
                .random("fc2.weight", &[5, 20])
                .set("multiple_of", "4")
        };
        vec![
            example(4)
                .random("fc1.bias", &[40])
                .random("fc2.bias", &[5]),
            (example(11)
                .set("world_size", "3")
                .set("sequence_parallel", "false"))
            .set("activation", "silu")
            .set("packing", "gate_value"),
        ]
    },
};

/// Every rank with its part of F.
fn shards(c: &mut Call<'_>) -> Result<Vec<(Shard, std::ops::Range<usize>)>> {
    let (ranks, unit) = (
        c.settings.size("world_size")?,
        c.settings.size("multiple_of")?,
    );
    if ranks == 0 {
        return Err(c.error("setting world_size is 0, expected 1 or more"));
    }
    let tokens: usize = c.lead().iter().product();
    if c.settings.flag("sequence_parallel") && !tokens.is_multiple_of(ranks) {
        return Err(c.error(format_args!(
            "{tokens} tokens cannot be shared equally by {ranks} ranks; set sequence_parallel=false"
        )));
    }
    let hidden = c.axis("F");
    let named = |e: Error| c.error(e);
    let ranges: Result<Vec<_>> = Shard::all(ranks)
        .map(|shard| Ok((shard, shard.range(hidden, unit).map_err(named)?)))
        .collect();
    let ranges = ranges?;
    let lens: Vec<i64> = ranges.iter().map(|(_, r)| r.len() as i64).collect();
    c.output_array("shards", Array::i64(&[ranks], &lens));
    Ok(ranges)
}

/// Which part of a layer's weight.
enum Part {
    Rows(std::ops::Range<usize>),
    Columns(std::ops::Range<usize>),
}

/// A part of layer `name`, with the bias (all of it for columns) if there is one and it is wanted.
async fn part(c: &mut Call<'_>, name: &str, part: Part, with_bias: bool) -> Result<Linear> {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let array = c.array(&weight);
    let array = match &part {
        Part::Rows(range) => array.rows(range.clone()),
        Part::Columns(range) => array.columns(range.clone()),
    };
    let array = array.ok_or_else(|| c.error(format_args!("{weight}: a shard cuts blocks")))?;
    let bias = match with_bias && c.has(&bias) {
        false => None,
        true => {
            let values = c.array(&bias).to_f32();
            let values = match part {
                Part::Rows(range) => &values[range],
                Part::Columns(_) => &values[..],
            };
            Some(c.floats(&bias, &[values.len()], values).await?)
        }
    };
    let weight = c.weight_of(&weight, &array).await?;
    Linear::with_bias(weight, bias)
}

/// Recordings of the ranks that the settings name.
fn recordings(c: &Call<'_>) -> Result<Vec<Recording>> {
    let sequence = c.settings.flag("sequence_parallel");
    c.ranks(c.settings.size("world_size")?, sequence)
}

/// Rows of channels.
pub(super) fn flat(x: &Tensor) -> Tensor {
    Tensor::new(x.storage.clone(), x.dtype, &[x.rows(), x.cols()])
}

/// Every rank has the result; the first one's is given.
pub(super) fn give_first(
    c: &mut Call<'_>,
    ranks: &[Recording],
    found: &[[Tensor; 1]],
) -> Result<()> {
    let [y] = c.join(ranks, found)?.swap_remove(0);
    give(c, &y);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pollster::block_on;

    use super::super::{find, nmse, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    /// `y` of `op` with these settings on the inputs of the parallel operator's first example.
    fn y(op: &str, example: &Example, settings: &[(&str, &str)]) -> Result<Vec<f32>> {
        let settings: BTreeMap<String, String> = (settings.iter())
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        let device = CpuDevice::new();
        let ran = block_on(run(&device, find(op)?, example.call().0, &settings))?;
        Ok(ran.outputs["y"].to_f32())
    }

    #[test]
    fn any_number_of_ranks_gives_what_one_gives() {
        for (op, whole, hidden) in [
            ("parallel_mlp", "mlp", "hidden_features"),
            ("parallel_gated_mlp", "gated_mlp", "hidden_features"),
        ] {
            let example = &(find(op).unwrap().examples)()[0];
            let mut one = vec![(hidden, "20"), ("out_features", "5")];
            if whole == "gated_mlp" {
                one.push(("multiple_of", "4"));
            }
            let want = y(whole, example, &one).unwrap();
            for ranks in ["1", "2", "4"] {
                let settings = [("world_size", ranks), ("multiple_of", "4")];
                let got = y(op, example, &settings).unwrap();
                assert!(nmse(&got, &want) < 1e-12, "{op} on {ranks} ranks");
            }
            let seven = [
                ("world_size", "7"),
                ("multiple_of", "2"),
                ("sequence_parallel", "false"),
            ];
            assert!(nmse(&y(op, example, &seven).unwrap(), &want) < 1e-12);
            // Five units of 4; 3 ranks do not divide 4 tokens.
            let three = [("world_size", "3"), ("multiple_of", "4")];
            assert!(y(op, example, &three).is_err());
            let three = [three[0], three[1], ("sequence_parallel", "false")];
            assert!(nmse(&y(op, example, &three).unwrap(), &want) < 1e-12);
            let six = [("world_size", "6"), three[1], three[2]];
            let told = y(op, example, &six).unwrap_err().to_string();
            assert!(told.contains("use a world size of at most 5"), "{told}");
        }
    }
}
