//! Feed-forward blocks.

use std::ops::Range;

use super::Linear;
use crate::kernels::gated_mlp::{self, First};
use crate::kernels::{Activation, Packing, Size};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Part, Slice, Weight};
use crate::{DType, Error, Result};

/// Hidden size of an [`Mlp`]: `4 inputs` unless it is given (flash-attn, `modules/mlp.py`).
///
/// ```
/// assert_eq!(shardlight::nn::mlp_hidden(768, None), 3072);
/// assert_eq!(shardlight::nn::mlp_hidden(768, Some(70)), 70);
/// ```
pub fn mlp_hidden(inputs: usize, hidden: Option<usize>) -> usize {
    hidden.unwrap_or(4 * inputs)
}

/// Hidden size of a [`GatedMlp`]: `int(8 inputs / 3)` unless it is given, then rounded up to a
/// multiple of `multiple_of`, also when it is given (flash-attn, `modules/mlp.py`, where it is
/// 128).
///
/// ```
/// use shardlight::nn::gated_mlp_hidden;
/// assert_eq!(gated_mlp_hidden(4096, None, 128), 11008);
/// assert_eq!(gated_mlp_hidden(48, Some(130), 128), 256);
/// ```
pub fn gated_mlp_hidden(inputs: usize, hidden: Option<usize>, multiple_of: usize) -> usize {
    (hidden.unwrap_or(8 * inputs / 3)).next_multiple_of(multiple_of.max(1))
}

/// Hidden size of a [`Llama3FeedForward`]: two thirds of `hidden`, times `multiplier`, each cut to
/// a whole number, then rounded up to a multiple of `multiple_of` (Meta, `llama/model.py`, where
/// `hidden` is 4 times the width).
///
/// ```
/// use shardlight::nn::llama3_hidden;
/// assert_eq!(llama3_hidden(4 * 4096, None, 256), 11008); // Llama 7B
/// assert_eq!(llama3_hidden(4 * 4096, Some(1.3), 1024), 14336); // Llama 3 8B
/// assert_eq!(llama3_hidden(4 * 8192, Some(1.3), 4096), 28672); // Llama 3 70B
/// ```
pub fn llama3_hidden(hidden: usize, multiplier: Option<f64>, multiple_of: usize) -> usize {
    let hidden = 2 * hidden / 3;
    let hidden = multiplier.map_or(hidden, |m| (m * hidden as f64) as usize);
    hidden.next_multiple_of(multiple_of.max(1))
}

/// `fc2(act(fc1(x)))` (flash-attn, `modules/mlp.py`).
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
    /// Hidden channels that this rank holds.
    held: Range<usize>,
}

impl Mlp {
    /// A block of these layers, `(F, C)` and `(O, F)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the second does not take what the first gives.
    pub fn new(fc1: Linear, fc2: Linear, activation: Activation) -> Result<Self> {
        if fc1.outputs() != fc2.inputs() {
            return Err(Error::Invalid(format!(
                "mlp: fc1 gives {} channels, fc2 takes {}",
                fc1.outputs(),
                fc2.inputs()
            )));
        }
        Ok(Mlp {
            held: 0..fc1.outputs(),
            fc1,
            fc2,
            activation,
        })
    }

    /// Hidden channels that this rank holds.
    pub fn held(&self) -> &Range<usize> {
        &self.held
    }

    /// `fc2`; row-parallel.
    pub fn down(&self) -> &Linear {
        &self.fc2
    }

    /// Loads this rank's part of `{name}.fc1` `(hidden, channels)` and `{name}.fc2` `(outputs, hidden)`, with the
    /// biases that there are.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        sizes: [usize; 3],
        activation: Activation,
    ) -> Result<Self> {
        let names = ["fc1", "fc2"].map(|part| format!("{name}.{part}"));
        Mlp::load_named(loader, &names, sizes, activation).await
    }

    /// The same of layers of these names.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load_named(
        loader: &mut Loader<'_>,
        [fc1, fc2]: &[String; 2],
        [channels, hidden, outputs]: [usize; 3],
        activation: Activation,
    ) -> Result<Self> {
        let held = hidden_part(loader, fc2, hidden)?;
        let fc1 = Linear::load_column(loader, fc1, hidden, channels, held.clone()).await?;
        let fc2 = Linear::load_row(loader, fc2, outputs, hidden, held.clone()).await?;
        let mlp = Mlp::new(fc1, fc2, activation)?;
        Ok(Mlp { held, ..mlp })
    }
}

/// This rank's hidden channels, in whole blocks of the layer that takes them.
fn hidden_part(loader: &Loader<'_>, down: &str, hidden: usize) -> Result<Range<usize>> {
    let block = loader.block(&format!("{down}.weight"))?;
    loader.placement().hidden(down, hidden, block)
}

