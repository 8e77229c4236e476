//! Feed-forward blocks.

use super::activation::{NAMES, chosen, packing};
use super::linear::{Params, layer};
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{
    GatedMlp, LinearGradients, Llama3FeedForward, Mlp, gated_mlp_hidden, llama3_hidden, mlp_hidden,
};
use crate::tensor::Tensor;

pub static OPS: &[Op] = &[
    MLP,
    MLP_BACKWARD,
    GATED_MLP,
    GATED_MLP_BACKWARD,
    LLAMA3,
    LLAMA3_BACKWARD,
];

pub(super) const X: Input = Input::new("x", "... C", "");
const Y: Output = Output::new("y", "... O", "");
pub(super) const DX: Output = Output::new("d_x", "... C", "");
const RESIDUAL: Output = Output::new("residual", "... C", "x itself, with return_residual");

const FC1_WEIGHT: Input = Input::new("fc1.weight", "F C", "");
const FC1_BIAS: Input = Input::optional("fc1.bias", "F", "unless bias1 is false");
const PACKED_WEIGHT: Input = Input::new("fc1.weight", "2F C", "gate and value, see packing");
const PACKED_BIAS: Input = Input::optional("fc1.bias", "2F", "unless bias1 is false");
const FC2_WEIGHT: Input = Input::new("fc2.weight", "O F", "");
const FC2_BIAS: Input = Input::optional("fc2.bias", "O", "unless bias2 is false");
const DY: Input = Input::new("dy", "... O", "");

const IN: Setting = Setting::maybe_int("in_features", "C");
const OUT: Setting = Setting::maybe_int("out_features", "O; C when left out");
const BIAS1: Setting = Setting::flag("bias1", true, "fc1 has a bias");
const BIAS2: Setting = Setting::flag("bias2", true, "fc2 has a bias");
const RETURN: Setting = Setting::flag("return_residual", false, "give x as well");

const MLP_SETTINGS: &[Setting] = &[
    IN,
    Setting::maybe_int("hidden_features", "F; 4 in_features when left out"),
    OUT,
    Setting::choice("activation", "gelu", NAMES, "between the layers"),
    BIAS1,
    BIAS2,
    RETURN,
];

const GATED_SETTINGS: &[Setting] = &[
    IN,
    Setting::maybe_int(
        "hidden_features",
        "F before it is rounded up; int(8 in_features / 3) when left out",
    ),
    OUT,
    Setting::choice("activation", "sigmoid", NAMES, "of the gate"),
    BIAS1,
    BIAS2,
    Setting::int("multiple_of", 128, "F is rounded up to a multiple of it"),
    Setting::choice(
        "packing",
        "value_gate",
        &["value_gate", "gate_value"],
        "which half of fc1 is the gate",
    ),
    RETURN,
];

/// A setting that may be left out, as a size.
pub(super) fn size(c: &Call<'_>, name: &str) -> Result<Option<usize>> {
    match c.settings.maybe_int(name) {
        Some(_) => c.settings.size(name).map(Some),
        None => Ok(None),
    }
}

/// The axis must have the length that the settings ask for.
pub(super) fn expect(c: &Call<'_>, axis: &str, len: usize, rule: &str) -> Result<()> {
    match c.axis(axis) {
        found if found == len => Ok(()),
        found => Err(c.error(format_args!("{axis} is {found}, expected {len} ({rule})"))),
    }
}

/// A bias must be there when its switch is on, and only then.
fn expect_bias(c: &Call<'_>, switch: &str, name: &str) -> Result<()> {
    match (c.settings.flag(switch), c.has(name)) {
        (true, false) => {
            let missing = format_args!("input {name} is missing; set {switch}=false to go without");
            Err(c.error(missing))
        }
        (false, true) => Err(c.error(format_args!("{name} is given, but {switch} is false"))),
        _ => Ok(()),
    }
}

/// What Mlp and GatedMlp have in common; `hidden` is the length that F must have.
fn check(c: &Call<'_>, hidden: usize, rule: &str) -> Result<()> {
    let inputs = size(c, "in_features")?.unwrap_or(c.axis("C"));
    expect(c, "C", inputs, "in_features")?;
    expect(c, "F", hidden, rule)?;
    let outputs = size(c, "out_features")?.unwrap_or(inputs);
    expect(c, "O", outputs, "out_features")?;
    expect_bias(c, "bias1", "fc1.bias")?;
    expect_bias(c, "bias2", "fc2.bias")
}

