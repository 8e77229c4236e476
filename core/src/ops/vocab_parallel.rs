//! Cross-entropy of logits whose classes are spread over ranks: every rank's part by itself, one
//! after the other on this device, reduced in the order of ranks.

use std::ops::Range;

use super::loss::{DY, IGNORE, LOSS, REDUCTION, SMOOTHING, check_labels};
use super::parallel::WORLD_SIZE;
use super::{Array, Call, Example, Input, Op, Output};
use crate::comm::Reduce;
use crate::kernels::{
    Axis, all_reduce, copy, label_weight, reduce_sum, top_k, vocab_cross_entropy, vocab_sums,
};
use crate::shard::Split;
use crate::tensor::Tensor;
use crate::{DType, Result};

pub static OPS: &[Op] = &[FORWARD, BACKWARD];

const LOGITS: Input = Input::new("logits", "... V", "each rank computes on its part of V");
const LABELS: Input = Input::new("labels", "...", "classes");

const FORWARD: Op = Op {
    name: "vocab_parallel_cross_entropy",
    kinds: &[],
    systems: &["vocab-parallel cross-entropy"],
    summary: "cross_entropy over world_size ranks: all-reduce of the largest logit, then of the label's logit and \
              of the exponentials' sum; loss = ln(sum) - label's (arXiv:1909.08053, section 3)",
    inputs: &[LOGITS, LABELS],
    settings: &[WORLD_SIZE, REDUCTION, IGNORE, SMOOTHING],
    outputs: &[LOSS],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let ranks = Ranks::of(c).await?;
            let y = c.r.scratch(DType::F32, &[ranks.rows])?;
            let params =
                vocab_cross_entropy::params(ranks.rows, ranks.vocab, ranks.ignore, ranks.smoothing);
            let mut bindings = vec![Some(ranks.labels.clone()), Some(ranks.sums.clone())];
            bindings.resize(vocab_cross_entropy::KERNEL.bindings.len() - 1, None);
            bindings.push(Some(y.clone()));
            c.r.push(&vocab_cross_entropy::KERNEL, params, bindings)?;
            if c.settings.choice("reduction") == "none" {
                let shape = c.lead().to_vec();
                c.output("loss", &y, &shape);
                return Ok(());
            }
            let total = ranks.total(c)?;
            let reduced = c.r.scratch(DType::F32, &[1])?;
            let params = reduce_sum::params(ranks.rows, total.is_some());
            let bindings = vec![Some(y), total, Some(reduced.clone())];
            c.r.push(&reduce_sum::KERNEL, params, bindings)?;
            c.output("loss", &reduced, &[]);
            Ok(())
        })
    },
    examples: || examples(false),
};

const BACKWARD: Op = Op {
    name: "vocab_parallel_cross_entropy_backward",
    kinds: &[],
    systems: &[],
    summary: "gradient of vocab_parallel_cross_entropy by the logits: each rank's softmax - one-hot, joined",
    inputs: &[LOGITS, LABELS, DY],
    settings: &[WORLD_SIZE, REDUCTION, IGNORE, SMOOTHING],
    outputs: &[Output::new("d_logits", "... V", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let ranks = Ranks::of(c).await?;
            let total = match c.settings.choice("reduction") {
                "mean" => ranks.total(c)?,
                _ => None,
            };
            let dy = c.optional("dy").await?;
            let losses = match c.settings.choice("reduction") {
                "none" => ranks.rows,
                _ => 1,
            };
            if let Some(dy) = dy.as_ref().filter(|dy| dy.len() != losses) {
                return Err(c.error(format_args!(
                    "dy has shape {:?}, expected {losses} elements as the loss has",
                    dy.shape
                )));
            }
            let whole = c.r.scratch(DType::F32, &[ranks.rows, ranks.vocab])?;
            for (classes, logits) in &ranks.parts {
                let params = vocab_cross_entropy::backward_params(
                    ranks.rows,
                    classes.clone(),
                    ranks.vocab,
                    ranks.ignore,
                    ranks.smoothing,
                );
                let params = (params.bool("DY", dy.is_some()))
                    .bool("DY_ONE", dy.as_ref().is_some_and(|dy| dy.len() == 1))
                    .bool("TOTAL", total.is_some());
                let part = c.r.scratch(DType::F32, &[ranks.rows, classes.len()])?;
                let bindings = vec![
                    Some(ranks.labels.clone()),
                    Some(ranks.sums.clone()),
                    Some(logits.clone()),
                    Some(ranks.largest.clone()),
                    dy.clone(),
                    total.clone(),
                    Some(part.clone()),
                ];
                c.r.push(&vocab_cross_entropy::KERNEL, params, bindings)?;
                let (n, to) = (classes.len(), (ranks.vocab, classes.start));
                let params = copy::params(ranks.rows, 1, (n, 0), to, n);
                let bindings = vec![Some(part), Some(whole.clone())];
                c.r.push(&copy::KERNEL, params, bindings)?;
            }
            let shape = c.shape("logits").to_vec();
            c.output("d_logits", &whole, &shape);
            Ok(())
        })
    },
    examples: || examples(true),
};

