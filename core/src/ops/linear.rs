//! Linear layers and matrix products.

use super::{Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Linear, LinearParams, Matrix};
use crate::tensor::Tensor;

pub static OPS: &[Op] = &[LINEAR, LINEAR_BACKWARD, MATMUL, GEMM];

/// A layer of these inputs.
pub async fn layer(c: &mut Call<'_>, weight: &str, bias: &str) -> Result<Linear> {
    let weight = c.weight(weight).await?;
    Linear::with_bias(weight, c.optional(bias).await?)
}

/// A layer's parameters as plain tensors.
pub struct Params {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Params {
    /// Those that these inputs hold.
    pub async fn of(c: &mut Call<'_>, weight: &str, bias: &str) -> Result<Self> {
        Ok(Params {
            weight: c.tensor(weight).await?,
            bias: c.optional(bias).await?,
        })
    }

    /// As layers take them.
    pub fn all(&self) -> LinearParams<'_> {
        LinearParams {
            weight: &self.weight,
            bias: self.bias.as_ref(),
        }
    }
}

const LINEAR: Op = Op {
    name: "linear",
    kinds: &["Linear"],
    systems: &[],
    summary: "y = x weight^T (+ bias); weight of any type, floats or quantised blocks",
    inputs: &[
        Input::new("x", "... K", ""),
        Input::new("weight", "N K", ""),
        Input::optional("bias", "N", ""),
    ],
    settings: &[],
    outputs: &[Output::new("y", "... N", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let x = c.tensor("x").await?;
            let linear = layer(c, "weight", "bias").await?;
            let y = c.r.linear(&x, &linear)?;
            let shape = [c.lead(), &[c.axis("N")]].concat();
            c.output("y", &y, &shape);
            Ok(())
        })
    },
    examples: || {
        let many = Example::new().random("x", &[3, 5, 48]);
        vec![
            linear_example(),
            many.random("weight", &[33, 48]),
            (Example::new().random("x", &[7])).random("weight", &[5, 7]),
        ]
    },
};

fn linear_example() -> Example {
    Example::new()
        .random("x", &[2, 3, 10])
        .random("weight", &[7, 10])
        .random("bias", &[7])
}

const LINEAR_BACKWARD: Op = Op {
    name: "linear_backward",
    kinds: &[],
    systems: &[],
    summary: "d_x = dy weight, d_weight = dy^T x, d_bias = sum of dy over all rows",
    inputs: &[
        Input::new("x", "... K", ""),
        Input::new("weight", "N K", ""),
        Input::optional("bias", "N", "its gradient is given when it is there"),
        Input::new("dy", "... N", ""),
    ],
    settings: &[],
    outputs: &[
        Output::new("d_x", "... K", ""),
        Output::new("d_weight", "N K", ""),
        Output::new("d_bias", "N", ""),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (x, dy) = (c.tensor("x").await?, c.tensor("dy").await?);
            let p = Params::of(c, "weight", "bias").await?;
            let (dx, gradients) = c.r.linear_backward(&x, p.all(), &dy)?;
            c.output("d_x", &dx, &x.shape);
            c.output("d_weight", &gradients.weight, &p.weight.shape);
            if let Some(bias) = gradients.bias {
                c.output("d_bias", &bias, &bias.shape);
            }
            Ok(())
        })
    },
    examples: || {
        let plain = Example::new()
            .random("x", &[4, 3])
            .random("weight", &[2, 3]);
        vec![
            linear_example().random("dy", &[2, 3, 7]),
            plain.random("dy", &[4, 2]),
        ]
    },
};

const MATMUL: Op = Op {
    name: "matmul",
    kinds: &["MatMul"],
    systems: &[],
    summary: "a b as numpy.matmul: batches are broadcast, a vector is a row of a, a column of b",
    inputs: &[
        Input::new("a", "any", "(..., M, K) or (K)"),
        Input::new("b", "any", "(..., K, N) or (K)"),
    ],
    settings: &[],
    outputs: &[Output::new(
        "y",
        "any",
        "(..., M, N) without the vectors' axes",
    )],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (a, b) = (c.tensor("a").await?, c.tensor("b").await?);
            if a.shape.is_empty() || b.shape.is_empty() {
                return Err(c.error("a scalar is no matrix"));
            }
            let column = b.shape.len() == 1;
            let right = match column {
                true => Matrix::of(&b).transposed(),
                false => Matrix::of(&b),
            };
            let y = c.r.gemm(1.0, &Matrix::of(&a), &right, None)?;
            let mut shape = y.shape.clone();
            if column {
                shape.pop();
            }
            if a.shape.len() == 1 {
                shape.remove(y.shape.len() - 2);
            }
            c.output("y", &y, &shape);
            Ok(())
        })
    },
    examples: || {
        let product = |a: &[usize], b: &[usize]| Example::new().random("a", a).random("b", b);
        vec![
            product(&[3, 4], &[4, 3]),
            product(&[3, 1, 3, 4], &[1, 2, 4, 2]),
            product(&[2, 1, 5, 2, 3], &[3, 1, 3, 4]),
            product(&[4], &[2, 4, 1]),
            product(&[1, 2, 4, 3], &[3]),
            product(&[3], &[3]),
            product(&[70, 33], &[33, 65]),
        ]
    },
};

const GEMM: Op = Op {
    name: "gemm",
    kinds: &["Gemm"],
    systems: &[],
    summary: "y = alpha a b (+ beta c), either matrix transposed first (BLAS; ONNX Gemm)",
    inputs: &[
        Input::new("a", "any", "(M K), or (K M) with trans_a"),
        Input::new("b", "any", "(K N), or (N K) with trans_b"),
        Input::optional("c", "any", "broadcast to (M N)"),
    ],
    settings: &[
        Setting::float("alpha", 1.0, "factor of the product"),
        Setting::float("beta", 1.0, "factor of c"),
        Setting::flag("trans_a", false, "a is transposed"),
        Setting::flag("trans_b", false, "b is transposed"),
    ],
    outputs: &[Output::new("y", "M N", "")],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (a, b) = (c.tensor("a").await?, c.tensor("b").await?);
            let third = c.optional("c").await?;
            let matrix = |name: &str, flag: &str, t| match (c.shape(name).len(), flag) {
                (2, flag) if c.settings.flag(flag) => Ok(Matrix::of(t).transposed()),
                (2, _) => Ok(Matrix::of(t)),
                (axes, _) => Err(c.error(format_args!("{name} has {axes} axes, expected 2"))),
            };
            let (a, b) = (matrix("a", "trans_a", &a)?, matrix("b", "trans_b", &b)?);
            let (alpha, beta) = (c.settings.float("alpha"), c.settings.float("beta"));
            let third = third.as_ref().map(Matrix::of);
            let third = third.as_ref().map(|t| (beta as f32, t));
            let y = c.r.gemm(alpha as f32, &a, &b, third)?;
            c.output("y", &y, &y.shape);
            Ok(())
        })
    },
    examples: || {
        let product = |a: &[usize], b: &[usize]| Example::new().random("a", a).random("b", b);
        let all = product(&[4, 3], &[5, 4])
            .set("trans_a", "true")
            .set("trans_b", "1");
        vec![
            all.random("c", &[1, 5])
                .set("alpha", "0.25")
                .set("beta", "0.35"),
            product(&[2, 7], &[7, 4]),
            product(&[2, 3], &[3, 4]).random("c", &[]),
            product(&[3, 6], &[6, 4]).random("c", &[3, 1]),
        ]
    },
};
