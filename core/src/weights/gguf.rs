//! GGUF, versions 2 and 3: header in, descriptions out.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 keys
//! keys    x (string key, u32 type, value)
//! tensors x (string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset)
//! padding to general.alignment (default 32)
//! tensor data, every offset counted from here
//! ```
//!
//! Strings are a u64 length and UTF-8; arrays a u32 element type, a u64 length and the elements.
//! Everything is little endian. The parser is total: any bytes give a header or one error, every
//! length is compared with what is left of the file before memory is reserved for it, and a
//! header takes at most 32 MiB however large its file is.
//!
//! Source: ggml, `docs/gguf.md`.

mod metadata;
mod reader;
pub mod split;
mod upcycle;
pub mod write;

#[cfg(test)]
mod tests;

pub use metadata::{MetaArray, MetaValue, Metadata, Strings};
pub use upcycle::{Upcycle, upcycle};
pub use write::Writer;

use std::pin::Pin;

use crate::weights::{FileKind, TensorInfo, WeightSource, file_kind, shown};
use crate::{DType, Error, Result};
use reader::{Fault, Reader, bad};

/// Alignment of tensor data when the metadata names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The key that names another alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// A page of any system is smaller.
const LARGEST_ALIGNMENT: u32 = 1 << 20;
/// From the specification.
const LONGEST_KEY: u64 = 65_535;
/// The specification says 64, builds of ggml for image models 128.
const LONGEST_NAME: u64 = 128;
const MOST_DIMS: u32 = 4;
const DEEPEST_ARRAY: u32 = 4;

/// Everything a GGUF file says before its tensor data.
#[derive(Clone, Debug)]
pub struct GgufHeader {
    /// 2 or 3.
    pub version: u32,
    /// Every tensor's offset is a multiple of this, counted from `data_offset`.
    pub alignment: u64,
    /// Hyperparameters, vocabulary, chat template.
    pub metadata: Metadata,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Where tensor data starts, in bytes from the start of the file.
    pub data_offset: u64,
}

impl GgufHeader {
    /// Reads the header of `source`, in pieces of 1 to 4 MiB; tensor data is not read beyond the
    /// piece the header ends in. `file` is stored in each [`TensorInfo`].
    ///
    /// # Errors
    ///
    /// [`Error::Format`] naming the file, the key or tensor and the numbers that do not fit;
    /// [`Error::Unsupported`] for a version or tensor type we have no code for; the source's own
    /// [`Error::Io`].
    ///
    /// # Examples
    ///
    /// ```
    /// use shardlight::weights::{BytesSource, gguf};
    /// use shardlight::DType;
    ///
    /// let bytes = gguf::Writer::new()
    ///     .metadata("general.name", gguf::MetaValue::String("tiny".into()))
    ///     .tensor("token_embd.weight", DType::F32, &[2, 3], vec![0; 24])
    ///     .to_bytes()?;
    /// let source = BytesSource::new("tiny.gguf", bytes);
    /// let header = pollster::block_on(gguf::GgufHeader::read(&source, 0))?;
    /// assert_eq!(header.metadata.str("general.name")?, "tiny");
    /// assert_eq!(header.tensors[0].shape, [2, 3]);
    /// # Ok::<(), shardlight::Error>(())
    /// ```
    pub async fn read(source: &dyn WeightSource, file: usize) -> Result<GgufHeader> {
        let mut parser = Parser {
            file: source.name(),
            reader: Reader::new(source),
            scratch: Vec::new(),
        };
        parser.header(source.len(), file).await
    }
}

/// Tensor as the header has it; the offset is relative and nothing is checked against the file.
struct RawTensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

struct Parser<'a> {
    file: &'a str,
    reader: Reader<'a>,
    scratch: Vec<u8>,
}

