//! Activation functions, one operator for each of [`Activation::ALL`] and one for its gradient,
//! and gated units.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::kernels::{Activation, Packing};

const COUNT: usize = Activation::ALL.len();

/// The operators of [`Activation::ALL`], gradients behind, then gated units.
pub static OPS: &[Op] = &{
    let mut ops = [IDENTITY; 2 * COUNT + 2 * UNITS.len()];
    let mut i = 0;
    while i < COUNT {
        ops[i] = forward(Activation::ALL[i]);
        ops[COUNT + i] = backward(i);
        i += 1;
    }
    let mut i = 0;
    while i < UNITS.len() {
        ops[2 * COUNT + 2 * i] = UNITS[i];
        ops[2 * COUNT + 2 * i + 1] = UNIT_GRADIENTS[i];
        i += 1;
    }
    ops
};

const IDENTITY: Op = forward(Activation::Identity);

/// Names of activations, aliases behind, for a setting.
pub const NAMES: &[&str] = &{
    let mut names = [""; COUNT + Activation::ALIASES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = match i < COUNT {
            true => Activation::ALL[i].name(),
            false => Activation::ALIASES[i - COUNT].0,
        };
        i += 1;
    }
    names
};

/// The activation that the setting `activation` names.
pub fn chosen(c: &Call<'_>) -> Activation {
    let name = c.settings.choice("activation");
    Activation::from_name(name).expect("choices are names of activations")
}

/// How the setting `packing` says gate and value share a tensor.
pub fn packing(c: &Call<'_>) -> Packing {
    Packing::from_name(c.settings.choice("packing")).expect("choices are names of packings")
}

const X: &[Input] = &[Input::new("x", "...", "")];
const X_DY: &[Input] = &[X[0], Input::new("dy", "...", "")];
const Y: &[Output] = &[Output::new("y", "...", "")];
const DX: &[Output] = &[Output::new("d_x", "...", "")];
const UNIT_X: &[Input] = &[Input::new("x", "... 2M", "gate and value")];
const UNIT_X_DY: &[Input] = &[UNIT_X[0], Input::new("dy", "... M", "")];
const UNIT_Y: &[Output] = &[Output::new("y", "... M", "")];
const UNIT_DX: &[Output] = &[Output::new("d_x", "... 2M", "")];
const ALPHA: Setting = Setting::float("alpha", 1.0, "the parameter alpha");
const LEAKY_ALPHA: Setting = Setting::float("alpha", 0.01, "the slope below 0");
const APPROXIMATE: Setting = Setting::choice(
    "approximate",
    "none",
    &["none", "tanh"],
    "tanh: gelu_tanh, by the name that ONNX and PyTorch have for it",
);

const fn settings(act: Activation) -> &'static [Setting] {
    match act {
        Activation::LeakyRelu => &[LEAKY_ALPHA],
        Activation::Gelu => &[APPROXIMATE],
        _ if act.has_alpha() => &[ALPHA],
        _ => &[],
    }
}

/// ONNX's names.
const fn kinds(act: Activation) -> &'static [&'static str] {
    match act {
        Activation::Identity => &["Identity"],
        Activation::Silu => &["Swish"],
        Activation::Gelu => &["Gelu"],
        Activation::Relu => &["Relu"],
        Activation::Sigmoid => &["Sigmoid"],
        Activation::Tanh => &["Tanh"],
        Activation::LeakyRelu => &["LeakyRelu"],
        Activation::Elu => &["Elu"],
        Activation::Softplus => &["Softplus"],
        Activation::HardSwish => &["HardSwish"],
        Activation::GeluTanh | Activation::SqRelu | Activation::QuickGelu => &[],
    }
}

const fn forward(act: Activation) -> Op {
    Op {
        name: act.name(),
        kinds: kinds(act),
        systems: &["activation names"],
        summary: act.formula(),
        inputs: X,
        settings: settings(act),
        outputs: Y,
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let (act, alpha) = function(c, c.op.name);
                let x = c.tensor("x").await?;
                let y = c.r.activation(&x, act, alpha)?;
                c.output("y", &y, &x.shape);
                Ok(())
            })
        },
        examples: match act {
            Activation::Gelu => || {
                vec![
                    Example::new().input("x", points()),
                    (Example::new().random("x", &[3, 4, 5])).set("approximate", "tanh"),
                ]
            },
            _ if act.has_alpha() => || {
                vec![
                    Example::new().input("x", points()),
                    Example::new().random("x", &[3, 4, 5]).set("alpha", "1.75"),
                ]
            },
            _ => || {
                vec![
                    Example::new().input("x", points()),
                    Example::new().random("x", &[3, 4, 5]),
                ]
            },
        },
    }
}

const fn backward(i: usize) -> Op {
    let act = Activation::ALL[i];
    Op {
        name: gradient_name(i),
        kinds: &[],
        systems: &["activation names"],
        summary: "d_x = dy act'(x); at a kink the derivative from the left, as in PyTorch",
        inputs: X_DY,
        settings: settings(act),
        outputs: DX,
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let (act, alpha) = function(c, c.op.name.trim_end_matches("_backward"));
                let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
                let dx = c.r.activation_backward(&x, &dy, act, alpha)?;
                c.output("d_x", &dx, &x.shape);
                Ok(())
            })
        },
        examples: match act {
            Activation::Gelu => || {
                let tanh = gradient_example().set("approximate", "tanh");
                vec![gradient_example(), tanh]
            },
            _ if act.has_alpha() => {
                || vec![gradient_example(), gradient_example().set("alpha", "1.75")]
            }
            _ => || vec![gradient_example()],
        },
    }
}

