//! Convolution, pooling, and what small convolutional models need beside them.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::models::eeg;
use crate::nn::{Activation, Arrays, Conv, Indices, Linear, Window};
use crate::{Error, Result};

const EEG: &str = "Small recurrent / convolutional classifiers (EEG emotion models)";

const STRIDES: Setting = Setting::ints("strides", &[], "one for each spatial axis, 1 by default");
const DILATIONS: Setting =
    Setting::ints("dilations", &[], "one for each spatial axis, 1 by default");
const PADS: Setting = Setting::ints(
    "pads",
    &[],
    "before each spatial axis and then after each, or only before, the same after; 0 by default",
);
const AUTO_PAD: Setting = Setting::choice(
    "auto_pad",
    "NOTSET",
    &["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"],
    "SAME: y has ceil(x / stride) places; an odd padding has its last element after or before",
);

pub static OPS: &[Op] = &[
    Op {
        name: "conv",
        kinds: &[
            "Conv", "Conv1d", "Conv2d", "Conv3d", "conv1d", "conv2d", "conv3d",
        ],
        systems: &[EEG],
        summary: "y[n, f, o] = sum_{c, k} w[f, c, k] x[n, c, o stride + k dilation - pad] + b[f] \
                  over 1 to 3 axes (PyTorch, nn.Conv2d; ONNX, Conv)",
        inputs: &[
            Input::new("x", "any", "(N C ...), 1 to 3 spatial axes"),
            Input::new("weight", "any", "(F C/group ...)"),
            Input::optional("bias", "F", ""),
        ],
        settings: &[
            Setting::ints(
                "kernel_shape",
                &[],
                "the weight's spatial axes; taken from it by default",
            ),
            STRIDES,
            DILATIONS,
            PADS,
            AUTO_PAD,
            Setting::int("group", 1, "groups of channels that do not see each other"),
        ],
        outputs: &[Output::new("y", "any", "(N F ...)")],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let kernel = c.shape("weight").get(2..).unwrap_or_default().to_vec();
                let given = c.settings.ints("kernel_shape");
                if !given.is_empty()
                    && !given
                        .iter()
                        .eq(kernel.iter().map(|k| *k as i64).collect::<Vec<_>>().iter())
                {
                    return Err(c.error(format_args!(
                        "setting kernel_shape is {given:?}, the weight has {kernel:?}"
                    )));
                }
                let window = window(c, &kernel)?;
                let groups = c.settings.size("group")?;
                let (x, w) = (c.tensor("x").await?, c.tensor("weight").await?);
                let conv = Conv::new(w, c.optional("bias").await?, groups, window)?;
                let y = c.r.conv(&x, &conv)?;
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 3, 19])
                    .random("weight", &[5, 3, 3])
                    .random("bias", &[5])
                    .set("pads", "1")
                    .set("kernel_shape", "3"),
                Example::new()
                    .random("x", &[1, 4, 7, 6])
                    .random("weight", &[6, 2, 3, 2])
                    .set("group", "2")
                    .set("strides", "2,1")
                    .set("dilations", "1,2")
                    .set("pads", "1,0,2,1"),
                Example::new()
                    .random("x", &[1, 1, 5, 5])
                    .random("weight", &[1, 1, 3, 3])
                    .set("auto_pad", "SAME_LOWER")
                    .set("strides", "2,2"),
                Example::new()
                    .random("x", &[1, 2, 3, 4, 3])
                    .random("weight", &[3, 2, 2, 2, 2]),
            ]
        },
    },
    Op {
        name: "max_pool",
        kinds: &[
            "MaxPool",
            "MaxPool1d",
            "MaxPool2d",
            "MaxPool3d",
            "max_pool1d",
            "max_pool2d",
            "max_pool3d",
        ],
        systems: &[EEG],
        summary: "y[n, c, o] = max_k x[n, c, o stride + k dilation - pad] over 1 to 3 axes \
                  (PyTorch, nn.MaxPool2d; ONNX, MaxPool)",
        inputs: &[Input::new("x", "any", "(N C ...), 1 to 3 spatial axes")],
        settings: &[
            Setting::ints(
                "kernel_shape",
                &[],
                "one for each spatial axis; must be given",
            ),
            STRIDES,
            DILATIONS,
            PADS,
            AUTO_PAD,
            Setting::flag(
                "ceil_mode",
                false,
                "a last window may reach beyond the padded input",
            ),
            Setting::choice(
                "indices_of",
                "plane",
                &["plane", "tensor"],
                "how indices are counted: in each image and channel (PyTorch), or over all (ONNX)",
            ),
            Setting::int(
                "storage_order",
                0,
                "1: indices of the tensor count columns first (ONNX)",
            ),
        ],
        outputs: &[
            Output::new("y", "any", "(N C ...)"),
            Output::new(
                "indices",
                "any",
                "where each largest element is, the first of equal ones",
            ),
        ],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let kernel: Vec<usize> = sizes(c, "kernel_shape")?;
                let window = window(c, &kernel)?;
                let indices = match (
                    c.settings.choice("indices_of"),
                    c.settings.int("storage_order"),
                ) {
                    ("plane", 0) => Indices::Plane,
                    ("tensor", order @ 0..=1) => Indices::Whole {
                        column_major: order == 1,
                    },
                    (_, order) => {
                        return Err(c.error(format_args!(
                            "setting storage_order is {order}, expected 0, or 1 with indices_of=tensor"
                        )));
                    }
                };
                let ceil = c.settings.flag("ceil_mode");
                let x = c.tensor("x").await?;
                let (y, places) = c.r.max_pool(&x, &window, ceil, indices)?;
                c.output("y", &y, &y.shape);
                if let Some(places) = places {
                    c.output("indices", &places, &places.shape);
                }
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 3, 19])
                    .set("kernel_shape", "2")
                    .set("strides", "2"),
                Example::new()
                    .random("x", &[1, 2, 7, 6])
                    .set("kernel_shape", "3,3")
                    .set("strides", "2,2")
                    .set("pads", "1,1,1,1")
                    .set("ceil_mode", "true")
                    .set("indices_of", "tensor")
                    .set("storage_order", "1"),
                Example::new()
                    .random("x", &[1, 1, 4, 4, 4])
                    .set("kernel_shape", "2,2,2")
                    .set("dilations", "2,2,2"),
                Example::new()
                    .random("x", &[1, 1, 5, 5])
                    .set("kernel_shape", "3,3")
                    .set("strides", "2,2")
                    .set("auto_pad", "SAME_UPPER"),
            ]
        },
    },
    Op {
        name: "flatten",
        kinds: &["Flatten"],
        systems: &[EEG],
        summary: "the axes before `axis` as rows, the others as columns (ONNX, Flatten)",
        inputs: &[Input::new("x", "any", "")],
        settings: &[Setting::int(
            "axis",
            1,
            "first axis of the columns; negative from the end",
        )],
        outputs: &[Output::new("y", "any", "two axes")],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let x = c.array("x").clone();
                let (axis, rank) = (c.settings.int("axis"), x.shape.len());
                let axis = if axis < 0 { axis + rank as i64 } else { axis };
                let Some(axis) = usize::try_from(axis).ok().filter(|a| *a <= rank) else {
                    return Err(c.error(format_args!("setting axis is {axis}, x has {rank} axes")));
                };
                let (rows, columns) = x.shape.split_at(axis);
                let shape = [rows.iter().product(), columns.iter().product()];
                c.output_array(
                    "y",
                    Array {
                        shape: shape.into(),
                        ..x
                    },
                );
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new().random("x", &[2, 3, 4]),
                Example::new().random("x", &[2, 3, 4]).set("axis", "-1"),
                Example::new().random("x", &[2, 3]).set("axis", "0"),
            ]
        },
    },
    Op {
        name: "transpose",
        kinds: &[],
        systems: &[],
        summary: "the last two axes exchanged",
        inputs: &[Input::new("x", "... A B", "")],
        settings: &[],
        outputs: &[Output::new("y", "... B A", "")],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let y = c.r.transpose(&x)?;
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || vec![Example::new().random("x", &[2, 3, 4])],
    },
    Op {
        name: "dense",
        kinds: &["Dense"],
        systems: &[EEG],
        summary: "y = act(x weight^T + bias)",
        inputs: &[
            Input::new("x", "... K", ""),
            Input::new("weight", "N K", ""),
            Input::optional("bias", "N", ""),
        ],
        settings: &[Setting::choice(
            "activation",
            "identity",
            &[
                "identity",
                "relu",
                "sigmoid",
                "tanh",
                "silu",
                "gelu",
                "elu",
                "leaky_relu",
            ],
            "",
        )],
        outputs: &[Output::new("y", "... N", "")],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let weight = c.weight("weight").await?;
                let linear = Linear::with_bias(weight, c.optional("bias").await?)?;
                let name = c.settings.choice("activation");
                let mut y = c.r.linear(&x, &linear)?;
                if name != "identity" {
                    let activation = Activation::from_name(name);
                    y =
                        c.r.activate(&y, activation.expect("the names are those of activations"))?;
                }
                let shape = [c.lead(), &[c.axis("N")]].concat();
                c.output("y", &y, &shape);
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 3, 24])
                    .random("weight", &[5, 24])
                    .random("bias", &[5]),
                Example::new()
                    .random("x", &[24])
                    .random("weight", &[5, 24])
                    .set("activation", "relu"),
            ]
        },
    },
    Op {
        name: "differential_entropy",
        kinds: &["DifferentialEntropy"],
        systems: &[EEG],
        summary: "y = ln(2 pi e var(x)) / 2 over the last axis, in nats: the entropy of a normal \
                  distribution (doi:10.1109/NER.2013.6695876)",
        inputs: &[Input::new("x", "... S", "band-filtered samples")],
        settings: &[Setting::float(
            "correction",
            0.0,
            "the variance divides by S - correction; 1 for Bessel's",
        )],
        outputs: &[Output::new("y", "...", "")],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let correction = c.settings.float("correction") as f32;
                let y = c.r.differential_entropy(&x, correction)?;
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new().random("x", &[2, 3, 40]),
                Example::new().random("x", &[9, 7]).set("correction", "1"),
            ]
        },
    },
    Op {
        name: "eeg_conv_classifier",
        kinds: &["EegConvClassifier"],
        systems: &[EEG],
        summary: "softmax(dense(relu(hidden(flatten(max_pool2(relu(conv2(relu(conv1(x)))))))))) over \
                  maps of differential entropy; convolutions keep the size",
        inputs: &[
            Input::optional("x", "N B H W", "maps, one for each band"),
            Input::optional(
                "signals",
                "N B H W S",
                "or the samples that they are computed from",
            ),
            Input::new("conv1.weight", "any", "(F B KH KW), odd kernel"),
            Input::optional("conv1.bias", "any", ""),
            Input::new("conv2.weight", "any", ""),
            Input::optional("conv2.bias", "any", ""),
            Input::new("hidden.weight", "D K", ""),
            Input::optional("hidden.bias", "D", ""),
            Input::new("dense.weight", "L D", ""),
            Input::optional("dense.bias", "L", ""),
        ],
        settings: &[],
        outputs: &[Output::new("y", "N L", "probabilities of the classes")],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let tensors = c.arrays();
                let (device, name) = (c.device(), c.op.name);
                let arrays = Arrays {
                    device,
                    name,
                    arrays: &tensors,
                };
                let model = eeg::ConvClassifier::load(&arrays).await?;
                let y = match (c.optional("x").await?, c.optional("signals").await?) {
                    (Some(maps), None) => model.forward(&mut c.r, &maps)?,
                    (None, Some(signals)) => model.forward_signals(&mut c.r, &signals)?,
                    _ => return Err(c.error("expected either x or signals")),
                };
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || {
            let weights = |e: Example| {
                e.random("conv1.weight", &[3, 2, 3, 3])
                    .random("conv1.bias", &[3])
                    .random("conv2.weight", &[4, 3, 3, 3])
                    .random("conv2.bias", &[4])
                    .random("hidden.weight", &[5, 16])
                    .random("hidden.bias", &[5])
                    .random("dense.weight", &[4, 5])
                    .random("dense.bias", &[4])
            };
            vec![
                weights(Example::new().random("x", &[2, 2, 5, 4])),
                weights(Example::new().random("signals", &[1, 2, 5, 4, 30])),
            ]
        },
    },
    Op {
        name: "eeg_recurrent_classifier",
        kinds: &["EegRecurrentClassifier"],
        systems: &[EEG],
        summary: "softmax(dense(last state of lstm or gru(max_pool2(relu(conv(x)))))); the \
                  convolution keeps the length",
        inputs: &[
            Input::new("x", "N C S", "channels of samples"),
            Input::new("conv.weight", "F C K", "K is odd"),
            Input::optional("conv.bias", "F", ""),
            Input::optional("lstm.weight_ih_l0", "4H F", "in PyTorch's order i, f, g, o"),
            Input::optional("lstm.weight_hh_l0", "4H H", ""),
            Input::optional("lstm.bias_ih_l0", "4H", ""),
            Input::optional("lstm.bias_hh_l0", "4H", ""),
            Input::optional(
                "gru.weight_ih_l0",
                "3H F",
                "or a GRU's, in the order r, z, n",
            ),
            Input::optional("gru.weight_hh_l0", "3H H", ""),
            Input::optional("gru.bias_ih_l0", "3H", ""),
            Input::optional("gru.bias_hh_l0", "3H", ""),
            Input::new("dense.weight", "L H", ""),
            Input::optional("dense.bias", "L", ""),
        ],
        settings: &[],
        outputs: &[Output::new("y", "N L", "probabilities of the classes")],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let tensors = c.arrays();
                let (device, name) = (c.device(), c.op.name);
                let arrays = Arrays {
                    device,
                    name,
                    arrays: &tensors,
                };
                let model = eeg::RecurrentClassifier::load(&arrays).await?;
                let x = c.tensor("x").await?;
                let y = model.forward(&mut c.r, &x)?;
                c.output("y", &y, &y.shape);
                Ok(())
            })
        },
        examples: || {
            let of = |cell: [&'static str; 4], gates: usize| {
                Example::new()
                    .random("x", &[2, 3, 20])
                    .random("conv.weight", &[5, 3, 3])
                    .random("conv.bias", &[5])
                    .random(cell[0], &[gates * 6, 5])
                    .random(cell[1], &[gates * 6, 6])
                    .random(cell[2], &[gates * 6])
                    .random(cell[3], &[gates * 6])
                    .random("dense.weight", &[4, 6])
                    .random("dense.bias", &[4])
            };
            let lstm = [
                "lstm.weight_ih_l0",
                "lstm.weight_hh_l0",
                "lstm.bias_ih_l0",
                "lstm.bias_hh_l0",
            ];
            let gru = [
                "gru.weight_ih_l0",
                "gru.weight_hh_l0",
                "gru.bias_ih_l0",
                "gru.bias_hh_l0",
            ];
            vec![of(lstm, 4), of(gru, 3)]
        },
    },
];

