//! Rows of a file's matrix in the layout of a device, a piece at a time.

use super::{Part, blocks_bytes, row_bytes};
use crate::device::Layout;
use crate::weights::{TensorInfo, WeightSource, planar};
use crate::{DType, Result};

/// File bytes read, repacked and written at once.
const PIECE: usize = 4 << 20;

/// Reads parts of matrices for devices of a layout. Its memory is used again.
pub(crate) struct Repacker {
    layout: Layout,
    file: Vec<u8>,
    whole: Vec<u8>,
    packed: Vec<u8>,
}

impl Repacker {
    pub(crate) fn new(layout: Layout) -> Self {
        Repacker {
            layout,
            file: Vec::new(),
            whole: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Parts of a few MiB, one below the other, that make up `part`.
    pub(super) fn pieces(
        &self,
        info: &TensorInfo,
        part: &Part,
    ) -> impl Iterator<Item = Part> + use<> {
        let file_row = blocks_bytes(info.dtype, info.row_len());
        let row = row_bytes(self.layout, info.dtype, part.cols.len());
        let (rows, cols) = (part.rows.clone(), part.cols.clone());
        let step = (PIECE / file_row.max(row)).clamp(1, rows.len().max(1));
        rows.clone().step_by(step).map(move |first| Part {
            rows: first..rows.end.min(first + step),
            cols: cols.clone(),
        })
    }

    /// A piece's rows in the layout of the device.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the file cannot be read.
    pub(super) async fn read(
        &mut self,
        source: &dyn WeightSource,
        info: &TensorInfo,
        piece: &Part,
    ) -> Result<&[u8]> {
        let (rows, cols) = (piece.rows.len(), piece.cols.len());
        let file_row = blocks_bytes(info.dtype, info.row_len());
        let part_row = blocks_bytes(info.dtype, cols);
        let first = blocks_bytes(info.dtype, piece.cols.start);
        let offset = info.offset + (piece.rows.start * file_row) as u64;
        // Rows are read whole although a part is wanted, where seeking costs more.
        let through = (file_row - part_row) as u64 <= source.seek_bytes();
        self.file.resize(rows * part_row, 0);
        let file = &mut self.file[..];
        let pick = |from: &[u8], file: &mut [u8]| {
            for (to, row) in file.chunks_mut(part_row).zip(from.chunks(file_row)) {
                to.copy_from_slice(&row[first..first + part_row]);
            }
        };
        match source.mapped() {
            Some(mapped) => {
                let from = &(*mapped).as_ref()[offset as usize..][..rows * file_row];
                pick(from, file);
            }
            None if part_row == file_row => source.read(offset, file).await?,
            None if through => {
                self.whole.resize(rows * file_row, 0);
                source.read(offset, &mut self.whole).await?;
                pick(&self.whole, file);
            }
            None => {
                for (i, row) in file.chunks_mut(part_row).enumerate() {
                    let offset = offset + (i * file_row + first) as u64;
                    source.read(offset, row).await?;
                }
            }
        }
        match self.layout {
            Layout::File => Ok(&self.file),
            Layout::Planar => {
                self.packed.clear();
                let width = row_bytes(self.layout, info.dtype, cols);
                self.packed.resize(rows * width, 0);
                repack(info.dtype, cols, &self.file, &mut self.packed);
                Ok(&self.packed)
            }
        }
    }

    /// Rows of `cols` floats in the layout of the device.
    pub(super) fn floats(
        &mut self,
        cols: usize,
        rows: impl Iterator<Item = impl Iterator<Item = f32>>,
    ) -> &[u8] {
        let width = row_bytes(self.layout, DType::F32, cols);
        self.packed.clear();
        for row in rows {
            let end = self.packed.len() + width;
            self.packed.extend(row.flat_map(f32::to_le_bytes));
            self.packed.resize(end, 0);
        }
        &self.packed
    }
}

/// Repacks whole rows, on all threads.
pub(super) fn repack(dtype: DType, cols: usize, file: &[u8], packed: &mut [u8]) {
    let row = planar::row_bytes(dtype, cols);
    let file_row = blocks_bytes(dtype, cols);
    let rows = packed.len() / row;
    let step = rows.div_ceil(4 * crate::device::cpu::threads()).max(1);
    crate::device::cpu::for_each_chunk(packed, step * row, |i, out| {
        let n = out.len() / row;
        let from = &file[i * step * file_row..][..n * file_row];
        planar::repack_rows(dtype, cols, from, out);
    });
}
