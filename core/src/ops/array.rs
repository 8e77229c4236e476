//! Arrays in host memory with the element types that files of tensors hold, and those files.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use ::safetensors::tensor::TensorView;
use ::safetensors::{Dtype, SafeTensors};
use half::{bf16, f16};

use crate::weights::dequant::dequantize;
use crate::weights::shown;
use crate::{DType, Error, Result};

/// The type of an [`Array`]'s elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// A weight's type: f32, f16, bf16, or quantised blocks.
    Weight(DType),
    /// IEEE 754 binary64.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// A byte, 0 or 1.
    Bool,
}

impl ElementType {
    /// IEEE 754 binary32.
    pub const F32: ElementType = ElementType::Weight(DType::F32);

    fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => ElementType::F64,
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::Weight(DType::F16),
            Dtype::BF16 => ElementType::Weight(DType::BF16),
            Dtype::I64 => ElementType::I64,
            Dtype::I32 => ElementType::I32,
            Dtype::I16 => ElementType::I16,
            Dtype::I8 => ElementType::I8,
            Dtype::U64 => ElementType::U64,
            Dtype::U32 => ElementType::U32,
            Dtype::U16 => ElementType::U16,
            Dtype::U8 => ElementType::U8,
            Dtype::BOOL => ElementType::Bool,
            _ => return None,
        })
    }

    fn safetensors(self) -> Option<Dtype> {
        Some(match self {
            ElementType::F64 => Dtype::F64,
            ElementType::Weight(DType::F32) => Dtype::F32,
            ElementType::Weight(DType::F16) => Dtype::F16,
            ElementType::Weight(DType::BF16) => Dtype::BF16,
            ElementType::Weight(_) => return None,
            ElementType::I64 => Dtype::I64,
            ElementType::I32 => Dtype::I32,
            ElementType::I16 => Dtype::I16,
            ElementType::I8 => Dtype::I8,
            ElementType::U64 => Dtype::U64,
            ElementType::U32 => Dtype::U32,
            ElementType::U16 => Dtype::U16,
            ElementType::U8 => Dtype::U8,
            ElementType::Bool => Dtype::BOOL,
        })
    }

    /// Bytes of `len` elements; `None` when they are not whole blocks or there are too many.
    pub fn bytes(self, len: usize) -> Option<usize> {
        match self {
            ElementType::Weight(dtype) => dtype.bytes(len),
            ElementType::F64 | ElementType::I64 | ElementType::U64 => len.checked_mul(8),
            ElementType::I32 | ElementType::U32 => len.checked_mul(4),
            ElementType::I16 | ElementType::U16 => len.checked_mul(2),
            ElementType::I8 | ElementType::U8 | ElementType::Bool => Some(len),
        }
    }

    /// Is it a whole number or a truth value?
    pub fn is_integer(self) -> bool {
        !matches!(self, ElementType::Weight(_) | ElementType::F64)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ElementType::Weight(dtype) => write!(f, "{dtype}"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

/// An array in host memory, contiguous, slowest axis first.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Element type.
    pub dtype: ElementType,
    /// Shape, slowest axis first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements, little-endian.
    pub bytes: Vec<u8>,
}

impl Array {
    /// An array of these bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shape needs another number of bytes.
    pub fn new(dtype: ElementType, shape: &[usize], bytes: Vec<u8>) -> Result<Self> {
        let len = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        if len.and_then(|len| dtype.bytes(len)) != Some(bytes.len()) {
            return Err(Error::Invalid(format!(
                "{} bytes are not {dtype} elements of shape {shape:?}",
                bytes.len()
            )));
        }
        Ok(Array {
            dtype,
            shape: shape.to_vec(),
            bytes,
        })
    }

    /// An array of f32.
    ///
    /// # Panics
    ///
    /// This and [`Array::i64`]: when the shape needs another number of values.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Array::new(ElementType::F32, shape, bytes).expect("values fill the shape")
    }

    /// An array of i64.
    pub fn i64(shape: &[usize], values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Array::new(ElementType::I64, shape, bytes).expect("values fill the shape")
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when an axis has length 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f32; integers are converted, blocks decoded.
    pub fn to_f32(&self) -> Vec<f32> {
        let ints = |v: Vec<i64>| v.into_iter().map(|x| x as f32).collect();
        match self.dtype {
            ElementType::Weight(dtype) => {
                let mut values = vec![0.0; self.len()];
                dequantize(dtype, &self.bytes, &mut values);
                values
            }
            ElementType::F64 => self.words(|b: [u8; 8]| f64::from_le_bytes(b) as f32),
            _ => ints(self.to_i64().unwrap_or_default()),
        }
    }

    /// The elements as i64; `None` for floats.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self.dtype {
            ElementType::Weight(_) | ElementType::F64 => return None,
            ElementType::I64 => self.words(i64::from_le_bytes),
            ElementType::I32 => self.words(|b| i32::from_le_bytes(b).into()),
            ElementType::I16 => self.words(|b| i16::from_le_bytes(b).into()),
            ElementType::I8 => self.words(|b| i8::from_le_bytes(b).into()),
            ElementType::U64 => {
                self.words(|b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX))
            }
            ElementType::U32 => self.words(|b| u32::from_le_bytes(b).into()),
            ElementType::U16 => self.words(|b| u16::from_le_bytes(b).into()),
            ElementType::U8 | ElementType::Bool => self.words(|b| u8::from_le_bytes(b).into()),
        })
    }

    /// The same values in another float type.
    pub fn to_float(&self, dtype: DType) -> Self {
        let values = self.to_f32();
        let bytes: Vec<u8> = match dtype {
            DType::F16 => (values.iter())
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            DType::BF16 => (values.iter())
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
            _ => return Array::f32(&self.shape, &values),
        };
        Array {
            dtype: ElementType::Weight(dtype),
            shape: self.shape.clone(),
            bytes,
        }
    }

    /// Some rows of a matrix; `None` when it is not a matrix or has fewer.
    pub fn rows(&self, range: Range<usize>) -> Option<Self> {
        let &[rows, cols] = &self.shape[..] else {
            return None;
        };
        let row = self.dtype.bytes(cols).filter(|_| range.end <= rows)?;
        let bytes = self.bytes.get(range.start * row..range.end * row)?;
        Array::new(self.dtype, &[range.len(), cols], bytes.to_vec()).ok()
    }

    /// Some columns of a matrix; `None` when it is not a matrix, has fewer, or a block would be cut.
    pub fn columns(&self, range: Range<usize>) -> Option<Self> {
        let &[rows, cols] = &self.shape[..] else {
            return None;
        };
        let row = self.dtype.bytes(cols)?;
        let (start, end) = (self.dtype.bytes(range.start)?, self.dtype.bytes(range.end)?);
        let bytes = (0..rows).map(|r| self.bytes.get(r * row + start..r * row + end));
        let bytes: Option<Vec<&[u8]>> = bytes.collect();
        let shape = [rows, range.len()];
        Array::new(
            self.dtype,
            &shape,
            bytes.filter(|_| range.end <= cols)?.concat(),
        )
        .ok()
    }

    fn words<const N: usize, T>(&self, f: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (words, _) = self.bytes.as_chunks::<N>();
        words.iter().map(|w| f(*w)).collect()
    }
}