fn check_mlp(c: &Call<'_>) -> Result<()> {
    let hidden = mlp_hidden(c.axis("C"), size(c, "hidden_features")?);
    check(c, hidden, "hidden_features, 4 in_features by default")
}

fn check_gated(c: &Call<'_>) -> Result<()> {
    let multiple = c.settings.size("multiple_of")?;
    if multiple == 0 {
        return Err(c.error("setting multiple_of is 0, expected 1 or more"));
    }
    let hidden = gated_mlp_hidden(c.axis("C"), size(c, "hidden_features")?, multiple);
    check(
        c,
        hidden,
        "hidden_features, int(8 in_features / 3) by default, rounded up to multiple_of",
    )
}

/// Gives y in the lead axes of x, and x itself when it is asked for.
pub(super) fn give(c: &mut Call<'_>, y: &Tensor) {
    let shape = [c.lead(), &[y.cols()]].concat();
    c.output("y", y, &shape);
}

fn give_residual(c: &mut Call<'_>) {
    if c.settings.flag("return_residual") {
        let x = c.array("x");
        let x = Array::f32(&x.shape, &x.to_f32());
        c.output_array("residual", x);
    }
}

/// Gives the gradients of a linear layer.
pub(super) fn give_linear(
    c: &mut Call<'_>,
    [weight, bias]: [&'static str; 2],
    gradients: &LinearGradients,
) {
    c.output(weight, &gradients.weight, &gradients.weight.shape);
    if let Some(gradient) = &gradients.bias {
        c.output(bias, gradient, &gradient.shape);
    }
}

const MLP: Op = Op {
    name: "mlp",
    kinds: &["Mlp"],
    systems: &["Mlp"],
    summary: "fc2(act(fc1(x))) (flash-attn, modules/mlp.py)",
    inputs: &[X, FC1_WEIGHT, FC1_BIAS, FC2_WEIGHT, FC2_BIAS],
    settings: MLP_SETTINGS,
    outputs: &[Y, RESIDUAL],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_mlp(c)?;
            let x = c.tensor("x").await?;
            let fc1 = layer(c, "fc1.weight", "fc1.bias").await?;
            let fc2 = layer(c, "fc2.weight", "fc2.bias").await?;
            let mlp = Mlp::new(fc1, fc2, chosen(c))?;
            let y = c.r.mlp(&x, &mlp)?;
            give(c, &y);
            give_residual(c);
            Ok(())
        })
    },
    examples: || {
        vec![
            mlp_example(&[2, 3, 6], 24, 6, true),
            mlp_example(&[5, 6], 10, 7, false)
                .set("hidden_features", "10")
                .set("out_features", "7")
                .set("in_features", "6")
                .set("activation", "gelu_new")
                .set("return_residual", "true"),
        ]
    },
};

/// Inputs of an Mlp with `hidden` rows of fc1.
fn mlp_example(x: &[usize], hidden: usize, outputs: usize, biases: bool) -> Example {
    let channels = x[x.len() - 1];
    let example = Example::new()
        .random("x", x)
        .random("fc1.weight", &[hidden, channels]);
    if !biases {
        let example = example.random("fc2.weight", &[outputs, hidden]);
        return example.set("bias1", "false").set("bias2", "false");
    }
    example
        .random("fc1.bias", &[hidden])
        .random("fc2.weight", &[outputs, hidden])
        .random("fc2.bias", &[outputs])
}

