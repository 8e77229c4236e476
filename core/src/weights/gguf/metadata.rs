//! Metadata of a GGUF file: keys with typed values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;

use crate::weights::shown;
use crate::{Error, Result};

/// A metadata value, in the type it has in the file.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the Rust type of its name")]
pub enum MetaValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(MetaArray),
}

/// An array of metadata values of one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the Rust type of its name")]
pub enum MetaArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Strings),
    Array(Vec<MetaArray>),
}

/// Many strings in one allocation: a vocabulary of 10^5 tokens costs its text and 8 bytes each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    /// No strings, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Strings {
            text: String::new(),
            ends: Vec::with_capacity(n),
        }
    }

    /// Adds one string at the end.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String number `i`.
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.text[start..end])
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        (0..self.len()).map(|i| &self[i])
    }
}

impl Index<usize> for Strings {
    type Output = str;

    fn index(&self, i: usize) -> &str {
        match self.get(i) {
            Some(text) => text,
            None => panic!("string {i} of {}", self.len()),
        }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut strings = Strings::default();
        for text in texts {
            strings.push(text.as_ref());
        }
        strings
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Calls `$body` with the elements of any array as a slice `$v`, or strings and arrays as they are.
macro_rules! each_array {
    ($array:expr, $v:ident => $body:expr) => {
        match $array {
            MetaArray::U8($v) => $body,
            MetaArray::I8($v) => $body,
            MetaArray::U16($v) => $body,
            MetaArray::I16($v) => $body,
            MetaArray::U32($v) => $body,
            MetaArray::I32($v) => $body,
            MetaArray::U64($v) => $body,
            MetaArray::I64($v) => $body,
            MetaArray::F32($v) => $body,
            MetaArray::F64($v) => $body,
            MetaArray::Bool($v) => $body,
            MetaArray::String($v) => $body,
            MetaArray::Array($v) => $body,
        }
    };
}

impl MetaArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_array!(self, v => v.len())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the element type, as in the GGUF specification.
    pub fn element_type(&self) -> &'static str {
        match self {
            MetaArray::U8(_) => "u8",
            MetaArray::I8(_) => "i8",
            MetaArray::U16(_) => "u16",
            MetaArray::I16(_) => "i16",
            MetaArray::U32(_) => "u32",
            MetaArray::I32(_) => "i32",
            MetaArray::U64(_) => "u64",
            MetaArray::I64(_) => "i64",
            MetaArray::F32(_) => "f32",
            MetaArray::F64(_) => "f64",
            MetaArray::Bool(_) => "bool",
            MetaArray::String(_) => "string",
            MetaArray::Array(_) => "array",
        }
    }

    /// The elements as integers of another width; `None` if they are not integers, `Some(Err)`
    /// with the first value that does not fit.
    fn integers<T: TryFrom<i128>>(&self) -> Option<Result<Vec<T>, i128>> {
        fn all<S: Copy + Into<i128>, T: TryFrom<i128>>(v: &[S]) -> Option<Result<Vec<T>, i128>> {
            let fit = |&x: &S| T::try_from(x.into()).map_err(|_| x.into());
            Some(v.iter().map(fit).collect())
        }
        match self {
            MetaArray::U8(v) => all(v),
            MetaArray::I8(v) => all(v),
            MetaArray::U16(v) => all(v),
            MetaArray::I16(v) => all(v),
            MetaArray::U32(v) => all(v),
            MetaArray::I32(v) => all(v),
            MetaArray::U64(v) => all(v),
            MetaArray::I64(v) => all(v),
            _ => None,
        }
    }
}

