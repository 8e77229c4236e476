//! Parallel layers (Megatron-LM, arXiv:1909.08053; FairScale): all ranks on one device, with the
//! collectives that they have in a model.

use std::ops::Range;

use super::parallel::{WORLD_SIZE, flat, give_first};
use super::{Array, Call, ElementType, Example, Input, Op, Output, Setting};
use crate::comm::{Axis, Mesh};
use crate::kv_cache::{CacheShape, KvCache, KvDType};
use crate::nn::{Attention, Distribution, Draw, Embedding, Linear};
use crate::recording::Recording;
use crate::shard::Split;
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Result};

pub static OPS: &[Op] = &[
    COLUMN_PARALLEL_LINEAR,
    ROW_PARALLEL_LINEAR,
    VOCAB_PARALLEL_EMBEDDING,
    VOCAB_PARALLEL_ARGMAX,
    PARALLEL_SELF_ATTENTION,
    PARALLEL_INIT,
    PROCESS_GROUPS,
];

const X: Input = Input::new("x", "... C", "");
const Y: Output = Output::new("y", "... O", "");

/// This rank's part of a dimension, in whole units.
fn part(c: &Call<'_>, rank: usize, len: usize, unit: usize) -> Result<Range<usize>> {
    let ranks = c.settings.size("world_size")?;
    let part = Split::even(ranks).range(rank, len, unit);
    part.map_err(|e| c.error(e))
}

/// Some rows of a matrix.
async fn rows(c: &Call<'_>, name: &str, range: Range<usize>) -> Result<Weight> {
    let array = c.array(name).rows(range);
    let array = array.ok_or_else(|| c.error(format_args!("{name}: is not a matrix")))?;
    c.weight_of(name, &array).await
}

/// Some columns of a matrix.
async fn columns(c: &Call<'_>, name: &str, range: Range<usize>) -> Result<Weight> {
    let array = c.array(name).columns(range);
    let array = array.ok_or_else(|| c.error(format_args!("{name}: a shard cuts blocks")))?;
    c.weight_of(name, &array).await
}

/// Some elements of a vector, if it is there.
async fn bias(c: &Call<'_>, name: &str, range: Range<usize>) -> Result<Option<Tensor>> {
    if !c.has(name) {
        return Ok(None);
    }
    let values = c.array(name).to_f32();
    let values = &values[range];
    Ok(Some(c.floats(name, &[values.len()], values).await?))
}

fn recordings(c: &Call<'_>) -> Result<Vec<Recording>> {
    c.ranks(c.settings.size("world_size")?, false)
}

/// Elements of a block of a weight.
fn block(c: &Call<'_>, name: &str) -> usize {
    match c.array(name).dtype {
        ElementType::Weight(dtype) => dtype.block_len(),
        _ => 1,
    }
}

const COLUMN_PARALLEL_LINEAR: Op = Op {
    name: "column_parallel_linear",
    kinds: &["ColumnParallelLinear"],
    systems: &["ColumnParallelLinear"],
    summary: "rank r computes y_r = x w_r^T + b_r with its rows of w; gather_output joins them",
    inputs: &[
        X,
        Input::new("weight", "O C", ""),
        Input::optional("bias", "O", ""),
    ],
    settings: &[
        WORLD_SIZE,
        Setting::flag(
            "gather_output",
            true,
            "every rank gets all outputs; else y is the first rank's part",
        ),
    ],
    outputs: &[Output::new(
        "y",
        "... P",
        "P is O, or the first rank's part of it",
    )],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (x, outputs) = (flat(&c.tensor("x").await?), c.axis("O"));
            let mut ranks = recordings(c)?;
            let parts: Vec<_> = (0..ranks.len())
                .map(|rank| part(c, rank, outputs, 1))
                .collect::<Result<_>>()?;
            let lens: Vec<usize> = parts.iter().map(Range::len).collect();
            let gather = c.settings.flag("gather_output") && ranks.len() > 1;
            let mut found = Vec::new();
            for (held, r) in parts.into_iter().zip(&mut ranks) {
                let weight = rows(c, "weight", held.clone()).await?;
                let linear = Linear::with_bias(weight, bias(c, "bias", held).await?)?;
                let y = r.linear(&x, &linear)?;
                found.push([match gather {
                    true => r.all_gather(&y, 1, lens.clone())?,
                    false => y,
                }]);
            }
            give_first(c, &ranks, &found)
        })
    },
    examples: || {
        let example = |outputs: usize| {
            Example::new()
                .random("x", &[2, 3, 8])
                .random("weight", &[outputs, 8])
        };
        vec![
            example(10).random("bias", &[10]).set("world_size", "3"),
            example(10)
                .set("gather_output", "false")
                .set("world_size", "4"),
        ]
    },
};

