//! Losses over classes, and their gradients.

use super::call::shown;
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Loss, LossKind, Reduction};
use crate::tensor::Tensor;

const LOGITS: Input = Input::new("logits", "any", "");
const LOG_PROBS: Input = Input::new("x", "any", "log-probabilities");
const LABELS: Input = Input::new(
    "labels",
    "any",
    "classes, of the shape of the logits without the axis",
);
const CLASS_WEIGHT: Input = Input::optional("class_weight", "V", "1 when left out");
const GROUPS: Input = Input::new(
    "groups",
    "V",
    "group of each class; negative: the background, 0",
);
pub(super) const DY: Input = Input::optional("dy", "any", "of the loss' shape; 1 when left out");
const AXIS: Setting = Setting::maybe_int(
    "axis",
    "that of the classes; when left out the second, or the only one",
);
pub(super) const REDUCTION: Setting = Setting::choice(
    "reduction",
    "mean",
    &["none", "sum", "mean"],
    "mean: by the weights of the labels that are not ignored",
);
pub(super) const IGNORE: Setting =
    Setting::int("ignore_index", -100, "label that gives loss and gradient 0");
pub(super) const SMOOTHING: Setting = Setting::float(
    "label_smoothing",
    0.0,
    "share of the target that is spread over all classes",
);
const EPS: Setting = Setting::float(
    "eps",
    1e-5,
    "added where the gradient divides by a probability",
);
pub(super) const LOSS: Output =
    Output::new("loss", "any", "of the shape of the labels, or one number");

pub static OPS: &[Op] = &[
    Op {
        name: "cross_entropy",
        kinds: &["CrossEntropyLoss", "softmax_cross_entropy"],
        systems: &[],
        summary: "-sum(q log_softmax(logits)), q the label's one-hot, smoothed (arXiv:1512.00567) and weighted",
        inputs: &[LOGITS, LABELS, CLASS_WEIGHT],
        settings: &[
            AXIS,
            REDUCTION,
            IGNORE,
            SMOOTHING,
            Setting::flag("log_prob", false, "give the log-probabilities too"),
        ],
        outputs: &[
            LOSS,
            Output::new("log_prob", "any", "of the shape of the logits, if wanted"),
        ],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let wanted = c.settings.flag("log_prob");
                let taken = Taken::of(c, "logits", cross_entropy).await?;
                taken.forward(c, wanted)
            })
        },
        examples: || {
            let mut examples = examples("logits", false);
            examples[0] = examples[0].clone().set("log_prob", "true");
            examples
        },
    },
    Op {
        name: "cross_entropy_backward",
        kinds: &[],
        systems: &[],
        summary: "gradient of cross_entropy by the logits: dy (p sum(q) - q)",
        inputs: &[LOGITS, LABELS, CLASS_WEIGHT, DY],
        settings: &[AXIS, REDUCTION, IGNORE, SMOOTHING],
        outputs: &[Output::new("d_logits", "any", "")],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let taken = Taken::of(c, "logits", cross_entropy).await?;
                taken.backward(c, "d_logits").await
            })
        },
        examples: || examples("logits", true),
    },
    Op {
        name: "nll_loss",
        kinds: &["NLLLoss"],
        systems: &[],
        summary: "-class_weight[label] x[label], x log-probabilities",
        inputs: &[LOG_PROBS, LABELS, CLASS_WEIGHT],
        settings: &[AXIS, REDUCTION, IGNORE],
        outputs: &[LOSS],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let taken = Taken::of(c, "x", nll).await?;
                taken.forward(c, false)
            })
        },
        examples: || nll_examples(false),
    },
    Op {
        name: "nll_loss_backward",
        kinds: &[],
        systems: &[],
        summary: "gradient of nll_loss by x",
        inputs: &[LOG_PROBS, LABELS, CLASS_WEIGHT, DY],
        settings: &[AXIS, REDUCTION, IGNORE],
        outputs: &[Output::new("d_x", "any", "")],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let taken = Taken::of(c, "x", nll).await?;
                taken.backward(c, "d_x").await
            })
        },
        examples: || nll_examples(true),
    },
    Op {
        name: "group_softmax_cross_entropy",
        kinds: &[],
        systems: &["GroupSoftmax cross-entropy"],
        summary: "-ln P, P the probability of all classes of the label's group",
        inputs: &[LOGITS, LABELS, GROUPS],
        settings: &[AXIS, REDUCTION, IGNORE, EPS],
        outputs: &[LOSS],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let taken = Taken::of(c, "logits", group).await?;
                taken.forward(c, false)
            })
        },
        examples: || group_examples(false),
    },
    Op {
        name: "group_softmax_cross_entropy_backward",
        kinds: &[],
        systems: &["GroupSoftmax cross-entropy"],
        summary: "gradient by the logits: dy p (P - 1) / (P + eps) in the label's group, else dy p",
        inputs: &[LOGITS, LABELS, GROUPS, DY],
        settings: &[AXIS, REDUCTION, IGNORE, EPS],
        outputs: &[Output::new("d_logits", "any", "")],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let taken = Taken::of(c, "logits", group).await?;
                taken.backward(c, "d_logits").await
            })
        },
        examples: || group_examples(true),
    },
];

