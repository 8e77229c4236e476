//! LSTM and GRU, with PyTorch's weights and with ONNX's.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::nn::{Arrays, Cell, Direction, Layout, Linear, Recurrent, States, gru, lstm};
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Result};

const EEG: &str = "Small recurrent / convolutional classifiers (EEG emotion models)";

/// Names of PyTorch's tensors for two layers in two directions.
const TORCH: [[&str; 4]; 4] = [
    ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"],
    [
        "weight_ih_l0_reverse",
        "weight_hh_l0_reverse",
        "bias_ih_l0_reverse",
        "bias_hh_l0_reverse",
    ],
    ["weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"],
    [
        "weight_ih_l1_reverse",
        "weight_hh_l1_reverse",
        "bias_ih_l1_reverse",
        "bias_hh_l1_reverse",
    ],
];

macro_rules! torch_inputs {
    ($gates:literal, $($more:expr),*) => {
        &[
            Input::new("x", "any", "(N T I), or (T N I) unless batch_first"),
            Input::new("weight_ih_l0", concat!($gates, "H I"), ""),
            Input::new("weight_hh_l0", concat!($gates, "H H"), ""),
            Input::optional("bias_ih_l0", concat!($gates, "H"), ""),
            Input::optional("bias_hh_l0", concat!($gates, "H"), ""),
            Input::optional("weight_ih_l0_reverse", concat!($gates, "H I"), "a second direction"),
            Input::optional("weight_hh_l0_reverse", concat!($gates, "H H"), ""),
            Input::optional("bias_ih_l0_reverse", concat!($gates, "H"), ""),
            Input::optional("bias_hh_l0_reverse", concat!($gates, "H"), ""),
            Input::optional("weight_ih_l1", concat!($gates, "H J"), "a second layer"),
            Input::optional("weight_hh_l1", concat!($gates, "H H"), ""),
            Input::optional("bias_ih_l1", concat!($gates, "H"), ""),
            Input::optional("bias_hh_l1", concat!($gates, "H"), ""),
            Input::optional("weight_ih_l1_reverse", concat!($gates, "H J"), ""),
            Input::optional("weight_hh_l1_reverse", concat!($gates, "H H"), ""),
            Input::optional("bias_ih_l1_reverse", concat!($gates, "H"), ""),
            Input::optional("bias_hh_l1_reverse", concat!($gates, "H"), ""),
            Input::optional("lengths", "N", "times of each entry, all by default; y is 0 after them"),
            Input::optional("h_0", "L N H", "first state, 0 by default; L is layers times directions"),
            $($more),*
        ]
    };
}

const TORCH_SETTINGS: &[Setting] = &[
    Setting::flag(
        "batch_first",
        true,
        "x is (N T I), y (N T D*H), or (T N I) and (T N D*H)",
    ),
    Setting::maybe_int("input_size", "to compare with the weights"),
    Setting::maybe_int("hidden_size", "to compare with the weights"),
    Setting::maybe_int("layers", "to compare with the weights"),
];

const ONNX_SETTINGS: &[Setting] = &[
    Setting::choice(
        "direction",
        "forward",
        &["forward", "reverse", "bidirectional"],
        "",
    ),
    Setting::int(
        "layout",
        0,
        "0: x is (T N I), y (T D N H); 1: (N T I), (N T D H)",
    ),
    Setting::maybe_int("hidden_size", "to compare with the weights"),
];

