//! Activation functions, gated units, and their gradients.

use crate::kernels::{
    Activation, Packing, activation, activation_backward, add, gated_activation,
    gated_activation_backward,
};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

impl Recording {
    /// `act(x)` of every element, with the usual alpha.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn activate(&mut self, x: &Tensor, act: Activation) -> Result<Tensor> {
        self.activation(x, act, act.alpha())
    }

    /// `act(x)` of every element; `alpha` is the parameter of silu, leaky_relu and elu, see
    /// [`Activation::alpha`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn activation(&mut self, x: &Tensor, act: Activation, alpha: f32) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &x.shape)?;
        let params = activation::params(x.len(), act, alpha);
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(&activation::KERNEL, params, bindings.into())?;
        Ok(y)
    }

    /// `cap tanh(x)` into `y`, which has the shape of `x`: with `x = s / cap` a soft cap (arXiv:2408.00118, section 2).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes differ.
    pub fn softcap_into(&mut self, x: &Tensor, cap: f32, y: &Tensor) -> Result<()> {
        if x.len() != y.len() {
            return Err(Error::Invalid(format!(
                "softcap: shapes {:?} and {:?} differ",
                x.shape, y.shape
            )));
        }
        let tanh = self.activate(x, Activation::Tanh)?;
        let params = add::params(x.len(), cap - 1.0);
        let bindings = [&tanh, &tanh, y].map(|t| Some(t.clone()));
        self.push(&add::KERNEL, params, bindings.into())
    }

    /// The gradient by `x` of [`Recording::activation`]: `dy act'(x)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes differ.
    pub fn activation_backward(
        &mut self,
        x: &Tensor,
        dy: &Tensor,
        act: Activation,
        alpha: f32,
    ) -> Result<Tensor> {
        if x.len() != dy.len() {
            return Err(Error::Invalid(format!(
                "activation_backward: dy {:?}, expected {:?}",
                dy.shape, x.shape
            )));
        }
        let dx = self.scratch(DType::F32, &x.shape)?;
        let params = activation_backward::params(x.len(), act, alpha);
        let bindings = [x, dy, &dx].map(|t| Some(t.clone()));
        self.push(&activation_backward::KERNEL, params, bindings.into())?;
        Ok(dx)
    }

    /// A gated unit (arXiv:2002.05202), `act(gate) * value`, both in rows of `x`: `(T, 2 M)` to
    /// `(T, M)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the rows have an odd number of elements.
    pub fn gated_activation(
        &mut self,
        x: &Tensor,
        act: Activation,
        packing: Packing,
    ) -> Result<Tensor> {
        let len = half(x)?;
        let y = self.scratch(DType::F32, &[x.rows(), len])?;
        let params = gated_activation::params(x.rows(), len, packing, act, act.alpha());
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(&gated_activation::KERNEL, params, bindings.into())?;
        Ok(y)
    }

    /// The gradient by `x` of [`Recording::gated_activation`], packed as `x` is.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn gated_activation_backward(
        &mut self,
        x: &Tensor,
        dy: &Tensor,
        act: Activation,
        packing: Packing,
    ) -> Result<Tensor> {
        let len = half(x)?;
        if dy.len() != x.rows() * len {
            return Err(Error::Invalid(format!(
                "gated_activation_backward: dy {:?}, expected ({}, {len})",
                dy.shape,
                x.rows()
            )));
        }
        let dx = self.scratch(DType::F32, &x.shape)?;
        let params = gated_activation_backward::params(x.rows(), len, packing, act, act.alpha());
        let bindings = [x, dy, &dx].map(|t| Some(t.clone()));
        self.push(&gated_activation_backward::KERNEL, params, bindings.into())?;
        Ok(dx)
    }
}

fn half(x: &Tensor) -> Result<usize> {
    match x.cols().is_multiple_of(2) {
        true => Ok(x.cols() / 2),
        false => Err(Error::Invalid(format!(
            "gated_activation: rows of {} elements are not gate and value",
            x.cols()
        ))),
    }
}
