//! Softmax and its relatives, along any axis.

use super::call::shown;
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::nn::Softmax;
use crate::tensor::Tensor;
use crate::{DType, Result};

const X: Input = Input::new("x", "any", "");
const MASK: Input = Input::optional(
    "mask",
    "any",
    "whole numbers, not 0 where an element is masked; repeated along leading axes and those of length 1",
);
const AXIS: Setting = Setting::int("axis", -1, "");
const TEMPERATURE: Setting = Setting::float("temperature", 1.0, "what x is divided by");
const Y: Output = Output::new("y", "any", "of the shape of x");
const KEEPDIMS: Setting = Setting::flag("keepdims", true, "keep the axis, with length 1");
const LAST: Setting = Setting::flag("last", false, "of equal elements take the last");
const INDICES: Output = Output::new("y", "any", "indices; -1 for a row with a NaN");

pub static OPS: &[Op] = &[
    Op {
        name: "softmax",
        kinds: &["Softmax"],
        systems: &["softmax"],
        summary: "exp(z) / sum(exp(z)), z = x / temperature; a row that is masked wholly gives zeros",
        inputs: &[X, MASK],
        settings: &[AXIS, TEMPERATURE],
        outputs: &[Y],
        bound: 1e-10,
        record: |c| Box::pin(softmax(c, false)),
        examples: softmax_examples,
    },
    Op {
        name: "log_softmax",
        kinds: &["LogSoftmax"],
        systems: &["logits"],
        summary: "z - ln(sum(exp(z))), z = x / temperature; -inf where masked",
        inputs: &[X, MASK],
        settings: &[AXIS, TEMPERATURE],
        outputs: &[Y],
        bound: 1e-10,
        record: |c| Box::pin(softmax(c, true)),
        examples: softmax_examples,
    },
    Op {
        name: "hardmax",
        kinds: &["Hardmax"],
        systems: &[],
        summary: "1 for the first largest element along an axis, 0 for the others",
        inputs: &[X],
        settings: &[AXIS],
        outputs: &[Y],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let axis = c.axis_of("axis", x.shape.len())? as i64;
                let y = c.r.hardmax(&x, axis)?;
                c.output("y", &y, &x.shape);
                Ok(())
            })
        },
        examples: || {
            let x = Example::new().random("x", &[3, 4, 5]);
            vec![x.clone(), x.set("axis", "0")]
        },
    },
    Op {
        name: "logit",
        kinds: &[],
        systems: &["logits"],
        summary: "ln(x / (1 - x)), the inverse of the sigmoid; -inf for 0, inf for 1, NaN outside",
        inputs: &[X],
        settings: &[Setting::float(
            "eps",
            0.0,
            "when above 0, x is held to eps .. 1 - eps first",
        )],
        outputs: &[Y],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let y = c.r.logit(&x, c.settings.float("eps") as f32)?;
                c.output("y", &y, &x.shape);
                Ok(())
            })
        },
        examples: || {
            let p = Array::f32(&[2, 3], &[0.0, 1e-6, 0.25, 0.5, 0.99, 1.0]);
            let x = Example::new().input("x", p);
            vec![x.clone(), x.set("eps", "1e-3")]
        },
    },
    Op {
        name: "argmax",
        kinds: &["ArgMax"],
        systems: &[],
        summary: "index of the largest element along an axis; the first of equal ones",
        inputs: &[X],
        settings: &[AXIS, KEEPDIMS, LAST],
        outputs: &[INDICES],
        bound: 0.0,
        record: |c| Box::pin(argmax(c, false)),
        examples: argmax_examples,
    },
    Op {
        name: "argmin",
        kinds: &["ArgMin"],
        systems: &[],
        summary: "index of the smallest element along an axis; the first of equal ones",
        inputs: &[X],
        settings: &[AXIS, KEEPDIMS, LAST],
        outputs: &[INDICES],
        bound: 0.0,
        record: |c| Box::pin(argmax(c, true)),
        examples: argmax_examples,
    },
    Op {
        name: "top_k",
        kinds: &["TopK"],
        systems: &[],
        summary: "the k largest elements along an axis in falling order, or the smallest in rising; \
                  of equal ones the smaller index first",
        inputs: &[X],
        settings: &[
            Setting::int("k", 1, "how many"),
            AXIS,
            Setting::flag("largest", true, "the largest, not the smallest"),
        ],
        outputs: &[
            Output::new("values", "any", "k along the axis"),
            Output::new("indices", "any", "theirs along the axis"),
        ],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let axis = c.axis_of("axis", x.shape.len())? as i64;
                let k = c.settings.size("k")?;
                let smallest = !c.settings.flag("largest");
                let (values, indices) = c.r.top_k_along(&x, axis, k, smallest)?;
                c.output("values", &values, &values.shape);
                c.output("indices", &indices, &indices.shape);
                Ok(())
            })
        },
        examples: || {
            let x = Example::new().random("x", &[3, 7, 2]);
            vec![
                x.clone().set("k", "3").set("axis", "1"),
                x.set("largest", "false").set("k", "2"),
            ]
        },
    },
    Op {
        name: "one_hot",
        kinds: &["OneHot"],
        systems: &[],
        summary: "on where the index along a new axis is the id, else off",
        inputs: &[Input::new(
            "ids",
            "any",
            "whole numbers; from -depth on they count from the end, others outside give off only",
        )],
        settings: &[
            Setting::int("depth", 2, "length of the new axis"),
            Setting::int("axis", -1, "its place in the result"),
            Setting::float("on", 1.0, ""),
            Setting::float("off", 0.0, ""),
        ],
        outputs: &[Output::new("y", "any", "")],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let ids = c.index("ids").await?;
                let (depth, axis) = (c.settings.size("depth")?, c.settings.int("axis"));
                let values = ["off", "on"].map(|v| c.settings.float(v) as f32);
                let y = c.r.one_hot(&ids, depth, axis, values)?;
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || {
            let ids = Example::new().input("ids", Array::i64(&[2, 3], &[0, 1, 2, -1, -3, 7]));
            vec![
                ids.clone().set("depth", "3"),
                ids.set("depth", "4")
                    .set("axis", "1")
                    .set("on", "2")
                    .set("off", "-1"),
            ]
        },
    },
];

