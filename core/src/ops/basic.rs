//! Sums and rows of tables.

use super::{Array, Example, Input, Op, Output};
use crate::nn::Embedding;

pub static OPS: &[Op] = &[ADD, EMBEDDING];

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
