//! Routers of mixtures of experts: which experts a token goes to, with what probability.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Linear, Router};
use crate::tensor::Tensor;

const X: Input = Input::new("x", "T C", "");
const WEIGHT: Input = Input::new("weight", "E C", "the router's");
const K: Setting = Setting::int("k", 2, "experts of a token");
const EXPERTS: Output = Output::new("experts", "T k", "best first");
const PROBS: Output = Output::new("probs", "T k", "of the chosen experts");
const LOGITS: Output = Output::new("logits", "T E", "x weight^T");

pub static OPS: &[Op] = &[Op {
    name: "mixtral_router",
    kinds: &[],
    systems: &[],
    summary: "softmax over all experts, the k best, divided by their sum (arXiv:2401.04088)",
    inputs: &[X, WEIGHT],
    settings: &[K],
    outputs: &[LOGITS, EXPERTS, PROBS],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let router = Router {
                k: c.settings.size("k")?,
                ..Router::default()
            };
            let logits = logits(c).await?;
            let (experts, probs) = c.r.route(&logits, None, &router).map_err(|e| c.error(e))?;
            c.output("logits", &logits, &logits.shape);
            c.output("experts", &experts, &experts.shape);
            c.output("probs", &probs, &probs.shape);
            c.check("experts", not_a_number);
            Ok(())
        })
    },
    examples: || vec![example(23, 8, 32), example(3, 5, 7).set("k", "4")],
}];

fn example(tokens: usize, experts: usize, channels: usize) -> Example {
    Example::new()
        .random("x", &[tokens, channels])
        .random("weight", &[experts, channels])
}

/// Router logits `(T, E)`.
async fn logits(c: &mut Call<'_>) -> Result<Tensor> {
    let x = c.tensor("x").await?;
    let linear = Linear::new(c.weight("weight").await?);
    c.r.linear(&x, &linear)
}

/// Names the first token whose logits hold a NaN.
fn not_a_number(experts: &Array) -> Option<String> {
    let k = experts.len() / experts.shape[0];
    let experts = experts.to_i64()?;
    let token = experts.iter().position(|e| *e < 0)? / k;
    Some(format!(
        "the router logits of token {token} hold a NaN or infinity; look at x and the weight there"
    ))
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{find, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    #[test]
    fn a_token_with_a_nan_is_named() {
        let (mut inputs, settings) = example(4, 5, 7).call();
        let mut x = inputs["x"].to_f32();
        x[2 * 7 + 3] = f32::NAN;
        inputs.insert("x".into(), Array::f32(&[4, 7], &x));
        let op = find("mixtral_router").unwrap();
        let told = block_on(run(&CpuDevice::new(), op, inputs, &settings)).unwrap_err();
        assert_eq!(
            told.to_string(),
            "mixtral_router: the router logits of token 2 hold a NaN or infinity; look at x and the weight there"
        );
    }
}
