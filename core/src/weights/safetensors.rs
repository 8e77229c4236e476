//! Safetensors: header in, descriptions out; one file or an index of several.
//!
//! ```text
//! u64 n   JSON of n bytes: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}   data
//! ```
//!
//! The header is checked as strictly as the format asks: tensors cover the data from its first
//! byte to the file's last, without holes or overlaps, and no name is there twice. The
//! `safetensors` crate wants the whole file in memory for that and cannot see a key that is there
//! twice, so only its list of element types is used.
//!
//! Source: the safetensors README, "Format".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ::safetensors::Dtype;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::weights::{FileKind, TensorInfo, WeightSource, file_kind, shown};
use crate::{DType, Error, Result};

/// Longest header read. The format allows 100 MB; those of the largest models are near 1 MB.
const LONGEST_HEADER: u64 = 16 << 20;
const MOST_DIMS: usize = 8;

/// Everything one safetensors file, or all files of an index, say before their data.
#[derive(Clone, Debug, Default)]
pub struct SafetensorsHeader {
    place: String,
    /// `__metadata__`: free text by key.
    pub metadata: BTreeMap<String, String>,
    /// The tensors we can use, in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// The others, with the reason: they are an error only when a model asks for them.
    pub unusable: BTreeMap<String, String>,
    /// Of these the tensors of bytes.
    pub(super) bytes: BTreeMap<String, ByteTensor>,
}

/// Where a tensor of type U8 lies.
#[derive(Clone, Debug)]
pub(super) struct ByteTensor {
    pub(super) shape: Vec<usize>,
    /// First byte, counted from the start of its file.
    pub(super) offset: u64,
    /// Which file of the model.
    pub(super) file: usize,
}

impl SafetensorsHeader {
    /// What tensors can be used.
    pub(super) const SUPPORTED: &str = "f32, f16, bf16 with at least one element";

    /// Reads the header of `source`; tensor data is not read. `file` is stored in each
    /// [`TensorInfo`].
    ///
    /// # Errors
    ///
    /// [`Error::Format`] naming the file, the tensor and the numbers that do not fit; the source's
    /// own [`Error::Io`].
    pub async fn read(source: &dyn WeightSource, file: usize) -> Result<SafetensorsHeader> {
        let (name, len) = (source.name(), source.len());
        let mut head = vec![0; len.min(file_kind::HEAD as u64) as usize];
        source.read(0, &mut head).await?;
        let kind = FileKind::detect(&head, len);
        let n = match head.first_chunk() {
            Some(&n) if kind == FileKind::Safetensors => u64::from_le_bytes(n),
            _ => {
                kind.expect(&FileKind::Safetensors, name)?;
                return Err(Error::format(
                    name,
                    format_args!("{len} bytes, not a model"),
                ));
            }
        };
        if n > len - 8 || n > LONGEST_HEADER {
            let most = LONGEST_HEADER.min(len - 8);
            return Err(Error::format(
                name,
                format_args!("header is {n} bytes long, at most {most} fit; file has {len} bytes"),
            ));
        }
        let mut json = vec![0; n as usize];
        source.read(8, &mut json).await?;
        let raw: RawHeader = serde_json::from_slice(&json)
            .map_err(|e| Error::format(name, format_args!("header: {e}")))?;
        raw.check(name, len - 8 - n)?;
        Ok(raw.describe(name, 8 + n, file))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when there is none, [`Error::Unsupported`] when its type is not one we
    /// have code for.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        if let Some(tensor) = self.tensors.iter().find(|t| t.name == name) {
            return Ok(tensor);
        }
        match self.unusable.get(name) {
            Some(reason) => Err(Error::Unsupported {
                what: format!("{}: tensor {}: {reason}", self.place, shown(name)),
                supported: SafetensorsHeader::SUPPORTED.into(),
            }),
            None => Err(Error::format(
                &self.place,
                format_args!("has no tensor {}", shown(name)),
            )),
        }
    }
}

/// The header's JSON, with every key it has.
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Dims,
    data_offsets: (u64, u64),
}

/// At most [`MOST_DIMS`] numbers, so that a long list is refused before it is stored.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Dims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST_DIMS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == MOST_DIMS {
                        return Err(A::Error::invalid_length(MOST_DIMS + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(Numbers)
    }
}

/// A JSON object none of whose keys is there twice.
struct UniqueMap<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
            type Value = UniqueMap<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    check_new(&all, &key)?;
                    let value = map.next_value()?;
                    all.insert(key, value);
                }
                Ok(UniqueMap(all))
            }
        }
        deserializer.deserialize_map(Object(std::marker::PhantomData))
    }
}

