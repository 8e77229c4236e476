//! From a file's tensors to device buffers, streamed in slices: host memory holds a few MiB at a
//! time, whatever the model's size.

mod expert_matrix;
mod experts;
mod repack;
mod stored_experts;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

pub use expert_matrix::ExpertMatrix;
pub(crate) use repack::Repacker;
use repack::repack;
pub(crate) use stored_experts::{StoredBias, StoredExperts};

use super::{ModelFiles, TensorInfo, dequant, planar};
use crate::comm::Placement;
use crate::device::{Buffer, Device, Layout, Purpose};
use crate::expert_cache::ExpertCache;
use crate::tensor::{Storage, Tensor};
use crate::{DType, Error, Result};

/// Written bytes after which the device gets time to take them.
const FLUSH: u64 = 16 << 20;

/// A matrix of a model on a device, `(rows, cols)`: `rows` outputs, `cols` inputs.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Consecutive rows, each slice of one element type and within the device's largest binding.
    pub slices: Vec<Slice>,
}

impl Weight {
    /// A matrix whose bytes, in the file's layout, are in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are not `rows` rows of whole blocks, [`Error::OutOfMemory`].
    pub async fn from_bytes(
        device: &dyn Device,
        name: &str,
        dtype: DType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Self> {
        let row = dtype.bytes(cols).filter(|_| rows > 0 && cols > 0);
        let Some(row) = row.filter(|row| row.checked_mul(rows) == Some(bytes.len())) else {
            return Err(Error::Invalid(format!(
                "{name}: {} bytes are not {rows} rows of {cols} {dtype} elements",
                bytes.len()
            )));
        };
        let planar = device.limits().layout == Layout::Planar;
        let width = row_bytes(device.limits().layout, dtype, cols);
        let most = rows_of_slice(device, name, width as u64, rows)?;
        let mut slices = Vec::with_capacity(rows.div_ceil(most));
        for first in (0..rows).step_by(most) {
            let n = most.min(rows - first);
            let file = &bytes[first * row..][..n * row];
            let padded = (n * width).next_multiple_of(16);
            let buffer = device.alloc(padded as u64, Purpose::Weights, name).await?;
            let mut packed = vec![0; padded];
            if planar {
                repack(dtype, cols, file, &mut packed[..n * width]);
            } else {
                packed[..file.len()].copy_from_slice(file);
            }
            device.write(&buffer, 0, &packed)?;
            slices.push(Slice {
                first,
                rows: n,
                tensor: Tensor::of(buffer, dtype, &[n, cols]),
            });
        }
        Ok(Weight { rows, cols, slices })
    }
}

impl Weight {
    /// Matrices of the same number of columns, one below the other.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the numbers differ, or there is none.
    pub fn stack(weights: impl IntoIterator<Item = Weight>) -> Result<Self> {
        let mut weights = weights.into_iter();
        let stacked = weights.next();
        let mut stacked = stacked.ok_or_else(|| Error::Invalid("nothing to stack".into()))?;
        for weight in weights {
            if weight.cols != stacked.cols {
                return Err(Error::Invalid(format!(
                    "matrices of {} and {} columns cannot be stacked",
                    stacked.cols, weight.cols
                )));
            }
            let first = stacked.rows;
            let slices = weight.slices.into_iter().map(|slice| Slice {
                first: first + slice.first,
                ..slice
            });
            stacked.slices.extend(slices);
            stacked.rows += weight.rows;
        }
        Ok(stacked)
    }
}

/// Bytes of a row on a device.
pub(crate) fn row_bytes(layout: Layout, dtype: DType, cols: usize) -> usize {
    match layout {
        Layout::Planar => planar::row_bytes(dtype, cols),
        Layout::File => blocks_bytes(dtype, cols),
    }
}

/// How many of `rows` rows of `width` bytes fit the device's largest binding, at least 1.
fn rows_of_slice(device: &dyn Device, name: &str, width: u64, rows: usize) -> Result<usize> {
    let largest = device.limits().max_binding_bytes;
    let most = largest / width.max(1);
    if most == 0 {
        return Err(Error::Device {
            device: device.info().name.clone(),
            reason: format!("{name}: a row has {width} bytes, the largest binding {largest}"),
        });
    }
    Ok(usize::try_from(most).unwrap_or(usize::MAX).min(rows))
}

/// Some rows of a [`Weight`].
#[derive(Clone, Debug)]
pub struct Slice {
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// Their elements, in the device's layout.
    pub tensor: Tensor,
}

/// Which rows and columns of a matrix a rank holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Outputs.
    pub rows: Range<usize>,
    /// Inputs; whole blocks.
    pub cols: Range<usize>,
}

