//! What reduces logits on the device, so that only a few bytes are read back.

use crate::Result;
use crate::kernels::{Axis, argmax, repeat_penalty, top_k};
use crate::recording::Recording;
use crate::tensor::Tensor;

impl Recording {
    /// Index of the largest of each row of `x` `(T, C)` into `y` `(T,)`; `u32::MAX` for a row with
    /// a NaN.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn argmax(&mut self, x: &Tensor, y: &Tensor) -> Result<()> {
        let params = argmax::params(Axis::last(x.rows(), x.cols()), false, false);
        let bindings = vec![Some(x.clone()), Some(y.clone()), None];
        self.push(&argmax::KERNEL, params, bindings)
    }

    /// The largest elements of `x` `(C,)` in falling order, as many as `values` and `ids` hold.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn top_k(&mut self, x: &Tensor, values: &Tensor, ids: &Tensor) -> Result<()> {
        let top = ids.len().min(top_k::MOST);
        let params = top_k::params(Axis::last(1, x.len()), top, false);
        let bindings = [x, values, ids].map(|t| Some(t.clone()));
        self.push(&top_k::KERNEL, params, bindings.into())
    }

    /// Makes the tokens `ids` less likely: negative logits times `penalty`, others divided by it
    /// (arXiv:1909.05858).
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn repeat_penalty(&mut self, ids: &Tensor, logits: &Tensor, penalty: f32) -> Result<()> {
        let params = repeat_penalty::params(ids.len(), logits.len(), penalty);
        let bindings = [ids, logits].map(|t| Some(t.clone()));
        self.push(&repeat_penalty::KERNEL, params, bindings.into())
    }
}