/// A setting's whole numbers as sizes.
fn sizes(c: &Call<'_>, setting: &str) -> Result<Vec<usize>> {
    let list = c.settings.ints(setting);
    let size = |v: &i64| u32::try_from(*v).map(|v| v as usize);
    let sizes: Result<_, _> = list.iter().map(size).collect();
    sizes.map_err(|_| {
        c.error(format_args!(
            "setting {setting} is {list:?}, expected no negative numbers"
        ))
    })
}

/// The window of a convolution or pooling with this kernel over the spatial axes of x.
fn window(c: &Call<'_>, kernel: &[usize]) -> Result<Window, Error> {
    let axes = kernel.len();
    let input = c.shape("x").get(2..).unwrap_or_default();
    if !(1..=3).contains(&axes) || input.len() != axes {
        return Err(c.error(format_args!(
            "x has {} spatial axes and the kernel {axes}, expected 1 to 3 and as many",
            input.len()
        )));
    }
    // Missing dimensions come first.
    let three = |list: &[usize], fill: usize| {
        let mut three = [fill; 3];
        three[3 - axes..].copy_from_slice(list);
        three
    };
    let one_each = |setting: &str| {
        let list = sizes(c, setting)?;
        match list.len() {
            0 => Ok([1; 3]),
            n if n == axes && !list.contains(&0) => Ok(three(&list, 1)),
            _ => Err(c.error(format_args!(
                "setting {setting} is {list:?}, expected {axes} sizes"
            ))),
        }
    };
    if kernel.contains(&0) {
        return Err(c.error(format_args!("the kernel is {kernel:?}, expected no zeros")));
    }
    let window = Window::new(three(kernel, 1))
        .stride(one_each("strides")?)
        .dilation(one_each("dilations")?);
    let pads = sizes(c, "pads")?;
    let (begin, end) = match pads.len() {
        0 => ([0; 3], [0; 3]),
        n if n == axes => (three(&pads, 0), three(&pads, 0)),
        n if n == 2 * axes => (three(&pads[..axes], 0), three(&pads[axes..], 0)),
        _ => {
            return Err(c.error(format_args!(
                "setting pads is {pads:?}, expected {axes} or {} sizes",
                2 * axes
            )));
        }
    };
    let window = Window {
        begin,
        end,
        ..window
    };
    Ok(match c.settings.choice("auto_pad") {
        "SAME_UPPER" => window.same(three(input, 1), false),
        "SAME_LOWER" => window.same(three(input, 1), true),
        "VALID" => window.pad([0; 3]),
        _ => window,
    })
}
