//! The CPU device in a browser computes on the one thread there is: it has to give way now and then.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use shardlight::Result;
use shardlight::device::{
    Buffer, Device, DeviceInfo, DeviceKind, Ledger, Limits, Prepared, Purpose,
};
use shardlight::profile::{Clock, Measured};
use shardlight::recording::Recording;
use shardlight::weights::MappedBytes;
use shardlight::weights::source::LocalFuture;

use crate::browser;

/// Computes at most this long, in milliseconds, before the event loop runs.
const TURN: f64 = 4.0;

/// A device that lets the event loop run before a read or flush, where the last time is long ago.
struct Yielding {
    device: Rc<dyn Device>,
    last: Cell<f64>,
}

impl Yielding {
    async fn turn(&self) {
        if browser::milliseconds() - self.last.get() > TURN {
            browser::turn().await;
            self.last.set(browser::milliseconds());
        }
    }
}

/// WebGPU's own read-backs already wait for the event loop; the CPU device is made to.
pub fn yielding(device: Rc<dyn Device>) -> Rc<dyn Device> {
    if device.info().kind == DeviceKind::Cpu {
        Rc::new(Yielding {
            device,
            last: Cell::new(browser::milliseconds()),
        })
    } else {
        device
    }
}

impl Device for Yielding {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn limits(&self) -> &Limits {
        self.device.limits()
    }

    fn ledger(&self) -> &Ledger {
        self.device.ledger()
    }

    fn alloc<'a>(
        &'a self,
        bytes: u64,
        purpose: Purpose,
        label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>> {
        self.device.alloc(bytes, purpose, label)
    }

    fn import(&self, bytes: &MappedBytes, range: Range<u64>) -> Option<Buffer> {
        self.device.import(bytes, range)
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.device.write(buffer, offset, bytes)
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            self.turn().await;
            self.device.flush().await
        })
    }

    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            self.turn().await;
            self.device.read(buffer, offset, bytes).await
        })
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        self.device.prepare(recording)
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        self.device.run_segment(prepared, segment)
    }

    fn measure(&self, clock: Option<Clock>) -> Result<()> {
        self.device.measure(clock)
    }

    fn measured(&self) -> LocalFuture<'_, Result<Vec<Measured>>> {
        self.device.measured()
    }
}
