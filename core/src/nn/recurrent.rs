//! Recurrent layers: LSTM and GRU, stacked, in one or both directions.

use super::{Arrays, Linear};
use crate::kernels::sequence::Sequence;
use crate::kernels::{gru, lstm};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// What a step computes, and in which order the parts of its weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory.
    Lstm(lstm::Order),
    /// Gated recurrent unit.
    Gru {
        /// Order of reset gate, update gate and candidate.
        order: gru::Order,
        /// The reset gate multiplies the product with the state, as in PyTorch.
        reset_after: bool,
    },
}

impl Cell {
    /// PyTorch's `nn.LSTM`.
    pub const LSTM: Cell = Cell::Lstm(lstm::PYTORCH);

    /// PyTorch's `nn.GRU`.
    pub const GRU: Cell = Cell::Gru {
        order: gru::PYTORCH,
        reset_after: true,
    };

    /// Parts of its weights: rows for one hidden unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm(_) => 4,
            Cell::Gru { .. } => 3,
        }
    }
}

/// One direction of one layer.
pub struct Direction {
    /// Products with the inputs, `(G H, I)`, and their bias.
    pub input: Linear,
    /// Products with the state, `(G H, H)`.
    pub weight: Tensor,
    /// Their bias `(G H,)`.
    pub bias: Option<Tensor>,
    /// From the cells to the gates of an LSTM: `(3 H,)`, input, output, forget.
    pub peephole: Option<Tensor>,
    /// From the last time to the first?
    pub reverse: bool,
}

/// A recurrent network: layers of one or two directions each.
pub struct Recurrent {
    /// What a step computes.
    pub cell: Cell,
    /// Hidden units of each direction.
    pub hidden: usize,
    /// The directions of each layer.
    pub layers: Vec<Vec<Direction>>,
}

/// How axes are ordered; T times, N entries of the batch, D directions, L layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// x `(N, T, I)`, y `(N, T, D H)`, states `(L D, N, H)`: PyTorch's `batch_first`.
    BatchFirst,
    /// x `(T, N, I)`, y `(T, N, D H)`, states `(L D, N, H)`: PyTorch.
    TimeFirst,
    /// x `(T, N, I)`, y `(T, D, N, H)`, states `(D, N, H)`: ONNX, `layout = 0`.
    OnnxTimeFirst,
    /// x `(N, T, I)`, y `(N, T, D, H)`, states `(N, D, H)`: ONNX, `layout = 1`.
    OnnxBatchFirst,
}

/// States of all layers and directions: before a run the first ones, after it the last.
#[derive(Clone, Debug)]
pub struct States {
    /// Hidden states.
    pub h: Tensor,
    /// Cells of an LSTM.
    pub c: Option<Tensor>,
    /// Do they hold first states? Otherwise those are 0.
    pub given: bool,
}

impl Recurrent {
    /// PyTorch's weights `{name}.weight_ih_l0`, `.weight_hh_l0`, `.bias_ih_l0`, `.bias_hh_l0`, for
    /// as many layers as there are, `_reverse` behind the names of the second direction.
    ///
    /// # Errors
    ///
    /// Those of [`Arrays::tensor`].
    pub async fn load(arrays: &Arrays<'_>, name: &str, cell: Cell) -> Result<Self> {
        let dot = if name.is_empty() { "" } else { "." };
        let [_, hidden] = arrays.shape(&format!("{name}{dot}weight_hh_l0"))?;
        let rows = cell.gates() * hidden;
        let mut layers: Vec<Vec<Direction>> = Vec::new();
        loop {
            let mut layer = Vec::new();
            for (suffix, reverse) in [("", false), ("_reverse", true)] {
                let of = |part: &str| format!("{name}{dot}{part}_l{}{suffix}", layers.len());
                if !arrays.arrays.contains_key(&of("weight_ih")) {
                    continue;
                }
                let [_, inputs] = arrays.shape(&of("weight_ih"))?;
                let weight = arrays.weight(&of("weight_ih"), rows, inputs).await?;
                let bias = arrays.optional(&of("bias_ih"), &[rows]).await?;
                layer.push(Direction {
                    input: Linear::with_bias(weight, bias)?,
                    weight: arrays.tensor(&of("weight_hh"), &[rows, hidden]).await?,
                    bias: arrays.optional(&of("bias_hh"), &[rows]).await?,
                    peephole: None,
                    reverse,
                });
            }
            if layer.is_empty() {
                break;
            }
            layers.push(layer);
        }
        Ok(Recurrent {
            cell,
            hidden,
            layers,
        })
    }

    /// Directions of a layer.
    pub fn directions(&self) -> usize {
        self.layers.first().map_or(1, Vec::len)
    }
}