const ROW_PARALLEL_LINEAR: Op = Op {
    name: "row_parallel_linear",
    kinds: &["RowParallelLinear"],
    systems: &["RowParallelLinear"],
    summary: "rank r multiplies its part of x's channels with its columns of w; products are summed over ranks, the \
              bias is added once",
    inputs: &[
        X,
        Input::new("weight", "O C", ""),
        Input::optional("bias", "O", ""),
    ],
    settings: &[
        WORLD_SIZE,
        Setting::flag(
            "input_is_parallel",
            false,
            "x is the ranks' parts one after the other, each (..., C_r), along the last axis, as column-parallel \
             layers give them; else every rank takes its part of x",
        ),
    ],
    outputs: &[Y],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (x, inputs) = (flat(&c.tensor("x").await?), c.axis("C"));
            let (outputs, unit) = (c.axis("O"), block(c, "weight"));
            let values = c.array("x").to_f32();
            let mut ranks = recordings(c)?;
            let mut found = Vec::new();
            for (rank, r) in ranks.iter_mut().enumerate() {
                let held = part(c, rank, inputs, unit)?;
                let own = match c.settings.flag("input_is_parallel") {
                    // Memory of its own, as another layer's output would be.
                    true => {
                        let own: Vec<f32> = (values.chunks(inputs))
                            .flat_map(|row| row[held.clone()].iter().copied())
                            .collect();
                        c.floats("x", &[x.rows(), held.len()], &own).await?
                    }
                    false => r.columns(&x, held.start, held.len())?,
                };
                let weight = columns(c, "weight", held).await?;
                let bias = match rank {
                    0 => bias(c, "bias", 0..outputs).await?,
                    _ => None,
                };
                let linear = Linear::with_bias(weight, bias)?.row_parallel();
                found.push([r.linear(&own, &linear)?]);
            }
            give_first(c, &ranks, &found)
        })
    },
    examples: || {
        let example = |inputs: usize| {
            Example::new()
                .random("x", &[3, inputs])
                .random("weight", &[5, inputs])
        };
        vec![
            example(10).random("bias", &[5]).set("world_size", "3"),
            example(8)
                .set("input_is_parallel", "true")
                .set("world_size", "7"),
        ]
    },
};

const VOCAB_PARALLEL_EMBEDDING: Op = Op {
    name: "vocab_parallel_embedding",
    kinds: &["VocabParallelEmbedding"],
    systems: &["VocabParallelEmbedding"],
    summary: "rank r has its rows of the table, in units of 128 where there are enough, and zeros for other ids; the sum \
              over ranks is the embedding",
    inputs: &[
        Input::new("ids", "...", "whole numbers from 0 to V - 1"),
        Input::new("weight", "V C", "any float or quantised type"),
    ],
    settings: &[WORLD_SIZE],
    outputs: &[Output::new("y", "... C", "")],
    bound: 1e-13,
    record: |c| {
        Box::pin(async move {
            let vocab = c.axis("V");
            if let Some(id) = (c.words("ids")?.into_iter()).find(|&id| id as usize >= vocab) {
                return Err(c.error(format_args!(
                    "ids holds {}, weight has {vocab} rows",
                    id as i32
                )));
            }
            let ids = c.index("ids").await?;
            let mut ranks = recordings(c)?;
            let mut found = Vec::new();
            for r in &mut ranks {
                let held = r.placement().vocab(vocab).map_err(|e| c.error(e))?;
                let weight = rows(c, "weight", held.clone()).await?;
                let embedding = Embedding::of_rank(weight, held.start, vocab)?;
                found.push([r.embedding(&ids, &embedding)?]);
            }
            give_first(c, &ranks, &found)
        })
    },
    examples: || {
        let example = |vocab: usize| {
            Example::new()
                .input("ids", Array::i64(&[2, 3], &[0, 5, 8, 3, 8, 1]))
                .random("weight", &[vocab, 12])
        };
        vec![
            example(9).set("world_size", "4"),
            example(300).set("world_size", "3"),
        ]
    },
};

