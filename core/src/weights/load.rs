//! From a file's tensors to device buffers, streamed in slices: host memory holds a few MiB at a
//! time, whatever the model's size.

use super::{ModelFiles, TensorInfo, dequant, planar};
use crate::device::{Buffer, Device, Layout};
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// File bytes read, repacked and written at once.
const PIECE: usize = 4 << 20;

/// Written bytes after which the device gets time to take them.
const FLUSH: u64 = 16 << 20;

/// A matrix of a model on a device, `(rows, cols)`: `rows` outputs, `cols` inputs.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Element type in the file, kept on the device.
    pub dtype: DType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Consecutive rows, each slice within the device's largest binding.
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
            let buffer = device.alloc(padded as u64, name).await?;
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
        Ok(Weight {
            dtype,
            rows,
            cols,
            slices,
        })
    }
}

/// Bytes of a row on a device.
fn row_bytes(layout: Layout, dtype: DType, cols: usize) -> usize {
    match layout {
        Layout::Planar => planar::row_bytes(dtype, cols),
        Layout::File => cols / dtype.block_len() * dtype.block_bytes(),
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

/// Loads one model's tensors onto one device.
pub struct Loader<'a> {
    files: &'a ModelFiles,
    device: &'a dyn Device,
    progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
    done: u64,
    total: u64,
    unflushed: u64,
}

impl<'a> Loader<'a> {
    /// `progress` is told bytes done and bytes in total; its error (cancelled) ends the loading.
    pub fn new(
        files: &'a ModelFiles,
        device: &'a dyn Device,
        progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Self {
        let total = files.bytes();
        Loader {
            files,
            device,
            progress,
            done: 0,
            total,
            unflushed: 0,
        }
    }

    /// The model's files.
    pub fn files(&self) -> &'a ModelFiles {
        self.files
    }

    /// The device.
    pub fn device(&self) -> &'a dyn Device {
        self.device
    }

    /// A matrix.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is missing or has another shape, [`Error::OutOfMemory`].
    pub async fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let mut weights = self.weights(&[name], rows, cols).await?;
        Ok(weights.swap_remove(0))
    }

    /// Matrices of one shape, sliced at the same rows, so that one kernel can take a slice of
    /// each.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn weights(
        &mut self,
        names: &[&str],
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Weight>> {
        let mut infos = Vec::with_capacity(names.len());
        for name in names {
            infos.push(self.files.tensor(name, &[rows, cols])?);
        }
        let layout = self.device.limits().layout;
        let width = |info: &&TensorInfo| row_bytes(layout, info.dtype, cols);
        let widest = infos.iter().map(width).max().unwrap_or(1) as u64;
        let most = rows_of_slice(self.device, &names.join(", "), widest, rows)?;
        let mut weights = Vec::with_capacity(infos.len());
        for info in infos {
            let mut slices = Vec::with_capacity(rows.div_ceil(most));
            for first in (0..rows).step_by(most) {
                slices.push(self.slice(info, first, most.min(rows - first)).await?);
            }
            weights.push(Weight {
                dtype: info.dtype,
                rows,
                cols,
                slices,
            });
        }
        Ok(weights)
    }

    /// A vector (norm weight, bias) as f32.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        let values = self.floats(name, len).await?;
        self.upload(name, &[len], std::iter::once(values)).await
    }

    /// A vector's values in host memory.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn floats(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let info = self.files.tensor(name, &[len])?;
        let mut bytes = vec![0; info.bytes as usize];
        let source = self.files.source(info);
        source.read(info.offset, &mut bytes).await?;
        let mut values = vec![0.0f32; len];
        dequant::dequantize(info.dtype, &bytes, &mut values);
        self.advance(info.bytes, 0).await?;
        Ok(values)
    }

    /// A vector, if the model has it.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub async fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Tensor>> {
        if self.files.has(name) {
            Ok(Some(self.vector(name, len).await?))
        } else {
            Ok(None)
        }
    }

    /// A tensor of given floats (tables that are computed, not stored), in consecutive pieces.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn upload(
        &mut self,
        name: &str,
        shape: &[usize],
        pieces: impl Iterator<Item = Vec<f32>>,
    ) -> Result<Tensor> {
        let bytes = 4 * shape.iter().product::<usize>();
        let buffer = self.device.alloc(bytes as u64, name).await?;
        let mut at = 0;
        for piece in pieces {
            let piece = bytemuck::cast_slice(&piece);
            self.write(&buffer, at, piece).await?;
            at += piece.len();
        }
        Ok(Tensor::of(buffer, DType::F32, shape))
    }

    async fn slice(&mut self, info: &TensorInfo, first: usize, rows: usize) -> Result<Slice> {
        let cols = info.row_len();
        let file_row = self.file_row(info);
        let start = info.offset + (first * file_row) as u64;
        let source = self.files.source(info);
        let mapped = source.mapped();
        let layout = self.device.limits().layout;
        let shape = [rows, cols];
        if let (Layout::File, Some(mapped)) = (layout, &mapped) {
            let range = start..start + (rows * file_row) as u64;
            if let Some(buffer) = self.device.import(mapped, range) {
                self.advance((rows * file_row) as u64, 0).await?;
                let tensor = Tensor::of(buffer, info.dtype, &shape);
                return Ok(Slice {
                    first,
                    rows,
                    tensor,
                });
            }
        }
        let row = row_bytes(layout, info.dtype, cols);
        let buffer = self.device.alloc((rows * row) as u64, &info.name).await?;
        let step = (PIECE / file_row.max(row)).clamp(1, rows);
        let mut piece = vec![0u8; step * file_row];
        let mut packed = vec![0u8; step * row];
        for at in (0..rows).step_by(step) {
            let n = step.min(rows - at);
            let offset = start + (at * file_row) as u64;
            let file = &mut piece[..n * file_row];
            match &mapped {
                Some(mapped) => {
                    let from = offset as usize;
                    file.copy_from_slice(&(**mapped).as_ref()[from..from + file.len()]);
                }
                None => source.read(offset, file).await?,
            }
            match layout {
                Layout::File => self.write(&buffer, at * row, file).await?,
                Layout::Planar => {
                    let packed = &mut packed[..n * row];
                    packed.fill(0);
                    repack(info.dtype, cols, file, packed);
                    self.write(&buffer, at * row, packed).await?;
                }
            }
            self.advance(file.len() as u64, 0).await?;
        }
        Ok(Slice {
            first,
            rows,
            tensor: Tensor::of(buffer, info.dtype, &shape),
        })
    }

    fn file_row(&self, info: &TensorInfo) -> usize {
        info.row_len() / info.dtype.block_len() * info.dtype.block_bytes()
    }

    async fn write(&mut self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.device.write(buffer, offset as u64, bytes)?;
        self.advance(0, bytes.len() as u64).await
    }

    async fn advance(&mut self, read: u64, written: u64) -> Result<()> {
        self.done += read;
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

/// Repacks whole rows, on all threads.
fn repack(dtype: DType, cols: usize, file: &[u8], packed: &mut [u8]) {
    let row = planar::row_bytes(dtype, cols);
    let file_row = cols / dtype.block_len() * dtype.block_bytes();
    let rows = packed.len() / row;
    let step = rows.div_ceil(4 * crate::device::cpu::threads()).max(1);
    crate::device::cpu::for_each_chunk(packed, step * row, |i, out| {
        let n = out.len() / row;
        let from = &file[i * step * file_row..][..n * file_row];
        planar::repack_rows(dtype, cols, from, out);
    });
}
