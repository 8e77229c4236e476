//! What reduces logits on the device, so that only a few bytes are read back.

use crate::kernels::{Axis, argmax, repeat_penalty, token_bitmask, top_k};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Result};

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

    /// The id (`ids` are of x's shape) of the largest element of `x` `(C,)` into `y` `(1,)`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn argmax_of(&mut self, x: &Tensor, ids: &Tensor, y: &Tensor) -> Result<()> {
        let params = argmax::params(Axis::last(1, x.len()), false, false);
        let params = params.bool("IDS", true);
        let bindings = [x, y, ids].map(|t| Some(t.clone()));
        self.push(&argmax::KERNEL, params, bindings.into())
    }

    /// The `k` largest elements of `x` `(C,)` in falling order, and their ids, of which the first is
    /// `first`: both `(k,)`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn top_k(&mut self, x: &Tensor, k: usize, first: usize) -> Result<(Tensor, Tensor)> {
        let k = k.min(top_k::MOST).min(x.len());
        let values = self.scratch(DType::F32, &[k])?;
        let ids = self.scratch(DType::U32, &[k])?;
        let params = top_k::params(Axis::last(1, x.len()), k, false).u32("FIRST", first as u32);
        let bindings = [x, &values, &ids].map(|t| Some(t.clone()));
        self.push(&top_k::KERNEL, params, bindings.into())?;
        Ok((values, ids))
    }

    /// Makes the tokens `ids` less likely: negative logits times `penalty`, others divided by it
    /// (arXiv:1909.05858). `logits` are those of the tokens from `first` on.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn repeat_penalty(
        &mut self,
        ids: &Tensor,
        logits: &Tensor,
        first: usize,
        penalty: f32,
    ) -> Result<()> {
        let params = repeat_penalty::params(ids.len(), logits.len(), penalty);
        let params = params.u32("FIRST", first as u32);
        let bindings = [ids, logits].map(|t| Some(t.clone()));
        self.push(&repeat_penalty::KERNEL, params, bindings.into())
    }

    /// Logits become -inf whose tokens have no bit in `mask` (token `t`: bit `t % 32` of word `t / 32`).
    /// `logits` are those of the tokens from `first` on.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when a binding does not fit.
    pub fn token_bitmask(&mut self, mask: &Tensor, logits: &Tensor, first: usize) -> Result<()> {
        let params = token_bitmask::params(logits.len()).u32("FIRST", first as u32);
        let bindings = [mask, logits].map(|t| Some(t.clone()));
        self.push(&token_bitmask::KERNEL, params, bindings.into())
    }
}
