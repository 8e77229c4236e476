//! Times of calls by events on the stream, one before and one behind each.

use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, sys};
use shardlight::profile::Measured;
use shardlight::recording::Dispatch;

/// Calls whose times are not read yet; events are used again.
#[derive(Default)]
pub(super) struct Timer {
    events: Vec<CudaEvent>,
    calls: Vec<Rc<Dispatch>>,
}

impl Timer {
    /// Queues what `queue` does between two events.
    pub(super) fn around<E: From<DriverError>>(
        &mut self,
        stream: &Arc<CudaStream>,
        call: &Rc<Dispatch>,
        queue: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let at = 2 * self.calls.len();
        self.event(stream.context(), at)?.record(stream)?;
        queue()?;
        self.event(stream.context(), at + 1)?.record(stream)?;
        self.calls.push(Rc::clone(call));
        Ok(())
    }

    fn event(&mut self, context: &Arc<CudaContext>, i: usize) -> Result<&CudaEvent, DriverError> {
        while self.events.len() <= i {
            let timed = sys::CUevent_flags::CU_EVENT_DEFAULT;
            self.events.push(context.new_event(Some(timed))?);
        }
        Ok(&self.events[i])
    }

    /// Waits for them.
    pub(super) fn take(&mut self) -> Result<Vec<Measured>, DriverError> {
        let calls = std::mem::take(&mut self.calls);
        let mut measured = Vec::with_capacity(calls.len());
        let mut begin = 0.0;
        for (i, dispatch) in calls.into_iter().enumerate() {
            let [start, end] = [&self.events[2 * i], &self.events[2 * i + 1]];
            if i > 0 {
                // From one to the next: single precision does not count far.
                begin += seconds(&self.events[2 * i - 2], start)?;
            }
            measured.push(Measured {
                dispatch,
                begin,
                seconds: seconds(start, end)?,
            });
        }
        Ok(measured)
    }
}

fn seconds(from: &CudaEvent, to: &CudaEvent) -> Result<f64, DriverError> {
    Ok(f64::from(from.elapsed_ms(to)?) * 1e-3)
}
