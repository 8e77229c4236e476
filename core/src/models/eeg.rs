//! Small classifiers of emotions from EEG: a 1D convolution with an LSTM or GRU over channels of
//! samples, and stacked 2D convolutions over maps of differential entropy.
//!
//! Weights are arrays named as in a PyTorch `state_dict`; `tests/tools/eeg_classifiers.py` has the
//! same models in PyTorch. Dropout is the identity at inference and does not appear.

use crate::nn::{
    Activation, Arrays, Cell, Conv, Indices, Layout, Linear, Recurrent, Softmax, Window,
};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// `softmax(dense(last state of cell(max_pool(relu(conv(x))))))`.
pub struct RecurrentClassifier {
    conv: Conv,
    cell: Recurrent,
    dense: Linear,
}

/// The width and stride of the pooling.
const POOL: usize = 2;

impl RecurrentClassifier {
    /// Takes `conv.weight` `(F, C, K)` with odd K, `{cell}.weight_ih_l0` and its like, where the
    /// cell is `lstm` or `gru`, `dense.weight` `(classes, H)`, and biases.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when an array is missing or has another shape, [`Error::OutOfMemory`].
    pub async fn load(arrays: &Arrays<'_>) -> Result<Self> {
        let [_, _, taps] = arrays.shape("conv.weight")?;
        let same = Window::new([1; 3]).pad([0, 0, taps / 2]);
        let conv = Conv::load::<3>(arrays, "conv", same).await?;
        let (name, cell) = match arrays.arrays.contains_key("lstm.weight_hh_l0") {
            true => ("lstm", Cell::LSTM),
            false => ("gru", Cell::GRU),
        };
        let cell = Recurrent::load(arrays, name, cell).await?;
        if cell.layers.len() != 1 || cell.directions() != 1 {
            let wanted = format_args!("{name}: expected one layer in one direction");
            return Err(Error::format(arrays.name, wanted));
        }
        let dense = Linear::from_arrays(arrays, "dense").await?;
        Ok(RecurrentClassifier { conv, cell, dense })
    }

    /// Probabilities of the classes `(N, classes)` for signals `(N, C, samples)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn forward(&self, r: &mut Recording, signals: &Tensor) -> Result<Tensor> {
        let h = r.conv(signals, &self.conv)?;
        let h = r.activate(&h, Activation::Relu)?;
        let pool = Window::new([1, 1, POOL]).stride([1, 1, POOL]);
        let (h, _) = r.max_pool(&h, &pool, false, Indices::None)?;
        let h = r.transpose(&h)?;
        let entries = h.shape[0];
        let states = r.states(&self.cell, entries)?;
        r.recurrent(&h, &self.cell, Layout::BatchFirst, None, &states)?;
        let last = Tensor::new(
            states.h.storage,
            states.h.dtype,
            &[entries, self.cell.hidden],
        );
        let logits = r.linear(&last, &self.dense)?;
        r.softmax(&logits, &Softmax::default())
    }
}

/// `softmax(dense(relu(hidden(flatten(max_pool(convs(x)))))))`, each convolution with a relu.
pub struct ConvClassifier {
    convs: Vec<Conv>,
    hidden: Linear,
    dense: Linear,
}

impl ConvClassifier {
    /// Takes `conv1.weight` `(F, B, KH, KW)`, `conv2.weight` and so on with odd kernels,
    /// `hidden.weight`, `dense.weight` `(classes, ...)`, and biases.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when an array is missing or has another shape, [`Error::OutOfMemory`].
    pub async fn load(arrays: &Arrays<'_>) -> Result<Self> {
        let mut convs = Vec::new();
        loop {
            let name = format!("conv{}", convs.len() + 1);
            let weight = format!("{name}.weight");
            if !convs.is_empty() && !arrays.arrays.contains_key(&weight) {
                break;
            }
            let [_, _, height, width] = arrays.shape(&weight)?;
            let same = Window::new([1; 3]).pad([0, height / 2, width / 2]);
            convs.push(Conv::load::<4>(arrays, &name, same).await?);
        }
        Ok(ConvClassifier {
            convs,
            hidden: Linear::from_arrays(arrays, "hidden").await?,
            dense: Linear::from_arrays(arrays, "dense").await?,
        })
    }

    /// Probabilities of the classes `(N, classes)` for maps of differential entropy
    /// `(N, B, height, width)`: one map for each of B frequency bands.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn forward(&self, r: &mut Recording, maps: &Tensor) -> Result<Tensor> {
        let mut h = maps.clone();
        for conv in &self.convs {
            h = r.conv(&h, conv)?;
            h = r.activate(&h, Activation::Relu)?;
        }
        let pool = Window::new([1, POOL, POOL]).stride([1, POOL, POOL]);
        let (h, _) = r.max_pool(&h, &pool, false, Indices::None)?;
        let entries = h.shape[0];
        let flat = Tensor::new(h.storage.clone(), h.dtype, &[entries, h.len() / entries]);
        let h = r.linear(&flat, &self.hidden)?;
        let h = r.activate(&h, Activation::Relu)?;
        let logits = r.linear(&h, &self.dense)?;
        r.softmax(&logits, &Softmax::default())
    }

    /// The same for band-filtered signals `(N, B, height, width, samples)`: their differential
    /// entropy is the map.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn forward_signals(&self, r: &mut Recording, signals: &Tensor) -> Result<Tensor> {
        let maps = r.differential_entropy(signals, 0.0)?;
        self.forward(r, &maps)
    }
}
