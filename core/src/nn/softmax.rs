//! Softmax and its relatives, along any axis.

use crate::kernels::{Axis, argmax, logit, one_hot, softmax, top_k};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// How [`Recording::softmax`] is taken.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// Along which axis; a negative number counts from the end.
    pub axis: i64,
    /// What the logits are divided by; above 0.
    pub temperature: f32,
    /// Gives logarithms.
    pub log: bool,
    /// u32, not 0 where an element is masked: it gives 0, or -inf with `log`. Its shape is that of
    /// the last axes of x.
    pub mask: Option<Tensor>,
}

impl Default for Softmax {
    /// Along the last axis, at temperature 1, without mask.
    fn default() -> Self {
        Softmax {
            axis: -1,
            temperature: 1.0,
            log: false,
            mask: None,
        }
    }
}

impl Recording {
    /// `exp(z) / sum(exp(z))` along an axis, `z = x / temperature`, or its logarithm. A row whose
    /// every element is masked gives zeros (with the logarithm -inf).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis, the mask does not fit, or the temperature is
    /// not above 0.
    pub fn softmax(&mut self, x: &Tensor, softmax: &Softmax) -> Result<Tensor> {
        let axis = Axis::of(&x.shape, softmax.axis)?;
        if softmax.temperature.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return Err(Error::Invalid(format!(
                "softmax: temperature is {}, expected a number above 0",
                softmax.temperature
            )));
        }
        let mut params = softmax::params(axis, softmax.temperature, softmax.log);
        if let Some(mask) = &softmax.mask {
            if mask.is_empty() || !x.shape.ends_with(&mask.shape) {
                return Err(Error::Invalid(format!(
                    "softmax: mask has shape {:?}, expected the last axes of {:?}",
                    mask.shape, x.shape
                )));
            }
            params = softmax::masked(params, mask.len());
        }
        let y = self.scratch(DType::F32, &x.shape)?;
        let bindings = vec![Some(x.clone()), softmax.mask.clone(), Some(y.clone())];
        self.push(&softmax::KERNEL, params, bindings)?;
        Ok(y)
    }

    /// `ln(p / (1 - p))` of every element; with `eps` above 0, p is held to `eps .. 1 - eps` first.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shape overflows.
    pub fn logit(&mut self, p: &Tensor, eps: f32) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &p.shape)?;
        let bindings = vec![Some(p.clone()), Some(y.clone())];
        self.push(&logit::KERNEL, logit::params(p.len(), eps), bindings)?;
        Ok(y)
    }

    /// Index of the largest (`smallest`: smallest) element along an axis, u32, of the shape of x
    /// with length 1 there; of equal ones the first (`last`: last). `u32::MAX` for a row with a NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis.
    pub fn argmax_along(
        &mut self,
        x: &Tensor,
        axis: i64,
        smallest: bool,
        last: bool,
    ) -> Result<Tensor> {
        let along = Axis::of(&x.shape, axis)?;
        let y = self.scratch(DType::U32, &with_length(x, axis, 1)?)?;
        let params = argmax::params(along, smallest, last);
        self.push(
            &argmax::KERNEL,
            params,
            vec![Some(x.clone()), Some(y.clone()), None],
        )?;
        Ok(y)
    }

    /// The `top` largest elements along an axis in falling order, or the smallest in rising order,
    /// and their indices (u32); of equal ones the smaller index comes first.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis, or it has fewer elements.
    pub fn top_k_along(
        &mut self,
        x: &Tensor,
        axis: i64,
        top: usize,
        smallest: bool,
    ) -> Result<(Tensor, Tensor)> {
        let along = Axis::of(&x.shape, axis)?;
        if top == 0 || top > along.len {
            return Err(Error::Invalid(format!(
                "top_k: {top} of {} elements; use 1 to {}",
                along.len, along.len
            )));
        }
        let shape = with_length(x, axis, top)?;
        let values = self.scratch(DType::F32, &shape)?;
        let ids = self.scratch(DType::U32, &shape)?;
        let params = top_k::params(along, top, smallest);
        let bindings = [x, &values, &ids].map(|t| Some(t.clone()));
        self.push(&top_k::KERNEL, params, bindings.into())?;
        Ok((values, ids))
    }

    /// A new axis of length `depth` before axis `axis` of `ids` (u32): `on` where the index is the
    /// id, else `off`. Ids from -depth to -1, as u32, count from the end.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis in the result.
    pub fn one_hot(
        &mut self,
        ids: &Tensor,
        depth: usize,
        axis: i64,
        [off, on]: [f32; 2],
    ) -> Result<Tensor> {
        let mut shape = ids.shape.clone();
        let rank = shape.len() as i64 + 1;
        let place = if axis < 0 { axis + rank } else { axis };
        if !(0..rank).contains(&place) {
            return Err(Error::Invalid(format!(
                "one_hot: axis {axis} is not one of a result of {rank} axes"
            )));
        }
        shape.insert(place as usize, depth);
        let along = Axis::of(&shape, place)?;
        let y = self.scratch(DType::F32, &shape)?;
        let params = one_hot::params(along, on, off);
        self.push(
            &one_hot::KERNEL,
            params,
            vec![Some(ids.clone()), Some(y.clone())],
        )?;
        Ok(y)
    }

    /// 1 for the first largest element along an axis, 0 for the others; all 0 for a row with a NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis.
    pub fn hardmax(&mut self, x: &Tensor, axis: i64) -> Result<Tensor> {
        let along = Axis::of(&x.shape, axis)?;
        let ids = self.argmax_along(x, axis, false, false)?;
        let y = self.scratch(DType::F32, &x.shape)?;
        let params = one_hot::params(along, 1.0, 0.0);
        self.push(&one_hot::KERNEL, params, vec![Some(ids), Some(y.clone())])?;
        Ok(y)
    }
}

/// The shape of x with another length along an axis.
fn with_length(x: &Tensor, axis: i64, len: usize) -> Result<Vec<usize>> {
    let mut shape = x.shape.clone();
    let place = crate::kernels::axis::resolve(&shape, axis)?;
    shape[place] = len;
    Ok(shape)
}
