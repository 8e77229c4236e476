//! The feed-forward sublayer of the 2017 Transformer.

use super::linear::{Params, layer};
use super::mlp::{DX, X, expect, give, give_linear, size};
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::kernels::case;
use crate::nn::{Draw, LayerNorm, TRANSFORMER_DROPOUT, TransformerFfn, mlp_hidden};

pub static OPS: &[Op] = &[TRANSFORMER_FFN, TRANSFORMER_FFN_BACKWARD];

const LINEAR1: [Input; 2] = [
    Input::new("linear1.weight", "F C", ""),
    Input::new("linear1.bias", "F", ""),
];
const LINEAR2: [Input; 2] = [
    Input::new("linear2.weight", "C F", ""),
    Input::new("linear2.bias", "C", ""),
];
const NORM: [Input; 2] = [
    Input::new("norm.weight", "C", ""),
    Input::new("norm.bias", "C", ""),
];

const FFN_SETTINGS: &[Setting] = &[
    Setting::maybe_int("d_model", "C"),
    Setting::maybe_int("d_ff", "F; 4 d_model when left out"),
    Setting::float("eps", 1e-5, "added to the variance"),
    Setting::flag("training", false, "dropout is at work"),
    Setting::float(
        "p",
        TRANSFORMER_DROPOUT,
        "probability of being dropped, in training",
    ),
    Setting::int("seed", 0, "of dropout's generator, Philox 4x32-10"),
];

fn check_ffn(c: &Call<'_>) -> Result<()> {
    let channels = size(c, "d_model")?.unwrap_or(c.axis("C"));
    expect(c, "C", channels, "d_model")?;
    let hidden = mlp_hidden(channels, size(c, "d_ff")?);
    expect(c, "F", hidden, "d_ff, 4 d_model by default")
}

/// Dropout in training.
fn dropout(c: &Call<'_>) -> Option<(f32, Draw)> {
    let draw = Draw::new(c.settings.int("seed") as u64, 0);
    (c.settings.flag("training")).then_some((c.settings.float("p") as f32, draw))
}

async fn layer_norm(c: &mut Call<'_>) -> Result<LayerNorm> {
    let weight = c.tensor("norm.weight").await?;
    let bias = c.tensor("norm.bias").await?;
    let eps = c.settings.float("eps") as f32;
    Ok(LayerNorm::new(Some(weight), Some(bias), eps))
}

const TRANSFORMER_FFN: Op = Op {
    name: "transformer_ffn",
    kinds: &["TransformerFfn"],
    systems: &["Transformer FFN"],
    summary: "norm(x + dropout(linear2(max(0, linear1(x))))) (arXiv:1706.03762)",
    inputs: &[
        X, LINEAR1[0], LINEAR1[1], LINEAR2[0], LINEAR2[1], NORM[0], NORM[1],
    ],
    settings: FFN_SETTINGS,
    outputs: &[Output::new("y", "... C", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_ffn(c)?;
            let x = c.tensor("x").await?;
            let linear1 = layer(c, "linear1.weight", "linear1.bias").await?;
            let linear2 = layer(c, "linear2.weight", "linear2.bias").await?;
            let norm = layer_norm(c).await?;
            let mut ffn = TransformerFfn::new(linear1, linear2, norm)?;
            if let Some((p, draw)) = dropout(c) {
                ffn = ffn.with_dropout(p, draw);
            }
            let y = c.r.transformer_ffn(&x, &ffn)?;
            give(c, &y);
            Ok(())
        })
    },
    examples: || {
        vec![
            ffn_example(&[2, 3, 6], 24),
            ffn_example(&[9, 6], 10)
                .set("d_model", "6")
                .set("d_ff", "10")
                .set("eps", "1e-3"),
            ffn_example(&[9, 6], 24)
                .set("training", "true")
                .set("p", "0.25")
                .set("seed", "7"),
        ]
    },
};

/// Inputs of a TransformerFfn whose relu is never near its kink, so that small steps show its
/// gradient.
fn ffn_example(x: &[usize], hidden: usize) -> Example {
    let channels = x[x.len() - 1];
    let weights = case::random(5, hidden * channels);
    let weights: Vec<f32> = weights.iter().map(|w| (0.3 * w).clamp(-0.3, 0.3)).collect();
    let far = 0.3 * 2.5 * channels as f32 + 0.5;
    let biases: Vec<f32> = (0..hidden)
        .map(|i| if i % 3 == 0 { -far } else { far })
        .collect();
    Example::new()
        .random("x", x)
        .input("linear1.weight", Array::f32(&[hidden, channels], &weights))
        .input("linear1.bias", Array::f32(&[hidden], &biases))
        .random("linear2.weight", &[channels, hidden])
        .random("linear2.bias", &[channels])
        .random("norm.weight", &[channels])
        .random("norm.bias", &[channels])
}

const TRANSFORMER_FFN_BACKWARD: Op = Op {
    name: "transformer_ffn_backward",
    kinds: &[],
    systems: &["Transformer FFN"],
    summary: "gradients of transformer_ffn",
    inputs: &[
        X,
        LINEAR1[0],
        LINEAR1[1],
        LINEAR2[0],
        LINEAR2[1],
        NORM[0],
        NORM[1],
        Input::new("dy", "... C", ""),
    ],
    settings: FFN_SETTINGS,
    outputs: &[
        DX,
        Output::new("d_linear1.weight", "F C", ""),
        Output::new("d_linear1.bias", "F", ""),
        Output::new("d_linear2.weight", "C F", ""),
        Output::new("d_linear2.bias", "C", ""),
        Output::new("d_norm.weight", "C", ""),
        Output::new("d_norm.bias", "C", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_ffn(c)?;
            let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
            let linear1 = Params::of(c, "linear1.weight", "linear1.bias").await?;
            let linear2 = Params::of(c, "linear2.weight", "linear2.bias").await?;
            let norm = layer_norm(c).await?;
            let layers = [linear1.all(), linear2.all()];
            let (g, norm) =
                c.r.transformer_ffn_backward(&x, layers, &norm, dropout(c), &dy)?;
            c.output("d_x", &g.x, &x.shape);
            give_linear(c, ["d_linear1.weight", "d_linear1.bias"], &g.fc1);
            give_linear(c, ["d_linear2.weight", "d_linear2.bias"], &g.fc2);
            give_linear(c, ["d_norm.weight", "d_norm.bias"], &norm);
            Ok(())
        })
    },
    examples: || {
        let example = ffn_example(&[2, 2, 5], 20).random("dy", &[2, 2, 5]);
        let training = example.clone().set("training", "true").set("p", "0.25");
        vec![example, training.set("seed", "7")]
    },
};
