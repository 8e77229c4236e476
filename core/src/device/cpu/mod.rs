//! The CPU device: our own code, multi-threaded natively, SIMD where the processor has it.
//!
//! Weights stay in the file's layout, so a mapped model is used in place.

mod attention;
mod dot;
mod experts;
mod formats;
mod gated_mlp;
mod gemm;
mod matmul;
mod matvec;
mod memory;
mod parallel;
mod scratch;
mod simd;
mod strided;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

pub use attention::attention;
pub use gated_mlp::gated_mlp;
pub use matvec::{Linear, linear, normalised, product};
pub use memory::{Bytes, CpuDispatch, Elements, ElementsMut};
pub use parallel::{for_each_chunk, for_each_part, for_each_row, threads};
pub use simd::{Level, force_level};
pub use strided::gemm;

use super::{Buffer, Device, DeviceInfo, DeviceKind, Layout, Ledger, Limits, Prepared, Purpose};
use crate::kernels::{Access, Kernel};
use crate::profile::{Clock, Measured};
use crate::recording::{Dispatch, Recording, ScratchPlan, resolve};
use crate::weights::MappedBytes;
use crate::weights::source::LocalFuture;
use crate::{DType, Error, Result};
use memory::CpuMemory;

/// The host's processor as a device.
pub struct CpuDevice {
    info: DeviceInfo,
    limits: Limits,
    ledger: Ledger,
    clock: Cell<Option<Clock>>,
    measured: RefCell<Vec<Measured>>,
}

/// A recording whose scratch memory is allocated; every run walks a segment's list again.
struct CpuPrepared {
    segments: Vec<Vec<Rc<Dispatch>>>,
    plan: ScratchPlan,
    pool: Vec<Buffer>,
}

impl CpuDevice {
    /// The device. It always exists.
    pub fn new() -> Self {
        let threads = threads();
        let plural = if threads == 1 { "" } else { "s" };
        CpuDevice {
            info: DeviceInfo {
                name: format!("CPU, {threads} thread{plural}"),
                backend: "cpu".to_string(),
                kind: DeviceKind::Cpu,
                driver: instruction_set().to_string(),
            },
            limits: Limits {
                kind: DeviceKind::Cpu,
                layout: Layout::File,
                max_binding_bytes: isize::MAX as u64,
                max_workgroup_size: 1,
                max_workgroup_bytes: u32::MAX,
                max_workgroups: u32::MAX,
                subgroup: None,
                f16: false,
                packed_dot: false,
            },
            ledger: Ledger::default(),
            clock: Cell::new(None),
            measured: RefCell::default(),
        }
    }

    fn memory<'a>(&self, buffer: &'a Buffer) -> Result<&'a CpuMemory> {
        let memory = buffer.downcast::<CpuMemory>();
        memory.ok_or_else(|| self.error("the buffer belongs to another device"))
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Device {
            device: self.info.name.clone(),
            reason: reason.into(),
        }
    }

    fn allocate(&self, bytes: u64, purpose: Purpose, label: &str) -> Result<Buffer> {
        let memory = CpuMemory::zeroed(bytes).ok_or_else(|| Error::OutOfMemory {
            device: self.info.name.clone(),
            bytes,
            what: label.to_string(),
        })?;
        let allocated = bytes.next_multiple_of(16);
        Ok(self.ledger.buffer(memory, bytes, allocated, purpose))
    }
}

impl Default for CpuDevice {
    fn default() -> Self {
        CpuDevice::new()
    }
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn alloc<'a>(
        &'a self,
        bytes: u64,
        purpose: Purpose,
        label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>> {
        Box::pin(async move { self.allocate(bytes, purpose, label) })
    }