/// Rows of a weight, and of its bias.
struct Rows {
    weight: Weight,
    bias: Option<Tensor>,
    first: usize,
}

/// `down(act(gate x) * up x)` (arXiv:2002.05202).
pub struct GatedMlp {
    gate: Rows,
    up: Rows,
    hidden: usize,
    /// Hidden channels that this rank holds.
    held: Range<usize>,
    /// `(O, F)`; row-parallel.
    pub down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Loads this rank's part of `{name}.ffn_gate`, `.ffn_up` `(F, C)` and `.ffn_down` `(C, F)`, without
    /// biases.
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
        let names = ["ffn_gate", "ffn_up", "ffn_down"].map(|part| format!("{name}.{part}"));
        GatedMlp::load_named(loader, &names, channels, hidden, activation).await
    }

    /// The same of layers of these names: gate, up, down.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load_named(
        loader: &mut Loader<'_>,
        [gate, up, down]: &[String; 3],
        channels: usize,
        hidden: usize,
        activation: Activation,
    ) -> Result<Self> {
        let (gate, up) = (format!("{gate}.weight"), format!("{up}.weight"));
        let matrices = [(gate.as_str(), hidden, 0), (up.as_str(), hidden, 0)];
        GatedMlp::load_rows(loader, matrices, down, channels, hidden, activation).await
    }

    /// The same where gate and up are halves of one layer `(2 F, C)`, the first of the two names, in the order that
    /// `packing` names.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load_packed(
        loader: &mut Loader<'_>,
        [both, down]: &[String; 2],
        channels: usize,
        hidden: usize,
        packing: Packing,
        activation: Activation,
    ) -> Result<Self> {
        let both = format!("{both}.weight");
        let (gate, up, _) = packing.places(hidden);
        let matrices = [gate, up].map(|first| (both.as_str(), 2 * hidden, first));
        GatedMlp::load_rows(loader, matrices, down, channels, hidden, activation).await
    }

    async fn load_rows(
        loader: &mut Loader<'_>,
        matrices: [(&str, usize, usize); 2],
        down: &str,
        channels: usize,
        hidden: usize,
        activation: Activation,
    ) -> Result<Self> {
        // The same slice of gate and up, and so of what goes between them.
        let part = Part {
            rows: hidden_part(loader, down, hidden)?,
            cols: 0..channels,
        };
        let both = loader.parts(&matrices, hidden, channels, &part).await?;
        let Ok([gate, up]) = <[Weight; 2]>::try_from(both) else {
            return Err(Error::Invalid(format!("{}: not loaded", matrices[0].0)));
        };
        let held = part.rows;
        let down = Linear::load_row(loader, down, channels, hidden, held.clone()).await?;
        let mlp = GatedMlp::new(Linear::new(gate), Linear::new(up), down, activation)?;
        Ok(GatedMlp { held, ..mlp })
    }

    /// Hidden channels that this rank holds.
    pub fn held(&self) -> &Range<usize> {
        &self.held
    }

    /// A block of these layers: gate and up `(F, C)`, both with a bias or both without; down
    /// `(O, F)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn new(gate: Linear, up: Linear, down: Linear, activation: Activation) -> Result<Self> {
        let hidden = gate.outputs();
        if (up.outputs(), up.inputs()) != (hidden, gate.inputs()) {
            return Err(Error::Invalid(format!(
                "gated_mlp: gate ({hidden}, {}) and up ({}, {}) differ",
                gate.inputs(),
                up.outputs(),
                up.inputs()
            )));
        }
        let rows = |linear: Linear| Rows {
            weight: linear.weight,
            bias: linear.bias,
            first: 0,
        };
        GatedMlp::of(rows(gate), rows(up), hidden, down, activation)
    }

    /// A block whose gate and up are halves of one layer `(2 F, C)`, in the order that `packing`
    /// names (flash-attn, `modules/mlp.py`, has [`Packing::ValueGate`]).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit, and for [`Packing::Cross`].
    pub fn packed(
        fc1: Linear,
        fc2: Linear,
        packing: Packing,
        activation: Activation,
    ) -> Result<Self> {
        let (hidden, odd) = (fc1.outputs() / 2, fc1.outputs() % 2);
        let (gate, up, step) = packing.places(hidden);
        if odd != 0 || step != 1 {
            return Err(Error::Invalid(format!(
                "gated_mlp: {} rows packed as {} are not two halves",
                fc1.outputs(),
                packing.name()
            )));
        }
        let rows = |first| Rows {
            weight: fc1.weight.clone(),
            bias: fc1.bias.clone(),
            first,
        };
        GatedMlp::of(rows(gate), rows(up), hidden, fc2, activation)
    }

    fn of(
        gate: Rows,
        up: Rows,
        hidden: usize,
        down: Linear,
        activation: Activation,
    ) -> Result<Self> {
        if down.inputs() != hidden || gate.bias.is_some() != up.bias.is_some() {
            return Err(Error::Invalid(format!(
                "gated_mlp: gate and up of {hidden} rows (biases: {}, {}) before down of {} columns",
                gate.bias.is_some(),
                up.bias.is_some(),
                down.inputs()
            )));
        }
        Ok(GatedMlp {
            gate,
            up,
            hidden,
            held: 0..hidden,
            down,
            activation,
        })
    }
}