const MLP_BACKWARD: Op = Op {
    name: "mlp_backward",
    kinds: &[],
    systems: &["Mlp"],
    summary: "gradients of mlp",
    inputs: &[X, FC1_WEIGHT, FC1_BIAS, FC2_WEIGHT, FC2_BIAS, DY],
    settings: MLP_SETTINGS,
    outputs: &[
        DX,
        Output::new("d_fc1.weight", "F C", ""),
        Output::new("d_fc1.bias", "F", ""),
        Output::new("d_fc2.weight", "O F", ""),
        Output::new("d_fc2.bias", "O", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_mlp(c)?;
            let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
            let fc1 = Params::of(c, "fc1.weight", "fc1.bias").await?;
            let fc2 = Params::of(c, "fc2.weight", "fc2.bias").await?;
            let act = chosen(c);
            let g = c.r.mlp_backward(&x, fc1.all(), fc2.all(), act, &dy)?;
            c.output("d_x", &g.x, &x.shape);
            give_linear(c, ["d_fc1.weight", "d_fc1.bias"], &g.fc1);
            give_linear(c, ["d_fc2.weight", "d_fc2.bias"], &g.fc2);
            Ok(())
        })
    },
    examples: || {
        vec![
            mlp_example(&[2, 2, 4], 16, 4, true).random("dy", &[2, 2, 4]),
            mlp_example(&[3, 5], 6, 2, false)
                .random("dy", &[3, 2])
                .set("hidden_features", "6")
                .set("out_features", "2")
                .set("activation", "silu"),
        ]
    },
};

const GATED_MLP: Op = Op {
    name: "gated_mlp",
    kinds: &["GatedMlp"],
    systems: &["GatedMlp", "packed order trap"],
    summary: "fc2(value act(gate)), value and gate being halves of fc1(x) (flash-attn, modules/mlp.py)",
    inputs: &[X, PACKED_WEIGHT, PACKED_BIAS, FC2_WEIGHT, FC2_BIAS],
    settings: GATED_SETTINGS,
    outputs: &[Y, RESIDUAL],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_gated(c)?;
            let x = c.tensor("x").await?;
            let fc1 = layer(c, "fc1.weight", "fc1.bias").await?;
            let fc2 = layer(c, "fc2.weight", "fc2.bias").await?;
            let mlp = GatedMlp::packed(fc1, fc2, packing(c), chosen(c))?;
            let y = c.r.gated_mlp(&x, &mlp)?;
            give(c, &y);
            give_residual(c);
            Ok(())
        })
    },
    examples: || {
        vec![
            gated_example(&[2, 3, 6], 16, 6, true).set("multiple_of", "8"),
            gated_example(&[11, 6], 12, 7, false)
                .set("in_features", "6")
                .set("hidden_features", "10")
                .set("multiple_of", "4")
                .set("out_features", "7")
                .set("activation", "swiglu")
                .set("packing", "gate_value")
                .set("return_residual", "true"),
        ]
    },
};

/// Inputs of a GatedMlp whose halves have `hidden` rows.
fn gated_example(x: &[usize], hidden: usize, outputs: usize, biases: bool) -> Example {
    let channels = x[x.len() - 1];
    let example = Example::new()
        .random("x", x)
        .random("fc1.weight", &[2 * hidden, channels]);
    if !biases {
        let example = example.random("fc2.weight", &[outputs, hidden]);
        return example.set("bias1", "false").set("bias2", "false");
    }
    example
        .random("fc1.bias", &[2 * hidden])
        .random("fc2.weight", &[outputs, hidden])
        .random("fc2.bias", &[outputs])
}

const GATED_MLP_BACKWARD: Op = Op {
    name: "gated_mlp_backward",
    kinds: &[],
    systems: &["GatedMlp"],
    summary: "gradients of gated_mlp, packed as its parameters are",
    inputs: &[X, PACKED_WEIGHT, PACKED_BIAS, FC2_WEIGHT, FC2_BIAS, DY],
    settings: GATED_SETTINGS,
    outputs: &[
        DX,
        Output::new("d_fc1.weight", "2F C", ""),
        Output::new("d_fc1.bias", "2F", ""),
        Output::new("d_fc2.weight", "O F", ""),
        Output::new("d_fc2.bias", "O", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_gated(c)?;
            let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
            let fc1 = Params::of(c, "fc1.weight", "fc1.bias").await?;
            let fc2 = Params::of(c, "fc2.weight", "fc2.bias").await?;
            let unit = (chosen(c), packing(c));
            let g =
                c.r.gated_mlp_backward(&x, fc1.all(), fc2.all(), unit, &dy)?;
            c.output("d_x", &g.x, &x.shape);
            give_linear(c, ["d_fc1.weight", "d_fc1.bias"], &g.fc1);
            give_linear(c, ["d_fc2.weight", "d_fc2.bias"], &g.fc2);
            Ok(())
        })
    },
    examples: || {
        let example = gated_example(&[2, 2, 4], 10, 4, true);
        let other = gated_example(&[3, 5], 6, 2, false);
        vec![
            example.random("dy", &[2, 2, 4]).set("multiple_of", "2"),
            (other.random("dy", &[3, 2]))
                .set("hidden_features", "5")
                .set("multiple_of", "3")
                .set("out_features", "2")
                .set("activation", "silu")
                .set("packing", "gate_value"),
        ]
    },
};

