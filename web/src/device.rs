//! The CPU device in a browser computes on the one thread there is: it has to give way now and then.

use std::ops::Range;
use std::rc::Rc;

use shardlight::Result;
use shardlight::device::{Buffer, Device, DeviceInfo, DeviceKind, Limits, Prepared};
use shardlight::recording::Recording;
use shardlight::weights::MappedBytes;
use shardlight::weights::source::LocalFuture;

use crate::browser::turn;

/// A device that lets the event loop run before each read and flush: once or twice a token.
struct Yielding(Rc<dyn Device>);

/// WebGPU's own read-backs already wait for the event loop; the CPU device is made to.
pub fn yielding(device: Rc<dyn Device>) -> Rc<dyn Device> {
    if device.info().kind == DeviceKind::Cpu {
        Rc::new(Yielding(device))
    } else {
        device
    }
}

impl Device for Yielding {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn limits(&self) -> &Limits {
        self.0.limits()
    }

    fn alloc<'a>(&'a self, bytes: u64, label: &'a str) -> LocalFuture<'a, Result<Buffer>> {
        self.0.alloc(bytes, label)
    }

    fn import(&self, bytes: &MappedBytes, range: Range<u64>) -> Option<Buffer> {
        self.0.import(bytes, range)
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write(buffer, offset, bytes)
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            turn().await;
            self.0.flush().await
        })
    }

    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            turn().await;
            self.0.read(buffer, offset, bytes).await
        })
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        self.0.prepare(recording)
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        self.0.run_segment(prepared, segment)
    }
}
