//! Where files keep the matrices of experts: GGUF all of a layer's in one tensor, safetensors in several ways.

use std::ops::Range;
use std::rc::Rc;

use super::experts::experts_of_slice;
use super::repack::Repacker;
use super::stored_experts::{Kept, Stored, StoredBias, StoredExperts};
use super::{Loader, ModelFiles, Part, TensorInfo, Weight, row_bytes, whole_blocks};
use crate::device::{Buffer, Purpose};
use crate::tensor::Tensor;
use crate::{DType, Result};

/// One of the matrices that each expert of a block has.
#[derive(Clone, Debug)]
pub struct ExpertMatrix {
    block: String,
    which: &'static str,
    /// E, outputs and inputs of each.
    shape: [usize; 3],
}

/// Where it is.
enum Place {
    /// `ffn_gate_exps` `(E, N, K)`.
    Together(String),
    /// The first or second half of the rows of each expert in `ffn_gate_up_exps` `(E, 2 N, K)`: which half.
    Half(String, usize),
    /// `ffn_gate.{e}` `(N, K)`.
    Apart(Vec<String>),
    /// Every `step`-th column from `first` on of each expert in a tensor `(E, K, step N)`: gpt-oss has gate and up in
    /// turns.
    Transposed {
        name: String,
        first: usize,
        step: usize,
    },
}

impl ExpertMatrix {
    /// The matrix `which`, `gate`, `up` or `down`, of `block`, whose `[E, F, C]` these are.
    pub fn new(block: &str, which: &'static str, [count, hidden, channels]: [usize; 3]) -> Self {
        ExpertMatrix {
            block: block.to_string(),
            which,
            shape: match which {
                "down" => [count, channels, hidden],
                _ => [count, hidden, channels],
            },
        }
    }

    fn place(&self, files: &ModelFiles) -> Place {
        let (block, which) = (&self.block, self.which);
        let half = usize::from(which == "up");
        let together = format!("{block}.ffn_{which}_exps.weight");
        let both = format!("{block}.ffn_gate_up_exps");
        let apart = |e| format!("{block}.ffn_{which}.{e}.weight");
        if files.has(&together) {
            return Place::Together(together);
        }
        if which != "down" && files.has(&format!("{both}.weight")) {
            return Place::Half(format!("{both}.weight"), half);
        }
        if files.has(&apart(0)) {
            return Place::Apart((0..self.shape[0]).map(apart).collect());
        }
        let (name, first, step) = match which {
            "down" => (format!("{block}.ffn_down_exps.transposed"), 0, 1),
            _ => (format!("{both}.transposed"), half, 2),
        };
        match files.has(&name) {
            true => Place::Transposed { name, first, step },
            // What is told to be missing.
            false => Place::Together(together),
        }
    }

    /// Elements of a block of its type.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing.
    pub fn block_len(&self, files: &ModelFiles) -> Result<usize> {
        let name = match self.place(files) {
            Place::Apart(mut names) => names.swap_remove(0),
            Place::Together(name) | Place::Half(name, _) | Place::Transposed { name, .. } => name,
        };
        Ok(files.dtype(&name)?.block_len())
    }
}

