//! A typed view of device memory.

use crate::DType;
use crate::device::Buffer;

/// Where a tensor's elements are.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In a buffer that outlives the recording.
    Buffer(Buffer),
    /// In scratch memory of the recording, by number.
    Scratch(usize),
}

/// Storage, element type and shape (slowest dimension first, contiguous).
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Where the elements are.
    pub storage: Storage,
    /// Element type.
    pub dtype: DType,
    /// Shape, slowest dimension first.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// A tensor over the whole of `storage`.
    pub fn new(storage: Storage, dtype: DType, shape: &[usize]) -> Self {
        Tensor {
            storage,
            dtype,
            shape: shape.to_vec(),
        }
    }

    /// A tensor over the whole of `buffer`.
    pub fn of(buffer: Buffer, dtype: DType, shape: &[usize]) -> Self {
        Tensor::new(Storage::Buffer(buffer), dtype, shape)
    }

    /// The same memory under another shape of as many elements.
    pub fn reshaped(&self, shape: &[usize]) -> Self {
        debug_assert_eq!(self.len(), shape.iter().product::<usize>());
        Tensor::new(self.storage.clone(), self.dtype, shape)
    }

    /// The buffer it is in, once it is in one.
    pub fn buffer(&self) -> Option<&Buffer> {
        match &self.storage {
            Storage::Buffer(buffer) => Some(buffer),
            Storage::Scratch(_) => None,
        }
    }

    /// Do both lie in the same buffer?
    pub fn shares_memory(&self, other: &Tensor) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Buffer(a), Storage::Buffer(b)) => a.address() == b.address(),
            (Storage::Scratch(a), Storage::Scratch(b)) => a == b,
            _ => false,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of its elements, in blocks as in a file.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.len()).unwrap_or(usize::MAX) as u64
    }

    /// True when a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements in the last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape
            .split_last()
            .map_or(1, |(_, r)| r.iter().product())
    }
}
