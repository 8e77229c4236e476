//! Norms.

use super::call::shown;
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{GroupNorm, LayerNorm, NormGradients, RmsNorm};
use crate::tensor::Tensor;

const X: Input = Input::new("x", "any", "");
const WEIGHT: Input = Input::optional("weight", "any", "of the axes normalised; 1 when left out");
const BIAS: Input = Input::optional("bias", "any", "of the axes normalised; 0 when left out");
const RESIDUAL: Input = Input::new("residual", "any", "of the shape of x");
const DY: Input = Input::new("dy", "any", "of the shape of x");
const EPS: Setting = Setting::float("eps", 1e-5, "added to the mean square");
const AXIS: Setting = Setting::int("axis", -1, "first of the axes that are normalised together");
const SUM: Setting = Setting::flag("sum", true, "give the sum too, as pre-norm blocks need it");
const Y: Output = Output::new("y", "any", "of the shape of x");
const SUM_OUT: Output = Output::new("sum", "any", "x + residual, if wanted");
const D_X: Output = Output::new("d_x", "any", "");
const D_WEIGHT: Output = Output::new("d_weight", "any", "if there is a weight");

pub static OPS: &[Op] = &[
    Op {
        name: "rms_norm",
        kinds: &["RMSNorm"],
        systems: &["RMSNorm"],
        summary: "y = x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467)",
        inputs: &[X, WEIGHT],
        settings: &[EPS, AXIS],
        outputs: &[Y],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let norm = rms(c, &rows);
                let y = c.r.rms_norm(&rows.x, &norm)?;
                c.output("y", &y, &rows.shape);
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 3, 48])
                    .random("weight", &[48]),
                Example::new()
                    .input("x", Array::f32(&[4], &[1.0, 2.0, 3.0, 4.0]))
                    .set("eps", "0.1"),
                Example::new()
                    .random("x", &[2, 3, 5])
                    .random("weight", &[3, 5])
                    .set("axis", "1"),
            ]
        },
    },
    Op {
        name: "add_rms_norm",
        kinds: &[],
        systems: &["RMSNorm"],
        summary: "rms_norm of sum = x + residual, in one dispatch",
        inputs: &[X, RESIDUAL, WEIGHT],
        settings: &[EPS, AXIS, SUM],
        outputs: &[Y, SUM_OUT],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let (norm, residual) = (rms(c, &rows), rows.residual(c).await?);
                if c.settings.flag("sum") {
                    let (sum, y) = c.r.add_rms_norm(&rows.x, &residual, &norm)?;
                    c.output("y", &y, &rows.shape);
                    c.output("sum", &sum, &rows.shape);
                } else {
                    let y = c.r.post_rms_norm(&rows.x, &residual, &norm)?;
                    c.output("y", &y, &rows.shape);
                }
                Ok(())
            })
        },
        examples: add_examples,
    },
    Op {
        name: "layer_norm",
        kinds: &["LayerNorm"],
        systems: &["LayerNorm"],
        summary: "y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias (arXiv:1607.06450)",
        inputs: &[X, WEIGHT, BIAS],
        settings: &[EPS, AXIS],
        outputs: &[
            Y,
            Output::new(
                "mean",
                "any",
                "of each row, with length 1 in the axes normalised",
            ),
            Output::new("rstd", "any", "1 / sqrt(var(x) + eps), likewise"),
        ],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let norm = rows.layer(c).await?;
                let (y, mean, rstd) = c.r.layer_norm_stats(&rows.x, &norm)?;
                c.output("y", &y, &rows.shape);
                c.output("mean", &mean, &rows.stats_shape());
                c.output("rstd", &rstd, &rows.stats_shape());
                Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("x", &[2, 3, 48])
                    .random("weight", &[48])
                    .random("bias", &[48]),
                Example::new()
                    .input("x", Array::f32(&[4], &[1.0, 2.0, 3.0, 4.0]))
                    .set("eps", "1e-10"),
                Example::new()
                    .random("x", &[2, 3, 5])
                    .random("weight", &[3, 5])
                    .set("axis", "-2"),
            ]
        },
    },
    Op {
        name: "add_layer_norm",
        kinds: &[],
        systems: &["LayerNorm"],
        summary: "layer_norm of sum = x + residual, in one dispatch",
        inputs: &[X, RESIDUAL, WEIGHT, BIAS],
        settings: &[EPS, AXIS, SUM],
        outputs: &[Y, SUM_OUT],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let (norm, residual) = (rows.layer(c).await?, rows.residual(c).await?);
                if c.settings.flag("sum") {
                    let (sum, y) = c.r.add_layer_norm(&rows.x, &residual, &norm)?;
                    c.output("y", &y, &rows.shape);
                    c.output("sum", &sum, &rows.shape);
                } else {
                    let y = c.r.post_layer_norm(&rows.x, &residual, &norm)?;
                    c.output("y", &y, &rows.shape);
                }
                Ok(())
            })
        },
        examples: || {
            let mut examples = add_examples();
            examples.push(
                Example::new()
                    .random("x", &[3, 20])
                    .random("residual", &[3, 20])
                    .random("bias", &[20]),
            );
            examples
        },
    },
    Op {
        name: "group_norm",
        kinds: &["GroupNorm"],
        systems: &[],
        summary: "layer_norm over each group of channels, weight and bias per channel (arXiv:1803.08494)",
        inputs: &[
            Input::new("x", "any", "(N, C, ...)"),
            Input::optional("weight", "C", "1 when left out"),
            Input::optional("bias", "C", "0 when left out"),
        ],
        settings: &[
            Setting::int(
                "groups",
                1,
                "of channels; 0: as many as channels, which is instance norm",
            ),
            EPS,
        ],
        outputs: &[Y],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let x = c.tensor("x").await?;
                let (weight, bias) = (c.optional("weight").await?, c.optional("bias").await?);
                let groups = match c.settings.size("groups")? {
                    0 => x.shape.get(1).copied().unwrap_or(1),
                    groups => groups,
                };
                let norm = GroupNorm::new(groups, weight, bias, eps(c));
                let y = c.r.group_norm(&x, &norm)?;
                c.output("y", &y, &x.shape);
                Ok(())
            })
        },
        examples: || {
            let x = Example::new().random("x", &[2, 6, 3, 5]);
            vec![
                x.clone()
                    .random("weight", &[6])
                    .random("bias", &[6])
                    .set("groups", "3"),
                x.clone().set("groups", "0").set("eps", "0.01"),
                x,
            ]
        },
    },
    Op {
        name: "rms_norm_backward",
        kinds: &[],
        systems: &["RMSNorm"],
        summary: "gradients of rms_norm by x and weight",
        inputs: &[X, WEIGHT, DY],
        settings: &[EPS, AXIS],
        outputs: &[D_X, D_WEIGHT],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let (norm, dy) = (rms(c, &rows), rows.dy(c).await?);
                let gradients = c.r.rms_norm_backward(&rows.x, &norm, &dy)?;
                give(c, &rows, gradients);
                Ok(())
            })
        },
        examples: backward_examples,
    },
    Op {
        name: "layer_norm_backward",
        kinds: &[],
        systems: &["LayerNorm"],
        summary: "gradients of layer_norm by x, weight and bias",
        inputs: &[X, WEIGHT, BIAS, DY],
        settings: &[EPS, AXIS],
        outputs: &[
            D_X,
            D_WEIGHT,
            Output::new("d_bias", "any", "if there is a bias"),
        ],
        bound: 1e-11,
        record: |c| {
            Box::pin(async move {
                let rows = Rows::of(c).await?;
                let (norm, dy) = (rows.layer(c).await?, rows.dy(c).await?);
                let gradients = c.r.layer_norm_backward(&rows.x, &norm, &dy)?;
                give(c, &rows, gradients);
                Ok(())
            })
        },
        examples: || {
            let mut examples = backward_examples();
            examples.push(
                Example::new()
                    .random("x", &[3, 20])
                    .random("bias", &[20])
                    .random("dy", &[3, 20]),
            );
            examples
        },
    },
];

