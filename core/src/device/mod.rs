//! What a device must be able to do: hold buffers and run recordings. No method is an operator;
//! those are [kernels](crate::kernels).

pub mod cpu;
mod ledger;
mod select;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use ledger::{Entry, Ledger, MemoryUse, Purpose};
pub use select::{Backend, DeviceChoice, flags, list, open, open_with_reason, register};

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use crate::Result;
use crate::profile::{Clock, Measured};
use crate::recording::Recording;
use crate::tensor::{Storage, Tensor};
use crate::weights::MappedBytes;
use crate::weights::source::LocalFuture;

/// What kind of hardware a device is; `auto` prefers them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// A graphics card of its own.
    DiscreteGpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
    /// A GPU of unknown build, or a virtual one.
    OtherGpu,
    /// Our own SIMD code.
    Cpu,
    /// A GPU API on a CPU (lavapipe, SwiftShader, WARP): slower than [`DeviceKind::Cpu`].
    SoftwareGpu,
}

impl DeviceKind {
    /// True for GPU APIs, software ones included.
    pub fn is_gpu(self) -> bool {
        self != DeviceKind::Cpu
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::DiscreteGpu => "discrete GPU",
            DeviceKind::IntegratedGpu => "integrated GPU",
            DeviceKind::OtherGpu => "GPU",
            DeviceKind::Cpu => "CPU",
            DeviceKind::SoftwareGpu => "software GPU",
        })
    }
}

/// How a device wants weights stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As in the model file, so that a mapped file is used in place.
    File,
    /// Rows of 16-byte words, see [`crate::weights::planar`].
    Planar,
}

/// What a device is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name, as the driver gives it.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`, `webgpu`, `cuda`.
    pub backend: String,
    /// Kind of hardware.
    pub kind: DeviceKind,
    /// Driver and version, or the CPU's instruction set.
    pub driver: String,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

/// What kernels have to fit into, and what they may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Kind of hardware: software GPUs get variants without barriers.
    pub kind: DeviceKind,
    /// Weight layout.
    pub layout: Layout,
    /// Largest binding, and so the largest slice of a weight, in bytes.
    pub max_binding_bytes: u64,
    /// Most invocations in a workgroup.
    pub max_workgroup_size: u32,
    /// Most workgroup memory, in bytes.
    pub max_workgroup_bytes: u32,
    /// Most workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Smallest and largest subgroup size, when subgroup operations can be used.
    pub subgroup: Option<(u32, u32)>,
    /// Can shaders use `f16`?
    pub f16: bool,
    /// Can shaders use dot products of packed bytes (WGSL's `packed_4x8_integer_dot_product`)?
    pub packed_dot: bool,
}

/// Device memory. Cloning shares it.
#[derive(Clone)]
pub struct Buffer {
    inner: Rc<dyn Any>,
    bytes: u64,
    entry: Option<Rc<Entry>>,
}

impl Buffer {
    /// Wraps a device's own object; no [`Ledger`] counts it.
    pub fn new(inner: impl Any, bytes: u64) -> Self {
        Buffer {
            inner: Rc::new(inner),
            bytes,
            entry: None,
        }
    }

    /// The same, counted by a [`Ledger`] until its last clone is dropped.
    #[must_use]
    pub fn counted(mut self, entry: Entry) -> Self {
        self.entry = Some(Rc::new(entry));
        self
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells buffers apart.
    pub(crate) fn address(&self) -> usize {
        Rc::as_ptr(&self.inner).cast::<()>().addr()
    }

    /// The device's own object, if it is of this type.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// A recording made ready by one device: pipelines compiled, scratch memory allocated, arguments
/// bound. It can be run any number of times.
#[derive(Clone)]
pub struct Prepared {
    inner: Rc<dyn Any>,
    scratch: Vec<Buffer>,
    segments: usize,
}

impl Prepared {
    /// Wraps a device's own object; `scratch` is the recording's scratch memory in its order, `segments`
    /// the number of its [segments](Recording::segments).
    pub fn new(inner: impl Any, scratch: Vec<Buffer>, segments: usize) -> Self {
        Prepared {
            inner: Rc::new(inner),
            scratch,
            segments,
        }
    }

    /// Number of segments between collectives.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The device's own object, if it is of this type.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }

    /// Where a scratch tensor of the recording ended up; its content is that of the last run only
    /// if the recording [keeps](Recording::keep) it.
    pub fn tensor<'a>(&'a self, tensor: &'a Tensor) -> Option<&'a Buffer> {
        match &tensor.storage {
            Storage::Buffer(buffer) => Some(buffer),
            Storage::Scratch(slot) => self.scratch.get(*slot),
        }
    }
}

/// Something that holds buffers and runs [`Recording`]s.
///
/// All that can wait is a future: blocking on a read-back deadlocks in browsers.
pub trait Device {
    /// Its name.
    fn info(&self) -> &DeviceInfo;

    /// What kernels must fit into.
    fn limits(&self) -> &Limits;

    /// The account of its memory.
    fn ledger(&self) -> &Ledger;

    /// Allocates `bytes` of zeroed memory; `label` names it in messages.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`].
    fn alloc<'a>(
        &'a self,
        bytes: u64,
        purpose: Purpose,
        label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>>;

    /// Uses host memory in place, read-only, if the device can.
    fn import(&self, _bytes: &MappedBytes, _range: Range<u64>) -> Option<Buffer> {
        None
    }

    /// Queues a write of `bytes` at `offset`; offset and length are multiples of 4.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when it does not fit, [`crate::Error::DeviceLost`].
    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Waits until queued writes have left host memory.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DeviceLost`], [`crate::Error::OutOfMemory`].
    fn flush(&self) -> LocalFuture<'_, Result<()>>;

    /// Reads `bytes` bytes from `offset`, after all work queued before.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DeviceLost`].
    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>>;

    /// Compiles what `recording` needs and allocates its scratch memory.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Device`] when a kernel does not compile, [`crate::Error::OutOfMemory`].
    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>>;

    /// Queues one run of a segment.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DeviceLost`].
    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()>;

    /// Queues one run of a recording without collectives.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when it has some: those need a [`World`](crate::comm::World).
    fn run(&self, prepared: &Prepared) -> Result<()> {
        if prepared.segments() != 1 {
            return Err(crate::Error::Invalid(
                "a recording with collectives runs in a World".into(),
            ));
        }
        self.run_segment(prepared, 0)
    }

    /// Measures each kernel from now on, or no longer; with `clock` unless it has one of its own.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Device`] when it cannot.
    fn measure(&self, clock: Option<Clock>) -> Result<()> {
        match clock {
            None => Ok(()),
            Some(_) => Err(crate::Error::Device {
                device: self.info().name.clone(),
                reason: "its kernels cannot be measured".into(),
            }),
        }
    }

    /// What was measured since this was asked the last time, in the order of the calls.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DeviceLost`].
    fn measured(&self) -> LocalFuture<'_, Result<Vec<Measured>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Does it keep what is written? A device that only counts does not, and weights are then not read.
    fn takes_data(&self) -> bool {
        true
    }

    /// Frees all its memory at once and ends its work, as a driver's reset does: what is asked of it then is
    /// [`crate::Error::DeviceLost`]. Host memory stays until its buffers are dropped.
    fn destroy(&self) {}

    /// Opens it anew if it was lost and that can be done in this process; false for one that works, or is beyond
    /// help. Buffers and recordings of before are of no use then.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Device`] when it is no longer there.
    fn reopen(&self) -> LocalFuture<'_, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Itself, where a communicator may join devices of its type directly.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}
