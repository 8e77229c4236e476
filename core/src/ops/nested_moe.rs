//! Hierarchical mixtures of experts.

use super::activation::NAMES;
use super::moe::{SCORE, experts, layer, score};
use super::{Example, Input, Op, Output, Setting};
use crate::nn::{Linear, NestedMoe, Router};

pub static OPS: &[Op] = &[HIERARCHICAL_MOE];

const HIERARCHICAL_MOE: Op = Op {
    name: "hierarchical_moe",
    kinds: &[],
    systems: &["hierarchical"],
    summary: "a mixture whose experts are mixtures: sum of p_e q_ei expert_ei(x) (arXiv:1701.06538, appendix B)",
    inputs: &[
        Input::new("x", "T C", ""),
        Input::new("router.weight", "E C", "chooses mixtures"),
        Input::new(
            "inner_router.weight",
            "E I C",
            "chooses experts of each mixture",
        ),
        Input::optional("gate.weight", "E I F C", "left out: plain blocks"),
        Input::new("up.weight", "E I F C", ""),
        Input::new("down.weight", "E I C F", ""),
    ],
    settings: &[
        Setting::int("k", 2, "mixtures of a token"),
        Setting::int("inner_k", 2, "experts of a token in each of its mixtures"),
        SCORE,
        Setting::flag(
            "normalize",
            true,
            "divide the probabilities of a choice by their sum",
        ),
        Setting::choice("activation", "silu", NAMES, "of the gate, or of up"),
    ],
    outputs: &[
        Output::new("y", "T C", ""),
        Output::new(
            "experts",
            "T P",
            "P = k inner_k; I e + i, best mixture first",
        ),
        Output::new("probs", "T P", "p_e q_ei"),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let router = |k| Router {
                score: score(c),
                k,
                normalize: c.settings.flag("normalize"),
                ..Router::default()
            };
            let routers = [
                router(c.settings.size("k")?),
                router(c.settings.size("inner_k")?),
            ];
            let outer = c.axis("E");
            let count = outer * c.axis("I");
            let block = experts(c, count, 0..count).await?;
            let x = c.tensor("x").await?;
            let logits = Linear::new(c.weight("router.weight").await?);
            let inner = layer(c, "inner_router", &(0..outer)).await?;
            let moe = NestedMoe::new(logits, inner, routers, block).map_err(|e| c.error(e))?;
            let found = c.r.nested_moe(&x, &moe).map_err(|e| c.error(e))?;
            for (name, tensor) in ["y", "experts", "probs"].into_iter().zip(&found) {
                c.output(name, tensor, &tensor.shape);
            }
            Ok(())
        })
    },
    examples: || {
        vec![
            example(5, [3, 4, 6, 8]).random("gate.weight", &[3, 4, 6, 8]),
            example(29, [4, 5, 9, 12])
                .set("k", "3")
                .set("inner_k", "1")
                .set("score", "softmax_of_chosen")
                .set("activation", "relu"),
        ]
    },
};

/// Plain blocks: `[mixtures, experts, hidden, channels]`.
fn example(tokens: usize, [outer, inner, hidden, channels]: [usize; 4]) -> Example {
    Example::new()
        .random("x", &[tokens, channels])
        .random("router.weight", &[outer, channels])
        .random("inner_router.weight", &[outer, inner, channels])
        .random("up.weight", &[outer, inner, hidden, channels])
        .random("down.weight", &[outer, inner, channels, hidden])
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{Array, Ran, find, nmse, run};
    use super::*;
    use crate::Result;
    use crate::device::cpu::CpuDevice;

    fn call(op: &str, example: &Example) -> Result<Ran> {
        let (inputs, settings) = example.call();
        block_on(run(&CpuDevice::new(), find(op)?, inputs, &settings))
    }

    /// Mixture `e` of the example as a block of its own.
    fn mixture(example: &Example, e: usize) -> Example {
        let mut alone = Example::new();
        for (name, array) in &example.inputs {
            let name = match *name {
                "router.weight" => continue,
                "inner_router.weight" => "router.weight",
                name => name,
            };
            let part = match name {
                "x" => array.clone(),
                _ => {
                    let values = array.to_f32();
                    let len = values.len() / array.shape[0];
                    Array::f32(&array.shape[1..], &values[e * len..][..len])
                }
            };
            alone = alone.input(name, part);
        }
        alone
    }

    #[test]
    fn it_is_a_mixture_of_mixtures() {
        let (outer, tokens, channels) = (4, 37, 16);
        let example = example(tokens, [outer, 6, 8, channels])
            .random("gate.weight", &[outer, 6, 8, channels]);
        let got = call("hierarchical_moe", &example.clone().set("inner_k", "3")).unwrap();
        // What each mixture makes of all tokens, and a router that chooses among these.
        let each: Vec<Vec<f32>> = (0..outer)
            .map(|e| {
                call("moe", &mixture(&example, e).set("k", "3"))
                    .unwrap()
                    .outputs["y"]
                    .to_f32()
            })
            .collect();
        let router = mixture(&example, 0);
        let weight = example
            .inputs
            .iter()
            .find(|(name, _)| *name == "router.weight")
            .unwrap();
        let x = router.inputs.iter().find(|(name, _)| *name == "x").unwrap();
        let (x, w) = (x.1.to_f32(), weight.1.to_f32());
        let mut want = vec![0.0f32; tokens * channels];
        for t in 0..tokens {
            let x = &x[t * channels..][..channels];
            let logit = |e: usize| -> f64 {
                let w = &w[e * channels..][..channels];
                x.iter()
                    .zip(w)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
                    .sum()
            };
            let mut order: Vec<usize> = (0..outer).collect();
            order.sort_by(|a, b| logit(*b).total_cmp(&logit(*a)));
            let best = [logit(order[0]).exp(), logit(order[1]).exp()];
            for (e, p) in order.iter().zip(best) {
                let p = p / (best[0] + best[1]);
                for c in t * channels..(t + 1) * channels {
                    want[c] += (p * f64::from(each[*e][c])) as f32;
                }
            }
            let chosen = got.outputs["experts"].to_i64().unwrap();
            for (i, expert) in chosen[t * 6..][..6].iter().enumerate() {
                assert_eq!(*expert as usize / 6, order[i / 3], "token {t}");
            }
        }
        let error = nmse(&got.outputs["y"].to_f32(), &want);
        assert!(error < 1e-12, "NMSE {error:e}");
        for probs in got.outputs["probs"].to_f32().chunks(6) {
            assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{probs:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = |setting, value| {
            let example = example(5, [3, 4, 6, 8]).set(setting, value);
            call("hierarchical_moe", &example)
                .err()
                .unwrap()
                .to_string()
        };
        assert!(
            told("k", "4").contains("k 4 of 3 experts"),
            "{}",
            told("k", "4")
        );
        assert!(told("inner_k", "5").contains("k 5 of 4 experts"));
    }
}