impl Parser<'_> {
    async fn header(&mut self, len: u64, file: usize) -> Result<GgufHeader> {
        let name = self.file;
        let here = || name.to_string();
        let head = self.reader.peek(file_kind::HEAD).await;
        let kind = FileKind::detect(head.map_err(|e| e.at(here))?, len);
        kind.expect(&FileKind::Gguf, name)?;
        let start = self.start().await.map_err(|e| e.at(here))?;

        let mut metadata = Metadata::new(name);
        for i in 0..start.keys {
            let key = self.key(&metadata).await;
            let key = key.map_err(|e| e.at(|| format!("{name}: key {i}")))?;
            let value = self.value().await;
            let value = value.map_err(|e| e.at(|| format!("{name}: key {}", shown(&key))))?;
            metadata.insert(key, value);
        }
        let alignment = alignment(&metadata).map_err(|e| e.at(here))?;

        let count = start.tensors;
        self.reader
            .check_count(count, 32, &format!("header names {count} tensors"))
            .map_err(|e| e.at(here))?;
        let mut raw = Vec::new();
        for i in 0..count {
            let tensor = self.reader.string(&mut self.scratch, LONGEST_NAME, "name");
            let tensor = match tensor.await {
                Ok("") => bad!("name is empty"),
                Ok(tensor) => Ok(tensor.to_string()),
                Err(fault) => Err(fault),
            };
            let tensor = tensor.map_err(|e| e.at(|| format!("{name}: tensor {i}")))?;
            let place = format!("{name}: tensor {}", shown(&tensor));
            raw.push(self.tensor(tensor).await.map_err(|e| e.at(|| place))?);
        }

        let data_offset = self.reader.offset().next_multiple_of(alignment);
        let mut tensors = Vec::with_capacity(raw.len());
        for tensor in raw {
            tensors.push(place_tensor(
                name,
                tensor,
                alignment,
                data_offset,
                len,
                file,
            )?);
        }
        check_names(name, &tensors)?;
        check_overlap(name, &tensors)?;
        Ok(GgufHeader {
            version: start.version,
            alignment,
            metadata,
            tensors,
            data_offset,
        })
    }

    async fn start(&mut self) -> Result<Start, Fault> {
        let _magic: [u8; 4] = self.reader.take("the magic number").await?;
        let version = self.reader.u32("the version").await?;
        if !(2..=3).contains(&version) {
            return Err(Fault::Unsupported(
                format!("GGUF version {version}"),
                "2, 3".into(),
            ));
        }
        let tensors = self.reader.u64("the number of tensors").await?;
        let keys = self.reader.u64("the number of keys").await?;
        // Shortest tensor: one dimension. Shortest key: a byte. Empty names have their own error.
        let reader = &self.reader;
        reader.check_count(tensors, 32, &format!("header names {tensors} tensors"))?;
        reader.check_count(keys, 13, &format!("header names {keys} keys"))?;
        Ok(Start {
            version,
            tensors,
            keys,
        })
    }

    async fn key(&mut self, metadata: &Metadata) -> Result<String, Fault> {
        let key = self.reader.string(&mut self.scratch, LONGEST_KEY, "key");
        let key = key.await?;
        if key.is_empty() {
            return bad!("key is empty");
        }
        if metadata.get(key).is_some() {
            return bad!("{} is there twice", shown(key));
        }
        let key = key.to_string();
        self.reader.charge(2 * size_of::<MetaValue>() as u64)?;
        Ok(key)
    }

    async fn value(&mut self) -> Result<MetaValue, Fault> {
        let kind = self.reader.u32("the value's type").await?;
        let r = &mut self.reader;
        let what = "the value";
        Ok(match kind {
            0 => MetaValue::U8(u8::from_le_bytes(r.take(what).await?)),
            1 => MetaValue::I8(i8::from_le_bytes(r.take(what).await?)),
            2 => MetaValue::U16(u16::from_le_bytes(r.take(what).await?)),
            3 => MetaValue::I16(i16::from_le_bytes(r.take(what).await?)),
            4 => MetaValue::U32(u32::from_le_bytes(r.take(what).await?)),
            5 => MetaValue::I32(i32::from_le_bytes(r.take(what).await?)),
            6 => MetaValue::F32(f32::from_le_bytes(r.take(what).await?)),
            7 => MetaValue::Bool(truth(r.take(what).await?)?),
            8 => {
                let text = r.string(&mut self.scratch, u64::MAX, "string");
                MetaValue::String(text.await?.to_string())
            }
            9 => MetaValue::Array(self.array(1).await?),
            10 => MetaValue::U64(u64::from_le_bytes(r.take(what).await?)),
            11 => MetaValue::I64(i64::from_le_bytes(r.take(what).await?)),
            12 => MetaValue::F64(f64::from_le_bytes(r.take(what).await?)),
            _ => return bad!("value type {kind}, GGUF has 0 to 12"),
        })
    }

    /// An array at nesting `depth`, 1 for one that holds plain values.
    async fn array(&mut self, depth: u32) -> Result<MetaArray, Fault> {
        if depth > DEEPEST_ARRAY {
            return bad!("arrays are nested deeper than {DEEPEST_ARRAY}");
        }
        let kind = self.reader.u32("the array's element type").await?;
        let n = self.reader.u64("the array's length").await?;
        // Smallest size in the file, and in memory.
        let (least, cost) = match kind {
            0 | 1 | 7 => (1, 1),
            2 | 3 => (2, 2),
            4..=6 => (4, 4),
            10..=12 => (8, 8),
            8 => (8, size_of::<usize>() as u64),
            9 => (12, size_of::<MetaArray>() as u64),
            _ => return bad!("array element type {kind}, GGUF has 0 to 12"),
        };
        let n = self
            .reader
            .check_count(n, least, &format!("array has {n} elements"))?;
        self.reader.charge((n as u64).saturating_mul(cost))?;
        Ok(match kind {
            0 => MetaArray::U8(self.elements(n, u8::from_le_bytes).await?),
            1 => MetaArray::I8(self.elements(n, i8::from_le_bytes).await?),
            2 => MetaArray::U16(self.elements(n, u16::from_le_bytes).await?),
            3 => MetaArray::I16(self.elements(n, i16::from_le_bytes).await?),
            4 => MetaArray::U32(self.elements(n, u32::from_le_bytes).await?),
            5 => MetaArray::I32(self.elements(n, i32::from_le_bytes).await?),
            6 => MetaArray::F32(self.elements(n, f32::from_le_bytes).await?),
            7 => {
                let bytes = self.elements(n, |b: [u8; 1]| b).await?;
                MetaArray::Bool(bytes.into_iter().map(truth).collect::<Result<_, _>>()?)
            }
            8 => {
                let mut strings = Strings::with_capacity(n);
                for i in 0..n {
                    let text = self.reader.string(&mut self.scratch, u64::MAX, "string");
                    match text.await {
                        Ok(text) => strings.push(text),
                        Err(Fault::Bad(reason)) => return bad!("element {i}: {reason}"),
                        Err(fault) => return Err(fault),
                    }
                }
                MetaArray::String(strings)
            }
            10 => MetaArray::U64(self.elements(n, u64::from_le_bytes).await?),
            11 => MetaArray::I64(self.elements(n, i64::from_le_bytes).await?),
            12 => MetaArray::F64(self.elements(n, f64::from_le_bytes).await?),
            _ => {
                let mut arrays = Vec::with_capacity(n);
                for _ in 0..n {
                    // Boxed: an async fn cannot hold itself.
                    let inner: Pin<Box<dyn Future<Output = _> + '_>> =
                        Box::pin(self.array(depth + 1));
                    arrays.push(inner.await?);
                }
                MetaArray::Array(arrays)
            }
        })
    }

    /// `n` numbers, `n` checked by the caller; converted in small pieces, so that nothing but the
    /// result is large.
    async fn elements<const N: usize, T>(
        &mut self,
        n: usize,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Fault> {
        let mut out = Vec::with_capacity(n);
        let mut piece = [0; 4096];
        while out.len() < n {
            let now = (n - out.len()).min(piece.len() / N);
            let bytes = &mut piece[..now * N];
            self.reader.fill(bytes, "the array").await?;
            out.extend(bytes.as_chunks().0.iter().map(|&b| from(b)));
        }
        Ok(out)
    }

    async fn tensor(&mut self, name: String) -> Result<RawTensor, Fault> {
        let n_dims = self.reader.u32("the number of dimensions").await?;
        if n_dims == 0 || n_dims > MOST_DIMS {
            return bad!("{n_dims} dimensions, expected 1 to {MOST_DIMS}");
        }
        let mut dims = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            dims.push(self.reader.u64("the dimensions").await?);
        }
        let kind = self.reader.u32("the tensor's type").await?;
        let offset = self.reader.u64("the tensor's offset").await?;
        let (dtype, shape, bytes) = tensor_size(&dims, kind)?;
        // The raw and the final description, a file and a device name for each.
        self.reader.charge(2 * size_of::<TensorInfo>() as u64)?;
        Ok(RawTensor {
            name,
            dtype,
            shape,
            offset,
            bytes,
        })
    }
}