/// World sizes that divide 13 classes unevenly, and more ranks than one all-reduce takes.
fn examples(backward: bool) -> Vec<Example> {
    let plain = |ranks| {
        Example::new()
            .random("logits", &[5, 13])
            .input("labels", Array::i64(&[5], &[0, 12, 7, -100, 4]))
            .set("world_size", ranks)
    };
    let mut examples = vec![
        plain("1"),
        plain("2").set("label_smoothing", "0.1"),
        plain("3").set("reduction", "sum"),
        plain("4"),
        plain("7").set("label_smoothing", "0.3"),
        plain("9"),
    ];
    let none = Example::new()
        .random("logits", &[2, 3, 8])
        .input("labels", Array::i64(&[2, 3], &[1, 7, 0, 3, 4, 4]))
        .set("reduction", "none")
        .set("ignore_index", "3")
        .set("label_smoothing", "0.2");
    if backward {
        let one = examples.remove(0);
        examples.push(one.input("dy", Array::f32(&[1], &[0.7])));
        examples.push(none.random("dy", &[2, 3]));
    } else {
        examples.push(none);
    }
    examples
}

/// Every rank's part, and what they know after their all-reduces.
struct Ranks {
    rows: usize,
    vocab: usize,
    ignore: i32,
    smoothing: f32,
    labels: Tensor,
    /// Classes and logits `(T, V_r)` of each rank.
    parts: Vec<(Range<usize>, Tensor)>,
    /// (T,).
    largest: Tensor,
    /// (T, 3), those of [`vocab_sums`].
    sums: Tensor,
}

impl Ranks {
    async fn of(c: &mut Call<'_>) -> Result<Self> {
        let (vocab, world) = (c.axis("V"), c.settings.size("world_size")?);
        let rows: usize = c.lead().iter().product();
        if world == 0 {
            return Err(c.error("setting world_size is 0, expected 1 or more"));
        }
        let ignore = c.settings.int("ignore_index");
        check_labels(c, vocab, ignore)?;
        let ignore = i32::try_from(ignore)
            .map_err(|_| c.error(format_args!("ignore_index {ignore} needs over 32 bits")))?;
        let smoothing = c.settings.float("label_smoothing") as f32;
        let (logits, labels) = (c.tensor("logits").await?, c.index("labels").await?);
        let split = Split::even(world);
        let mut parts = Vec::new();
        for rank in 0..world {
            let classes = split.range(rank, vocab, 1).map_err(|e| c.error(e))?;
            let part = c.r.scratch(DType::F32, &[rows, classes.len()])?;
            let (n, from) = (classes.len(), (vocab, classes.start));
            let params = copy::params(rows, 1, from, (n, 0), n);
            let bindings = [&logits, &part].map(|t| Some(t.clone()));
            c.r.push(&copy::KERNEL, params, bindings.into())?;
            parts.push((classes, part));
        }
        let mut tops = Vec::new();
        for (classes, part) in &parts {
            let values = c.r.scratch(DType::F32, &[rows])?;
            let ids = c.r.scratch(DType::U32, &[rows])?;
            let params = top_k::params(Axis::last(rows, classes.len()), 1, false);
            let bindings = [part, &values, &ids].map(|t| Some(t.clone()));
            c.r.push(&top_k::KERNEL, params, bindings.into())?;
            tops.push(values);
        }
        let largest = reduced(c, &tops, Reduce::Max)?;
        let mut all = Vec::new();
        for (classes, part) in &parts {
            let sums = c.r.scratch(DType::F32, &[rows, 3])?;
            let params = vocab_sums::params(rows, classes.len(), classes.start, smoothing);
            let bindings = [part, &labels, &largest, &sums].map(|t| Some(t.clone()));
            c.r.push(&vocab_sums::KERNEL, params, bindings.into())?;
            all.push(sums);
        }
        let sums = reduced(c, &all, Reduce::Sum)?;
        Ok(Ranks {
            rows,
            vocab,
            ignore,
            smoothing,
            labels,
            parts,
            largest,
            sums,
        })
    }

    /// What the mean is divided by, if it is wanted.
    fn total(&self, c: &mut Call<'_>) -> Result<Option<Tensor>> {
        if c.settings.choice("reduction") != "mean" {
            return Ok(None);
        }
        let total = c.r.scratch(DType::F32, &[1])?;
        let params = label_weight::params(self.rows, self.vocab, self.ignore, false);
        let bindings = vec![Some(self.labels.clone()), None, Some(total.clone())];
        c.r.push(&label_weight::KERNEL, params, bindings)?;
        Ok(Some(total))
    }
}

/// What an all-reduce gives: as many parts as a call takes, then that and the next ones.
fn reduced(c: &mut Call<'_>, parts: &[Tensor], how: Reduce) -> Result<Tensor> {
    let mut left = parts.to_vec();
    while left.len() > 1 {
        let rest = left.split_off(left.len().min(all_reduce::MOST));
        let y = c.r.scratch(DType::F32, &left[0].shape)?;
        let params = all_reduce::params(y.len(), 0, left.len(), how);
        let mut bindings: Vec<_> = left.into_iter().map(Some).collect();
        bindings.resize(all_reduce::MOST, None);
        bindings.push(Some(y.clone()));
        c.r.push(&all_reduce::KERNEL, params, bindings)?;
        left = [vec![y], rest].concat();
    }
    left.pop().ok_or_else(|| c.error("there are no ranks"))
}