impl Recording {
    /// States for `entries` sequences, all zero at first.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when their size overflows.
    pub fn states(&mut self, net: &Recurrent, entries: usize) -> Result<States> {
        let shape = [net.layers.len() * net.directions(), entries, net.hidden];
        let c = match net.cell {
            Cell::Lstm(_) => Some(self.scratch(DType::F32, &shape)?),
            Cell::Gru { .. } => None,
        };
        Ok(States {
            h: self.scratch(DType::F32, &shape)?,
            c,
            given: false,
        })
    }

    /// Runs `net` over the sequences `x` and leaves its last states in `states`. Entry n has
    /// `lengths[n]` times `(N,)` u32, or all; y is 0 after them.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn recurrent(
        &mut self,
        x: &Tensor,
        net: &Recurrent,
        layout: Layout,
        lengths: Option<&Tensor>,
        states: &States,
    ) -> Result<Tensor> {
        let batch_first = matches!(layout, Layout::BatchFirst | Layout::OnnxBatchFirst);
        let (times, entries) = match (&x.shape[..], batch_first) {
            (&[n, t, _], true) | (&[t, n, _], false) => (t, n),
            _ => {
                return Err(Error::Invalid(format!(
                    "recurrent: x has shape {:?}, expected 3 axes",
                    x.shape
                )));
            }
        };
        let (hidden, directions) = (net.hidden, net.directions());
        let want = net.layers.len() * directions * entries * hidden;
        if states.h.len() != want || states.c.as_ref().is_some_and(|c| c.len() != want) {
            return Err(Error::Invalid(format!(
                "recurrent: states have shape {:?}, expected {want} elements",
                states.h.shape
            )));
        }
        let gates = net.cell.gates() * hidden;
        let mut x = x.clone();
        for (l, layer) in net.layers.iter().enumerate() {
            if layer.len() != directions {
                return Err(Error::Invalid(format!(
                    "recurrent: layer {l} has {} directions, layer 0 {directions}",
                    layer.len()
                )));
            }
            let y_shape = match layout {
                Layout::BatchFirst => vec![entries, times, directions * hidden],
                Layout::TimeFirst => vec![times, entries, directions * hidden],
                Layout::OnnxTimeFirst => vec![times, directions, entries, hidden],
                Layout::OnnxBatchFirst => vec![entries, times, directions, hidden],
            };
            let y = self.scratch(DType::F32, &y_shape)?;
            for (d, direction) in layer.iter().enumerate() {
                let products = self.linear(&x, &direction.input)?;
                let mut s = Sequence::new(times, entries, hidden, gates, batch_first);
                s.reverse = direction.reverse;
                let width = directions * hidden;
                (s.y_time, s.y_entry, s.y_first) = match layout {
                    Layout::BatchFirst | Layout::OnnxBatchFirst => {
                        (width, times * width, d * hidden)
                    }
                    Layout::TimeFirst => (entries * width, width, d * hidden),
                    Layout::OnnxTimeFirst => (entries * width, hidden, d * entries * hidden),
                };
                (s.state_entry, s.state_first) = match layout {
                    Layout::OnnxBatchFirst => (width, d * hidden),
                    _ => (hidden, (l * directions + d) * entries * hidden),
                };
                self.direction(net.cell, &s, direction, &products, lengths, states, &y)?;
            }
            x = y;
        }
        Ok(x)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the kernels' bindings, one by one"
    )]
    fn direction(
        &mut self,
        cell: Cell,
        s: &Sequence,
        direction: &Direction,
        products: &Tensor,
        lengths: Option<&Tensor>,
        states: &States,
        y: &Tensor,
    ) -> Result<()> {
        let (bias, init) = (direction.bias.is_some(), states.given);
        let mut bindings = vec![
            Some(products.clone()),
            Some(direction.weight.clone()),
            direction.bias.clone(),
        ];
        match cell {
            Cell::Lstm(order) => {
                let parts = lstm::Parts {
                    bias,
                    peephole: direction.peephole.is_some(),
                    lengths: lengths.is_some(),
                    init,
                };
                bindings.extend([
                    direction.peephole.clone(),
                    lengths.cloned(),
                    Some(y.clone()),
                    Some(states.h.clone()),
                    states.c.clone(),
                ]);
                self.push(&lstm::KERNEL, lstm::params(s, order, parts), bindings)
            }
            Cell::Gru { order, reset_after } => {
                let parts = gru::Parts {
                    bias,
                    lengths: lengths.is_some(),
                    init,
                    reset_after,
                };
                let reset = match reset_after {
                    true => None,
                    false => Some(self.scratch(DType::F32, &[s.entries, s.hidden])?),
                };
                bindings.extend([
                    lengths.cloned(),
                    Some(y.clone()),
                    Some(states.h.clone()),
                    reset,
                ]);
                self.push(&gru::KERNEL, gru::params(s, order, parts), bindings)
            }
        }
    }
}
