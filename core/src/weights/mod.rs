//! Where weights come from: byte sources, the two header formats, and the layouts of the bytes.
//!
//! [`gguf`] and [`safetensors`] turn the head of a file into [`TensorInfo`]s without touching
//! tensor data; [`dequant`] defines what the bytes of each [`DType`] mean; [`planar`] is the
//! layout they are repacked to for the device.

pub mod dequant;
pub mod fastllm;
pub mod file_kind;
mod files;
pub mod gguf;
mod load;
mod mxfp4;
pub mod planar;
pub mod safetensors;
pub mod source;
mod transposed;

pub use file_kind::FileKind;
pub use files::ModelFiles;
pub use load::{ExpertMatrix, Held, Loader, Part, Slice, Weight};
pub(crate) use load::{Repacker, StoredBias, StoredExperts, row_bytes};
pub use source::{BytesSource, MappedBytes, WeightSource};

use crate::DType;

/// One tensor of a model file: what it is and where its bytes lie.
///
/// Both parsers guarantee: no dimension is 0, the last one is a whole number of the type's
/// blocks, `bytes` is exactly what the shape needs, and `offset..offset + bytes` lies inside
/// the file without touching another tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major, slowest dimension first: a linear weight is `[out, in]`.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of its file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Which file of the model, counted from 0.
    pub file: usize,
}

impl TensorInfo {
    /// Elements of one row, the fastest dimension; 1 for a scalar.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }
}

/// A name from a file, made safe for one line of text: escaped, and cut when long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut out = String::new();
    for c in name.chars() {
        if out.len() >= LONGEST {
            out.push_str("...");
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
