//! Convolution and pooling over one to three spatial dimensions.

use super::Arrays;
use crate::kernels::{conv, max_pool};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

pub use crate::kernels::conv::Channels;
pub use crate::kernels::max_pool::Indices;
pub use crate::kernels::window::Window;

/// A convolution with zero padding, as PyTorch's `Conv1d`, `Conv2d` and `Conv3d`.
pub struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    channels: Channels,
    window: Window,
}

/// The last one to three axes of (N, C, ...) as depth, height, width.
fn spatial(shape: &[usize]) -> Option<[usize; 3]> {
    match *shape {
        [_, _, w] => Some([1, 1, w]),
        [_, _, h, w] => Some([1, h, w]),
        [_, _, d, h, w] => Some([d, h, w]),
        _ => None,
    }
}

/// The axes (N, C, ...) of an output, as many as the input has.
fn shape(images: usize, channels: usize, place: [usize; 3], rank: usize) -> Vec<usize> {
    let mut shape = vec![images, channels];
    shape.extend(&place[5 - rank..]);
    shape
}

/// Elements that a shader can number.
fn countable(name: &str, shape: &[usize]) -> Result<()> {
    let len = shape
        .iter()
        .try_fold(1u32, |a, b| a.checked_mul(u32::try_from(*b).ok()?));
    len.map(|_| ())
        .ok_or_else(|| Error::Invalid(format!("{name}: {shape:?} has over 4294967295 elements")))
}

impl Conv {
    /// A convolution of `groups` groups with this weight `(F, C / groups, ...)`, whose sizes become
    /// the window's, and bias `(F,)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn new(
        weight: Tensor,
        bias: Option<Tensor>,
        groups: usize,
        window: Window,
    ) -> Result<Self> {
        let Some(kernel) = spatial(&weight.shape) else {
            return Err(Error::Invalid(format!(
                "conv: weight has shape {:?}, expected 3 to 5 axes",
                weight.shape
            )));
        };
        let (output, inner) = (weight.shape[0], weight.shape[1]);
        if groups == 0 || !output.is_multiple_of(groups) {
            return Err(Error::Invalid(format!(
                "conv: {output} output channels are not {groups} groups"
            )));
        }
        if let Some(bias) = bias.as_ref().filter(|b| b.len() != output) {
            return Err(Error::Invalid(format!(
                "conv: bias has shape {:?}, expected ({output},)",
                bias.shape
            )));
        }
        Ok(Conv {
            weight,
            bias,
            channels: Channels {
                input: inner * groups,
                output,
                groups,
            },
            window: Window { kernel, ..window },
        })
    }

    /// A convolution over `N - 2` dimensions in one group, with weight `{name}.weight` of `N` axes
    /// and bias `{name}.bias`, if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Arrays::tensor`].
    pub async fn load<const N: usize>(
        arrays: &Arrays<'_>,
        name: &str,
        window: Window,
    ) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let shape = arrays.shape::<N>(&weight_name)?;
        let weight = arrays.tensor(&weight_name, &shape).await?;
        let bias = arrays
            .optional(&format!("{name}.bias"), &shape[..1])
            .await?;
        Conv::new(weight, bias, 1, window)
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.channels.output
    }

    /// The window, with the weight's sizes.
    pub fn window(&self) -> &Window {
        &self.window
    }
}

impl Recording {
    /// `x` `(N, C, ...)` to `(N, F, ...)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn conv(&mut self, x: &Tensor, conv: &Conv) -> Result<Tensor> {
        let (rank, channels) = (x.shape.len(), conv.channels);
        let input = spatial(&x.shape).filter(|_| rank == conv.weight.shape.len());
        let Some(input) = input.filter(|_| x.shape[1] == channels.input) else {
            return Err(Error::Invalid(format!(
                "conv: x has shape {:?}, expected {rank} axes and {} channels for a weight {:?} in {} groups",
                x.shape,
                channels.input,
                conv.weight.shape,
                channels.groups,
                rank = conv.weight.shape.len()
            )));
        };
        let output = windows("conv", &conv.window, input, false)?;
        let images = x.shape[0];
        let shape = shape(images, channels.output, output, rank);
        countable("conv: x", &x.shape)?;
        countable("conv: y", &shape)?;
        let y = self.scratch(DType::F32, &shape)?;
        let bias = conv.bias.is_some();
        let params = conv::params(images, channels, &conv.window, input, output, bias);
        let bindings = vec![
            Some(x.clone()),
            Some(conv.weight.clone()),
            conv.bias.clone(),
            Some(y.clone()),
        ];
        self.push(&conv::KERNEL, params, bindings)?;
        Ok(y)
    }

    /// Largest elements of the windows of `x` `(N, C, ...)`: `(N, C, ...)`, and where they are,
    /// if asked for. With `ceil` a last window may reach beyond the padded input.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the window does not fit.
    pub fn max_pool(
        &mut self,
        x: &Tensor,
        window: &Window,
        ceil: bool,
        indices: Indices,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let Some(input) = spatial(&x.shape) else {
            return Err(Error::Invalid(format!(
                "max_pool: x has shape {:?}, expected 3 to 5 axes",
                x.shape
            )));
        };
        let output = windows("max_pool", window, input, ceil)?;
        let shape = shape(x.shape[0], x.shape[1], output, x.shape.len());
        countable("max_pool: x", &x.shape)?;
        countable("max_pool: y", &shape)?;
        let y = self.scratch(DType::F32, &shape)?;
        let places = match indices {
            Indices::None => None,
            _ => Some(self.scratch(DType::U32, &shape)?),
        };
        let rows = x.shape[0] * x.shape[1];
        let params = max_pool::params(rows, window, input, output, indices);
        let bindings = vec![Some(x.clone()), Some(y.clone()), places.clone()];
        self.push(&max_pool::KERNEL, params, bindings)?;
        Ok((y, places))
    }
}

/// Windows in each dimension.
fn windows(name: &str, window: &Window, input: [usize; 3], ceil: bool) -> Result<[usize; 3]> {
    let output = window.output(input, ceil);
    output.ok_or_else(|| {
        Error::Invalid(format!(
            "{name}: an input of {input:?} (depth, height, width) holds no window of kernel {:?}, \
             stride {:?}, dilation {:?} and padding {:?} before, {:?} after",
            window.kernel, window.stride, window.dilation, window.begin, window.end
        ))
    })
}