const LLAMA3_SETTINGS: &[Setting] = &[
    Setting::maybe_int("dim", "C"),
    Setting::maybe_int("hidden_dim", "what F is two thirds of; 4 dim when left out"),
    Setting::maybe_float("ffn_dim_multiplier", "factor of F before it is rounded up"),
    Setting::int("multiple_of", 256, "F is rounded up to a multiple of it"),
];

fn check_llama3(c: &Call<'_>) -> Result<()> {
    let channels = size(c, "dim")?.unwrap_or(c.axis("C"));
    expect(c, "C", channels, "dim")?;
    let multiple = c.settings.size("multiple_of")?;
    let multiplier = c.settings.maybe_float("ffn_dim_multiplier");
    if multiple == 0 || multiplier.is_some_and(|m| !(m > 0.0 && m < 1e6)) {
        return Err(c.error("settings multiple_of and ffn_dim_multiplier must be above 0"));
    }
    let hidden = size(c, "hidden_dim")?.unwrap_or(4 * channels);
    let hidden = llama3_hidden(hidden, multiplier, multiple);
    expect(
        c,
        "F",
        hidden,
        "int(2 hidden_dim / 3) times ffn_dim_multiplier, rounded up to multiple_of",
    )
}

const W1: Input = Input::new("w1.weight", "F C", "the gate");
const W2: Input = Input::new("w2.weight", "C F", "");
const W3: Input = Input::new("w3.weight", "F C", "");

const LLAMA3: Op = Op {
    name: "llama3_feed_forward",
    kinds: &["Llama3FeedForward"],
    systems: &["Llama 3 FeedForward"],
    summary: "w2(silu(w1 x) w3 x) (Meta, llama/model.py)",
    inputs: &[X, W1, W2, W3],
    settings: LLAMA3_SETTINGS,
    outputs: &[Output::new("y", "... C", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_llama3(c)?;
            let x = c.tensor("x").await?;
            let w1 = c.weight("w1.weight").await?;
            let w2 = c.weight("w2.weight").await?;
            let w3 = c.weight("w3.weight").await?;
            let ffn = Llama3FeedForward::new(w1, w2, w3)?;
            let y = c.r.llama3_feed_forward(&x, &ffn)?;
            give(c, &y);
            Ok(())
        })
    },
    examples: || {
        vec![
            // int(2 * 24 / 3) = 16.
            llama3_example(&[2, 3, 6], 16).set("multiple_of", "8"),
            // int(2 * 20 / 3) = 13, int(1.3 * 13) = 16, up to 18.
            llama3_example(&[11, 6], 18)
                .set("dim", "6")
                .set("hidden_dim", "20")
                .set("ffn_dim_multiplier", "1.3")
                .set("multiple_of", "6"),
        ]
    },
};

fn llama3_example(x: &[usize], hidden: usize) -> Example {
    let channels = x[x.len() - 1];
    Example::new()
        .random("x", x)
        .random("w1.weight", &[hidden, channels])
        .random("w2.weight", &[channels, hidden])
        .random("w3.weight", &[hidden, channels])
}