const VOCAB_PARALLEL_ARGMAX: Op = Op {
    name: "vocab_parallel_argmax",
    kinds: &[],
    systems: &[],
    summary: "the largest of the logits x w^T, which no rank has all of: each rank's own largest, of which the largest. \
              Eight bytes a rank are communicated",
    inputs: &[
        Input::new("x", "C", "the last hidden state"),
        Input::new("weight", "V C", "the output layer"),
    ],
    settings: &[WORLD_SIZE],
    outputs: &[Output::new("index", "1", "the smallest of several")],
    bound: 0.0,
    record: |c| {
        Box::pin(async move {
            let (x, vocab) = (c.tensor("x").await?, c.axis("V"));
            let x = Tensor::new(x.storage, x.dtype, &[1, x.shape[0]]);
            let mut ranks = recordings(c)?;
            let count = ranks.len();
            let mut found = Vec::new();
            for r in &mut ranks {
                let held = r.placement().vocab(vocab).map_err(|e| c.error(e))?;
                let linear = Linear::new(rows(c, "weight", held.clone()).await?);
                let logits = r.linear(&x, &linear)?;
                let (mut value, mut id) = r.top_k(&logits, 1, held.start)?;
                if count > 1 {
                    value = r.all_gather(&value, 0, vec![1; count])?;
                    id = r.all_gather(&id, 0, vec![1; count])?;
                }
                let index = r.scratch(DType::U32, &[1])?;
                r.argmax_of(&value, &id, &index)?;
                found.push([index]);
            }
            let [index] = c.join(&ranks, &found)?.swap_remove(0);
            c.output("index", &index, &[1]);
            Ok(())
        })
    },
    examples: || {
        let example = |vocab: usize| {
            Example::new()
                .random("x", &[8])
                .random("weight", &[vocab, 8])
        };
        vec![
            example(11).set("world_size", "3"),
            example(1000).set("world_size", "4"),
        ]
    },
};

const PARALLEL_SELF_ATTENTION: Op = Op {
    name: "parallel_self_attention",
    kinds: &["ParallelSelfAttention"],
    systems: &["parallel self-attention"],
    summary: "causal self-attention of x: rank r has its heads of q, k and v and their columns of o, whose products are \
              summed; key/value heads that several ranks read are held by each of them",
    inputs: &[
        Input::new("x", "T C", ""),
        Input::new("q.weight", "Q C", "num_heads heads"),
        Input::new("k.weight", "K C", "num_kv_heads heads"),
        Input::new("v.weight", "K C", ""),
        Input::new("o.weight", "O Q", ""),
        Input::optional("o.bias", "O", ""),
    ],
    settings: &[
        WORLD_SIZE,
        Setting::int("num_heads", 4, "divides Q"),
        Setting::int("num_kv_heads", 2, "divides num_heads"),
    ],
    outputs: &[Output::new("y", "T O", "")],
    bound: 1e-10,
    record: |c| Box::pin(self_attention(c)),
    examples: || {
        // SmolLM2's heads, smaller: 9 and 3 of them.
        let example = |tokens: usize| {
            Example::new()
                .random("x", &[tokens, 6])
                .random("q.weight", &[36, 6])
                .random("k.weight", &[12, 6])
                .random("v.weight", &[12, 6])
                .random("o.weight", &[6, 36])
                .set("num_heads", "9")
                .set("num_kv_heads", "3")
        };
        vec![
            example(5).random("o.bias", &[6]),
            example(1).set("world_size", "4"),
            example(9).set("world_size", "3"),
            example(4).set("world_size", "7"),
        ]
    },
};

