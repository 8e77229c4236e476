//! Host memory as device buffers, and how kernels see it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::kernels::Params;
use crate::weights::MappedBytes;

/// A buffer's memory: our own, 16-byte aligned, or a part of a mapped file, read-only.
///
/// A lock and not a `RefCell`, so that a recording can run on a thread of the pool.
pub(super) enum CpuMemory {
    Owned {
        words: RwLock<Vec<u128>>,
        len: usize,
    },
    Mapped {
        bytes: MappedBytes,
        range: Range<usize>,
    },
}

impl CpuMemory {
    /// `None` when the allocator has no room.
    pub(super) fn zeroed(bytes: u64) -> Option<Self> {
        let len = usize::try_from(bytes).ok()?;
        let count = len.div_ceil(16);
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        words.resize(count, 0u128);
        Some(CpuMemory::Owned {
            words: RwLock::new(words),
            len,
        })
    }

    /// `None` when the range is not inside `bytes`.
    pub(super) fn mapped(bytes: &MappedBytes, range: Range<u64>) -> Option<Self> {
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        (**bytes).as_ref().get(range.clone())?;
        Some(CpuMemory::Mapped {
            bytes: Arc::clone(bytes),
            range,
        })
    }

    pub(super) fn bytes(&self) -> Bytes<'_> {
        match self {
            CpuMemory::Owned { words, len } => Bytes::Owned(Elements::new(read(words), *len)),
            CpuMemory::Mapped { bytes, range } => Bytes::Mapped(&(**bytes).as_ref()[range.clone()]),
        }
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let CpuMemory::Owned { words, len } = self else {
            return Err("write into a mapped file".to_string());
        };
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|s| Some(s..s.checked_add(bytes.len())?));
        let range = range.filter(|r| r.end <= *len).ok_or_else(|| {
            format!(
                "write of bytes {offset} + {} into a buffer of {len}",
                bytes.len()
            )
        })?;
        let mut words = write(words);
        bytemuck::cast_slice_mut::<u128, u8>(&mut words)[range].copy_from_slice(bytes);
        Ok(())
    }
}

// A lock is poisoned only when a kernel has panicked, and with it the whole run.
fn read(words: &RwLock<Vec<u128>>) -> RwLockReadGuard<'_, Vec<u128>> {
    let words = words.try_read();
    words.expect("no binding is read while it is written")
}

fn write(words: &RwLock<Vec<u128>>) -> RwLockWriteGuard<'_, Vec<u128>> {
    let words = words.try_write();
    words.expect("no binding is written while it is in use")
}

/// Elements of a buffer, borrowed for reading.
pub struct Elements<'a, T> {
    words: RwLockReadGuard<'a, Vec<u128>>,
    len: usize,
    elements: PhantomData<T>,
}

impl<'a, T> Elements<'a, T> {
    fn new(words: RwLockReadGuard<'a, Vec<u128>>, bytes: usize) -> Self {
        Elements {
            words,
            len: bytes / size_of::<T>(),
            elements: PhantomData,
        }
    }
}

impl<T: bytemuck::AnyBitPattern> Deref for Elements<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// Elements of a buffer, borrowed for writing.
pub struct ElementsMut<'a, T> {
    words: RwLockWriteGuard<'a, Vec<u128>>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: bytemuck::Pod> Deref for ElementsMut<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl<T: bytemuck::Pod> DerefMut for ElementsMut<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// Bytes of a buffer, borrowed for reading.
pub enum Bytes<'a> {
    /// Of memory that is ours.
    Owned(Elements<'a, u8>),
    /// Of a mapped file.
    Mapped(&'a [u8]),
}

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes,
        }
    }
}

/// What a kernel's CPU implementation gets: parameters, and its bindings by number.
///
/// Borrows are checked at run time; [`super::CpuDevice`] refuses recordings that would bind a
/// written buffer twice, so a kernel that takes each binding once never fails.
pub struct CpuDispatch<'a> {
    /// Parameters of the call.
    pub params: &'a Params,
    buffers: Vec<Option<&'a CpuMemory>>,
}

impl<'a> CpuDispatch<'a> {
    pub(super) fn new(params: &'a Params, buffers: Vec<Option<&'a CpuMemory>>) -> Self {
        CpuDispatch { params, buffers }
    }

    pub(super) fn is_aliased(&self, binding: usize) -> bool {
        let Some(memory) = self.buffers[binding] else {
            return false;
        };
        let same = |b: &&CpuMemory| std::ptr::eq(*b, memory);
        self.buffers.iter().flatten().filter(|b| same(b)).count() > 1
    }

    /// Is this optional binding there?
    pub fn has(&self, binding: usize) -> bool {
        self.buffers[binding].is_some()
    }

    fn memory(&self, binding: usize) -> &'a CpuMemory {
        self.buffers[binding].expect("a binding that is not optional is there")
    }

    /// A weight's bytes, or any binding's.
    pub fn bytes(&self, binding: usize) -> Bytes<'a> {
        self.memory(binding).bytes()
    }

    /// Elements of type `T` (f32, u32) for reading.
    pub fn read<T: bytemuck::AnyBitPattern>(&self, binding: usize) -> Elements<'a, T> {
        match self.memory(binding) {
            CpuMemory::Owned { words, len } => Elements::new(read(words), *len),
            CpuMemory::Mapped { .. } => panic!("only weights are bound as mapped memory"),
        }
    }

    /// Elements of type `T` (f32, u32) for writing.
    pub fn write<T: bytemuck::Pod>(&self, binding: usize) -> ElementsMut<'a, T> {
        match self.memory(binding) {
            CpuMemory::Owned { words, len } => ElementsMut {
                words: write(words),
                len: len / size_of::<T>(),
                elements: PhantomData,
            },
            CpuMemory::Mapped { .. } => panic!("a mapped file is never written"),
        }
    }

    /// f32 elements for reading.
    pub fn f32(&self, binding: usize) -> Elements<'a, f32> {
        self.read(binding)
    }

    /// f32 elements for writing.
    pub fn f32_mut(&self, binding: usize) -> ElementsMut<'a, f32> {
        self.write(binding)
    }

    /// u32 elements for reading.
    pub fn u32(&self, binding: usize) -> Elements<'a, u32> {
        self.read(binding)
    }
}
