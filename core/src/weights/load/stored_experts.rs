//! Matrices of experts in their files, read one expert at a time.

use std::ops::Range;
use std::rc::Rc;

use super::repack::Repacker;
use super::{Part, blocks_bytes};
use crate::weights::{TensorInfo, WeightSource, dequant};
use crate::{DType, Result};

/// A tensor and the file that holds it.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) info: TensorInfo,
    pub(super) source: Rc<dyn WeightSource>,
}

/// How a tensor holds the matrices.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// `all` rows for each expert, of which the matrix begins at `first`.
    Rows {
        /// In a tensor of all experts; 0 where each has a tensor.
        all: usize,
        /// Row.
        first: usize,
    },
    /// Every `step`-th of `all` columns from `first` on, of `(cols, all)` for each expert.
    Turned {
        /// K.
        cols: usize,
        /// Columns.
        all: usize,
        /// Column.
        first: usize,
        /// Columns from one row of the matrix to the next.
        step: usize,
    },
}

/// One of the matrices that each expert of a block has, and which part of it a rank holds.
pub(crate) struct StoredExperts {
    /// One tensor, or one for each expert.
    pub(super) tensors: Vec<Stored>,
    pub(super) kept: Kept,
    pub(super) part: Part,
}

impl StoredExperts {
    fn tensor(&self, expert: usize) -> &Stored {
        match &self.tensors[..] {
            [one] => one,
            each => &each[expert],
        }
    }

    /// Element type on a device.
    pub fn dtype(&self, expert: usize) -> DType {
        match self.kept {
            Kept::Rows { .. } => self.tensor(expert).info.dtype,
            Kept::Turned { .. } => DType::F32,
        }
    }

    /// Name of the tensor that has an expert.
    pub fn name(&self, expert: usize) -> &str {
        &self.tensor(expert).info.name
    }

    /// Rows and columns of an expert's part.
    pub fn shape(&self) -> [usize; 2] {
        [self.part.rows.len(), self.part.cols.len()]
    }

    /// Bytes of the file that an expert's part is read from.
    pub fn file_bytes(&self, expert: usize) -> u64 {
        let dtype = self.tensor(expert).info.dtype;
        let elements = match self.kept {
            Kept::Rows { .. } => {
                return (self.part.rows.len() * blocks_bytes(dtype, self.part.cols.len())) as u64;
            }
            Kept::Turned { cols, all, .. } => cols * all,
        };
        blocks_bytes(dtype, elements) as u64
    }

    /// Parts that can be read one after the other; each is a few MiB.
    pub fn pieces(&self, expert: usize, repacker: &Repacker) -> Vec<Part> {
        match self.kept {
            Kept::Turned { .. } => vec![self.part.clone()],
            Kept::Rows { all, first } => {
                let first = expert * all + first;
                let part = Part {
                    rows: first + self.part.rows.start..first + self.part.rows.end,
                    cols: self.part.cols.clone(),
                };
                repacker.pieces(&self.tensor(expert).info, &part).collect()
            }
        }
    }

    /// A piece in the layout of the device.
    pub async fn read<'b>(
        &self,
        expert: usize,
        piece: &Part,
        repacker: &'b mut Repacker,
    ) -> Result<&'b [u8]> {
        let Stored { info, source } = self.tensor(expert);
        let Kept::Turned {
            cols,
            all,
            first,
            step,
        } = self.kept
        else {
            return repacker.read(source.as_ref(), info, piece).await;
        };
        let bytes = blocks_bytes(info.dtype, cols * all);
        let mut file = vec![0; bytes];
        source
            .read(info.offset + (expert * bytes) as u64, &mut file)
            .await?;
        let mut values = vec![0.0f32; cols * all];
        dequant::dequantize(info.dtype, &file, &mut values);
        Ok(repacker.floats(
            piece.cols.len(),
            piece.rows.clone().map(|n| {
                let values = &values;
                (piece.cols.clone()).map(move |k| values[k * all + first + n * step])
            }),
        ))
    }
}

/// The biases of one of the matrices that each expert of a block has, and which of them a rank holds.
pub(crate) struct StoredBias {
    pub(super) tensor: Stored,
    /// Of an expert: element n is `first + n step` of its `all step`.
    pub(super) all: usize,
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) rows: Range<usize>,
}

impl StoredBias {
    /// Bytes of the file that an expert's are read from.
    pub fn file_bytes(&self) -> u64 {
        blocks_bytes(self.tensor.info.dtype, self.all * self.step) as u64
    }

    /// An expert's.
    pub async fn read(&self, expert: usize) -> Result<Vec<f32>> {
        let Stored { info, source } = &self.tensor;
        let bytes = self.file_bytes();
        let mut file = vec![0; bytes as usize];
        source
            .read(info.offset + expert as u64 * bytes, &mut file)
            .await?;
        let mut values = vec![0.0f32; self.all * self.step];
        dequant::dequantize(info.dtype, &file, &mut values);
        Ok((self.rows.clone())
            .map(|n| values[self.first + n * self.step])
            .collect())
    }
}