async fn self_attention(c: &mut Call<'_>) -> Result<()> {
    let (heads, kv_heads) = (
        c.settings.size("num_heads")?,
        c.settings.size("num_kv_heads")?,
    );
    let (tokens, q, kv) = (c.axis("T"), c.axis("Q"), c.axis("K"));
    let size = q.checked_div(heads).unwrap_or(0);
    if kv_heads == 0 || size * heads != q || size * kv_heads != kv || heads % kv_heads != 0 {
        return Err(c.error(format_args!(
            "{q} and {kv} channels are not {heads} heads and {kv_heads} key/value heads that divide them"
        )));
    }
    let x = c.tensor("x").await?;
    let step = c.upload("step", DType::U32, &[4], &[0; 16]).await?;
    let unit = block(c, "o.weight");
    let mut ranks = recordings(c)?;
    let mut found = Vec::new();
    for (rank, r) in ranks.iter_mut().enumerate() {
        let held = r.placement().heads(heads, kv_heads, size, unit);
        let held = held.map_err(|e| c.error(e))?;
        let channels = |heads: &Range<usize>| heads.start * size..heads.end * size;
        let (mine, mine_kv) = (channels(&held.q), channels(&held.kv));
        let qkv = Weight::stack([
            rows(c, "q.weight", mine.clone()).await?,
            rows(c, "k.weight", mine_kv.clone()).await?,
            rows(c, "v.weight", mine_kv).await?,
        ])?;
        let qkv = r.linear(&x, &Linear::new(qkv))?;
        let shape = CacheShape {
            layers: 1,
            kv_heads: held.kv.len(),
            head_size: size,
            v_head_size: size,
        };
        let cache = KvCache::new(c.device(), shape, tokens, KvDType::F32).await?;
        let attention = Attention::new(held, size, 0);
        let a = r.self_attention(&qkv, &attention, None, &step, &cache)?;
        let o = columns(c, "o.weight", mine).await?;
        let bias = match rank {
            0 => bias(c, "o.bias", 0..o.rows).await?,
            _ => None,
        };
        let o = Linear::with_bias(o, bias)?.row_parallel();
        found.push([r.linear(&a, &o)?]);
    }
    let [y] = c.join(&ranks, &found)?.swap_remove(0);
    let shape = [tokens, y.cols()];
    c.output("y", &y, &shape);
    Ok(())
}

/// Megatron-LM's offset of the seed of tensor-parallel ranks (`tensor_parallel/random.py`).
const TENSOR_SEED: u64 = 2718;

/// The same of experts.
const EXPERT_SEED: u64 = 1024;

const PARALLEL_INIT: Op = Op {
    name: "parallel_init",
    kinds: &[],
    systems: &["initialisation"],
    summary: "normal random weights of all ranks, joined. scheme master: drawn whole and then split, the same for every \
              world_size; per_rank: each rank draws its part with seed + 2718 + rank, for experts with seed + 1024 + \
              100 ep_rank + etp_rank; default: with seed, the same on each rank (Megatron-LM, tensor_parallel/random.py)",
    inputs: &[],
    settings: &[
        WORLD_SIZE,
        Setting::choice(
            "scheme",
            "master",
            &["master", "per_rank", "expert", "default"],
            "how ranks draw",
        ),
        Setting::int("seed", 0, ""),
        Setting::float("std", 0.02, "standard deviation"),
        Setting::int("rows", 8, "outputs"),
        Setting::int("columns", 6, "inputs"),
        Setting::int(
            "axis",
            0,
            "0 splits rows (column-parallel), 1 columns (row-parallel)",
        ),
        Setting::int("ep_rank", 0, "expert-parallel rank, for scheme expert"),
    ],
    outputs: &[Output::new("weight", "O C", "")],
    bound: 1e-12,
    record: |c| Box::pin(init(c)),
    examples: || {
        vec![
            Example::new().set("axis", "1").set("world_size", "3"),
            Example::new().set("scheme", "per_rank").set("seed", "7"),
            Example::new().set("scheme", "expert").set("ep_rank", "2"),
            (Example::new().set("scheme", "default"))
                .set("std", "0.5")
                .set("rows", "5")
                .set("columns", "3"),
        ]
    },
};

