//! Layers from arrays in host memory, for models that are no language models.

use std::collections::BTreeMap;

use crate::device::{Device, Purpose};
use crate::ops::{Array, ElementType};
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Error, Result};

/// Named arrays, a file's tensors for one, and the device that layers put them onto.
pub struct Arrays<'a> {
    /// Where they go.
    pub device: &'a dyn Device,
    /// Where they come from, for errors.
    pub name: &'a str,
    /// The arrays.
    pub arrays: &'a BTreeMap<String, Array>,
}

impl Arrays<'_> {
    /// An array.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when there is none of this name.
    pub fn get(&self, name: &str) -> Result<&Array> {
        let array = self.arrays.get(name);
        array.ok_or_else(|| Error::format(self.name, format_args!("there is no tensor {name}")))
    }

    /// The lengths of an array's axes, `N` of them.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing, empty or has another number of axes.
    pub fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let shape = &self.get(name)?.shape;
        match <[usize; N]>::try_from(&shape[..]) {
            Ok(lens) if !lens.contains(&0) => Ok(lens),
            _ => Err(Error::format(
                self.name,
                format_args!("{name} has shape {shape:?}, expected {N} axes that are not empty"),
            )),
        }
    }

    fn expect(&self, name: &str, shape: &[usize]) -> Result<&Array> {
        let array = self.get(name)?;
        if array.shape != shape {
            return Err(Error::format(
                self.name,
                format_args!("{name} has shape {:?}, expected {shape:?}", array.shape),
            ));
        }
        Ok(array)
    }

    /// An array on the device as f32.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing or has another shape, [`Error::OutOfMemory`].
    pub async fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.expect(name, shape)?.to_f32();
        let bytes = bytemuck::cast_slice(&values);
        let buffer = self
            .device
            .alloc(bytes.len() as u64, Purpose::Weights, name)
            .await?;
        self.device.write(&buffer, 0, bytes)?;
        Ok(Tensor::of(buffer, DType::F32, shape))
    }

    /// The same, if there is one of this name.
    ///
    /// # Errors
    ///
    /// As [`Arrays::tensor`].
    pub async fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        match self.arrays.contains_key(name) {
            true => Ok(Some(self.tensor(name, shape).await?)),
            false => Ok(None),
        }
    }

    /// A matrix in its own element type and the device's layout; integers become f32.
    ///
    /// # Errors
    ///
    /// As [`Arrays::tensor`].
    pub async fn weight(&self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let array = self.expect(name, &[rows, cols])?;
        let float;
        let (array, dtype) = match array.dtype {
            ElementType::Weight(dtype) => (array, dtype),
            _ => {
                float = array.to_float(DType::F32);
                (&float, DType::F32)
            }
        };
        Weight::from_bytes(self.device, name, dtype, rows, cols, &array.bytes).await
    }
}