pub static OPS: &[Op] = &[
    Op {
        name: "lstm",
        kinds: &["LSTM"],
        systems: &[EEG],
        summary: "long short-term memory: c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) \
                  tanh(c); gate order i, f, g, o (PyTorch, nn.LSTM)",
        inputs: torch_inputs!(
            "4",
            Input::optional("c_0", "L N H", "first cells, 0 by default")
        ),
        settings: TORCH_SETTINGS,
        outputs: &[
            Output::new("y", "any", "the last layer's h at every time"),
            Output::new("h_n", "any", "(L N H)"),
            Output::new("c_n", "any", "(L N H)"),
        ],
        bound: 1e-10,
        record: |c| Box::pin(torch(c, Cell::LSTM)),
        examples: || torch_examples(4),
    },
    Op {
        name: "gru",
        kinds: &["GRU"],
        systems: &[EEG],
        summary: "gated recurrent unit: n = tanh(x_n + r h_n), h = (1 - z) n + z h; gate order r, z, \
                  n (PyTorch, nn.GRU)",
        inputs: torch_inputs!("3",),
        settings: TORCH_SETTINGS,
        outputs: &[
            Output::new("y", "any", "the last layer's h at every time"),
            Output::new("h_n", "any", "(L N H)"),
        ],
        bound: 1e-10,
        record: |c| Box::pin(torch(c, Cell::GRU)),
        examples: || torch_examples(3),
    },
    Op {
        name: "onnx_lstm",
        kinds: &[],
        systems: &[],
        summary: "the same with ONNX's inputs; gate order i, o, f, c (ONNX, LSTM)",
        inputs: &[
            Input::new("x", "any", ""),
            Input::new("w", "D 4H I", "D directions"),
            Input::new("r", "D 4H H", ""),
            Input::optional("b", "D 8H", "of w, then of r"),
            Input::optional("sequence_lens", "any", "(N), times of each entry"),
            Input::optional("initial_h", "any", "(D N H), or (N D H) with layout 1"),
            Input::optional("initial_c", "any", "likewise"),
            Input::optional("p", "D 3H", "peepholes of i, o, f"),
        ],
        settings: ONNX_SETTINGS,
        outputs: &[
            Output::new("y", "any", ""),
            Output::new("y_h", "any", "(D N H), or (N D H) with layout 1"),
            Output::new("y_c", "any", "likewise"),
        ],
        bound: 1e-10,
        record: |c| Box::pin(onnx(c, Cell::Lstm(lstm::ONNX))),
        examples: || {
            onnx_examples(4, |e, directions| {
                e.random("initial_c", &[2, directions, 6])
                    .random("p", &[directions, 18])
            })
        },
    },
    Op {
        name: "onnx_gru",
        kinds: &[],
        systems: &[],
        summary: "the same with ONNX's inputs; gate order z, r, h (ONNX, GRU)",
        inputs: &[
            Input::new("x", "any", ""),
            Input::new("w", "D 3H I", "D directions"),
            Input::new("r", "D 3H H", ""),
            Input::optional("b", "D 6H", "of w, then of r"),
            Input::optional("sequence_lens", "any", "(N), times of each entry"),
            Input::optional("initial_h", "any", "(D N H), or (N D H) with layout 1"),
        ],
        settings: &[
            ONNX_SETTINGS[0],
            ONNX_SETTINGS[1],
            ONNX_SETTINGS[2],
            Setting::int(
                "linear_before_reset",
                0,
                "1: the reset gate multiplies the product with the state; 0: the state",
            ),
        ],
        outputs: &[
            Output::new("y", "any", ""),
            Output::new("y_h", "any", "(D N H), or (N D H) with layout 1"),
        ],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let reset_after = match c.settings.int("linear_before_reset") {
                    0 => false,
                    1 => true,
                    other => {
                        return Err(c.error(format_args!(
                            "setting linear_before_reset is {other}, expected 0 or 1"
                        )));
                    }
                };
                let order = gru::ONNX;
                onnx(c, Cell::Gru { order, reset_after }).await
            })
        },
        examples: || {
            let mut examples = onnx_examples(3, |e, _| e);
            let first = examples.swap_remove(0);
            examples.push(first.set("linear_before_reset", "1"));
            examples
        },
    },
];

/// An error unless a setting, if it was given, is `found`.
fn compare(c: &Call<'_>, setting: &str, found: usize) -> Result<()> {
    match c.settings.maybe_int(setting) {
        Some(wanted) if wanted != found as i64 => Err(c.error(format_args!(
            "setting {setting} is {wanted}, the weights have {found}"
        ))),
        _ => Ok(()),
    }
}

/// Times and entries of x.
fn times_and_entries(c: &Call<'_>, batch_first: bool, inputs: usize) -> Result<(usize, usize)> {
    match (c.shape("x"), batch_first) {
        (&[n, t, i], true) | (&[t, n, i], false) if i == inputs => Ok((t, n)),
        (shape, _) => {
            let order = if batch_first { "N T" } else { "T N" };
            Err(c.error(format_args!(
                "x has shape {shape:?}, expected ({order} I) with I = {inputs}"
            )))
        }
    }
}