async fn init(c: &mut Call<'_>) -> Result<()> {
    let (rows, columns) = (c.settings.size("rows")?, c.settings.size("columns")?);
    let axis = c.settings.size("axis")?;
    let count = c.settings.size("world_size")?;
    let words = rows.checked_mul(columns).filter(|words| *words < 1 << 31);
    if axis > 1 || words.is_none() {
        return Err(c.error(format_args!(
            "a matrix of {rows} rows and {columns} columns, split along axis {axis}; expected fewer than 2^31 \
             elements and axis 0 or 1"
        )));
    }
    let seed = c.settings.int("seed") as u64;
    let ep_rank = c.settings.size("ep_rank")? as u64;
    let std = c.settings.float("std") as f32;
    let scheme = c.settings.choice("scheme");
    let mut ranks = recordings(c)?;
    let whole = [rows, columns][axis];
    let parts: Vec<Range<usize>> = (0..count)
        .map(|rank| {
            let part = Split::even(count).range(rank, whole, 1);
            part.map_err(|e| c.error(e))
        })
        .collect::<Result<_>>()?;
    let lens: Vec<usize> = parts.iter().map(Range::len).collect();
    let mut found = Vec::new();
    for ((rank, r), part) in ranks.iter_mut().enumerate().zip(&parts) {
        let mut shape = [rows, columns];
        shape[axis] = part.len();
        let draw = match scheme {
            // Word of each element as in the whole matrix.
            "master" => Draw {
                first: (part.start * [columns, 1][axis]) as u32,
                width: shape[1] as u32,
                stride: columns as u32,
                ..Draw::new(seed, 0)
            },
            "per_rank" => Draw::new(seed.wrapping_add(TENSOR_SEED + rank as u64), 0),
            "expert" => {
                let offset = EXPERT_SEED + 100 * ep_rank + rank as u64;
                Draw::new(seed.wrapping_add(offset), 0)
            }
            _ => Draw::new(seed, 0),
        };
        let own = r.random(&shape, draw, Distribution::Normal { mean: 0.0, std })?;
        found.push([match count {
            1 => own,
            _ => r.all_gather(&own, axis, lens.clone())?,
        }]);
    }
    let [weight] = c.join(&ranks, &found)?.swap_remove(0);
    c.output("weight", &weight, &[rows, columns]);
    Ok(())
}

