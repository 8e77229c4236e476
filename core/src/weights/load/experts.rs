//! Weights of mixtures of experts: one matrix for each, in slices of whole experts.

use std::ops::Range;
use std::rc::Rc;

use super::{Loader, Part, Slice, Weight, row_bytes, rows_of_slice};
use crate::device::{Device, Purpose};
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// How many of `count` experts of `bytes` bytes fit the device's largest binding.
pub(super) fn experts_of_slice(
    device: &dyn Device,
    name: &str,
    bytes: u64,
    count: usize,
) -> Result<usize> {
    let largest = device.limits().max_binding_bytes;
    if bytes > largest {
        return Err(Error::Device {
            device: device.info().name.clone(),
            reason: format!("{name}: an expert has {bytes} bytes, the largest binding {largest}"),
        });
    }
    rows_of_slice(device, name, bytes, count)
}

impl Weight {
    /// A matrix whose rows lie in one tensor.
    pub(super) fn of_slice(tensor: Tensor) -> Self {
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

    /// Room for the matrices of `count` experts, each `(rows, cols)`, in slices of whole experts.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Device`] when an expert is larger than a binding.
    pub(crate) async fn room(
        device: &dyn Device,
        name: &str,
        dtype: DType,
        [count, rows, cols]: [usize; 3],
    ) -> Result<Self> {
        let expert = rows * row_bytes(device.limits().layout, dtype, cols);
        let most = experts_of_slice(device, name, expert as u64, count)?;
        let mut weights = Vec::with_capacity(count.div_ceil(most));
        for first in (0..count).step_by(most) {
            let n = most.min(count - first);
            let buffer = device
                .alloc((n * expert) as u64, Purpose::Experts, name)
                .await?;
            weights.push(Weight::of_slice(Tensor::of(
                buffer,
                dtype,
                &[n * rows, cols],
            )));
        }
        Weight::stack(weights)
    }

    /// Matrices of `count` experts, each `(rows, cols)`, as one of `count * rows` rows, in slices of whole
    /// experts; `bytes` are in the file's layout.
    ///
    /// # Errors
    ///
    /// As [`Weight::from_bytes`]; [`Error::Device`] when an expert is larger than a binding.
    pub async fn of_experts(
        device: &dyn Device,
        name: &str,
        dtype: DType,
        [count, rows, cols]: [usize; 3],
        bytes: &[u8],
    ) -> Result<Self> {
        let whole = dtype.bytes(cols).and_then(|row| row.checked_mul(rows));
        let Some(expert) = whole.filter(|e| *e > 0 && e.checked_mul(count) == Some(bytes.len()))
        else {
            return Err(Error::Invalid(format!(
                "{name}: {} bytes are not {count} experts of {rows} x {cols} {dtype} elements",
                bytes.len()
            )));
        };
        let held = (rows * row_bytes(device.limits().layout, dtype, cols)) as u64;
        let most = experts_of_slice(device, name, held, count)?;
        let mut weights = Vec::with_capacity(count.div_ceil(most.max(1)));
        for bytes in bytes.chunks(most * expert) {
            let rows = bytes.len() / expert * rows;
            weights.push(Weight::from_bytes(device, name, dtype, rows, cols, bytes).await?);
        }
        Weight::stack(weights)
    }
}

impl Loader<'_> {
    /// Of the matrices of `count` experts `(rows, cols)`, a tensor `(count, rows, cols)`, those of the experts
    /// `held`, and of each of these the part `part`, one below the other in slices of whole experts.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`]; [`Error::Device`] when an expert is larger than a binding, and
    /// [`Error::Invalid`] when there are no such experts.
    pub async fn experts(
        &mut self,
        name: &str,
        [count, rows, cols]: [usize; 3],
        held: Range<usize>,
        part: &Part,
    ) -> Result<Weight> {
        let info = self.files.matrices(name, [count, rows, cols])?;
        super::whole_blocks(info, part)?;
        if held.is_empty() || held.end > count {
            return Err(Error::Invalid(format!(
                "{name}: experts {held:?} of {count}; a rank holds at least one"
            )));
        }
        let device = Rc::clone(&self.device);
        let unit = part.rows.len();
        let row = row_bytes(device.limits().layout, info.dtype, part.cols.len());
        let most = experts_of_slice(device.as_ref(), name, (unit * row) as u64, held.len())?;
        let mut slices = Vec::with_capacity(held.len().div_ceil(most));
        for first in (0..held.len()).step_by(most) {
            let experts = held.start + first..held.end.min(held.start + first + most);
            // Of an expert's rows in the file.
            let rows_at = |e: usize, rows: &Range<usize>, all: usize| Part {
                rows: e * all + rows.start..e * all + rows.end,
                cols: part.cols.clone(),
            };
            let span = Part {
                rows: rows_at(experts.start, &part.rows, rows).rows.start
                    ..rows_at(experts.end - 1, &part.rows, rows).rows.end,
                cols: part.cols.clone(),
            };
            let tensor = if unit == rows {
                self.piece(info, &span).await?
            } else {
                // Which rows of each expert follows from the ends.
                let key = self.key(name, span.rows, span.cols);
                match self.shared.get(&key) {
                    Some(found) => found.clone(),
                    None => {
                        let bytes = (experts.len() * unit * row) as u64;
                        let buffer = device.alloc(bytes, Purpose::Weights, name).await?;
                        for (i, e) in experts.clone().enumerate() {
                            let part = rows_at(e, &part.rows, rows);
                            let base = i * unit * row;
                            self.read_into(info, &part, &buffer, base).await?;
                        }
                        let shape = [experts.len() * unit, part.cols.len()];
                        let tensor = Tensor::of(buffer, info.dtype, &shape);
                        if self.placement.tp.len() > 1 {
                            self.shared.insert(key, tensor.clone());
                        }
                        tensor
                    }
                }
            };
            let whole = held.len() == count && *part == Part::all(rows, cols);
            self.hold(tensor.bytes(), whole);
            slices.push(Slice {
                first: first * unit,
                rows: experts.len() * unit,
                tensor,
            });
        }
        Ok(Weight {
            rows: held.len() * unit,
            cols: part.cols.len(),
            slices,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pollster::block_on;
    use serde_json::json;

    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::ops::{Array, TensorFile};
    use crate::tensor::Storage;
    use crate::weights::{BytesSource, ModelFiles, WeightSource};

    const SHAPE: [usize; 3] = [4, 6, 8];

    /// A model whose only tensor of interest is (4, 6, 8), its elements being their numbers.
    fn files() -> ModelFiles {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
            "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "vocab_size": 8,
        });
        let values: Vec<f32> = (0..192).map(|i| i as f32).collect();
        let tensors = BTreeMap::from([("exps".to_string(), Array::f32(&SHAPE, &values))]);
        let file = TensorFile {
            metadata: BTreeMap::new(),
            tensors,
        };
        let sources: [Rc<dyn WeightSource>; 2] = [
            Rc::new(BytesSource::new("config.json", config.to_string())),
            Rc::new(BytesSource::new("model.safetensors", file.write().unwrap())),
        ];
        block_on(ModelFiles::open(sources.into())).unwrap()
    }

    fn load(held: Range<usize>, part: &Part) -> Result<(Weight, Vec<f32>)> {
        let files = files();
        let device: Rc<dyn Device> = Rc::new(CpuDevice::new());
        let mut progress = |_, _| Ok(());
        let mut loader = Loader::new(&files, Rc::clone(&device), &mut progress);
        let weight = block_on(loader.experts("exps", SHAPE, held, part))?;
        let mut values = Vec::new();
        for slice in &weight.slices {
            let Storage::Buffer(buffer) = &slice.tensor.storage else {
                panic!("a weight is in a buffer");
            };
            let bytes = block_on(device.read(buffer, 0, slice.tensor.bytes()))?;
            values.extend(bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&bytes));
        }
        Ok((weight, values))
    }

    #[test]
    fn a_rank_reads_its_experts_and_of_each_its_part() {
        for (held, rows, cols) in [
            (0..4, 0..6, 0..8),
            (1..3, 0..6, 0..8),
            (1..4, 2..5, 0..8),
            (0..4, 5..6, 3..7),
            (3..4, 0..6, 0..1),
        ] {
            let part = Part {
                rows: rows.clone(),
                cols: cols.clone(),
            };
            let (weight, got) = load(held.clone(), &part).unwrap();
            let mut want = Vec::new();
            for (e, row) in held.clone().flat_map(|e| rows.clone().map(move |r| (e, r))) {
                want.extend(cols.clone().map(|c| ((e * 6 + row) * 8 + c) as f32));
            }
            assert_eq!(got, want, "{held:?} {part:?}");
            let shape = (weight.rows, weight.cols);
            assert_eq!(shape, (held.len() * rows.len(), cols.len()));
        }
    }

    #[test]
    fn experts_that_there_are_not_are_refused() {
        for held in [2..2, 3..5] {
            let told = load(held.clone(), &Part::all(6, 8))
                .unwrap_err()
                .to_string();
            assert!(told.contains(&format!("experts {held:?} of 4")), "{told}");
        }
    }
}
