//! Sums, rows of tables, joined tensors.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::kernels::{Axis, copy};
use crate::nn::Embedding;
use crate::{DType, Result};

pub static OPS: &[Op] = &[ADD, CONCAT, EMBEDDING];

const ADD: Op = Op {
    name: "add",
    kinds: &["Add"],
    systems: &[],
    summary: "a + b, as a residual is added",
    inputs: &[Input::new("a", "...", ""), Input::new("b", "...", "")],
    settings: &[],
    outputs: &[Output::new("y", "...", "")],
    bound: 1e-13,
    record: |c| {
        Box::pin(async move {
            let (a, b) = (c.tensor("a").await?, c.tensor("b").await?);
            let y = c.r.add(&a, &b)?;
            c.output("y", &y, &a.shape);
            Ok(())
        })
    },
    examples: || vec![Example::new().random("a", &[3, 5]).random("b", &[3, 5])],
};

const CONCAT: Op = Op {
    name: "concat",
    kinds: &[],
    systems: &[],
    summary: "tensors joined along an axis, in their order; what an all-gather gives",
    inputs: &[
        Input::new("x0", "any", ""),
        Input::new("x1", "any", "lengths of the other axes are those of x0"),
        Input::optional("x2", "any", "likewise"),
        Input::optional("x3", "any", "likewise"),
    ],
    settings: &[Setting::int(
        "axis",
        0,
        "negative numbers count from the end",
    )],
    outputs: &[Output::new("y", "any", "")],
    bound: 0.0,
    record: |c| Box::pin(async move { concat(c).await }),
    examples: || {
        let two = |a: &[usize], b: &[usize]| Example::new().random("x0", a).random("x1", b);
        vec![
            two(&[2, 3], &[4, 3]),
            (two(&[2, 3, 5], &[2, 1, 5]).random("x2", &[2, 4, 5]))
                .random("x3", &[2, 2, 5])
                .set("axis", "-2"),
            two(&[3, 8], &[3, 4]).set("axis", "1"),
        ]
    },
};

async fn concat(c: &mut Call<'_>) -> Result<()> {
    let names = ["x0", "x1", "x2", "x3"].into_iter().filter(|n| c.has(n));
    let names: Vec<&'static str> = names.collect();
    let mut shape = c.shape("x0").to_vec();
    let axis = c.axis_of("axis", shape.len())?;
    let mut joined = 0;
    for name in &names {
        let mut other = c.shape(name).to_vec();
        joined += other.get(axis).copied().unwrap_or(0);
        if other.len() == shape.len() {
            other[axis] = shape[axis];
        }
        if other != shape {
            return Err(c.error(format_args!(
                "{name} has shape {:?}, x0 {shape:?}; they may differ along axis {axis} only",
                c.shape(name)
            )));
        }
    }
    shape[axis] = joined;
    let y = c.r.scratch(DType::F32, &shape)?;
    let mut to = 0;
    for name in names {
        let x = c.tensor(name).await?;
        let along = Axis::of(&x.shape, axis as i64)?;
        let whole = (along.len, 0);
        let params = copy::params(along.outer, along.inner, whole, (joined, to), along.len);
        c.r.push(&copy::KERNEL, params, vec![Some(x), Some(y.clone())])?;
        to += along.len;
    }
    c.output("y", &y, &shape);
    Ok(())
}

const EMBEDDING: Op = Op {
    name: "embedding",
    kinds: &["Embedding"],
    systems: &[],
    summary: "row ids[t] of weight",
    inputs: &[
        Input::new("ids", "...", "whole numbers from 0 to V - 1"),
        Input::new("weight", "V C", "any float or quantised type"),
    ],
    settings: &[],
    outputs: &[Output::new("y", "... C", "")],
    bound: 1e-13,
    record: |c| {
        Box::pin(async move {
            let rows = c.axis("V");
            if let Some(id) = c.words("ids")?.into_iter().find(|&id| id as usize >= rows) {
                return Err(c.error(format_args!(
                    "ids holds {}, weight has {rows} rows",
                    id as i32
                )));
            }
            let embedding = Embedding::new(c.weight("weight").await?);
            let ids = c.index("ids").await?;
            let y = c.r.embedding(&ids, &embedding)?;
            let shape = [c.lead(), &[c.axis("C")]].concat();
            c.output("y", &y, &shape);
            Ok(())
        })
    },
    examples: || {
        vec![
            Example::new()
                .input("ids", Array::i64(&[2, 3], &[0, 6, 2, 2, 5, 1]))
                .random("weight", &[7, 9]),
        ]
    },
};