impl MetaValue {
    /// What the value is, for messages: `u32`, `array of string`.
    pub fn type_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            MetaValue::U8(_) => "u8",
            MetaValue::I8(_) => "i8",
            MetaValue::U16(_) => "u16",
            MetaValue::I16(_) => "i16",
            MetaValue::U32(_) => "u32",
            MetaValue::I32(_) => "i32",
            MetaValue::U64(_) => "u64",
            MetaValue::I64(_) => "i64",
            MetaValue::F32(_) => "f32",
            MetaValue::F64(_) => "f64",
            MetaValue::Bool(_) => "bool",
            MetaValue::String(_) => "string",
            MetaValue::Array(a) => return format!("array of {}", a.element_type()).into(),
        })
    }

    /// The value if it is an integer of any width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            MetaValue::U8(x) => x.into(),
            MetaValue::I8(x) => x.into(),
            MetaValue::U16(x) => x.into(),
            MetaValue::I16(x) => x.into(),
            MetaValue::U32(x) => x.into(),
            MetaValue::I32(x) => x.into(),
            MetaValue::U64(x) => x.into(),
            MetaValue::I64(x) => x.into(),
            _ => return None,
        })
    }
}

impl fmt::Display for MetaValue {
    /// The value on one line; long strings and arrays are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FIRST: usize = 6;
        match self {
            MetaValue::F32(x) => write!(f, "{x}"),
            MetaValue::F64(x) => write!(f, "{x}"),
            MetaValue::Bool(x) => write!(f, "{x}"),
            MetaValue::String(text) => f.write_str(&shown(text)),
            MetaValue::Array(MetaArray::String(v)) => {
                let first: Vec<String> = v.iter().take(FIRST).map(shown).collect();
                write!(f, "{} strings {first:?}", v.len())
            }
            MetaValue::Array(MetaArray::Array(v)) => write!(f, "{} arrays", v.len()),
            MetaValue::Array(a) => {
                let dots = if a.len() > FIRST { ", ..." } else { "" };
                write!(f, "{} {} [", a.len(), a.element_type())?;
                let first: Vec<String> = match a {
                    MetaArray::F32(v) => v.iter().take(FIRST).map(f32::to_string).collect(),
                    MetaArray::F64(v) => v.iter().take(FIRST).map(f64::to_string).collect(),
                    MetaArray::Bool(v) => v.iter().take(FIRST).map(bool::to_string).collect(),
                    _ => match a.integers::<i128>() {
                        Some(Ok(v)) => v.iter().take(FIRST).map(i128::to_string).collect(),
                        _ => Vec::new(),
                    },
                };
                write!(f, "{}{dots}]", first.join(", "))
            }
            _ => match self.integer() {
                Some(x) => write!(f, "{x}"),
                None => Ok(()),
            },
        }
    }
}

/// The metadata of one file, ordered by key.
///
/// Getters come in pairs: `u32(key)` wants the key to be there, `opt_u32(key)` gives `None` when
/// it is not. Both refuse a value of the wrong kind with an [`Error::Format`] that names file and
/// key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    file: String,
    values: BTreeMap<String, MetaValue>,
}

/// Documents a getter pair once and writes it twice.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident $opt:ident -> $type:ty, $wanted:literal, $value:ident $key:ident $this:ident => $body:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// [`Error::Format`] when the key is missing or its value does not fit.
            pub fn $name(&self, key: &str) -> Result<$type> {
                self.$opt(key)?.ok_or_else(|| self.missing(key))
            }

            $(#[$doc])*
            /// `None` when the key is missing.
            ///
            /// # Errors
            ///
            /// [`Error::Format`] when the value does not fit.
            pub fn $opt(&self, $key: &str) -> Result<Option<$type>> {
                let $this = self;
                let Some($value) = self.values.get($key) else { return Ok(None) };
                let found: Option<Result<$type>> = $body;
                found.unwrap_or_else(|| Err(self.wrong($key, $wanted, $value))).map(Some)
            }
        )*
    };
}

impl Metadata {
    /// No metadata yet; `file` is used in error messages.
    pub fn new(file: impl Into<String>) -> Self {
        Metadata {
            file: file.into(),
            values: BTreeMap::new(),
        }
    }

