//! Single kernels that model files call by name.

use crate::kernels::{add, differential_entropy, transpose};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

impl Recording {
    /// `a + b`, both of one shape.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes differ.
    pub fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.add_scaled(a, b, 1.0)
    }

    /// `a + alpha b`, both of one shape.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes differ.
    pub fn add_scaled(&mut self, a: &Tensor, b: &Tensor, alpha: f32) -> Result<Tensor> {
        if a.shape != b.shape {
            return Err(Error::Invalid(format!(
                "add: shapes {:?} and {:?} differ",
                a.shape, b.shape
            )));
        }
        let y = self.scratch(DType::F32, &a.shape)?;
        let bindings = [a, b, &y].map(|t| Some(t.clone()));
        self.push(&add::KERNEL, add::params(a.len(), alpha), bindings.into())?;
        Ok(y)
    }

    /// The last two axes of `x` exchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are none.
    pub fn transpose(&mut self, x: &Tensor) -> Result<Tensor> {
        let [lead @ .., rows, columns] = &x.shape[..] else {
            return Err(Error::Invalid(format!(
                "transpose: x has shape {:?}, expected two axes or more",
                x.shape
            )));
        };
        let shape = [lead, &[*columns, *rows]].concat();
        let y = self.scratch(DType::F32, &shape)?;
        let params = transpose::params(lead.iter().product(), *rows, *columns);
        self.push(
            &transpose::KERNEL,
            params,
            [x, &y].map(|t| Some(t.clone())).into(),
        )?;
        Ok(y)
    }

    /// Differential entropy of every row of `x` `(..., S)`, in nats: `(...)`. The variance divides
    /// by `S - correction`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are too few samples.
    pub fn differential_entropy(&mut self, x: &Tensor, correction: f32) -> Result<Tensor> {
        let samples = x.cols() as f32;
        if x.shape.is_empty() || samples - correction <= 0.0 {
            return Err(Error::Invalid(format!(
                "differential_entropy: x has shape {:?}, expected more than {correction} samples",
                x.shape
            )));
        }
        let y = self.scratch(DType::F32, &x.shape[..x.shape.len() - 1])?;
        let params = differential_entropy::params(x.rows(), x.cols(), correction);
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(&differential_entropy::KERNEL, params, bindings.into())?;
        Ok(y)
    }
}
