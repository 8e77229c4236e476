//! Feed-forward blocks.

use super::Linear;
use crate::kernels::{Activation, Params, gated_mlp};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weight};
use crate::{DType, Error, Result};

/// `down(act(gate x) * up x)` (arXiv:2002.05202), no biases.
pub struct GatedMlp {
    gate: Weight,
    up: Weight,
    /// `(C, F)`; row-parallel.
    pub down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Loads `{name}.ffn_gate`, `.ffn_up` `(F, C)` and `.ffn_down` `(C, F)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        hidden: usize,
        activation: Activation,
    ) -> Result<Self> {
        let gate = format!("{name}.ffn_gate.weight");
        let up = format!("{name}.ffn_up.weight");
        let both = loader.weights(&[&gate, &up], hidden, channels).await?;
        let Ok([gate, up]) = <[Weight; 2]>::try_from(both) else {
            return Err(Error::Invalid(format!("{name}: gate and up not loaded")));
        };
        let down = Linear::load(loader, &format!("{name}.ffn_down"), channels, hidden).await?;
        Ok(GatedMlp {
            gate,
            up,
            down,
            activation,
        })
    }
}

impl Recording {
    /// `act(gate x) * up x`: `(T, C)` to `(T, F)`; `down` is a linear layer of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn gated_mlp(&mut self, x: &Tensor, mlp: &GatedMlp) -> Result<Tensor> {
        let (gate, up) = (&mlp.gate, &mlp.up);
        let y = self.scratch(DType::F32, &[x.rows(), gate.rows])?;
        for (gate_slice, up_slice) in gate.slices.iter().zip(&up.slices) {
            let params = Params::new()
                .u32("K", gate.cols as u32)
                .dtype("GATE", gate.dtype)
                .dtype("UP", up.dtype)
                .u32("ACT", mlp.activation.number())
                .u32("T", x.rows() as u32)
                .u32("N", gate_slice.rows as u32)
                .u32("ROW0", gate_slice.first as u32)
                .u32("NY", gate.rows as u32);
            let bindings = [x, &gate_slice.tensor, &up_slice.tensor, &y].map(|t| Some(t.clone()));
            self.push(&gated_mlp::KERNEL, params, bindings.into())?;
        }
        Ok(y)
    }
}
