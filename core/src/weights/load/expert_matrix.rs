//! Where files keep the matrices of experts: GGUF all of a layer's in one tensor, safetensors in several ways.

use std::ops::Range;
use std::rc::Rc;

use super::experts::experts_of_slice;
use super::{Loader, ModelFiles, Part, Slice, Weight, row_bytes};
use crate::tensor::Tensor;
use crate::weights::dequant;
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

impl Loader<'_> {
    /// Of one of the matrices of the experts `held` this part, one expert's rows below the other's, in slices of
    /// whole experts.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`]; [`Error::Device`] when an expert is larger than a binding.
    pub async fn expert_matrix(
        &mut self,
        matrix: &ExpertMatrix,
        held: Range<usize>,
        part: &Part,
    ) -> Result<Weight> {
        let [count, rows, cols] = matrix.shape;
        let mut pieces = Vec::with_capacity(held.len());
        match matrix.place(self.files) {
            Place::Together(name) => {
                return self.experts(&name, matrix.shape, held, part).await;
            }
            Place::Transposed { name, first, step } => {
                let shape = [count, cols, step * rows];
                return self
                    .transposed(&name, shape, [first, step], held, part)
                    .await;
            }
            Place::Half(name, half) => {
                let info = self.files.tensor(&name, &[count, 2 * rows, cols])?;
                for e in held.clone() {
                    let first = (2 * e + half) * rows;
                    let rows = first + part.rows.start..first + part.rows.end;
                    let cols = part.cols.clone();
                    pieces.push((info, Part { rows, cols }));
                }
            }
            Place::Apart(names) => {
                for name in &names[held.clone()] {
                    pieces.push((self.files.tensor(name, &[rows, cols])?, part.clone()));
                }
            }
        }
        let whole = held.len() == count && *part == Part::all(rows, cols);
        let unit = part.rows.len();
        let mut weights: Vec<Weight> = Vec::new();
        let mut rest = &pieces[..];
        while let Some((info, _)) = rest.first() {
            let dtype = info.dtype;
            super::whole_blocks(info, part)?;
            let device = Rc::clone(&self.device);
            let row = row_bytes(device.limits().layout, dtype, part.cols.len());
            let bytes = (unit * row) as u64;
            let most = experts_of_slice(device.as_ref(), &info.name, bytes, rest.len())?;
            let same = rest.iter().take_while(|(i, _)| i.dtype == dtype).count();
            let (now, later) = rest.split_at(most.min(same));
            rest = later;
            let name = format!("{} and {} more", info.name, now.len() - 1);
            let key = self.key(&name, now[0].1.rows.clone(), part.cols.clone());
            let tensor = match self.shared.get(&key) {
                Some(found) => found.clone(),
                None => {
                    let bytes = (now.len() * unit * row) as u64;
                    let buffer = device.alloc(bytes, &info.name).await?;
                    for (i, (info, part)) in now.iter().enumerate() {
                        self.read_into(info, part, &buffer, i * unit * row).await?;
                    }
                    let tensor = Tensor::of(buffer, dtype, &[now.len() * unit, part.cols.len()]);
                    if self.placement.tp.len() > 1 {
                        self.shared.insert(key, tensor.clone());
                    }
                    tensor
                }
            };
            self.hold(tensor.bytes(), whole);
            weights.push(one_slice(tensor));
        }
        Weight::stack(weights)
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
        let device = Rc::clone(&self.device);
        let (unit, width) = (part.rows.len(), part.cols.len());
        let row = row_bytes(device.limits().layout, DType::F32, width);
        let expert = (info.bytes / count as u64) as usize;
        let most = experts_of_slice(device.as_ref(), name, (unit * row) as u64, held.len())?;
        let mut weights = Vec::with_capacity(held.len().div_ceil(most));
        for begin in held.clone().step_by(most) {
            let experts = begin..held.end.min(begin + most);
            let bytes = (experts.len() * unit * row) as u64;
            let buffer = device.alloc(bytes, name).await?;
            for (i, e) in experts.clone().enumerate().filter(|_| device.takes_data()) {
                let mut file = vec![0; expert];
                let source = self.files.source(info);
                source
                    .read(info.offset + (e * expert) as u64, &mut file)
                    .await?;
                let mut values = vec![0.0f32; cols * all];
                dequant::dequantize(info.dtype, &file, &mut values);
                let mut turned = vec![0u8; unit * row];
                for (n, out) in part.rows.clone().zip(turned.chunks_exact_mut(row)) {
                    let column = |k: usize| values[k * all + first + n * step];
                    for (k, out) in part.cols.clone().zip(out.chunks_exact_mut(4)) {
                        out.copy_from_slice(&column(k).to_le_bytes());
                    }
                }
                self.write(&buffer, i * unit * row, &turned).await?;
                self.advance(expert as u64, 0).await?;
            }
            let tensor = Tensor::of(buffer, DType::F32, &[experts.len() * unit, width]);
            self.hold(
                tensor.bytes(),
                held.len() == count && unit * width == cols * all / step,
            );
            weights.push(one_slice(tensor));
        }
        Weight::stack(weights)
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
        let ([count, all, _], block, which) = (matrix.shape, &matrix.block, matrix.which);
        let own = format!("{block}.ffn_{which}_exps.bias");
        let both = format!("{block}.ffn_gate_up_exps.bias");
        let (name, first, step) = match which {
            _ if self.files.has(&own) => (own, 0, 1),
            "gate" | "up" if self.files.has(&both) => (both, usize::from(which == "up"), 2),
            _ => return Ok(None),
        };
        let values = self.floats_of(&name, &[count, step * all]).await?;
        let picked: Vec<f32> = (held.clone())
            .flat_map(|e| rows.clone().map(move |n| (e * all + n) * step + first))
            .map(|i| values[i])
            .collect();
        let label = format!("{name}[{which}, {held:?}, {rows:?}]");
        let tensor = self
            .table(&label, &[picked.len()], std::iter::once(picked))
            .await?;
        self.hold(tensor.bytes(), held.len() == count && rows.len() == all);
        Ok(Some(tensor))
    }
}

fn one_slice(tensor: Tensor) -> Weight {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let slice = Slice {
        first: 0,
        rows,
        tensor,
    };
    Weight {
        rows,
        cols,
        slices: vec![slice],
    }
}