fn softmax_examples() -> Vec<Example> {
    let x = Example::new().random("x", &[3, 4, 5]);
    let mask = |shape: &[usize], masked: &[i64]| {
        let len: usize = shape.iter().product();
        let value = |i: usize| i64::from(masked.contains(&(i as i64)));
        Array::i64(shape, &(0..len).map(value).collect::<Vec<_>>())
    };
    vec![
        x.clone(),
        x.clone().set("axis", "0").set("temperature", "0.5"),
        // The first row wholly, then a column.
        x.clone().input("mask", mask(&[4, 5], &[0, 1, 2, 3, 4, 9])),
        x.input("mask", mask(&[3, 1, 5], &[1, 2, 14]))
            .set("axis", "1"),
    ]
}

fn argmax_examples() -> Vec<Example> {
    let x = Array::f32(&[2, 3], &[2.0, -1.0, 2.0, -1.0, f32::NAN, 3.0]);
    let x = Example::new().input("x", x);
    vec![
        x.clone(),
        x.clone().set("axis", "0").set("keepdims", "false"),
        x.set("last", "true"),
    ]
}

async fn softmax(c: &mut Call<'_>, log: bool) -> Result<()> {
    let x = c.tensor("x").await?;
    let softmax = Softmax {
        axis: c.axis_of("axis", x.shape.len())? as i64,
        temperature: c.settings.float("temperature") as f32,
        log,
        mask: mask(c, &x.shape).await?,
    };
    let y = c.r.softmax(&x, &softmax)?;
    c.output("y", &y, &x.shape);
    Ok(())
}

/// The mask, repeated to the last axes of x where it has length 1.
async fn mask(c: &mut Call<'_>, shape: &[usize]) -> Result<Option<Tensor>> {
    if !c.has("mask") {
        return Ok(None);
    }
    let (from, words) = (c.shape("mask").to_vec(), c.words("mask")?);
    let fits = |(from, to): (&usize, &usize)| *from == 1 || from == to;
    let lead = shape.len().checked_sub(from.len());
    let Some(lead) = lead.filter(|lead| from.iter().zip(&shape[*lead..]).all(fits)) else {
        return Err(c.error(format_args!(
            "mask has shape {}, expected that of x {}, some axes 1 or left out at the start",
            shown(&from),
            shown(shape)
        )));
    };
    let to = &shape[lead..];
    let repeated: Vec<u32> = (0..to.iter().product())
        .map(|mut i: usize| {
            let (mut at, mut step) = (0, 1);
            for (from, to) in from.iter().zip(to).rev() {
                at += i % to % from * step;
                step *= from;
                i /= to;
            }
            words[at]
        })
        .collect();
    let bytes = bytemuck::cast_slice(&repeated);
    Ok(Some(c.upload("mask", DType::U32, to, bytes).await?))
}

async fn argmax(c: &mut Call<'_>, smallest: bool) -> Result<()> {
    let x = c.tensor("x").await?;
    let place = c.axis_of("axis", x.shape.len())?;
    let last = c.settings.flag("last");
    let y = c.r.argmax_along(&x, place as i64, smallest, last)?;
    let mut shape = y.shape.clone();
    if !c.settings.flag("keepdims") {
        shape.remove(place);
    }
    c.output("y", &y, &shape);
    Ok(())
}