fn add_examples() -> Vec<Example> {
    let both = Example::new()
        .random("x", &[2, 3, 20])
        .random("residual", &[2, 3, 20]);
    vec![
        both.clone().random("weight", &[20]),
        both.set("sum", "false"),
    ]
}

fn backward_examples() -> Vec<Example> {
    vec![
        Example::new()
            .random("x", &[2, 3, 12])
            .random("weight", &[12])
            .random("dy", &[2, 3, 12]),
        Example::new()
            .random("x", &[2, 3, 5])
            .random("weight", &[3, 5])
            .random("dy", &[2, 3, 5])
            .set("axis", "1"),
    ]
}

fn eps(c: &Call<'_>) -> f32 {
    c.settings.float("eps") as f32
}

/// x as a matrix, the axes that are normalised together as its rows.
struct Rows {
    x: Tensor,
    weight: Option<Tensor>,
    /// The shape of x, and the number of axes that are not normalised.
    shape: Vec<usize>,
    lead: usize,
}

impl Rows {
    async fn of(c: &mut Call<'_>) -> Result<Self> {
        let shape = c.shape("x").to_vec();
        let lead = c.axis_of("axis", shape.len())?;
        let mut x = c.tensor("x").await?;
        x.shape = [&shape[..lead], &shape[lead..]]
            .map(|s| s.iter().product())
            .to_vec();
        let mut rows = Rows {
            x,
            weight: None,
            shape,
            lead,
        };
        rows.weight = rows.vector(c, "weight").await?;
        Ok(rows)
    }