struct Start {
    version: u32,
    tensors: u64,
    keys: u64,
}

fn truth(byte: [u8; 1]) -> Result<bool, Fault> {
    match byte[0] {
        0 => Ok(false),
        1 => Ok(true),
        b => bad!("bool of value {b}, expected 0 or 1"),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, Fault> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(MetaValue::U32(n)) if n.is_power_of_two() && (8..=LARGEST_ALIGNMENT).contains(n) => {
            Ok(u64::from(*n))
        }
        Some(MetaValue::U32(n)) => bad!(
            "key {ALIGNMENT_KEY}: alignment {n}, expected a power of two from 8 to {LARGEST_ALIGNMENT}"
        ),
        Some(value) => bad!(
            "key {ALIGNMENT_KEY}: expected u32, it is of type {}",
            value.type_name()
        ),
    }
}

/// Type, row-major shape and length in bytes of a tensor with ggml's dimensions `dims`.
fn tensor_size(dims: &[u64], kind: u32) -> Result<(DType, Vec<usize>, u64), Fault> {
    let Some(dtype) = DType::from_ggml(kind) else {
        let names: Vec<&str> = DType::WEIGHTS.iter().map(|t| t.name()).collect();
        let known = match ggml_type_name(kind) {
            Some(name) => format!("type {name} ({kind})"),
            None => format!("unknown type {kind}"),
        };
        return Err(Fault::Unsupported(known, names.join(", ")));
    };
    if let Some(i) = dims.iter().position(|&d| d == 0) {
        return bad!("dimension {i} of {dims:?} is 0");
    }
    let (len, size) = (dtype.block_len() as u64, dtype.block_bytes() as u64);
    if !dims[0].is_multiple_of(len) {
        return bad!(
            "rows of {} elements are not whole {dtype} blocks of {len}",
            dims[0]
        );
    }
    let bytes = dims[1..]
        .iter()
        .try_fold(dims[0] / len, |n, &d| n.checked_mul(d))
        .and_then(|blocks| blocks.checked_mul(size));
    let shape: Option<Vec<usize>> = dims
        .iter()
        .rev()
        .map(|&d| usize::try_from(d).ok())
        .collect();
    match (shape, bytes) {
        // Elements must be countable too: a block has fewer bytes than elements.
        (Some(shape), Some(bytes)) if bytes.checked_mul(2).is_some() => Ok((dtype, shape, bytes)),
        _ => bad!("{dtype} dimensions {dims:?} overflow"),
    }
}

