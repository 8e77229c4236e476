//! Noisy top-k routing (arXiv:1701.06538).

use super::router::{
    ASSIGNED, EXPERTS, FIRST_TOKEN, K, PROBS, SEED, STREAM, WEIGHT, X, draw, example, logits,
    not_a_number,
};
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Distribution, Linear, LoadLoss, NoisyTopK};
use crate::tensor::Tensor;

const INPUTS: &[Input] = &[
    X,
    WEIGHT,
    Input::new(
        "noise_weight",
        "E C",
        "what the noise's deviation is made of",
    ),
    Input::optional("noise", "T E", "normal numbers; drawn when left out"),
];

const SETTINGS: &[Setting] = &[
    K,
    Setting::float("coeff", 0.01, "of both losses"),
    Setting::choice(
        "variance",
        "unbiased",
        &["unbiased", "biased"],
        "divided by E - 1, or E",
    ),
    Setting::choice(
        "softmax",
        "over the kept",
        &["over the kept"],
        "what gates are",
    ),
    Setting::flag("noisy", true, "with noise, as in training"),
    SEED,
    STREAM,
    FIRST_TOKEN,
];

pub static OPS: &[Op] = &[
    Op {
        name: "noisy_top_k_router",
        kinds: &[],
        systems: &["noisy top-k"],
        summary: "the k best of x weight^T + noise (softplus(x noise_weight^T) + 0.01), softmax over them; \
                  loss = c (cv^2(importance) + cv^2(load)), cv^2 = variance / (mean^2 + 1e-10) (arXiv:1701.06538)",
        inputs: INPUTS,
        settings: SETTINGS,
        outputs: &[
            EXPERTS,
            PROBS,
            Output::new("gates", "T E", "probs, 0 for other experts"),
            Output::new("importance", "E", "sum of the gates"),
            Output::new(
                "load",
                "E",
                "sum of the probabilities of being among the k best",
            ),
            Output::new("loss", "1", "of importance and load"),
            Output::new("importance_cv2", "1", "cv^2(importance)"),
            Output::new("load_cv2", "1", "cv^2(load)"),
            ASSIGNED,
        ],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let (_, routed, loss) = routed(c).await?;
                let experts = routed.experts.shape.clone();
                c.output("experts", &routed.experts, &experts);
                c.output("probs", &routed.probs, &experts);
                c.output("gates", &routed.gates, &routed.gates.shape);
                c.output("importance", &routed.importance, &routed.importance.shape);
                c.output("load", &routed.load, &routed.load.shape);
                c.output("loss", &loss.loss, &[1]);
                let unbiased = unbiased(c);
                for (name, x) in [
                    ("importance_cv2", &routed.importance),
                    ("load_cv2", &routed.load),
                ] {
                    let cv2 = c.r.variation(x, unbiased)?;
                    c.output(name, &cv2, &[1]);
                }
                let count = routed.load.len();
                let assigned = c.r.expert_count(&routed.experts, count)?;
                c.output("assigned", &assigned, &[count]);
                c.check("experts", not_a_number);
                Ok(())
            })
        },
        examples,
    },
    Op {
        name: "noisy_top_k_router_backward",
        kinds: &[],
        systems: &["noisy top-k"],
        summary: "gradients of noisy_top_k_router's loss by both weights",
        inputs: INPUTS,
        settings: SETTINGS,
        outputs: &[
            Output::new("d_weight", "E C", ""),
            Output::new("d_noise_weight", "E C", ""),
        ],
        bound: 1e-8,
        record: |c| {
            Box::pin(async move {
                let (x, routed, loss) = routed(c).await?;
                let gradients = c.r.noisy_top_k_backward(&routed, &loss)?;
                for (name, d_logits) in ["d_weight", "d_noise_weight"].into_iter().zip(&gradients) {
                    let d_weight = c.r.router_weight_backward(d_logits, &x)?;
                    c.output(name, &d_weight, &d_weight.shape);
                }
                Ok(())
            })
        },
        examples,
    },
];

fn examples() -> Vec<Example> {
    let noise = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 25.0;
    let noise: Vec<f32> = (0..5 * 4).map(noise).collect();
    let with = |tokens, experts: usize, channels| {
        example(tokens, experts, channels).random("noise_weight", &[experts, channels])
    };
    vec![
        with(5, 4, 3)
            .input("noise", Array::f32(&[5, 4], &noise))
            .set("coeff", "1"),
        with(7, 5, 4)
            .set("k", "1")
            .set("coeff", "0.5")
            .set("variance", "biased")
            .set("seed", "3")
            .set("stream", "1")
            .set("first_token", "5"),
        with(3, 2, 4).set("coeff", "0.5"),
        with(6, 4, 3)
            .set("noisy", "false")
            .set("softmax", "over the kept"),
    ]
}

fn unbiased(c: &Call<'_>) -> bool {
    c.settings.choice("variance") == "unbiased"
}

/// x, where its tokens go, and the loss.
async fn routed(c: &mut Call<'_>) -> Result<(Tensor, NoisyTopK, LoadLoss)> {
    let k = c.settings.size("k")?;
    let (tokens, count) = (c.axis("T"), c.axis("E"));
    let (x, clean) = logits(c, None).await?;
    let linear = Linear::new(c.weight("noise_weight").await?);
    let raw = c.r.linear(&x, &linear)?;
    let noise = match c.optional("noise").await? {
        Some(noise) => noise,
        None if c.settings.flag("noisy") => {
            let normal = Distribution::Normal {
                mean: 0.0,
                std: 1.0,
            };
            c.r.random(&[tokens, count], draw(c, count)?, normal)?
        }
        None => {
            c.floats("noise", &[tokens, count], &vec![0.0; tokens * count])
                .await?
        }
    };
    let routed =
        c.r.noisy_top_k(&clean, &raw, &noise, k)
            .map_err(|e| c.error(e))?;
    let coeff = c.settings.float("coeff") as f32;
    let loss = c.r.load_loss(&routed, coeff, unbiased(c))?;
    Ok((x, routed, loss))
}