/// Lengths of the sequences on the device, if they are given.
async fn lengths(
    c: &mut Call<'_>,
    name: &str,
    times: usize,
    entries: usize,
) -> Result<Option<Tensor>> {
    if !c.has(name) {
        return Ok(None);
    }
    let words = c.words(name)?;
    if words.len() != entries || words.iter().any(|l| *l as usize > times) {
        return Err(c.error(format_args!(
            "{name} is {words:?}, expected {entries} numbers from 0 to {times}"
        )));
    }
    Ok(Some(c.index(name).await?))
}

/// First states of this shape: those given, and zeros where only one of two is.
async fn first_states(
    c: &mut Call<'_>,
    cell: Cell,
    [h, cells]: [&str; 2],
    shape: [usize; 3],
) -> Result<States> {
    let lstm = matches!(cell, Cell::Lstm(_));
    let names = if lstm { vec![h, cells] } else { vec![h] };
    let given = names.iter().any(|n| c.has(n));
    let mut states = Vec::new();
    for name in names {
        states.push(match c.has(name) {
            true if c.shape(name) != shape => {
                let found = c.shape(name);
                return Err(c.error(format_args!(
                    "{name} has shape {found:?}, expected {shape:?}"
                )));
            }
            true => c.tensor(name).await?,
            false if given => {
                let zeros = vec![0.0; shape.iter().product()];
                c.floats(name, &shape, &zeros).await?
            }
            false => c.r.scratch(DType::F32, &shape)?,
        });
    }
    let mut states = states.into_iter();
    let h = states.next().expect("every cell has a hidden state");
    Ok(States {
        h,
        c: states.next(),
        given,
    })
}

async fn torch(c: &mut Call<'_>, cell: Cell) -> Result<()> {
    let tensors = c.arrays();
    let (device, name) = (c.device(), c.op.name);
    let arrays = Arrays {
        device,
        name,
        arrays: &tensors,
    };
    for names in TORCH {
        if c.has(names[0]) != c.has(names[1]) {
            return Err(c.error(format_args!(
                "{} and {} belong together",
                names[0], names[1]
            )));
        }
    }
    let net = Recurrent::load(&arrays, "", cell).await?;
    compare(c, "input_size", c.axis("I"))?;
    compare(c, "hidden_size", net.hidden)?;
    compare(c, "layers", net.layers.len())?;
    let batch_first = c.settings.flag("batch_first");
    let (times, entries) = times_and_entries(c, batch_first, c.axis("I"))?;
    let layout = if batch_first {
        Layout::BatchFirst
    } else {
        Layout::TimeFirst
    };
    let lengths = lengths(c, "lengths", times, entries).await?;
    let shape = [net.layers.len() * net.directions(), entries, net.hidden];
    let states = first_states(c, cell, ["h_0", "c_0"], shape).await?;
    let x = c.tensor("x").await?;
    let y = c.r.recurrent(&x, &net, layout, lengths.as_ref(), &states)?;
    c.output("y", &y, &y.shape);
    c.output("h_n", &states.h, &shape);
    if let Some(cells) = &states.c {
        c.output("c_n", cells, &shape);
    }
    Ok(())
}

/// Row `d` of an input `(D, ...)` as values.
fn part(c: &Call<'_>, name: &str, d: usize) -> Vec<f32> {
    let array = c.array(name);
    let len = array.len() / array.shape[0];
    array.to_f32()[d * len..][..len].to_vec()
}