fn ggml_type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        9 => "q8_1",
        10 => "q2_k",
        11 => "q3_k",
        15 => "q8_k",
        16 => "iq2_xxs",
        17 => "iq2_xs",
        18 => "iq3_xxs",
        19 => "iq1_s",
        20 => "iq4_nl",
        21 => "iq3_s",
        22 => "iq2_s",
        23 => "iq4_xs",
        24 => "i8",
        25 => "i16",
        26 => "i32",
        27 => "i64",
        28 => "f64",
        29 => "iq1_m",
        34 => "tq1_0",
        35 => "tq2_0",
        39 => "mxfp4",
        _ => return None,
    })
}

/// Checks the tensor's bytes against the file and makes its offset absolute.
fn place_tensor(
    name: &str,
    tensor: RawTensor,
    alignment: u64,
    data_offset: u64,
    len: u64,
    file: usize,
) -> Result<TensorInfo> {
    let RawTensor { offset, bytes, .. } = tensor;
    let place = || format!("{name}: tensor {}", shown(&tensor.name));
    if !offset.is_multiple_of(alignment) {
        let reason = format!("offset {offset} is not a multiple of the alignment {alignment}");
        return Err(Error::format(place(), reason));
    }
    let start = data_offset.checked_add(offset);
    let end = start.and_then(|start| start.checked_add(bytes));
    match (start, end) {
        (Some(start), Some(end)) if end <= len => Ok(TensorInfo {
            offset: start,
            bytes,
            file,
            dtype: tensor.dtype,
            shape: tensor.shape,
            name: tensor.name,
        }),
        _ => Err(Error::format(
            place(),
            format_args!(
                "needs {bytes} bytes at offset {offset} of the data, which starts at {data_offset}; file has {len} bytes"
            ),
        )),
    }
}

/// No name may be there twice.
fn check_names(file: &str, tensors: &[TensorInfo]) -> Result<()> {
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::format(
            format_args!("{file}: tensor {}", shown(pair[0])),
            "is there twice",
        )),
    }
}

/// No byte may belong to two tensors.
pub(crate) fn check_overlap(file: &str, tensors: &[TensorInfo]) -> Result<()> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_unstable_by_key(|t| t.offset);
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if a.offset + a.bytes > b.offset {
            return Err(Error::format(
                format_args!("{file}: tensor {}", shown(&b.name)),
                format_args!(
                    "starts at byte {}, inside tensor {} which ends at {}",
                    b.offset,
                    shown(&a.name),
                    a.offset + a.bytes
                ),
            ));
        }
    }
    Ok(())
}