const PROCESS_GROUPS: Op = Op {
    name: "process_groups",
    kinds: &[],
    systems: &["process groups"],
    summary: "which ranks share a tensor, a batch, a pipeline or a set of experts, numbered in Megatron-LM's order \
              tp-cp-ep-dp-pp (core/parallel_state.py)",
    inputs: &[],
    settings: &[
        Setting::int("tp", 1, "tensor-parallel ranks"),
        Setting::int("cp", 1, "context-parallel ranks"),
        Setting::int("ep", 1, "expert-parallel ranks; divides tp cp dp"),
        Setting::int("dp", 1, "replicas"),
        Setting::int("pp", 1, "pipeline stages"),
        Setting::choice(
            "axis",
            "tp",
            &["tp", "cp", "dp", "pp", "ep", "edp"],
            "whose groups",
        ),
    ],
    outputs: &[Output::new("groups", "G R", "ranks of each group")],
    bound: 0.0,
    record: |c| {
        Box::pin(async move {
            let mesh = Mesh {
                tp: c.settings.size("tp")?,
                cp: c.settings.size("cp")?,
                dp: c.settings.size("dp")?,
                pp: c.settings.size("pp")?,
                ep: c.settings.size("ep")?,
            };
            mesh.check().map_err(|e| c.error(e))?;
            let name = c.settings.choice("axis");
            let axis = Axis::ALL.into_iter().find(|axis| axis.name() == name);
            let groups = mesh.groups(axis.unwrap_or(Axis::Tensor));
            let shape = [groups.len(), groups[0].len()];
            let ranks: Vec<i64> = groups.concat().iter().map(|rank| *rank as i64).collect();
            c.output_array("groups", Array::i64(&shape, &ranks));
            Ok(())
        })
    },
    examples: || {
        let example = || Example::new().set("tp", "2").set("pp", "4").set("dp", "2");
        vec![
            example(),
            example().set("axis", "pp"),
            example().set("axis", "ep").set("ep", "4").set("cp", "2"),
        ]
    },
};

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{find, nmse, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    /// The first output of `op` on an example's inputs, with these settings in place of its own.
    fn output(op: &str, example: &Example, settings: &[(&str, &str)]) -> Result<Vec<f32>> {
        let (inputs, mut all) = example.call();
        let more = settings.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        all.extend(more);
        let op = find(op)?;
        let ran = block_on(run(&CpuDevice::new(), op, inputs, &all))?;
        Ok(ran.outputs[op.outputs[0].name].to_f32())
    }

    /// Every parallel layer, with one rank and with several.
    #[test]
    fn any_number_of_ranks_gives_what_one_gives() {
        let gather = ("gather_output", "true");
        for op in [
            "column_parallel_linear",
            "row_parallel_linear",
            "vocab_parallel_embedding",
            "vocab_parallel_argmax",
            "parallel_self_attention",
            "parallel_init",
        ] {
            for example in (find(op).unwrap().examples)() {
                let (_, own) = example.call();
                if op == "parallel_init" && own.get("scheme").is_some_and(|s| s != "master") {
                    continue;
                }
                let with = |ranks: &'static str| match op {
                    "column_parallel_linear" => vec![("world_size", ranks), gather],
                    _ => vec![("world_size", ranks)],
                };
                let want = output(op, &example, &with("1")).unwrap();
                for ranks in ["2", "3", "4", "7"] {
                    let got = match output(op, &example, &with(ranks)) {
                        Ok(got) => got,
                        Err(e) => {
                            // Fewer columns than ranks cannot be split.
                            assert!(e.to_string().contains("use a world size of at most"), "{e}");
                            assert!(op == "parallel_init", "{op} on {ranks} ranks: {e}");
                            continue;
                        }
                    };
                    let error = nmse(&got, &want);
                    assert!(error < 1e-12, "{op} on {ranks} ranks: NMSE {error:e}");
                }
            }
        }
    }

    #[test]
    fn ranks_draw_by_megatrons_seeds() {
        let draw = |settings: &[(&str, &str)]| {
            let all = [settings, &[("rows", "4"), ("columns", "3")]].concat();
            output("parallel_init", &Example::new(), &all).unwrap()
        };
        let whole = |seed: &str| draw(&[("world_size", "1"), ("seed", seed)]);
        let two = draw(&[("scheme", "per_rank"), ("seed", "5")]);
        // Rows 0 and 1 are rank 0's: the first words of its stream.
        assert_eq!(two[..6], whole("2723")[..6]);
        assert_eq!(two[6..], whole("2724")[..6]);
        let expert = draw(&[("scheme", "expert"), ("seed", "5"), ("ep_rank", "3")]);
        assert_eq!(expert[..6], whole("1329")[..6]);
        assert_eq!(expert[6..], whole("1330")[..6]);
        let same = draw(&[("scheme", "default"), ("seed", "5")]);
        assert_eq!(same[..6], same[6..]);
        assert_eq!(same[..6], whole("5")[..6]);
    }
}