    /// An optional input of the shape of a row.
    async fn vector(&self, c: &mut Call<'_>, name: &str) -> Result<Option<Tensor>> {
        if c.has(name) && c.shape(name) != &self.shape[self.lead..] {
            return Err(c.error(format_args!(
                "{name} has shape {}, expected {}",
                shown(c.shape(name)),
                shown(&self.shape[self.lead..])
            )));
        }
        c.optional(name).await
    }

    /// An input of the shape of x.
    async fn matrix(&self, c: &mut Call<'_>, name: &str) -> Result<Tensor> {
        if c.shape(name) != self.shape {
            return Err(c.error(format_args!(
                "{name} has shape {}, expected {}",
                shown(c.shape(name)),
                shown(&self.shape)
            )));
        }
        let mut tensor = c.tensor(name).await?;
        tensor.shape.clone_from(&self.x.shape);
        Ok(tensor)
    }

    async fn residual(&self, c: &mut Call<'_>) -> Result<Tensor> {
        self.matrix(c, "residual").await
    }

    async fn dy(&self, c: &mut Call<'_>) -> Result<Tensor> {
        self.matrix(c, "dy").await
    }

    async fn layer(&self, c: &mut Call<'_>) -> Result<LayerNorm> {
        let bias = self.vector(c, "bias").await?;
        Ok(LayerNorm::new(self.weight.clone(), bias, eps(c)))
    }

    /// 1 for each axis that is normalised.
    fn stats_shape(&self) -> Vec<usize> {
        let place = |(i, len): (usize, &usize)| if i < self.lead { *len } else { 1 };
        self.shape.iter().enumerate().map(place).collect()
    }
}

fn rms(c: &Call<'_>, rows: &Rows) -> RmsNorm {
    RmsNorm::new(rows.weight.clone(), eps(c))
}

/// Outputs of a gradient: by x, and by those of weight and bias that were given.
fn give(c: &mut Call<'_>, rows: &Rows, gradients: NormGradients) {
    c.output("d_x", &gradients.x, &rows.shape);
    let row = &rows.shape[rows.lead..];
    if rows.weight.is_some() {
        c.output("d_weight", &gradients.weight, row);
    }
    if let Some(bias) = gradients.bias.filter(|_| c.has("bias")) {
        c.output("d_bias", &bias, row);
    }
}
