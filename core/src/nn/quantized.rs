//! Linear layers of integer weights.

use super::linear::MATVEC_TOKENS;
use crate::device::{Device, Purpose};
use crate::kernels::{
    Size, quantize_activations, quantized_dot, quantized_matmul, quantized_matvec,
};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::fastllm::{CHUNK, IntWeight};
use crate::{DType, Error, Result};

/// How a layer of an integer weight takes its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// As they are.
    F32,
    /// As signed bytes, each 32 of them with a scale; products are integers (DP4A where the device
    /// has it).
    Int8,
}

/// `y = x W^T (+ b)` with elements `min + scale q` of W, 8 or 4 bits each.
pub struct QuantizedLinear {
    bits: usize,
    rows: usize,
    cols: usize,
    group: usize,
    slices: Vec<Slice>,
    bias: Option<Tensor>,
}

/// Some rows, within the device's largest binding.
struct Slice {
    first: usize,
    rows: usize,
    quants: Tensor,
    sides: Tensor,
}

impl QuantizedLinear {
    /// Puts a weight onto a device; `bias` is `(rows,)`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Invalid`] when the bias does not fit, [`Error::Device`]
    /// when a row is larger than the largest binding.
    pub async fn new(
        device: &dyn Device,
        weight: &IntWeight,
        bias: Option<Tensor>,
    ) -> Result<Self> {
        if let Some(bias) = bias.as_ref().filter(|b| b.len() != weight.rows) {
            return Err(Error::Invalid(format!(
                "quantized_linear: bias has shape {:?}, expected ({},)",
                bias.shape, weight.rows
            )));
        }
        let width = weight.row_bytes().max(8 * weight.groups());
        let largest = device.limits().max_binding_bytes;
        let most = usize::try_from(largest / width as u64)
            .unwrap_or(usize::MAX)
            .min(weight.rows);
        if most == 0 {
            return Err(Error::Device {
                device: device.info().name.clone(),
                reason: format!("a row has {width} bytes, the largest binding {largest}"),
            });
        }
        let mut slices = Vec::new();
        for first in (0..weight.rows).step_by(most) {
            let rows = most.min(weight.rows - first);
            let quants = &weight.quants[first * weight.row_bytes()..][..rows * weight.row_bytes()];
            let sides = &weight.sides[first * weight.groups()..][..rows * weight.groups()];
            let (words, pairs) = (weight.row_bytes() / 4, [rows, weight.groups(), 2]);
            slices.push(Slice {
                first,
                rows,
                quants: upload(device, DType::U32, &[rows, words], quants).await?,
                sides: upload(device, DType::F32, &pairs, bytemuck::cast_slice(sides)).await?,
            });
        }
        Ok(QuantizedLinear {
            bits: weight.bits,
            rows: weight.rows,
            cols: weight.cols,
            group: weight.group,
            slices,
            bias,
        })
    }
}

async fn upload(
    device: &dyn Device,
    dtype: DType,
    shape: &[usize],
    bytes: &[u8],
) -> Result<Tensor> {
    let padded = bytes.len().next_multiple_of(16) as u64;
    let buffer = device
        .alloc(padded, Purpose::Weights, "quantized weight")
        .await?;
    device.write(&buffer, 0, bytes)?;
    Ok(Tensor::of(buffer, dtype, shape))
}

impl Recording {
    /// `x` `(..., K)` to `(..., N)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn quantized_linear(
        &mut self,
        x: &Tensor,
        linear: &QuantizedLinear,
        activations: Activations,
    ) -> Result<Tensor> {
        if x.shape.is_empty() || x.cols() != linear.cols {
            return Err(Error::Invalid(format!(
                "quantized_linear: x has shape {:?}, expected rows of {}",
                x.shape, linear.cols
            )));
        }
        let tokens = x.rows();
        let mut shape = x.shape.clone();
        shape[x.shape.len() - 1] = linear.rows;
        let y = self.scratch(DType::F32, &shape)?;
        let (kernel, inputs) = match activations {
            Activations::Int8 => (
                &quantized_dot::KERNEL,
                self.quantize_activations(x)?.to_vec(),
            ),
            Activations::F32 if tokens <= MATVEC_TOKENS => {
                (&quantized_matvec::KERNEL, vec![x.clone()])
            }
            Activations::F32 => (&quantized_matmul::KERNEL, vec![x.clone()]),
        };
        for slice in &linear.slices {
            let end = slice.first + slice.rows;
            let size = Size::slice(tokens, slice.first..end, linear.rows, linear.cols);
            let bias = linear.bias.is_some();
            let params = quantized_matvec::params(size, linear.bits, linear.group, bias);
            let mut bindings: Vec<_> = inputs.iter().cloned().map(Some).collect();
            bindings.extend([
                Some(slice.quants.clone()),
                Some(slice.sides.clone()),
                linear.bias.clone(),
                Some(y.clone()),
            ]);
            self.push(kernel, params, bindings)?;
        }
        Ok(y)
    }

    /// Signed bytes of `x` `(..., K)`, four a word, and scale and scaled sum of each 32 of them.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn quantize_activations(&mut self, x: &Tensor) -> Result<[Tensor; 2]> {
        let (rows, chunks) = (x.rows(), x.cols().div_ceil(CHUNK));
        let q = self.scratch(DType::U32, &[rows, chunks, CHUNK / 4])?;
        let sides = self.scratch(DType::F32, &[rows, chunks, 2])?;
        let params = quantize_activations::params(rows, x.cols());
        let bindings = [x, &q, &sides].map(|t| Some(t.clone()));
        self.push(&quantize_activations::KERNEL, params, bindings.into())?;
        Ok([q, sides])
    }
}