    fn import(&self, bytes: &MappedBytes, range: Range<u64>) -> Option<Buffer> {
        let len = range.end.checked_sub(range.start)?;
        let memory = CpuMemory::mapped(bytes, range)?;
        Some(self.ledger.mapped(memory, len))
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.memory(buffer)?
            .write(offset, bytes)
            .map_err(Error::Invalid)
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let all = self.memory(buffer)?.bytes();
            let end = offset.checked_add(bytes).filter(|e| *e <= all.len() as u64);
            let end = end.ok_or_else(|| {
                Error::Invalid(format!(
                    "read of bytes {offset} + {bytes} from a buffer of {}",
                    all.len()
                ))
            })?;
            Ok(all[offset as usize..end as usize].to_vec())
        })
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        Box::pin(async move {
            let plan = recording.plan_scratch();
            let mut pool = Vec::with_capacity(plan.buffers.len());
            for bytes in &plan.buffers {
                pool.push(self.allocate(*bytes, Purpose::Activations, "scratch")?);
            }
            let scratch = plan.slot.iter().map(|b| pool[*b].clone()).collect();
            let segments: Vec<Vec<_>> = (recording.segments().into_iter())
                .map(|segment| segment.into_iter().cloned().map(Rc::new).collect())
                .collect();
            let count = segments.len();
            let prepared = CpuPrepared {
                segments,
                plan,
                pool,
            };
            prepared.check(self)?;
            Ok(Prepared::new(prepared, scratch, count))
        })
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        let prepared = prepared.downcast::<CpuPrepared>();
        let prepared =
            prepared.ok_or_else(|| self.error("the recording was prepared for another device"))?;
        let segment = &prepared.segments[segment];
        let calls: Vec<_> = (segment.iter())
            .map(|dispatch| prepared.bind(self, dispatch))
            .collect::<Result<_>>()?;
        let Some(clock) = self.clock.get() else {
            parallel::run(|| {
                for (kernel, dispatch) in &calls {
                    (kernel.cpu)(dispatch);
                }
            });
            return Ok(());
        };
        let times = parallel::run(|| {
            let timed = |(kernel, dispatch): &(&Kernel, _)| {
                let begin = clock();
                (kernel.cpu)(dispatch);
                (begin, clock() - begin)
            };
            calls.iter().map(timed).collect::<Vec<_>>()
        });
        let measured = |(dispatch, (begin, seconds)): (&Rc<Dispatch>, _)| Measured {
            dispatch: Rc::clone(dispatch),
            begin,
            seconds,
        };
        let times = segment.iter().zip(times).map(measured);
        self.measured.borrow_mut().extend(times);
        Ok(())
    }

    fn measure(&self, clock: Option<Clock>) -> Result<()> {
        self.clock.set(clock);
        self.measured.take();
        Ok(())
    }

    fn measured(&self) -> LocalFuture<'_, Result<Vec<Measured>>> {
        Box::pin(std::future::ready(Ok(self.measured.take())))
    }
}

/// The instruction set that kernels use: `avx512`, `avx2`, `neon`, `simd128` or `scalar`.
pub fn instruction_set() -> &'static str {
    Level::current().name()
}

/// A weight's row in the file's layout times `x`, with the instruction set `level`.
///
/// # Panics
///
/// If `row` is not `x.len()` elements of `dtype`.
pub fn dot(level: Level, dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    dot::dot(level, dtype, row, x)
}

/// Decodes whole blocks in the file's layout.
///
/// # Panics
///
/// If `bytes` is not `out.len()` elements of `dtype`.
pub fn decode_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    dot::decode_row(Level::current(), dtype, bytes, out);
}

impl CpuPrepared {
    fn bind<'a>(
        &'a self,
        device: &CpuDevice,
        dispatch: &'a Dispatch,
    ) -> Result<(&'static Kernel, CpuDispatch<'a>)> {
        let mut buffers = Vec::with_capacity(dispatch.bindings.len());
        for tensor in &dispatch.bindings {
            buffers.push(match tensor {
                Some(tensor) => Some(device.memory(resolve(tensor, &self.plan, &self.pool))?),
                None => None,
            });
        }
        Ok((dispatch.kernel, CpuDispatch::new(&dispatch.params, buffers)))
    }

    /// A written buffer must not be bound twice in one dispatch (WebGPU has the same rule).
    fn check(&self, device: &CpuDevice) -> Result<()> {
        for dispatch in self.segments.iter().flatten() {
            let (kernel, dispatch) = self.bind(device, dispatch)?;
            for (b, binding) in kernel.bindings.iter().enumerate() {
                if binding.access == Access::Write && dispatch.is_aliased(b) {
                    return Err(Error::Invalid(format!(
                        "{}: binding {} is written and bound a second time",
                        kernel.name, binding.name
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