/// Five classes along axis 1, and along the last of two axes; one label is ignored.
fn plain_examples(x: &'static str, backward: bool) -> Vec<Example> {
    let images = Example::new()
        .random(x, &[2, 5, 3])
        .input("labels", Array::i64(&[2, 3], &[0, 4, 2, -100, 1, 1]));
    let rows = Example::new()
        .random(x, &[4, 5])
        .input("labels", Array::i64(&[4], &[3, 0, 2, 4]))
        .set("reduction", "sum")
        .set("ignore_index", "2");
    let channels_last = Example::new()
        .random(x, &[2, 3, 5])
        .input("labels", Array::i64(&[2, 3], &[0, 4, 2, 3, 1, 1]))
        .set("axis", "-1")
        .set("reduction", "none");
    if !backward {
        return vec![images, rows, channels_last];
    }
    vec![
        images.input("dy", Array::f32(&[1], &[0.7])),
        rows,
        channels_last.random("dy", &[2, 3]),
    ]
}

fn weighted(example: Example) -> Example {
    let weight = Array::f32(&[5], &[0.5, 1.0, 2.0, 0.25, 1.5]);
    example.input("class_weight", weight)
}

fn examples(x: &'static str, backward: bool) -> Vec<Example> {
    let mut examples = plain_examples(x, backward);
    let smooth = examples[0].clone().set("label_smoothing", "0.1");
    examples.extend([weighted(smooth.clone()), smooth]);
    examples
}

fn nll_examples(backward: bool) -> Vec<Example> {
    let mut examples = plain_examples("x", backward);
    examples.push(weighted(examples[0].clone()));
    examples
}

fn group_examples(backward: bool) -> Vec<Example> {
    let groups = Array::i64(&[5], &[0, 1, 1, 2, -1]);
    let mut examples = plain_examples("logits", backward);
    for example in &mut examples {
        *example = example
            .clone()
            .input("groups", groups.clone())
            .set("eps", "0");
    }
    examples
}

/// What a call is made of.
struct Taken {
    logits: Tensor,
    labels: Tensor,
    loss: Loss,
}

async fn cross_entropy(c: &mut Call<'_>) -> Result<LossKind> {
    Ok(LossKind::CrossEntropy {
        label_smoothing: c.settings.float("label_smoothing") as f32,
        class_weight: c.optional("class_weight").await?,
    })
}

async fn nll(c: &mut Call<'_>) -> Result<LossKind> {
    Ok(LossKind::NegativeLogLikelihood {
        class_weight: c.optional("class_weight").await?,
    })
}

async fn group(c: &mut Call<'_>) -> Result<LossKind> {
    Ok(LossKind::GroupCrossEntropy {
        groups: c.index("groups").await?,
        eps: c.settings.float("eps") as f32,
    })
}

impl Taken {
    async fn of(
        c: &mut Call<'_>,
        input: &str,
        kind: impl AsyncFnOnce(&mut Call<'_>) -> Result<LossKind>,
    ) -> Result<Self> {
        let shape = c.shape(input).to_vec();
        let default = if shape.len() > 1 { 1 } else { 0 };
        let axis = c.settings.maybe_int("axis").unwrap_or(default);
        let ignore = c.settings.int("ignore_index");
        let ignore_index = i32::try_from(ignore)
            .map_err(|_| c.error(format_args!("ignore_index {ignore} needs over 32 bits")))?;
        let place = crate::kernels::axis::resolve(&shape, axis);
        let place = place.map_err(|e| c.error(e))?;
        check_labels(c, shape[place], ignore)?;
        let reduction = match c.settings.choice("reduction") {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            _ => Reduction::Mean,
        };
        let kind = kind(c).await?;
        Ok(Taken {
            logits: c.tensor(input).await?,
            labels: c.index("labels").await?,
            loss: Loss {
                kind,
                axis,
                ignore_index,
                reduction,
            },
        })
    }

    fn forward(&self, c: &mut Call<'_>, log_prob: bool) -> Result<()> {
        let Taken {
            logits,
            labels,
            loss,
        } = self;
        let made = c.r.loss_and_log_prob(logits, labels, loss, log_prob);
        let (y, log_prob) = made.map_err(|e| c.error(e))?;
        let shape = match loss.reduction {
            Reduction::None => labels.shape.as_slice(),
            _ => &[],
        };
        c.output("loss", &y, shape);
        if let Some(log_prob) = log_prob {
            c.output("log_prob", &log_prob, &logits.shape);
        }
        Ok(())
    }

    async fn backward(&self, c: &mut Call<'_>, output: &'static str) -> Result<()> {
        let Taken {
            logits,
            labels,
            loss,
        } = self;
        let dy = c.optional("dy").await?;
        let made = c.r.loss_backward(logits, labels, loss, dy.as_ref());
        let gradient = made.map_err(|e| c.error(e))?;
        c.output(output, &gradient, &logits.shape);
        Ok(())
    }
}

/// Refuses labels that are neither a class nor ignored, which a device could only answer with NaN.
pub(super) fn check_labels(c: &Call<'_>, classes: usize, ignore: i64) -> Result<()> {
    let labels = c.array("labels").to_i64().unwrap_or_default();
    let wrong = |l: &i64| *l != ignore && !(0..classes as i64).contains(l);
    match labels.iter().position(wrong) {
        None => Ok(()),
        Some(at) => Err(c.error(format_args!(
            "label {at} of shape {} is {}, expected 0 to {} or ignore_index {ignore}",
            shown(c.shape("labels")),
            labels[at],
            classes - 1
        ))),
    }
}