const LLAMA3_BACKWARD: Op = Op {
    name: "llama3_feed_forward_backward",
    kinds: &[],
    systems: &["Llama 3 FeedForward"],
    summary: "gradients of llama3_feed_forward",
    inputs: &[X, W1, W2, W3, Input::new("dy", "... C", "")],
    settings: LLAMA3_SETTINGS,
    outputs: &[
        DX,
        Output::new("d_w1.weight", "F C", ""),
        Output::new("d_w2.weight", "C F", ""),
        Output::new("d_w3.weight", "F C", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            check_llama3(c)?;
            let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
            let w1 = c.tensor("w1.weight").await?;
            let w2 = c.tensor("w2.weight").await?;
            let w3 = c.tensor("w3.weight").await?;
            let weights = [&w1, &w2, &w3];
            let g = c.r.llama3_feed_forward_backward(&x, weights, &dy)?;
            c.output("d_x", &g.x, &x.shape);
            c.output("d_w1.weight", &g.w1, &w1.shape);
            c.output("d_w2.weight", &g.w2, &w2.shape);
            c.output("d_w3.weight", &g.w3, &w3.shape);
            Ok(())
        })
    },
    examples: || {
        let example = llama3_example(&[2, 2, 5], 14).random("dy", &[2, 2, 5]);
        vec![example.set("multiple_of", "7")]
    },
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pollster::block_on;

    use super::super::{find, nmse, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    fn call(op: &str, example: &Example) -> Result<BTreeMap<&'static str, Array>> {
        let (inputs, settings) = example.call();
        let ran = block_on(run(&CpuDevice::new(), find(op)?, inputs, &settings))?;
        Ok(ran.outputs)
    }

    fn told(op: &str, example: &Example) -> String {
        call(op, example).unwrap_err().to_string()
    }

    #[test]
    fn a_llama_checkpoint_is_a_gated_mlp_in_either_packing() {
        let llama = llama3_example(&[3, 6], 16).set("multiple_of", "8");
        let want = call("llama3_feed_forward", &llama).unwrap();
        let input = |name| {
            let found = llama.inputs.iter().find(|(n, _)| *n == name);
            found.unwrap().1.clone()
        };
        let (w1, w3) = (input("w1.weight").to_f32(), input("w3.weight").to_f32());
        for (packing, halves) in [("value_gate", [&w3, &w1]), ("gate_value", [&w1, &w3])] {
            let packed = halves.map(|h| h.as_slice()).concat();
            let example = Example::new()
                .input("x", input("x"))
                .input("fc1.weight", Array::f32(&[32, 6], &packed))
                .input("fc2.weight", input("w2.weight"))
                .set("activation", "swiglu")
                .set("multiple_of", "8")
                .set("bias1", "false")
                .set("bias2", "false")
                .set("packing", packing);
            let got = call("gated_mlp", &example).unwrap();
            let error = nmse(&got["y"].to_f32(), &want["y"].to_f32());
            assert!(error < 1e-13, "{packing}: NMSE {error:.1e}");
        }
    }

    #[test]
    fn return_residual_gives_x_beside_y() {
        let plain = mlp_example(&[2, 6], 24, 6, true);
        assert!(!call("mlp", &plain).unwrap().contains_key("residual"));
        let both = call("mlp", &plain.clone().set("return_residual", "true")).unwrap();
        assert_eq!(both["residual"], plain.inputs[0].1);
    }

    #[test]
    fn a_block_of_another_size_is_refused_by_its_rule() {
        assert_eq!(
            told("mlp", &mlp_example(&[2, 6], 25, 6, true)),
            "mlp: F is 25, expected 24 (hidden_features, 4 in_features by default)"
        );
        let wide = gated_example(&[2, 48], 256, 48, true);
        assert_eq!(
            told("gated_mlp", &wide),
            "gated_mlp: F is 256, expected 128 (hidden_features, int(8 in_features / 3) by default, \
             rounded up to multiple_of)"
        );
        let llama = llama3_example(&[2, 6], 17).set("multiple_of", "8");
        assert!(told("llama3_feed_forward", &llama).contains("F is 17, expected 16"));
        let bare = mlp_example(&[2, 6], 24, 6, false).set("bias1", "true");
        assert_eq!(
            told("mlp", &bare),
            "mlp: input fc1.bias is missing; set bias1=false to go without"
        );
        let biased = mlp_example(&[2, 6], 24, 6, true).set("bias2", "false");
        assert_eq!(
            told("mlp", &biased),
            "mlp: fc2.bias is given, but bias2 is false"
        );
    }
}