async fn onnx(c: &mut Call<'_>, cell: Cell) -> Result<()> {
    let (hidden, inputs) = (c.axis("H"), c.axis("I"));
    let directions: &[bool] = match c.settings.choice("direction") {
        "forward" => &[false],
        "reverse" => &[true],
        _ => &[false, true],
    };
    if c.axis("D") != directions.len() {
        return Err(c.error(format_args!(
            "w has {} directions, the setting direction says {}",
            c.axis("D"),
            directions.len()
        )));
    }
    compare(c, "hidden_size", hidden)?;
    let batch_first = match c.settings.int("layout") {
        0 => false,
        1 => true,
        other => return Err(c.error(format_args!("setting layout is {other}, expected 0 or 1"))),
    };
    let (times, entries) = times_and_entries(c, batch_first, inputs)?;
    let rows = cell.gates() * hidden;
    let mut layer = Vec::new();
    for (d, &reverse) in directions.iter().enumerate() {
        let w = part(c, "w", d);
        let bytes = bytemuck::cast_slice(&w);
        let weight = Weight::from_bytes(c.device(), "w", DType::F32, rows, inputs, bytes).await?;
        let (bias, state_bias) = match c.has("b") {
            true => {
                let both = part(c, "b", d);
                let (of_w, of_r) = both.split_at(rows);
                let of_w = c.floats("b", &[rows], of_w).await?;
                (Some(of_w), Some(c.floats("b", &[rows], of_r).await?))
            }
            false => (None, None),
        };
        let peephole = match c.op.inputs.iter().any(|i| i.name == "p") && c.has("p") {
            true => Some(c.floats("p", &[3 * hidden], &part(c, "p", d)).await?),
            false => None,
        };
        layer.push(Direction {
            input: Linear::with_bias(weight, bias)?,
            weight: c.floats("r", &[rows, hidden], &part(c, "r", d)).await?,
            bias: state_bias,
            peephole,
            reverse,
        });
    }
    let net = Recurrent {
        cell,
        hidden,
        layers: vec![layer],
    };
    let (layout, shape) = match batch_first {
        true => (Layout::OnnxBatchFirst, [entries, directions.len(), hidden]),
        false => (Layout::OnnxTimeFirst, [directions.len(), entries, hidden]),
    };
    let lengths = lengths(c, "sequence_lens", times, entries).await?;
    let states = first_states(c, cell, ["initial_h", "initial_c"], shape).await?;
    let x = c.tensor("x").await?;
    let y = c.r.recurrent(&x, &net, layout, lengths.as_ref(), &states)?;
    c.output("y", &y, &y.shape);
    c.output("y_h", &states.h, &shape);
    if let Some(cells) = &states.c {
        c.output("y_c", cells, &shape);
    }
    Ok(())
}

fn torch_examples(gates: usize) -> Vec<Example> {
    let weights = |mut e: Example, parts: &[usize], inputs: [usize; 4], bias: bool| {
        for &part in parts {
            let [ih, hh, bias_ih, bias_hh] = TORCH[part];
            e = e
                .random(ih, &[gates * 6, inputs[part]])
                .random(hh, &[gates * 6, 6]);
            if bias {
                e = e
                    .random(bias_ih, &[gates * 6])
                    .random(bias_hh, &[gates * 6]);
            }
        }
        e
    };
    let mut all = Example::new()
        .random("x", &[5, 2, 4])
        .input("lengths", Array::i64(&[2], &[5, 3]))
        .random("h_0", &[4, 2, 6]);
    if gates == 4 {
        all = all.random("c_0", &[4, 2, 6]);
    }
    let all = weights(all, &[0, 1, 2, 3], [4, 4, 12, 12], true);
    let one = Example::new().random("x", &[2, 5, 4]);
    vec![
        weights(one, &[0], [4; 4], false)
            .set("input_size", "4")
            .set("hidden_size", "6")
            .set("layers", "1"),
        all.set("batch_first", "false"),
    ]
}

fn onnx_examples(gates: usize, more: impl Fn(Example, usize) -> Example) -> Vec<Example> {
    let weights = |e: Example, directions: usize| {
        e.random("w", &[directions, gates * 6, 4])
            .random("r", &[directions, gates * 6, 6])
    };
    let both = Example::new()
        .random("x", &[2, 5, 4])
        .random("b", &[2, 2 * gates * 6])
        .input("sequence_lens", Array::i64(&[2], &[4, 5]))
        .random("initial_h", &[2, 2, 6]);
    vec![
        weights(Example::new().random("x", &[5, 3, 4]), 1).set("hidden_size", "6"),
        weights(Example::new().random("x", &[5, 3, 4]), 1).set("direction", "reverse"),
        more(weights(both, 2), 2)
            .set("direction", "bidirectional")
            .set("layout", "1"),
        weights(Example::new().random("x", &[5, 3, 4]), 2).set("direction", "bidirectional"),
    ]
}
