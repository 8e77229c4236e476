//! Writes small GGUF files: test inputs, tools and converted models that fit in memory.

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MetaArray, MetaValue};
use crate::{DType, Error, Result};

/// Collects metadata and tensors, then gives the file's bytes.
///
/// The writer does not judge metadata: it can write files the parser refuses, which is what tests
/// need.
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    metadata: Vec<(String, MetaValue)>,
    tensors: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// `None`: whoever writes the file has them.
    bytes: Option<Vec<u8>>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer::new()
    }
}

impl Writer {
    /// An empty version 3 file.
    pub fn new() -> Self {
        Writer {
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Sets the version field.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Adds a key. `general.alignment`, if it is a sensible u32, is obeyed.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: MetaValue) -> Self {
        self.metadata.push((key.into(), value));
        self
    }

    /// Adds a tensor of row-major `shape` whose data is `bytes`, in the dtype's ggml layout.
    #[must_use]
    pub fn tensor(mut self, name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensors.push(Pending {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes: Some(bytes),
        });
        self
    }

    /// Adds a tensor whose data the caller writes after [`Writer::head`].
    #[must_use]
    pub fn declare(mut self, name: &str, dtype: DType, shape: &[usize]) -> Self {
        self.tensors.push(Pending {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes: None,
        });
        self
    }

    /// Every tensor's data begins at a multiple of this.
    fn alignment(&self) -> usize {
        match self.metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
            Some((_, MetaValue::U32(n))) if n.is_power_of_two() && *n <= 1 << 20 => *n as usize,
            _ => DEFAULT_ALIGNMENT as usize,
        }
    }

    /// All that is before the first tensor's data, padding to its alignment left out.
    ///
    /// # Errors
    ///
    /// As [`Writer::to_bytes`].
    pub fn head(&self) -> Result<Vec<u8>> {
        let alignment = self.alignment();
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            push_string(&mut out, key);
            push_value(&mut out, value);
        }
        let mut offset = 0_usize;
        for tensor in &self.tensors {
            push_string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                out.extend((dim as u64).to_le_bytes());
            }
            let (kind, len) = tensor.kind()?;
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + len).next_multiple_of(alignment);
        }
        Ok(out)
    }

    /// The file.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a tensor's bytes are not what its type and shape need or were only declared;
    /// [`Error::Unsupported`] when its type has no number in ggml.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = self.head()?;
        for tensor in &self.tensors {
            let Some(bytes) = &tensor.bytes else {
                return Err(Error::Invalid(format!(
                    "tensor {}: no bytes given",
                    tensor.name
                )));
            };
            out.resize(out.len().next_multiple_of(self.alignment()), 0);
            out.extend(bytes);
        }
        Ok(out)
    }
}

impl Pending {
    /// ggml's number of the type and the length in bytes, once bytes and shape are known to agree.
    fn kind(&self) -> Result<(u32, usize)> {
        let rows = self.shape.iter().rev().skip(1);
        let row = self.shape.last().and_then(|&k| self.dtype.bytes(k));
        let need = row.and_then(|row| rows.clone().try_fold(row, |n, &d| n.checked_mul(d)));
        let given = self.bytes.as_ref().map(Vec::len).or(need);
        let Some(need) = need.filter(|need| given == Some(*need)) else {
            return Err(Error::Invalid(format!(
                "tensor {}: {} bytes given for {} {:?}",
                self.name,
                given.unwrap_or(0),
                self.dtype,
                self.shape
            )));
        };
        let kind = (0..64).find(|&kind| DType::from_ggml(kind) == Some(self.dtype));
        let kind = kind.ok_or_else(|| Error::Unsupported {
            what: format!("tensor {}: type {} in GGUF", self.name, self.dtype),
            supported: "the weight types".into(),
        })?;
        Ok((kind, need))
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Type number, then the value.
fn push_value(out: &mut Vec<u8>, value: &MetaValue) {
    fn plain(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    }
    match value {
        MetaValue::U8(x) => plain(out, 0, &x.to_le_bytes()),
        MetaValue::I8(x) => plain(out, 1, &x.to_le_bytes()),
        MetaValue::U16(x) => plain(out, 2, &x.to_le_bytes()),
        MetaValue::I16(x) => plain(out, 3, &x.to_le_bytes()),
        MetaValue::U32(x) => plain(out, 4, &x.to_le_bytes()),
        MetaValue::I32(x) => plain(out, 5, &x.to_le_bytes()),
        MetaValue::F32(x) => plain(out, 6, &x.to_le_bytes()),
        MetaValue::Bool(x) => plain(out, 7, &[u8::from(*x)]),
        MetaValue::String(x) => {
            plain(out, 8, &[]);
            push_string(out, x);
        }
        MetaValue::Array(x) => {
            plain(out, 9, &[]);
            push_array(out, x);
        }
        MetaValue::U64(x) => plain(out, 10, &x.to_le_bytes()),
        MetaValue::I64(x) => plain(out, 11, &x.to_le_bytes()),
        MetaValue::F64(x) => plain(out, 12, &x.to_le_bytes()),
    }
}

/// Element type, length, elements.
fn push_array(out: &mut Vec<u8>, array: &MetaArray) {
    fn plain<T: Copy, const N: usize>(
        out: &mut Vec<u8>,
        kind: u32,
        v: &[T],
        bytes: impl Fn(T) -> [u8; N],
    ) {
        out.extend(kind.to_le_bytes());
        out.extend((v.len() as u64).to_le_bytes());
        for &x in v {
            out.extend(bytes(x));
        }
    }
    match array {
        MetaArray::U8(v) => plain(out, 0, v, u8::to_le_bytes),
        MetaArray::I8(v) => plain(out, 1, v, i8::to_le_bytes),
        MetaArray::U16(v) => plain(out, 2, v, u16::to_le_bytes),
        MetaArray::I16(v) => plain(out, 3, v, i16::to_le_bytes),
        MetaArray::U32(v) => plain(out, 4, v, u32::to_le_bytes),
        MetaArray::I32(v) => plain(out, 5, v, i32::to_le_bytes),
        MetaArray::F32(v) => plain(out, 6, v, f32::to_le_bytes),
        MetaArray::Bool(v) => plain(out, 7, v, |x| [u8::from(x)]),
        MetaArray::String(v) => {
            out.extend(8_u32.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            v.iter().for_each(|text| push_string(out, text));
        }
        MetaArray::Array(v) => {
            out.extend(9_u32.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            v.iter().for_each(|inner| push_array(out, inner));
        }
        MetaArray::U64(v) => plain(out, 10, v, u64::to_le_bytes),
        MetaArray::I64(v) => plain(out, 11, v, i64::to_le_bytes),
        MetaArray::F64(v) => plain(out, 12, v, f64::to_le_bytes),
    }
}