/// `w2(silu(w1 x) * w3 x)`, no biases (Meta, `llama/model.py`); [`llama3_hidden`] is its hidden
/// size.
pub struct Llama3FeedForward(GatedMlp);

impl Llama3FeedForward {
    /// A block of these weights: w1, w3 `(F, C)`, w2 `(C, F)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn new(w1: Weight, w2: Weight, w3: Weight) -> Result<Self> {
        let [gate, down, up] = [w1, w2, w3].map(Linear::new);
        GatedMlp::new(gate, up, down, Activation::Silu).map(Llama3FeedForward)
    }

    /// Loads this rank's part of `{name}.w1`, `.w3` `(hidden, channels)` and `.w2` `(channels, hidden)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        hidden: usize,
    ) -> Result<Self> {
        let [w1, w2, w3] = ["w1", "w2", "w3"].map(|w| format!("{name}.{w}"));
        let held = hidden_part(loader, &w2, hidden)?;
        let w1 = Linear::load_column(loader, &w1, hidden, channels, held.clone()).await?;
        let w3 = Linear::load_column(loader, &w3, hidden, channels, held.clone()).await?;
        let w2 = Linear::load_row(loader, &w2, channels, hidden, held).await?;
        GatedMlp::new(w1, w3, w2, Activation::Silu).map(Llama3FeedForward)
    }
}

impl Recording {
    /// `fc2(act(fc1(x)))`: `(T, C)` to `(T, O)`. flash-attn's `return_residual` is `x` itself.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn mlp(&mut self, x: &Tensor, mlp: &Mlp) -> Result<Tensor> {
        let h = self.mlp_inner(x, mlp)?;
        self.linear(&h, &mlp.fc2)
    }

    /// `fc2(act(fc1(x))) + residual`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn mlp_residual(&mut self, x: &Tensor, mlp: &Mlp, residual: &Tensor) -> Result<Tensor> {
        let h = self.mlp_inner(x, mlp)?;
        self.linear_residual(&h, &mlp.fc2, residual)
    }

    /// `act(fc1(x))`: `(T, C)` to `(T, F)`; [`Mlp::down`] comes next.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn mlp_inner(&mut self, x: &Tensor, mlp: &Mlp) -> Result<Tensor> {
        let z = self.linear(x, &mlp.fc1)?;
        self.activate(&z, mlp.activation)
    }

    /// `down(act(gate x) * up x)`: `(T, C)` to `(T, O)`. flash-attn's `return_residual` is `x`
    /// itself.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn gated_mlp(&mut self, x: &Tensor, mlp: &GatedMlp) -> Result<Tensor> {
        let h = self.gated_hidden(x, mlp)?;
        self.linear(&h, &mlp.down)
    }

    /// `act(gate x) * up x`: `(T, C)` to `(T, F)`; [`GatedMlp::down`] comes next.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn gated_hidden(&mut self, x: &Tensor, mlp: &GatedMlp) -> Result<Tensor> {
        let (gate, up) = (&mlp.gate, &mlp.up);
        if x.cols() != gate.weight.cols {
            return Err(Error::Invalid(format!(
                "gated_mlp: x {:?} has not {} channels",
                x.shape, gate.weight.cols
            )));
        }
        let y = self.scratch(DType::F32, &[x.rows(), mlp.hidden])?;
        // As many rows at a time as lie in one slice of either weight.
        let mut n = 0;
        while n < mlp.hidden {
            let (gate_slice, gate_first) = gate.slice(n)?;
            let (up_slice, up_first) = up.slice(n)?;
            let rows = (mlp.hidden - n)
                .min(gate_slice.rows - gate_first)
                .min(up_slice.rows - up_first);
            let first = First {
                gate: gate_first,
                up: up_first,
                bias: (gate.bias.is_some()).then_some((gate.first + n, up.first + n)),
            };
            let size = Size::slice(x.rows(), n..n + rows, mlp.hidden, x.cols());
            let dtypes = [gate_slice.tensor.dtype, up_slice.tensor.dtype];
            let params = gated_mlp::params(size, first, dtypes[0], dtypes[1], mlp.activation);
            let bindings = vec![
                Some(x.clone()),
                Some(gate_slice.tensor.clone()),
                Some(up_slice.tensor.clone()),
                gate.bias.clone(),
                up.bias.clone(),
                Some(y.clone()),
                None,
                None,
            ];
            self.push(&gated_mlp::KERNEL, params, bindings)?;
            n += rows;
        }
        Ok(y)
    }

    /// `w2(silu(w1 x) * w3 x)`: `(T, C)` to `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn llama3_feed_forward(&mut self, x: &Tensor, ffn: &Llama3FeedForward) -> Result<Tensor> {
        self.gated_mlp(x, &ffn.0)
    }
}