fn check_new<V, E: serde::de::Error>(all: &BTreeMap<String, V>, key: &str) -> Result<(), E> {
    if all.contains_key(key) {
        return Err(E::custom(format_args!("key {} is there twice", shown(key))));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata: Option<UniqueMap<String>> = None;
                let mut tensors = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        if metadata.is_some() {
                            return Err(A::Error::custom("key __metadata__ is there twice"));
                        }
                        metadata = Some(map.next_value()?);
                        continue;
                    }
                    check_new(&tensors, &key)?;
                    if key.is_empty() {
                        return Err(A::Error::custom("a tensor's name is empty"));
                    }
                    let entry = map.next_value()?;
                    tensors.insert(key, entry);
                }
                let metadata = metadata.map_or_else(BTreeMap::new, |m| m.0);
                Ok(RawHeader { metadata, tensors })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Entry {
    /// The format's element type, if the crate knows it.
    fn dtype(&self) -> Option<Dtype> {
        let name: StrDeserializer<'_, ValueError> = self.dtype.as_str().into_deserializer();
        Dtype::deserialize(name).ok()
    }

    /// Bytes the shape needs; `None` when it overflows or is not whole bytes. Unknown types need
    /// what they say.
    fn need(&self) -> Option<u64> {
        let Some(dtype) = self.dtype() else {
            return Some(self.data_offsets.1 - self.data_offsets.0);
        };
        let elements = self
            .shape
            .0
            .iter()
            .try_fold(1_u64, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(dtype.bitsize() as u64)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl RawHeader {
    /// Entries in the order of their data.
    fn in_order(&self) -> Vec<(&String, &Entry)> {
        let mut order: Vec<_> = self.tensors.iter().collect();
        order.sort_by_key(|(_, entry)| entry.data_offsets);
        order
    }

    /// Checks that the tensors cover `data` bytes exactly, each with what its shape needs.
    fn check(&self, file: &str, data: u64) -> Result<()> {
        let wrong = |name: &str, reason: String| {
            Error::format(format_args!("{file}: tensor {}", shown(name)), reason)
        };
        let mut end = 0;
        let mut before = "";
        for (name, entry) in self.in_order() {
            let (from, to) = entry.data_offsets;
            if to < from {
                return Err(wrong(
                    name,
                    format!("data ends at {to}, before it starts at {from}"),
                ));
            }
            let (dtype, shape) = (shown(&entry.dtype), &entry.shape.0);
            match entry.need() {
                None => return Err(wrong(name, format!("{dtype} shape {shape:?} overflows"))),
                Some(need) if need != to - from => {
                    let has = to - from;
                    let reason = format!("{dtype} {shape:?} needs {need} bytes, it has {has}");
                    return Err(wrong(name, reason));
                }
                Some(_) => {}
            }
            if from > end {
                let hole = from - end;
                let reason = format!(
                    "starts at byte {from} of the data; {hole} bytes before it belong to no tensor"
                );
                return Err(wrong(name, reason));
            }
            if from < end {
                let before = shown(before);
                let reason = format!(
                    "starts at byte {from} of the data, inside tensor {before} which ends at {end}"
                );
                return Err(wrong(name, reason));
            }
            if to > data {
                let reason = format!("ends at byte {to} of the data, which has {data} bytes");
                return Err(wrong(name, reason));
            }
            end = to;
            before = name;
        }
        if end < data {
            let tail = data - end;
            let reason = format!("{tail} bytes after the last tensor belong to none");
            return Err(Error::format(file, reason));
        }
        Ok(())
    }

    /// Descriptions of the tensors, once [`RawHeader::check`] has passed.
    fn describe(self, place: &str, start: u64, file: usize) -> SafetensorsHeader {
        let mut header = SafetensorsHeader {
            place: place.into(),
            ..SafetensorsHeader::default()
        };
        for (name, entry) in self.in_order() {
            let dtype = match entry.dtype() {
                Some(Dtype::F32) => Some(DType::F32),
                Some(Dtype::F16) => Some(DType::F16),
                Some(Dtype::BF16) => Some(DType::BF16),
                _ => None,
            };
            let shape: Option<Vec<usize>> = entry
                .shape
                .0
                .iter()
                .map(|&d| usize::try_from(d).ok())
                .collect();
            if let (Some(Dtype::U8), Some(shape)) = (entry.dtype(), &shape) {
                let tensor = ByteTensor {
                    shape: shape.clone(),
                    offset: start + entry.data_offsets.0,
                    file,
                };
                header.bytes.insert(name.clone(), tensor);
            }
            let reason = match (dtype, shape) {
                (None, _) => format!("has type {}", shown(&entry.dtype)),
                (_, None) => format!("has shape {:?}", entry.shape.0),
                (Some(_), Some(shape)) if shape.contains(&0) => format!("has shape {shape:?}"),
                (Some(dtype), Some(shape)) => {
                    let (from, to) = entry.data_offsets;
                    header.tensors.push(TensorInfo {
                        name: name.clone(),
                        dtype,
                        shape,
                        offset: start + from,
                        bytes: to - from,
                        file,
                    });
                    continue;
                }
            };
            header.unusable.insert(name.clone(), reason);
        }
        header.metadata = self.metadata;
        header
    }
}

/// `model.safetensors.index.json`: which file each tensor of a model is in.
#[derive(Clone, Debug)]
pub struct SafetensorsIndex {
    name: String,
    /// The files, in order of their names; [`TensorInfo::file`] counts in this list.
    pub files: Vec<String>,
    /// Tensor name to a number in `files`.
    pub tensors: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: UniqueMap<String>,
}

impl SafetensorsIndex {
    /// Parses the index's JSON; `name` is used in error messages.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for wrong JSON, a tensor that is there twice, or a file name that is not
    /// a plain name in the same folder.
    pub fn parse(name: &str, json: &[u8]) -> Result<SafetensorsIndex> {
        let raw: RawIndex = serde_json::from_slice(json).map_err(|e| Error::format(name, e))?;
        let map = raw.weight_map.0;
        if map.is_empty() {
            return Err(Error::format(name, "weight_map names no tensors"));
        }
        for (tensor, file) in &map {
            let plain = !file.contains(['/', '\\', ':', '\0']) && !file.contains("..");
            if !plain || !file.ends_with(".safetensors") || file.chars().any(char::is_control) {
                return Err(Error::format(
                    format_args!("{name}: tensor {}", shown(tensor)),
                    format_args!(
                        "is in file {:?}, expected a plain name that ends in .safetensors",
                        shown(file)
                    ),
                ));
            }
        }
        let files: Vec<String> = map
            .values()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .cloned()
            .collect();
        let tensors = map
            .into_iter()
            .filter_map(|(tensor, file)| Some((tensor, files.binary_search(&file).ok()?)))
            .collect();
        Ok(SafetensorsIndex {
            name: name.into(),
            files,
            tensors,
        })
    }

    /// One description of the whole model from the headers of [`SafetensorsIndex::files`], in that
    /// order and read with those file numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when a tensor is not in the file the index names, or in a file it does
    /// not name; [`Error::Invalid`] when there are more or fewer headers than files.
    pub fn collect(&self, headers: Vec<SafetensorsHeader>) -> Result<SafetensorsHeader> {
        if headers.len() != self.files.len() {
            return Err(Error::Invalid(format!(
                "{}: {} headers given for {} files",
                self.name,
                headers.len(),
                self.files.len()
            )));
        }
        let mut all = SafetensorsHeader {
            place: self.name.clone(),
            ..SafetensorsHeader::default()
        };
        let mut seen = BTreeSet::new();
        for (file, header) in headers.into_iter().enumerate() {
            let names = header.tensors.iter().map(|t| &t.name);
            for name in names.chain(header.unusable.keys()) {
                let place = || format!("{}: tensor {}", self.name, shown(name));
                match self.tensors.get(name) {
                    Some(&f) if f == file => seen.insert(name.clone()),
                    Some(&f) => {
                        let (is, said) = (&self.files[file], &self.files[f]);
                        let reason = format!("is in file {is}, the index says {said}");
                        return Err(Error::format(place(), reason));
                    }
                    None => {
                        let reason = format!("is in file {}, not in the index", self.files[file]);
                        return Err(Error::format(place(), reason));
                    }
                };
            }
            all.metadata.extend(header.metadata);
            all.tensors.extend(header.tensors);
            all.unusable.extend(header.unusable);
            all.bytes.extend(header.bytes);
        }
        match self.tensors.iter().find(|(name, _)| !seen.contains(*name)) {
            None => Ok(all),
            Some((name, &file)) => Err(Error::format(
                format_args!("{}: tensor {}", self.name, shown(name)),
                format_args!(
                    "is not in file {}, where the index says it is",
                    self.files[file]
                ),
            )),
        }
    }
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