impl ExpertMatrix {
    /// Where each expert's matrix is, and of it this part.
    ///
    /// # Errors
    ///
    /// [`Error::Format`](crate::Error::Format) when a tensor is missing or has another shape,
    /// [`Error::Invalid`](crate::Error::Invalid) when the part cuts a block.
    pub(crate) fn stored(&self, files: &ModelFiles, part: &Part) -> Result<StoredExperts> {
        let [count, rows, cols] = self.shape;
        let of_rows = |all, first| Kept::Rows { all, first };
        let (infos, kept) = match self.place(files) {
            Place::Together(name) => (vec![files.matrices(&name, self.shape)?], of_rows(rows, 0)),
            Place::Half(name, half) => {
                let both = files.matrices(&name, [count, 2 * rows, cols])?;
                (vec![both], of_rows(2 * rows, half * rows))
            }
            Place::Apart(names) => {
                let each = names.iter().map(|name| files.tensor(name, &[rows, cols]));
                (each.collect::<Result<_>>()?, of_rows(0, 0))
            }
            Place::Transposed { name, first, step } => {
                let all = step * rows;
                let turned = Kept::Turned {
                    cols,
                    all,
                    first,
                    step,
                };
                (vec![files.matrices(&name, [count, cols, all])?], turned)
            }
        };
        if let Kept::Rows { .. } = kept {
            for info in &infos {
                whole_blocks(info, part)?;
            }
        }
        let tensor = |info: &TensorInfo| Stored {
            source: Rc::clone(files.source(info)),
            info: info.clone(),
        };
        Ok(StoredExperts {
            tensors: infos.into_iter().map(tensor).collect(),
            kept,
            part: part.clone(),
        })
    }

    /// Where the biases `rows` of each expert are, if there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Format`](crate::Error::Format) when they have another shape.
    pub(crate) fn stored_bias(
        &self,
        files: &ModelFiles,
        rows: Range<usize>,
    ) -> Result<Option<StoredBias>> {
        let ([count, all, _], block, which) = (self.shape, &self.block, self.which);
        let own = format!("{block}.ffn_{which}_exps.bias");
        let both = format!("{block}.ffn_gate_up_exps.bias");
        let (name, first, step) = match which {
            _ if files.has(&own) => (own, 0, 1),
            "gate" | "up" if files.has(&both) => (both, usize::from(which == "up"), 2),
            _ => return Ok(None),
        };
        let info = files.tensor(&name, &[count, step * all])?;
        Ok(Some(StoredBias {
            tensor: Stored {
                source: Rc::clone(files.source(info)),
                info: info.clone(),
            },
            all,
            first,
            step,
            rows,
        }))
    }
}

