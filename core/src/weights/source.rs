//! Byte sources: one async trait for mmap, bytes in memory, browser files, HTTP ranges and OPFS.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Error, Result};

/// A future that need not be `Send`: browsers have one thread, and natively a session owns its own.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A file's bytes, readable by range.
pub trait WeightSource {
    /// File name or address, for error messages.
    fn name(&self) -> &str;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// True when there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads exactly `out.len()` bytes from `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the range is not inside the file or cannot be read.
    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>>;

    /// Bytes that are read in the time that a read of its own takes to begin: gaps up to this long between
    /// wanted bytes are read too.
    fn seek_bytes(&self) -> u64 {
        0
    }

    /// The whole file, if it is in memory or mapped there: devices that compute in host memory
    /// use it in place instead of copying.
    fn mapped(&self) -> Option<MappedBytes> {
        None
    }
}

/// Bytes that stay where they are for as long as anybody holds this.
pub type MappedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Checks that `offset..offset + len` lies inside a file of `total` bytes.
///
/// # Errors
///
/// [`Error::Io`] naming all three numbers.
pub fn check_range(name: &str, offset: u64, len: u64, total: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(()),
        _ => Err(Error::io(
            name,
            format!("bytes {offset} + {len} asked for, file has {total}"),
        )),
    }
}

/// A file that is already in memory.
pub struct BytesSource {
    name: String,
    bytes: MappedBytes,
}

impl BytesSource {
    /// Wraps `bytes`; `name` is used in error messages.
    pub fn new(name: impl Into<String>, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        BytesSource {
            name: name.into(),
            bytes: Arc::new(bytes),
        }
    }
}

impl WeightSource for BytesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        (*self.bytes).as_ref().len() as u64
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            check_range(&self.name, offset, out.len() as u64, self.len())?;
            let start = offset as usize;
            out.copy_from_slice(&(*self.bytes).as_ref()[start..start + out.len()]);
            Ok(())
        })
    }

    fn mapped(&self) -> Option<MappedBytes> {
        Some(Arc::clone(&self.bytes))
    }
}