    /// The file this came from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The value of `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<&MetaValue> {
        self.values.get(key)
    }

    /// Sets `key`; gives back the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: MetaValue) -> Option<MetaValue> {
        self.values.insert(key.into(), value)
    }

    /// Every key and value, ordered by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &MetaValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True when there are no keys.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    getters! {
        /// An integer of any width whose value fits `u32`.
        u32 opt_u32 -> u32, "an integer", value key this => this.fit(key, value.integer());
        /// An integer of any width whose value fits `u64`.
        u64 opt_u64 -> u64, "an integer", value key this => this.fit(key, value.integer());
        /// An integer of any width whose value fits `usize`.
        usize opt_usize -> usize, "an integer", value key this => this.fit(key, value.integer());
        /// A finite number; an integer will do.
        f32 opt_f32 -> f32, "a number", value key this => {
            let number = match value {
                MetaValue::F32(x) => Some(*x),
                MetaValue::F64(x) => Some(*x as f32),
                _ => value.integer().map(|x| x as f32),
            };
            number.map(|x| {
                if x.is_finite() { Ok(x) } else { Err(this.at(key, format!("is {value}, expected a finite number"))) }
            })
        };
        /// A truth value.
        bool opt_bool -> bool, "a bool", value _key _this => match value {
            MetaValue::Bool(x) => Some(Ok(*x)),
            _ => None,
        };
        /// A string.
        str opt_str -> &str, "a string", value _key _this => match value {
            MetaValue::String(x) => Some(Ok(x)),
            _ => None,
        };
        /// An array of strings.
        strings opt_strings -> &Strings, "an array of strings", value _key _this => match value {
            MetaValue::Array(MetaArray::String(x)) => Some(Ok(x)),
            _ => None,
        };
        /// An array of f32.
        f32s opt_f32s -> &[f32], "an array of f32", value _key _this => match value {
            MetaValue::Array(MetaArray::F32(x)) => Some(Ok(x)),
            _ => None,
        };
        /// An array of integers of any width whose values fit `i32`.
        i32s opt_i32s -> Cow<'_, [i32]>, "an array of integers", value key this => match value {
            MetaValue::Array(MetaArray::I32(x)) => Some(Ok(Cow::Borrowed(x.as_slice()))),
            MetaValue::Array(x) => this.fit_all(key, x).map(|v| v.map(Cow::Owned)),
            _ => None,
        };
        /// An array of integers of any width whose values fit `u32`; one integer counts as an
        /// array of length 1 (`head_count_kv` is either).
        u32s opt_u32s -> Vec<u32>, "an integer or an array of integers", value key this => match value {
            MetaValue::Array(x) => this.fit_all(key, x),
            _ => this.fit(key, value.integer()).map(|x| x.map(|x| vec![x])),
        };
    }

    fn at(&self, key: &str, reason: String) -> Error {
        Error::format(format_args!("{}: key {}", self.file, shown(key)), reason)
    }

    fn missing(&self, key: &str) -> Error {
        Error::format(&self.file, format_args!("metadata has no key {key}"))
    }

    fn wrong(&self, key: &str, wanted: &str, value: &MetaValue) -> Error {
        let is = value.type_name();
        self.at(key, format!("expected {wanted}, it is of type {is}"))
    }

    fn fit<T: TryFrom<i128>>(&self, key: &str, value: Option<i128>) -> Option<Result<T>> {
        let too_big = |x| {
            self.at(
                key,
                format!("{x} does not fit {}", std::any::type_name::<T>()),
            )
        };
        value.map(|x| T::try_from(x).map_err(|_| too_big(x)))
    }

    fn fit_all<T: TryFrom<i128>>(&self, key: &str, array: &MetaArray) -> Option<Result<Vec<T>>> {
        let too_big = |x| {
            self.at(
                key,
                format!("{x} does not fit {}", std::any::type_name::<T>()),
            )
        };
        array.integers().map(|v| v.map_err(too_big))
    }
}