impl Loader<'_> {
    /// Of one of the matrices of the experts `held` this part, one expert's rows below the other's, in slices of
    /// whole experts.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`]; [`Error::Device`](crate::Error::Device) when an expert is larger than a binding.
    pub async fn expert_matrix(
        &mut self,
        matrix: &ExpertMatrix,
        held: Range<usize>,
        part: &Part,
    ) -> Result<Weight> {
        let [count, rows, cols] = matrix.shape;
        if let Place::Together(name) = matrix.place(self.files) {
            return self.experts(&name, matrix.shape, held, part).await;
        }
        let whole = held.len() == count && *part == Part::all(rows, cols);
        let stored = matrix.stored(self.files, part)?;
        self.stored(&stored, held, whole).await
    }

    /// Of a tensor `(E, K, step N)`, decoded: every `step`-th column from `first` on as rows, of the experts `held`,
    /// and of these the part `part`, in slices of whole experts.
    ///
    /// # Errors
    ///
    /// As [`Loader::expert_matrix`].
    pub async fn transposed(
        &mut self,
        name: &str,
        [count, cols, all]: [usize; 3],
        [first, step]: [usize; 2],
        held: Range<usize>,
        part: &Part,
    ) -> Result<Weight> {
        let info = self.files.matrices(name, [count, cols, all])?;
        let whole = held.len() == count && *part == Part::all(all / step, cols);
        let stored = StoredExperts {
            tensors: vec![Stored {
                source: Rc::clone(self.files.source(info)),
                info: info.clone(),
            }],
            kept: Kept::Turned {
                cols,
                all,
                first,
                step,
            },
            part: part.clone(),
        };
        self.stored(&stored, held, whole).await
    }

    async fn stored(
        &mut self,
        stored: &StoredExperts,
        held: Range<usize>,
        whole: bool,
    ) -> Result<Weight> {
        let device = Rc::clone(&self.device);
        let layout = device.limits().layout;
        let [unit, cols] = stored.shape();
        let mut weights: Vec<Weight> = Vec::new();
        let mut begin = held.start;
        while begin < held.end {
            let dtype = stored.dtype(begin);
            let expert = unit * row_bytes(layout, dtype, cols);
            let name = stored.name(begin);
            let most = experts_of_slice(device.as_ref(), name, expert as u64, held.end - begin)?;
            let same = (begin..held.end).take_while(|e| stored.dtype(*e) == dtype);
            let experts = begin..begin + same.count().min(most);
            begin = experts.end;
            let key = format!("{name} {experts:?} {:?}", stored.kept);
            let Part { rows, cols } = stored.part.clone();
            let key = self.key(&key, rows, cols);
            let tensor = match self.shared.get(&key) {
                Some(found) => found.clone(),
                None => {
                    let bytes = (experts.len() * expert) as u64;
                    let buffer = device.alloc(bytes, Purpose::Weights, name).await?;
                    self.read_experts(stored, experts.clone(), &buffer).await?;
                    let shape = [experts.len() * unit, stored.shape()[1]];
                    let tensor = Tensor::of(buffer, dtype, &shape);
                    if self.placement.tp.len() > 1 {
                        self.shared.insert(key, tensor.clone());
                    }
                    tensor
                }
            };
            self.hold(tensor.bytes(), whole);
            weights.push(Weight::of_slice(tensor));
        }
        Weight::stack(weights)
    }

    async fn read_experts(
        &mut self,
        stored: &StoredExperts,
        experts: Range<usize>,
        buffer: &Buffer,
    ) -> Result<()> {
        let mut repacker = Repacker::new(self.device.limits().layout);
        let mut at = 0;
        for expert in experts {
            if self.device.takes_data() {
                for piece in stored.pieces(expert, &repacker) {
                    let bytes = stored.read(expert, &piece, &mut repacker).await?;
                    self.write(buffer, at, bytes).await?;
                    at += bytes.len();
                }
            }
            self.advance(stored.file_bytes(expert), 0).await?;
        }
        Ok(())
    }

    /// `0, 1, .. count - 1`, again and again, `rounds` times: `(rounds, count)` u32. Ranks of one device share it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn cycle(&mut self, count: usize, rounds: usize) -> Result<Tensor> {
        let ids: Vec<u32> = (0..count as u32).collect();
        let words: Vec<f32> = ids.repeat(rounds).into_iter().map(f32::from_bits).collect();
        let name = format!("0 to {count}");
        let table = self
            .table(&name, &[rounds, count], std::iter::once(words))
            .await?;
        Ok(Tensor::new(table.storage, DType::U32, &table.shape))
    }

    /// The biases `rows` of that matrix of the experts `held`, one expert's below the other's, if there are any.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn expert_bias(
        &mut self,
        matrix: &ExpertMatrix,
        held: Range<usize>,
        rows: Range<usize>,
    ) -> Result<Option<Tensor>> {
        let [count, all, _] = matrix.shape;
        let Some(stored) = matrix.stored_bias(self.files, rows.clone())? else {
            return Ok(None);
        };
        let name = &stored.tensor.info.name;
        let label = format!("{name}[{}, {held:?}, {rows:?}]", matrix.which);
        let mut values = vec![0.0; held.len() * rows.len()];
        if self.device.takes_data() {
            for (expert, out) in held.clone().zip(values.chunks_mut(rows.len().max(1))) {
                out.copy_from_slice(&stored.read(expert).await?);
            }
        }
        self.advance(held.len() as u64 * stored.file_bytes(), 0)
            .await?;
        let shape = [values.len()];
        let values = std::iter::once(values);
        let tensor = (self.computed(&label, Purpose::Weights, &shape, values)).await?;
        self.hold(tensor.bytes(), held.len() == count && rows.len() == all);
        Ok(Some(tensor))
    }
}