impl Part {
    /// Everything.
    pub fn all(rows: usize, cols: usize) -> Self {
        Part {
            rows: 0..rows,
            cols: 0..cols,
        }
    }
}

/// What of a model a rank has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes in device memory.
    pub bytes: u64,
    /// Of those, bytes that other tensor-parallel ranks hold as well.
    pub replicated: u64,
    /// Bytes read from files.
    pub read: u64,
}

/// Loads one model's tensors onto the devices of its ranks, one rank after the other.
pub struct Loader<'a> {
    files: &'a ModelFiles,
    device: Rc<dyn Device>,
    placement: Rc<Placement>,
    progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
    done: u64,
    total: u64,
    unflushed: u64,
    held: Held,
    expert_cache: Option<Rc<ExpertCache>>,
    /// Ranks on one device share what they have in common.
    shared: HashMap<Key, Tensor>,
}

/// Device, name and part of a tensor.
type Key = (usize, String, Part);

impl<'a> Loader<'a> {
    /// A loader for one rank that holds everything. `progress` is told bytes done and bytes in total; its
    /// error (cancelled) ends the loading.
    pub fn new(
        files: &'a ModelFiles,
        device: Rc<dyn Device>,
        progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Self {
        Loader {
            files,
            device,
            placement: Rc::new(Placement::alone()),
            progress,
            done: 0,
            total: files.bytes(),
            unflushed: 0,
            held: Held::default(),
            expert_cache: None,
            shared: HashMap::new(),
        }
    }

    /// Goes on with another rank.
    pub fn go_to(&mut self, placement: Rc<Placement>, device: Rc<dyn Device>) {
        self.placement = placement;
        self.device = device;
        self.expert_cache = None;
        self.held = Held::default();
    }

    /// Leaves the rank's experts in their files, for this cache.
    pub fn leave_experts(&mut self, cache: Option<Rc<ExpertCache>>) {
        self.expert_cache = cache;
    }

    /// Where experts are brought when they are needed.
    pub fn expert_cache(&self) -> Option<&Rc<ExpertCache>> {
        self.expert_cache.as_ref()
    }

    /// So many bytes of the files stay there.
    pub(crate) fn leave(&mut self, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
    }

    /// The model's files.
    pub fn files(&self) -> &'a ModelFiles {
        self.files
    }

    /// The rank.
    pub fn placement(&self) -> &Rc<Placement> {
        &self.placement
    }

    /// What the rank has loaded so far. Memory that it shares with another rank of its device counts.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Elements of a tensor's block: what of a row is never cut.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing.
    pub fn block(&self, name: &str) -> Result<usize> {
        Ok(self.files.dtype(name)?.block_len())
    }

