//! Operators that draw random numbers: the same ones on every device, from a seed.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Distribution, Draw, GumbelSoftmax};
use crate::tensor::Tensor;

const SEED: Setting = Setting::int("seed", 0, "key of the generator, Philox 4x32-10");
const STREAM: Setting = Setting::int("stream", 0, "tells apart draws of one seed");
const FIRST: Setting = Setting::int("first", 0, "number of the first element's random word");
const WIDTH: Setting = Setting::int(
    "width",
    0,
    "columns of this part of a matrix; with 0 elements have consecutive words",
);
const STRIDE: Setting = Setting::int("stride", 0, "columns of the whole matrix");
const SHAPE: Setting = Setting::ints("shape", &[1], "of the result");
const P: Setting = Setting::float("p", 0.5, "probability of being dropped");

pub static OPS: &[Op] = &[
    Op {
        name: "random_bits",
        kinds: &[],
        systems: &[],
        summary: "32-bit words of Philox 4x32-10 (Salmon et al., SC11), as signed numbers",
        inputs: &[],
        settings: &[SHAPE, SEED, STREAM, FIRST, WIDTH, STRIDE],
        outputs: &[Output::new("y", "any", "")],
        bound: 0.0,
        record: |c| Box::pin(random(c, Distribution::Words)),
        examples: draw_examples,
    },
    Op {
        name: "random_uniform",
        kinds: &[],
        systems: &[],
        summary: "low + (high - low) u, u the middle of one of 2^23 equal parts of (0, 1)",
        inputs: &[],
        settings: &[
            SHAPE,
            Setting::float("low", 0.0, ""),
            Setting::float("high", 1.0, ""),
            SEED,
            STREAM,
            FIRST,
            WIDTH,
            STRIDE,
        ],
        outputs: &[Output::new("y", "any", "")],
        bound: 1e-12,
        record: |c| {
            Box::pin(async move {
                let [low, high] = ["low", "high"].map(|s| c.settings.float(s) as f32);
                random(c, Distribution::Uniform { low, high }).await
            })
        },
        examples: || {
            let mut examples = draw_examples();
            examples.push(Example::new().set("low", "-1").set("high", "3"));
            examples
        },
    },
    Op {
        name: "random_normal",
        kinds: &[],
        systems: &[],
        summary: "mean + std N(0, 1), by Box and Muller",
        inputs: &[],
        settings: &[
            SHAPE,
            Setting::float("mean", 0.0, ""),
            Setting::float("std", 1.0, ""),
            SEED,
            STREAM,
            FIRST,
            WIDTH,
            STRIDE,
        ],
        outputs: &[Output::new("y", "any", "")],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let [mean, std] = ["mean", "std"].map(|s| c.settings.float(s) as f32);
                random(c, Distribution::Normal { mean, std }).await
            })
        },
        examples: || {
            let mut examples = draw_examples();
            examples.push(Example::new().set("mean", "-1").set("std", "3"));
            examples
        },
    },
    Op {
        name: "gumbel_softmax",
        kinds: &[],
        systems: &["Gumbel-Softmax"],
        summary: "softmax((logits + g) / temperature), g = -ln(-ln u), or one-hot of its largest (arXiv:1611.01144)",
        inputs: &[
            Input::new("logits", "any", ""),
            Input::optional(
                "u",
                "any",
                "uniform numbers, clamped to (0, 1); drawn when left out",
            ),
        ],
        settings: &[
            Setting::int("axis", -1, ""),
            Setting::float("temperature", 1.0, "what the noisy logits are divided by"),
            Setting::flag("hard", false, "give the one-hot of the largest"),
            SEED,
            STREAM,
            FIRST,
            WIDTH,
            STRIDE,
        ],
        outputs: &[Output::new("y", "any", "of the shape of logits")],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let logits = c.tensor("logits").await?;
                let u = c.optional("u").await?;
                let gumbel_softmax = GumbelSoftmax {
                    axis: c.axis_of("axis", logits.shape.len())? as i64,
                    temperature: c.settings.float("temperature") as f32,
                    hard: c.settings.flag("hard"),
                    draw: draw(c)?,
                };
                let y = c.r.gumbel_softmax(&logits, &gumbel_softmax, u.as_ref())?;
                c.output("y", &y, &logits.shape);
                Ok(())
            })
        },
        examples: || {
            let logits = Example::new().random("logits", &[3, 7]);
            let u: Vec<f32> = (0..21).map(|i| i as f32 / 20.0).collect();
            vec![
                logits.clone().set("seed", "42").set("temperature", "0.5"),
                logits.clone().set("hard", "true").set("axis", "0"),
                logits.input("u", Array::f32(&[3, 7], &u)),
            ]
        },
    },
    Op {
        name: "dropout",
        kinds: &["Dropout"],
        systems: &[],
        summary: "0 with probability p, else x / (1 - p) (Srivastava et al. 2014); x when not training",
        inputs: &[Input::new("x", "any", "")],
        settings: &[
            P,
            Setting::flag("training", true, "drop; without it y is x"),
            SEED,
            STREAM,
            FIRST,
            WIDTH,
            STRIDE,
        ],
        outputs: &[
            Output::new("y", "any", "of the shape of x"),
            Output::new("mask", "any", "1 where x was kept"),
        ],
        bound: 1e-12,
        record: |c| {
            Box::pin(async move {
                let (y, mask) = dropout(c, "x").await?;
                let shape = c.shape("x").to_vec();
                c.output("y", &y, &shape);
                c.output("mask", &mask, &shape);
                Ok(())
            })
        },
        examples: || {
            let x = Example::new().random("x", &[3, 7]);
            vec![
                x.clone().set("seed", "7").set("p", "0.25"),
                x.clone().set("training", "false"),
                x.clone().set("p", "1"),
                x.set("first", "2").set("width", "7").set("stride", "20"),
            ]
        },
    },
    Op {
        name: "dropout_backward",
        kinds: &[],
        systems: &[],
        summary: "gradient of dropout by x: the same draw on dy",
        inputs: &[
            Input::new("x", "any", ""),
            Input::new("dy", "any", "of the shape of x"),
        ],
        settings: &[
            P,
            Setting::flag("training", true, ""),
            SEED,
            STREAM,
            FIRST,
            WIDTH,
            STRIDE,
        ],
        outputs: &[Output::new("d_x", "any", "")],
        bound: 1e-12,
        record: |c| {
            Box::pin(async move {
                let shape = c.shape("x").to_vec();
                let (d_x, _) = dropout(c, "dy").await?;
                if d_x.shape != shape {
                    return Err(c.error(format_args!(
                        "dy has shape {:?}, expected {shape:?}",
                        d_x.shape
                    )));
                }
                c.output("d_x", &d_x, &shape);
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[3, 7])
                    .random("dy", &[3, 7])
                    .set("seed", "7")
                    .set("p", "0.25"),
            ]
        },
    },
];

