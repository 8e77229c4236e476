//! What the feed-forward blocks cost at a width, for comparing them.

use serde::Serialize;

use super::find;
use super::shape::Axes;
use crate::nn::{gated_mlp_hidden, llama3_hidden, mlp_hidden};
use crate::{Error, Result};

/// A feed-forward block at some width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MlpSize {
    /// The operator.
    pub op: &'static str,
    /// Hidden size, by the block's own rule.
    pub hidden: usize,
    /// Numbers in its weights.
    pub parameters: usize,
    /// Floating-point operations of a token: two for each element of a matrix.
    pub flops: usize,
    /// Bytes of the weights in f32.
    pub bytes: usize,
    /// The weights.
    pub inputs: Vec<Shape>,
}

/// An input's name and shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Slowest axis first.
    pub shape: Vec<usize>,
}

/// A block's hidden size from its number of inputs.
type Rule = fn(usize) -> usize;

/// Blocks to compare, and the hidden size that each has by default.
const BLOCKS: &[(&str, Rule)] = &[
    ("mlp", |c| mlp_hidden(c, None)),
    ("gated_mlp", |c| gated_mlp_hidden(c, None, 128)),
    ("transformer_ffn", |c| 4 * c),
    ("llama3_feed_forward", |c| llama3_hidden(4 * c, None, 256)),
];

/// Largest width: its matrices are far larger than any device's memory.
const WIDEST: usize = 1 << 20;

/// Every block with `channels` inputs and outputs.
///
/// # Errors
///
/// [`Error::Invalid`] when `channels` is 0 or over 2^20.
pub fn mlp_sizes(channels: usize) -> Result<Vec<MlpSize>> {
    if channels == 0 || channels > WIDEST {
        return Err(Error::Invalid(format!(
            "a block has {channels} channels, expected 1 to {WIDEST}"
        )));
    }
    let sizes = BLOCKS.iter().map(|(name, hidden)| {
        let (op, hidden) = (find(name)?, hidden(channels));
        let axes = Axes::of(&[("C", channels), ("O", channels), ("F", hidden)]);
        let weights = op
            .inputs
            .iter()
            .filter(|i| !matches!(i.name, "x" | "residual"));
        let inputs: Vec<Shape> = weights
            .filter_map(|i| {
                let shape = axes.shape(i.shape)?;
                Some(Shape {
                    name: i.name,
                    shape,
                })
            })
            .collect();
        let len = |s: &Shape| s.shape.iter().product::<usize>();
        let parameters = inputs.iter().map(len).sum();
        let matrices = inputs.iter().filter(|s| s.shape.len() == 2);
        Ok(MlpSize {
            op: op.name,
            hidden,
            parameters,
            flops: 2 * matrices.map(len).sum::<usize>(),
            bytes: 4 * parameters,
            inputs,
        })
    });
    sizes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_sizes_of_their_papers() {
        let sizes = mlp_sizes(512).unwrap();
        let of = |op| sizes.iter().find(|s| s.op == op).unwrap();
        // 2017, section 3.3: 512, 2048, and biases; two LayerNorm vectors.
        let ffn = of("transformer_ffn");
        assert_eq!((ffn.hidden, ffn.flops), (2048, 4 * 512 * 2048));
        assert_eq!(ffn.parameters, 2 * 512 * 2048 + 2048 + 512 + 2 * 512);
        let gated = of("gated_mlp");
        assert_eq!((gated.hidden, gated.flops), (1408, 6 * 512 * 1408));
        assert_eq!(of("llama3_feed_forward").parameters, 3 * 512 * 1536);
        assert!(mlp_sizes(0).is_err() && mlp_sizes(usize::MAX).is_err());
    }
}
