//! The feed-forward sublayer of the 2017 Transformer, and its gradients.

use super::{Draw, LayerNorm, Linear, LinearGradients, LinearParams, Mlp, MlpGradients};
use crate::kernels::{Activation, add};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Dropout's probability in training, where nobody says another (arXiv:1706.03762, section 5.4).
pub const TRANSFORMER_DROPOUT: f64 = 0.1;

/// `LayerNorm(x + Dropout(linear2(max(0, linear1(x)))))` (arXiv:1706.03762, sections 3.1, 3.3 and
/// 5.4, where C is 512 and F 2048).
pub struct TransformerFfn {
    mlp: Mlp,
    norm: LayerNorm,
    dropout: Option<(f32, Draw)>,
}

impl TransformerFfn {
    /// A block of these layers, linear1 `(F, C)` and linear2 `(C, F)`, at inference: dropout is the
    /// identity.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn new(linear1: Linear, linear2: Linear, norm: LayerNorm) -> Result<Self> {
        if linear2.outputs() != linear1.inputs() {
            return Err(Error::Invalid(format!(
                "transformer_ffn: linear2 gives {} channels, the residual has {}",
                linear2.outputs(),
                linear1.inputs()
            )));
        }
        Ok(TransformerFfn {
            mlp: Mlp::new(linear1, linear2, Activation::Relu)?,
            norm,
            dropout: None,
        })
    }

    /// The same in training: elements of the sublayer's result are dropped with probability `p`.
    pub fn with_dropout(mut self, p: f32, draw: Draw) -> Self {
        self.dropout = Some((p, draw));
        self
    }
}

impl Recording {
    /// `LayerNorm(x + Dropout(linear2(max(0, linear1(x)))))`: `(T, C)` to `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit, or p is not from 0 to 1.
    pub fn transformer_ffn(&mut self, x: &Tensor, ffn: &TransformerFfn) -> Result<Tensor> {
        if let Some((p, draw)) = ffn.dropout {
            let u = self.mlp(x, &ffn.mlp)?;
            let (mut u, _) = self.dropout(&u, p, draw)?;
            u.shape.clone_from(&x.shape);
            return self.post_layer_norm(&u, x, &ffn.norm);
        }
        let u = self.mlp_residual(x, &ffn.mlp, x)?;
        self.layer_norm(&u, &ffn.norm)
    }

    /// Gradients of [`Recording::transformer_ffn`]: of its linear layers, and by the weight and
    /// bias of its norm. `dropout` as in [`TransformerFfn::with_dropout`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit, or p is not from 0 to 1.
    pub fn transformer_ffn_backward(
        &mut self,
        x: &Tensor,
        [linear1, linear2]: [LinearParams<'_>; 2],
        norm: &LayerNorm,
        dropout: Option<(f32, Draw)>,
        dy: &Tensor,
    ) -> Result<(MlpGradients, LinearGradients)> {
        let z = self.affine(x, linear1)?;
        let h = self.activate(&z, Activation::Relu)?;
        let mut u = self.affine(&h, linear2)?;
        if let Some((p, draw)) = dropout {
            u = self.dropout(&u, p, draw)?.0;
        }
        let sum = self.sum(x, &u)?;
        let dsum = self.layer_norm_backward(&sum, norm, dy)?;
        // Of a gradient, dropout with the same draw makes the gradient.
        let du = match dropout {
            Some((p, draw)) => &self.dropout(&dsum.x, p, draw)?.0,
            None => &dsum.x,
        };
        let mut gradients = self.mlp_backward(x, linear1, linear2, Activation::Relu, du)?;
        gradients.x = self.sum(&dsum.x, &gradients.x)?;
        let norm = LinearGradients {
            weight: dsum.weight,
            bias: dsum.bias,
        };
        Ok((gradients, norm))
    }

    /// `x + z`, in the shape of x.
    fn sum(&mut self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        if x.len() != z.len() {
            return Err(Error::Invalid(format!(
                "transformer_ffn: {:?} and {:?} have no sum",
                x.shape, z.shape
            )));
        }
        let y = self.scratch(DType::F32, &x.shape)?;
        let bindings = [x, z, &y].map(|t| Some(t.clone()));
        self.push(&add::KERNEL, add::params(x.len(), 1.0), bindings.into())?;
        Ok(y)
    }
}