    /// A matrix.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing or has another shape, [`Error::OutOfMemory`].
    pub async fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let all = Part::all(rows, cols);
        let mut weights = self.weights(&[name], rows, cols, &all).await?;
        Ok(weights.swap_remove(0))
    }

    /// A part of a matrix.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`]; [`Error::Invalid`] when the part cuts a block.
    pub async fn part(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        part: &Part,
    ) -> Result<Weight> {
        let mut weights = self.weights(&[name], rows, cols, part).await?;
        Ok(weights.swap_remove(0))
    }

    /// The same part of matrices of one shape, sliced at the same rows, so that one kernel can take a
    /// slice of each.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`].
    pub async fn weights(
        &mut self,
        names: &[&str],
        rows: usize,
        cols: usize,
        part: &Part,
    ) -> Result<Vec<Weight>> {
        let firsts: Vec<_> = names.iter().map(|name| (*name, rows, 0)).collect();
        self.parts(&firsts, rows, cols, part).await
    }

    /// The same part of matrices `(rows, cols)` of which each lies in a tensor of so many rows, from a row on: name, rows
    /// and first row.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`].
    pub async fn parts(
        &mut self,
        matrices: &[(&str, usize, usize)],
        rows: usize,
        cols: usize,
        part: &Part,
    ) -> Result<Vec<Weight>> {
        let mut infos = Vec::with_capacity(matrices.len());
        for (name, all, first) in matrices {
            let info = self.files.tensor(name, &[*all, cols])?;
            whole_blocks(info, part)?;
            infos.push((info, *first));
        }
        let layout = self.device.limits().layout;
        let width = |info: &(&TensorInfo, usize)| row_bytes(layout, info.0.dtype, part.cols.len());
        let widest = infos.iter().map(width).max().unwrap_or(1) as u64;
        let device = Rc::clone(&self.device);
        let held = part.rows.len();
        let names: Vec<_> = matrices.iter().map(|(name, ..)| *name).collect();
        let most = rows_of_slice(device.as_ref(), &names.join(", "), widest, held)?;
        let mut weights = Vec::with_capacity(infos.len());
        for (info, place) in infos {
            let mut slices = Vec::with_capacity(held.div_ceil(most.max(1)));
            for first in (0..held).step_by(most.max(1)) {
                let n = most.min(held - first);
                let start = place + part.rows.start + first;
                let piece = Part {
                    rows: start..start + n,
                    cols: part.cols.clone(),
                };
                let tensor = self.piece(info, &piece).await?;
                self.hold(tensor.bytes(), *part == Part::all(rows, cols));
                slices.push(Slice {
                    first,
                    rows: n,
                    tensor,
                });
            }
            weights.push(Weight {
                rows: held,
                cols: part.cols.len(),
                slices,
            });
        }
        Ok(weights)
    }

    /// The rows `held` of each of several matrices `(rows, cols)`, one below the other. Those of one type
    /// lie in one buffer, so that a kernel takes them at once, where the device does not read files in place.
    ///
    /// # Errors
    ///
    /// As [`Loader::part`].
    pub async fn stacked(
        &mut self,
        matrices: &[(&str, usize, Range<usize>)],
        cols: usize,
    ) -> Result<Weight> {
        let layout = self.device.limits().layout;
        let mut weights = Vec::with_capacity(matrices.len());
        let mut rest = matrices;
        while let Some((name, rows, held)) = rest.first() {
            let dtype = self.files.tensor(name, &[*rows, cols])?.dtype;
            let width = row_bytes(layout, dtype, cols) as u64;
            let most = rows_of_slice(self.device.as_ref(), name, width, usize::MAX)?;
            let (mut run, mut total) = (0, 0);
            for (name, rows, held) in rest {
                let same = self.files.tensor(name, &[*rows, cols])?.dtype == dtype;
                if !same || held.len() > most - total {
                    break;
                }
                total += held.len();
                run += 1;
            }
            if layout == Layout::File || run < 2 {
                let part = Part {
                    rows: held.clone(),
                    cols: 0..cols,
                };
                weights.push(self.part(name, *rows, cols, &part).await?);
                rest = &rest[1..];
            } else {
                weights.push(self.run(&rest[..run], cols, dtype, total).await?);
                rest = &rest[run..];
            }
        }
        Weight::stack(weights)
    }

    /// Parts of matrices of one type that have `total` rows and fit a binding together.
    async fn run(
        &mut self,
        matrices: &[(&str, usize, Range<usize>)],
        cols: usize,
        dtype: DType,
        total: usize,
    ) -> Result<Weight> {
        let names: Vec<_> = (matrices.iter())
            .map(|(name, _, held)| format!("{name}[{held:?}]"))
            .collect();
        let names = names.join(", ");
        let row = row_bytes(self.device.limits().layout, dtype, cols);
        let key = self.key(&names, 0..total, 0..cols);
        let found = self.shared.get(&key).cloned();
        let tensor = match &found {
            Some(found) => found.clone(),
            None => {
                let buffer = self
                    .device
                    .alloc((total * row) as u64, Purpose::Weights, matrices[0].0)
                    .await?;
                Tensor::of(buffer, dtype, &[total, cols])
            }
        };
        let mut first = 0;
        for (name, rows, held) in matrices {
            let part = Part {
                rows: held.clone(),
                cols: 0..cols,
            };
            let info = self.files.tensor(name, &[*rows, cols])?;
            if let (None, Storage::Buffer(buffer)) = (&found, &tensor.storage) {
                self.read_into(info, &part, buffer, first * row).await?;
            }
            let bytes = blocks_bytes(dtype, cols) * held.len();
            self.hold(bytes as u64, held.len() == *rows);
            first += held.len();
        }
        if self.placement.tp.len() > 1 && found.is_none() {
            self.shared.insert(key, tensor.clone());
        }
        Ok(Weight {
            rows: total,
            cols,
            slices: vec![Slice {
                first: 0,
                rows: total,
                tensor,
            }],
        })
    }

    /// A vector (norm weight, bias) as f32.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        self.vector_part(name, len, 0..len).await
    }

    /// A part of a vector as f32.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn vector_part(
        &mut self,
        name: &str,
        len: usize,
        part: Range<usize>,
    ) -> Result<Tensor> {
        self.vector_with(name, len, part, |v| v).await
    }

    /// A part of a vector as f32, with each element replaced by what `map` makes of it; of one name always the same.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn vector_with(
        &mut self,
        name: &str,
        len: usize,
        part: Range<usize>,
        map: impl Fn(f32) -> f32,
    ) -> Result<Tensor> {
        let whole = part.len() == len;
        let key = self.key(name, 0..1, part.clone());
        let tensor = match self.shared.get(&key) {
            Some(found) => found.clone(),
            None => {
                let mut values = self.floats(name, len).await?[part].to_vec();
                values.iter_mut().for_each(|v| *v = map(*v));
                let shape = [values.len()];
                let values = std::iter::once(values);
                let tensor = self.upload(name, Purpose::Weights, &shape, values).await?;
                self.shared.insert(key, tensor.clone());
                tensor
            }
        };
        self.hold(tensor.bytes(), whole);
        Ok(tensor)
    }

    /// A vector's values in host memory; zeros when the device takes no data.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn floats(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.floats_of(name, &[len]).await
    }

    /// The values of a tensor of this shape in host memory; zeros when the device takes no data.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn floats_of(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.files.tensor(name, shape)?;
        let mut values = vec![0.0f32; shape.iter().product()];
        if self.device.takes_data() {
            let mut bytes = vec![0; info.bytes as usize];
            let source = self.files.source(info);
            source.read(info.offset, &mut bytes).await?;
            dequant::dequantize(info.dtype, &bytes, &mut values);
        }
        self.advance(info.bytes, 0).await?;
        Ok(values)
    }

    /// A part of a vector, if the model has it.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn optional_vector(
        &mut self,
        name: &str,
        len: usize,
        part: Range<usize>,
    ) -> Result<Option<Tensor>> {
        if self.files.has(name) {
            Ok(Some(self.vector_part(name, len, part).await?))
        } else {
            Ok(None)
        }
    }

    /// Parts of several vectors as one, zeros for those that the model does not have; nothing if it has none.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn optional_vectors(
        &mut self,
        vectors: &[(String, usize, Range<usize>)],
    ) -> Result<Option<Tensor>> {
        let files = self.files;
        if !vectors.iter().any(|(name, ..)| files.has(name)) {
            return Ok(None);
        }
        let (mut values, mut names) = (Vec::new(), Vec::new());
        for (name, len, part) in vectors {
            match files.has(name) {
                true => values.extend_from_slice(&self.floats(name, *len).await?[part.clone()]),
                false => values.resize(values.len() + part.len(), 0.0),
            }
            names.push(format!("{name}[{part:?}]"));
        }
        let key = self.key(&names.join(", "), 0..1, 0..values.len());
        let tensor = match self.shared.get(&key) {
            Some(found) => found.clone(),
            None => {
                let (label, shape) = (&vectors[0].0, [values.len()]);
                let values = std::iter::once(values);
                let tensor = self.upload(label, Purpose::Weights, &shape, values).await?;
                self.shared.insert(key, tensor.clone());
                tensor
            }
        };
        let whole = vectors.iter().all(|(_, len, part)| part.len() == *len);
        self.hold(tensor.bytes(), whole);
        Ok(Some(tensor))
    }

    /// A tensor of given floats (tables that are computed, not stored), in consecutive pieces. Ranks of
    /// one device share those of one name and shape.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn table(
        &mut self,
        name: &str,
        shape: &[usize],
        pieces: impl Iterator<Item = Vec<f32>>,
    ) -> Result<Tensor> {
        self.computed(name, Purpose::Tables, shape, pieces).await
    }

    /// As [`Loader::table`], for this purpose.
    async fn computed(
        &mut self,
        name: &str,
        purpose: Purpose,
        shape: &[usize],
        pieces: impl Iterator<Item = Vec<f32>>,
    ) -> Result<Tensor> {
        let key = self.key(name, 0..1, 0..shape.iter().product());
        if let Some(found) = self.shared.get(&key) {
            return Ok(found.clone());
        }
        let tensor = self.upload(name, purpose, shape, pieces).await?;
        self.shared.insert(key, tensor.clone());
        Ok(tensor)
    }

    async fn upload(
        &mut self,
        name: &str,
        purpose: Purpose,
        shape: &[usize],
        pieces: impl Iterator<Item = Vec<f32>>,
    ) -> Result<Tensor> {
        let bytes = 4 * shape.iter().product::<usize>();
        let buffer = self.device.alloc(bytes as u64, purpose, name).await?;
        let mut at = 0;
        if self.device.takes_data() {
            for piece in pieces {
                let piece = bytemuck::cast_slice(&piece);
                self.write(&buffer, at, piece).await?;
                at += piece.len();
            }
        }
        Ok(Tensor::of(buffer, DType::F32, shape))
    }

    fn hold(&mut self, bytes: u64, whole: bool) {
        self.held.bytes += bytes;
        if whole && !self.placement.tp.is_alone() {
            self.held.replicated += bytes;
        }
    }

    fn key(&self, name: &str, rows: Range<usize>, cols: Range<usize>) -> Key {
        let device = Rc::as_ptr(&self.device).cast::<()>().addr();
        (device, name.to_string(), Part { rows, cols })
    }

    /// A part of a matrix that fits a binding, in the device's layout.
    async fn piece(&mut self, info: &TensorInfo, part: &Part) -> Result<Tensor> {
        let key = self.key(&info.name, part.rows.clone(), part.cols.clone());
        if let Some(found) = self.shared.get(&key) {
            return Ok(found.clone());
        }
        let tensor = self.read_piece(info, part).await?;
        if self.placement.tp.len() > 1 {
            self.shared.insert(key, tensor.clone());
        }
        Ok(tensor)
    }

    async fn read_piece(&mut self, info: &TensorInfo, part: &Part) -> Result<Tensor> {
        let (rows, cols) = (part.rows.len(), part.cols.len());
        let file_row = blocks_bytes(info.dtype, info.row_len());
        let part_row = blocks_bytes(info.dtype, cols);
        let start = info.offset + (part.rows.start * file_row) as u64;
        let source = self.files.source(info);
        let mapped = source.mapped();
        let layout = self.device.limits().layout;
        let shape = [rows, cols];
        let device = Rc::clone(&self.device);
        if let (Layout::File, Some(mapped), true) = (layout, &mapped, part_row == file_row) {
            let range = start..start + (rows * file_row) as u64;
            if let Some(buffer) = device.import(mapped, range) {
                self.advance((rows * file_row) as u64, 0).await?;
                return Ok(Tensor::of(buffer, info.dtype, &shape));
            }
        }
        let row = row_bytes(layout, info.dtype, cols);
        let buffer = device
            .alloc((rows * row) as u64, Purpose::Weights, &info.name)
            .await?;
        self.read_into(info, part, &buffer, 0).await?;
        Ok(Tensor::of(buffer, info.dtype, &shape))
    }

    /// Reads a part of a matrix, repacks it for the device and writes it to `buffer` from byte `base` on.
    async fn read_into(
        &mut self,
        info: &TensorInfo,
        part: &Part,
        buffer: &Buffer,
        base: usize,
    ) -> Result<()> {
        let layout = self.device.limits().layout;
        let width = blocks_bytes(info.dtype, part.cols.len());
        if !self.device.takes_data() {
            return self.advance((part.rows.len() * width) as u64, 0).await;
        }
        let source = self.files.source(info);
        let mut repacker = Repacker::new(layout);
        let mut at = base;
        for piece in repacker.pieces(info, part) {
            let bytes = repacker.read(source.as_ref(), info, &piece).await?;
            self.write(buffer, at, bytes).await?;
            at += bytes.len();
            self.advance((piece.rows.len() * width) as u64, 0).await?;
        }
        Ok(())
    }

    async fn write(&mut self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.device.write(buffer, offset as u64, bytes)?;
        self.advance(0, bytes.len() as u64).await
    }

    async fn advance(&mut self, read: u64, written: u64) -> Result<()> {
        self.held.read += read;
        // Ranks read what they have in common more than once.
        self.done = (self.done + read).min(self.total);
        self.unflushed += written;
        if self.unflushed >= FLUSH {
            self.unflushed = 0;
            self.device.flush().await?;
        }
        if read > 0 {
            (self.progress)(self.done, self.total)?;
        }
        Ok(())
    }
}

/// A part must not cut a tensor's blocks.
fn whole_blocks(info: &TensorInfo, part: &Part) -> Result<()> {
    let block = info.dtype.block_len();
    let ends = [part.cols.start, part.cols.end];
    if ends.iter().any(|c| !c.is_multiple_of(block)) {
        return Err(Error::Invalid(format!(
            "{}: columns {:?} cut blocks of {block} {} elements",
            info.name, part.cols, info.dtype
        )));
    }
    Ok(())
}

/// Bytes of `len` elements in a file; whole blocks.
fn blocks_bytes(dtype: DType, len: usize) -> usize {
    len / dtype.block_len() * dtype.block_bytes()
}