/// A file of named tensors with free text beside them: safetensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, Array>,
}

impl TensorFile {
    /// Reads a whole file; `name` is for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is broken, [`Error::Unsupported`] for element types that are not
    /// those of [`ElementType`].
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let broken = |e| Error::format(name, format_args!("not a sound safetensors file: {e}"));
        let (_, head) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let metadata = head.metadata().clone().unwrap_or_default();
        let file = SafeTensors::deserialize(bytes).map_err(broken)?;
        let mut tensors = BTreeMap::new();
        for (tensor, view) in file.iter() {
            let Some(dtype) = ElementType::of(view.dtype()) else {
                return Err(Error::Unsupported {
                    what: format!("{name}: {}: element type {}", shown(tensor), view.dtype()),
                    supported: "f64, f32, f16, bf16, integers, bool".into(),
                });
            };
            let array = Array::new(dtype, view.shape(), view.data().to_vec())
                .map_err(|e| Error::format(name, format_args!("{}: {e}", shown(tensor))))?;
            tensors.insert(tensor.to_owned(), array);
        }
        Ok(TensorFile {
            metadata: metadata.into_iter().collect(),
            tensors,
        })
    }

    /// The file's bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for quantised blocks, which the format does not know.
    pub fn write(&self) -> Result<Vec<u8>> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, array) in &self.tensors {
            let dtype = array
                .dtype
                .safetensors()
                .ok_or_else(|| Error::Unsupported {
                    what: format!("{}: {} in a safetensors file", shown(name), array.dtype),
                    supported: "f64, f32, f16, bf16, integers, bool".into(),
                })?;
            let view = TensorView::new(dtype, array.shape.clone(), &array.bytes)
                .map_err(|e| Error::format(shown(name), e))?;
            views.push((name, view));
        }
        let metadata = match self.metadata.is_empty() {
            true => None,
            false => Some(self.metadata.clone().into_iter().collect()),
        };
        ::safetensors::serialize(views, metadata).map_err(|e| Error::format("safetensors", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let mut file = TensorFile::default();
        file.metadata.insert("kind".into(), "rms_norm".into());
        file.tensors
            .insert("x".into(), Array::f32(&[2, 2], &[1.0, -2.0, 0.5, 3.0]));
        file.tensors
            .insert("labels".into(), Array::i64(&[3], &[-100, 0, 7]));
        let bytes = file.write().unwrap();
        assert_eq!(TensorFile::read("f", &bytes).unwrap(), file);
        for cut in 0..bytes.len() {
            assert!(TensorFile::read("f", &bytes[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn parts_of_a_matrix_keep_its_type_and_whole_blocks() {
        let x = Array::f32(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(x.rows(1..2).unwrap().to_f32(), [3.0, 4.0, 5.0]);
        assert_eq!(x.columns(1..3).unwrap().to_f32(), [1.0, 2.0, 4.0, 5.0]);
        assert!(x.rows(1..3).is_none() && x.columns(2..4).is_none());
        let blocks = Array::new(ElementType::Weight(DType::Q8_0), &[2, 64], vec![0; 4 * 34]);
        let blocks = blocks.unwrap();
        assert_eq!(blocks.columns(32..64).unwrap().shape, [2, 32]);
        assert!(blocks.columns(16..48).is_none());
    }

    #[test]
    fn elements_of_every_type_become_numbers() {
        let array = |dtype, bytes: &[u8]| Array::new(dtype, &[2], bytes.to_vec()).unwrap();
        let i8s = array(ElementType::I8, &[0xFF, 2]);
        assert_eq!(i8s.to_i64(), Some(vec![-1, 2]));
        assert_eq!(i8s.to_f32(), [-1.0, 2.0]);
        let x = Array::f32(&[2], &[1.0, 0.25]);
        assert_eq!(x.to_float(DType::BF16).to_f32(), [1.0, 0.25]);
        assert_eq!(x.to_i64(), None);
        assert!(Array::new(ElementType::F32, &[usize::MAX, 2], vec![]).is_err());
    }
}
