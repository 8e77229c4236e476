//! Layers that draw random numbers: the same ones on every device, from a seed.

use super::Softmax;
use crate::kernels::philox::Draw;
use crate::kernels::random::{self, Distribution};
use crate::kernels::{dropout, gumbel};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Gumbel-Softmax (arXiv:1611.01144).
#[derive(Clone, Copy, Debug)]
pub struct GumbelSoftmax {
    /// Along which axis; a negative number counts from the end.
    pub axis: i64,
    /// What the noisy logits are divided by; above 0.
    pub temperature: f32,
    /// Gives 1 for the largest noisy logit and 0 for the others.
    pub hard: bool,
    /// Where the noise comes from.
    pub draw: Draw,
}

impl Recording {
    /// Random numbers of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shape overflows.
    pub fn random(
        &mut self,
        shape: &[usize],
        draw: Draw,
        distribution: Distribution,
    ) -> Result<Tensor> {
        let dtype = match distribution {
            Distribution::Words => DType::U32,
            _ => DType::F32,
        };
        let y = self.scratch(dtype, shape)?;
        let params = random::params(y.len(), draw, distribution);
        self.push(&random::KERNEL, params, vec![Some(y.clone())])?;
        Ok(y)
    }

    /// Each element with probability `p` 0, else divided by `1 - p`; and which were kept (u32, 1 or
    /// 0). Of the gradient of the result, with the same draw, it makes the gradient of x.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when p is not from 0 to 1.
    pub fn dropout(&mut self, x: &Tensor, p: f32, draw: Draw) -> Result<(Tensor, Tensor)> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::Invalid(format!(
                "dropout: p is {p}, expected 0 to 1"
            )));
        }
        let y = self.scratch(DType::F32, &x.shape)?;
        let mask = self.scratch(DType::U32, &x.shape)?;
        let params = dropout::params(x.len(), draw, p, true);
        let bindings = [x, &y, &mask].map(|t| Some(t.clone()));
        self.push(&dropout::KERNEL, params, bindings.into())?;
        Ok((y, mask))
    }

    /// `softmax((logits + g) / temperature)` with Gumbel noise `g = -ln(-ln u)`; u is drawn inside
    /// (0, 1), or given, of the shape of the logits, and then clamped to it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis, u has another shape, or the temperature is
    /// not above 0.
    pub fn gumbel_softmax(
        &mut self,
        logits: &Tensor,
        gumbel_softmax: &GumbelSoftmax,
        u: Option<&Tensor>,
    ) -> Result<Tensor> {
        let GumbelSoftmax {
            axis,
            temperature,
            hard,
            draw,
        } = *gumbel_softmax;
        if let Some(u) = u.filter(|u| u.shape != logits.shape) {
            return Err(Error::Invalid(format!(
                "gumbel_softmax: u has shape {:?}, expected {:?}",
                u.shape, logits.shape
            )));
        }
        let noisy = self.scratch(DType::F32, &logits.shape)?;
        let params = gumbel::params(logits.len(), draw, u.is_some());
        let bindings = vec![Some(logits.clone()), u.cloned(), Some(noisy.clone())];
        self.push(&gumbel::KERNEL, params, bindings)?;
        if hard {
            return self.hardmax(&noisy, axis);
        }
        let softmax = Softmax {
            axis,
            temperature,
            ..Softmax::default()
        };
        self.softmax(&noisy, &softmax)
    }
}