impl Rows {
    /// The slice of the weight that holds row `n` of these, and the row's place in it.
    fn slice(&self, n: usize) -> Result<(&Slice, usize)> {
        let row = self.first + n;
        let holds = |s: &&Slice| s.first <= row && row < s.first + s.rows;
        let slice = self.weight.slices.iter().find(holds);
        let slice = slice.ok_or_else(|| {
            Error::Invalid(format!(
                "gated_mlp: no slice has row {row} of {}",
                self.weight.rows
            ))
        })?;
        Ok((slice, row - slice.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Buffer;

    /// A weight in slices of `most` rows.
    fn weight(rows: usize, cols: usize, most: usize) -> Weight {
        let slices = (0..rows).step_by(most).map(|first| {
            let rows = most.min(rows - first);
            let tensor = Tensor::of(Buffer::new((), 0), DType::F32, &[rows, cols]);
            Slice {
                first,
                rows,
                tensor,
            }
        });
        Weight {
            rows,
            cols,
            slices: slices.collect(),
        }
    }

    /// (ROW0, N, GATE0, UP0) of each dispatch.
    fn dispatches(mlp: &GatedMlp) -> Vec<[u32; 4]> {
        let mut r = Recording::new();
        let x = r.scratch(DType::F32, &[3, 8]).unwrap();
        r.gated_hidden(&x, mlp).unwrap();
        let params = r.dispatches().map(|d| &d.params);
        params
            .map(|p| ["ROW0", "N", "GATE0", "UP0"].map(|name| p.get(name)))
            .collect()
    }

    fn packed(most: usize, packing: Packing) -> GatedMlp {
        let fc1 = Linear::new(weight(20, 8, most));
        let fc2 = Linear::new(weight(8, 10, 8));
        GatedMlp::packed(fc1, fc2, packing, Activation::Silu).unwrap()
    }

    #[test]
    fn a_packed_block_is_one_dispatch() {
        let (value, gate) = (Packing::ValueGate, Packing::GateValue);
        assert_eq!(dispatches(&packed(20, value)), [[0, 10, 10, 0]]);
        assert_eq!(dispatches(&packed(20, gate)), [[0, 10, 0, 10]]);
    }

    #[test]
    fn slices_of_a_packed_weight_meet_their_partners() {
        assert_eq!(
            dispatches(&packed(7, Packing::GateValue)),
            [[0, 4, 0, 3], [4, 3, 4, 0], [7, 3, 0, 3]]
        );
    }

    #[test]
    fn what_cannot_be_a_block_is_refused() {
        let linear = |rows, cols| Linear::new(weight(rows, cols, rows));
        let silu = Activation::Silu;
        let cross = GatedMlp::packed(linear(20, 8), linear(8, 10), Packing::Cross, silu);
        assert!(cross.is_err());
        let odd = GatedMlp::packed(linear(21, 8), linear(8, 10), Packing::ValueGate, silu);
        assert!(odd.is_err());
        assert!(GatedMlp::new(linear(10, 8), linear(9, 8), linear(8, 10), silu).is_err());
        assert!(GatedMlp::new(linear(10, 8), linear(10, 8), linear(8, 9), silu).is_err());
        assert!(Mlp::new(linear(10, 8), linear(8, 9), silu).is_err());
    }

    #[test]
    fn hidden_sizes_are_cut_and_rounded_in_this_order() {
        assert_eq!(gated_mlp_hidden(48, None, 128), 128);
        assert_eq!(gated_mlp_hidden(48, None, 8), 128);
        assert_eq!(gated_mlp_hidden(50, None, 8), 136);
        assert_eq!(gated_mlp_hidden(50, Some(133), 1), 133);
        assert_eq!(llama3_hidden(192, None, 32), 128);
        assert_eq!(llama3_hidden(192, Some(1.3), 32), 192);
        // int(2 * 100 / 3) = 66, int(1.3 * 66) = 85; rounding once at the end would give 86.
        assert_eq!(llama3_hidden(100, Some(1.3), 1), 85);
    }
}