/// `name` and `_backward`, for each activation: bytes and their number.
const GRADIENT_NAMES: &[([u8; 32], usize); COUNT] = &{
    let mut names = [([0; 32], 0); COUNT];
    let mut i = 0;
    while i < COUNT {
        let (name, suffix) = (Activation::ALL[i].name().as_bytes(), b"_backward");
        let len = name.len() + suffix.len();
        let mut at = 0;
        while at < len {
            names[i].0[at] = match at < name.len() {
                true => name[at],
                false => suffix[at - name.len()],
            };
            at += 1;
        }
        names[i].1 = len;
        i += 1;
    }
    names
};

const fn gradient_name(i: usize) -> &'static str {
    let (bytes, len) = &GRADIENT_NAMES[i];
    match std::str::from_utf8(bytes.split_at(*len).0) {
        Ok(name) => name,
        Err(_) => panic!("names are ASCII"),
    }
}

/// The activation called `name` as the settings want it, and its alpha.
fn function(c: &Call<'_>, name: &str) -> (Activation, f32) {
    let act = Activation::from_name(name).expect("operators are called like activations");
    match act {
        Activation::Gelu if c.settings.choice("approximate") == "tanh" => {
            (Activation::GeluTanh, 1.0)
        }
        _ if act.has_alpha() => (act, c.settings.float("alpha") as f32),
        _ => (act, act.alpha()),
    }
}

/// Both sides of every kink.
fn points() -> Array {
    const POINTS: [f32; 12] = [
        -20.0, -3.7, -2.2, -1.1, -0.6, -0.2, 0.3, 0.9, 1.6, 2.4, 3.5, 20.0,
    ];
    Array::f32(&[3, 4], &POINTS)
}

fn gradient_example() -> Example {
    Example::new().input("x", points()).random("dy", &[3, 4])
}

const PACKINGS: &[&str] = &["value_gate", "gate_value", "cross"];
const PACKING_DOC: &str = "where in a row gate and value are; cross: gate even, value odd";
const VALUE_FIRST: &[Setting] = &[Setting::choice(
    "packing",
    "value_gate",
    PACKINGS,
    PACKING_DOC,
)];
const GATE_FIRST: &[Setting] = &[Setting::choice(
    "packing",
    "gate_value",
    PACKINGS,
    PACKING_DOC,
)];

const UNITS: [Op; 4] = [
    unit(
        "glu",
        "value sigmoid(gate) (arXiv:1612.08083); value first, as in PyTorch",
        VALUE_FIRST,
        &["activation names"],
    ),
    unit(
        "swiglu",
        "silu(gate) value (arXiv:2002.05202); gate first, as in fastllm and Megatron-LM",
        GATE_FIRST,
        &["swiglu", "packed order trap"],
    ),
    unit(
        "geglu",
        "gelu(gate) value (arXiv:2002.05202); value first",
        VALUE_FIRST,
        &["activation names"],
    ),
    unit(
        "reglu",
        "relu(gate) value (arXiv:2002.05202); value first",
        VALUE_FIRST,
        &["activation names"],
    ),
];

const UNIT_GRADIENTS: [Op; 4] = [
    unit_gradient("glu_backward", VALUE_FIRST),
    unit_gradient("swiglu_backward", GATE_FIRST),
    unit_gradient("geglu_backward", VALUE_FIRST),
    unit_gradient("reglu_backward", VALUE_FIRST),
];

const fn unit(
    name: &'static str,
    summary: &'static str,
    settings: &'static [Setting],
    systems: &'static [&'static str],
) -> Op {
    Op {
        name,
        kinds: &[],
        systems,
        summary,
        inputs: UNIT_X,
        settings,
        outputs: UNIT_Y,
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let (act, packing) = (unit_function(c.op.name), packing(c));
                let x = c.tensor("x").await?;
                let y = c.r.gated_activation(&x, act, packing)?;
                let shape = [c.lead(), &[c.axis("M")]].concat();
                c.output("y", &y, &shape);
                Ok(())
            })
        },
        examples: || {
            let packed = |packing| unit_example().set("packing", packing);
            PACKINGS.iter().map(|packing| packed(packing)).collect()
        },
    }
}

const fn unit_gradient(name: &'static str, settings: &'static [Setting]) -> Op {
    Op {
        name,
        kinds: &[],
        systems: &[],
        summary: "d_gate = dy value act'(gate), d_value = dy act(gate), packed as x is",
        inputs: UNIT_X_DY,
        settings,
        outputs: UNIT_DX,
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let (act, packing) = (unit_function(c.op.name), packing(c));
                let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
                let dx = c.r.gated_activation_backward(&x, &dy, act, packing)?;
                c.output("d_x", &dx, &x.shape);
                Ok(())
            })
        },
        examples: || {
            let example = || unit_example().random("dy", &[3, 2]);
            let packed = |packing| example().set("packing", packing);
            PACKINGS.iter().map(|packing| packed(packing)).collect()
        },
    }
}

/// The inner function of a gated unit, by the operator's name.
fn unit_function(name: &str) -> Activation {
    let name = name.trim_end_matches("_backward");
    match name {
        "reglu" => Activation::Relu,
        _ => Activation::from_name(name).expect("gated units are aliases"),
    }
}

fn unit_example() -> Example {
    Example::new().input("x", points())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_and_its_gradient_is_an_operator() {
        for act in Activation::ALL {
            for name in [act.name().to_owned(), format!("{act}_backward")] {
                let op = super::super::find(&name).unwrap();
                assert_eq!(op.name, name);
            }
        }
        assert_eq!(NAMES.len(), COUNT + Activation::ALIASES.len());
        assert_eq!(super::super::find("Swish").unwrap().name, "silu");
    }

    #[test]
    fn packings_are_those_of_the_kernel() {
        let names: Vec<_> = Packing::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names, PACKINGS);
    }
}
