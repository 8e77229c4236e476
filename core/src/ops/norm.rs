//! Norms.

use super::{Array, Example, Input, Op, Output, Setting};
use crate::nn::RmsNorm;

pub static OPS: &[Op] = &[Op {
    name: "rms_norm",
    kinds: &["RMSNorm"],
    systems: &["RMSNorm"],
    summary: "y = x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467)",
    inputs: &[
        Input::new("x", "... C", ""),
        Input::optional("weight", "C", "1 when left out"),
    ],
    settings: &[Setting::float("eps", 1e-5, "added to the mean square")],
    outputs: &[Output::new("y", "... C", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let x = c.tensor("x").await?;
            let weight = match c.optional("weight").await? {
                Some(weight) => weight,
                None => {
                    c.floats("weight", &[x.cols()], &vec![1.0; x.cols()])
                        .await?
                }
            };
            let norm = RmsNorm::new(weight, c.settings.float("eps") as f32);
            let y = c.r.rms_norm(&x, &norm)?;
            c.output("y", &y, &x.shape);
            Ok(())
        })
    },
    examples: || {
        vec![
            Example::new()
                .random("x", &[2, 3, 48])
                .random("weight", &[48]),
            Example::new()
                .input("x", Array::f32(&[4], &[1.0, 2.0, 3.0, 4.0]))
                .set("eps", "0.1"),
        ]
    },
}];