fn draw_examples() -> Vec<Example> {
    vec![
        Example::new().set("shape", "5,3").set("seed", "1"),
        Example::new()
            .set("shape", "2,2")
            .set("stream", "3")
            .set("first", "1")
            .set("width", "2")
            .set("stride", "6"),
    ]
}

/// The settings that say which words are drawn.
fn draw(c: &Call<'_>) -> Result<Draw> {
    let size = |name| c.settings.size(name).map(|v| v as u32);
    let drawn = Draw {
        first: size("first")?,
        ..Draw::new(c.settings.int("seed") as u64, size("stream")?)
    };
    let (width, stride) = (size("width")?, size("stride")?);
    if width == 0 && stride == 0 {
        return Ok(drawn);
    }
    if width == 0 || stride < width {
        return Err(c.error(format_args!(
            "a part of {width} columns of a matrix of {stride}; set width and stride, width at most stride"
        )));
    }
    Ok(Draw {
        width,
        stride,
        ..drawn
    })
}

async fn random(c: &mut Call<'_>, distribution: Distribution) -> Result<()> {
    let lens = c.settings.ints("shape");
    let length = |len: &i64| match usize::try_from(*len) {
        Ok(len) if len > 0 => Ok(len),
        _ => Err(c.error(format_args!("shape has length {len}, expected 1 or more"))),
    };
    let shape = lens.iter().map(length).collect::<Result<Vec<_>>>()?;
    let drawn = draw(c)?;
    let y = c.r.random(&shape, drawn, distribution);
    let y = y.map_err(|e| c.error(e))?;
    c.output("y", &y, &shape);
    Ok(())
}

async fn dropout(c: &mut Call<'_>, input: &str) -> Result<(Tensor, Tensor)> {
    let x = c.tensor(input).await?;
    let p = match c.settings.flag("training") {
        true => c.settings.float("p") as f32,
        false => 0.0,
    };
    let drawn = draw(c)?;
    c.r.dropout(&x, p, drawn)
}
