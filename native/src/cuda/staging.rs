//! Host memory that the device copies from and to by itself.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice, result, sys,
};

/// Bytes of a half.
const HALF: usize = 4 << 20;

/// Two halves, filled in turn: one is written by the host while the device copies from the other.
pub struct Upload {
    halves: [Half; 2],
    /// Which half is being filled, and how far.
    current: usize,
    used: usize,
}

struct Half {
    memory: PinnedHostSlice<u8>,
    /// The device has copied what was there.
    free: CudaEvent,
}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Half {
            // SAFETY: nothing is read from it but what was written before.
            memory: unsafe { context.alloc_pinned(HALF) }?,
            free: context.new_event(None)?,
        })
    }
}

impl Upload {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Upload {
            halves: [Half::new(context)?, Half::new(context)?],
            current: 0,
            used: 0,
        })
    }

    /// Queues a copy of `bytes` to device memory at `to`; the bytes may change afterwards.
    ///
    /// # Safety
    ///
    /// As many bytes at `to` are device memory that lives until the stream has done the copy.
    pub unsafe fn copy(
        &mut self,
        stream: &CudaStream,
        mut to: sys::CUdeviceptr,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.used == HALF {
                self.halves[self.current].free.record(stream)?;
                self.current = 1 - self.current;
                self.used = 0;
                self.halves[self.current].free.synchronize()?;
            }
            let n = rest.len().min(HALF - self.used);
            let (now, later) = rest.split_at(n);
            let memory = self.halves[self.current].memory.as_mut_slice()?;
            let place = &mut memory[self.used..self.used + n];
            place.copy_from_slice(now);
            // SAFETY: the half is not written before `free` has happened; `to` is the caller's promise.
            unsafe { result::memcpy_htod_async(to, place, stream.cu_stream()) }?;
            // Copies start at multiples of 16 bytes.
            self.used = (self.used + n).next_multiple_of(16).min(HALF);
            to += n as u64;
            rest = later;
        }
        Ok(())
    }
}

/// Where results arrive.
pub struct Download {
    memory: PinnedHostSlice<u8>,
    done: CudaEvent,
}

/// Most bytes that arrive at once.
const WINDOW: usize = 1 << 20;

impl Download {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Download {
            // SAFETY: nothing is read from it but what the device has written. Not write-combined: the host reads it.
            memory: unsafe { context.alloc_pinned_with_flags(WINDOW, 0) }?,
            done: context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))?,
        })
    }

    /// Copies device memory at `from` into `bytes`, after all that was queued before.
    ///
    /// # Safety
    ///
    /// As many bytes at `from` are device memory.
    pub unsafe fn copy(
        &mut self,
        stream: &CudaStream,
        mut from: sys::CUdeviceptr,
        bytes: &mut [u8],
    ) -> Result<(), DriverError> {
        for part in bytes.chunks_mut(WINDOW) {
            let window = &mut self.memory.as_mut_slice()?[..part.len()];
            // SAFETY: the window lives until the event; `from` is the caller's promise.
            unsafe { result::memcpy_dtoh_async(window, from, stream.cu_stream()) }?;
            self.done.record(stream)?;
            self.done.synchronize()?;
            part.copy_from_slice(window);
            from += part.len() as u64;
        }
        Ok(())
    }
}
