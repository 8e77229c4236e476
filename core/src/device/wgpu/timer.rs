//! Times of kernels by timestamp queries. Each call gets a pass of its own, since WebGPU writes timestamps only where
//! passes begin and end.
//!
//! Chromium rounds timestamps to 100 µs unless its developer features are on: sums are right, single calls are not.

use std::rc::Rc;

use super::{Live, WgpuBuffer, WgpuDevice};
use crate::Result;
use crate::device::Purpose;
use crate::profile::Measured;
use crate::recording::Dispatch;

/// Calls whose two queries fit one set: WebGPU allows 4096 queries.
const CALLS: usize = 2048;

/// Bytes of a timestamp.
const TIMESTAMP: u64 = 8;

/// Calls whose times are not read yet.
#[derive(Default)]
pub(super) struct Timer {
    sets: Vec<wgpu::QuerySet>,
    calls: Vec<Rc<Dispatch>>,
}

impl Timer {
    /// Where the timestamps of a call go.
    pub(super) fn next(
        &mut self,
        device: &wgpu::Device,
        call: &Rc<Dispatch>,
    ) -> wgpu::ComputePassTimestampWrites<'_> {
        let (set, first) = (self.calls.len() / CALLS, self.calls.len() % CALLS * 2);
        if set == self.sets.len() {
            self.sets
                .push(device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("times"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * CALLS as u32,
                }));
        }
        self.calls.push(Rc::clone(call));
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[set],
            beginning_of_pass_write_index: Some(first as u32),
            end_of_pass_write_index: Some(first as u32 + 1),
        }
    }

    /// Queues copying the timestamps to a buffer; gives that and the calls.
    fn resolve(&mut self, live: &Live) -> (Vec<Rc<Dispatch>>, wgpu::Buffer) {
        let calls = std::mem::take(&mut self.calls);
        let set_bytes = 2 * CALLS as u64 * TIMESTAMP;
        let buffer = live.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("times"),
            size: set_bytes * calls.len().div_ceil(CALLS) as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = live.device.create_command_encoder(&Default::default());
        for (i, calls) in calls.chunks(CALLS).enumerate() {
            let queries = 0..2 * calls.len() as u32;
            encoder.resolve_query_set(&self.sets[i], queries, &buffer, i as u64 * set_bytes);
        }
        live.queue.submit([encoder.finish()]);
        (calls, buffer)
    }
}

impl WgpuDevice {
    /// Can it measure?
    pub(super) fn has_timestamps(&self) -> bool {
        let features = self.live().device.features();
        features.contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Times of the calls since the last time it was asked.
    pub(super) async fn times(&self) -> Result<Vec<Measured>> {
        self.check()?;
        let live = self.live();
        if live.timer.borrow().calls.is_empty() {
            return Ok(Vec::new());
        }
        let (calls, buffer) = live.timer.borrow_mut().resolve(&live);
        let bytes = buffer.size();
        let buffer = WgpuBuffer(buffer);
        let buffer = self.ledger.buffer(buffer, bytes, bytes, Purpose::Staging);
        let used = 2 * TIMESTAMP * calls.len() as u64;
        let stamps = crate::device::Device::read(self, &buffer, 0, used).await?;
        let stamps: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&stamps);
        let seconds = f64::from(live.queue.get_timestamp_period()) * 1e-9;
        let first = stamps.iter().copied().min().unwrap_or_default();
        let measured = |(dispatch, stamps): (Rc<Dispatch>, &[u64])| Measured {
            dispatch,
            begin: (stamps[0] - first) as f64 * seconds,
            seconds: stamps[1].saturating_sub(stamps[0]) as f64 * seconds,
        };
        Ok(calls
            .into_iter()
            .zip(stamps.chunks_exact(2))
            .map(measured)
            .collect())
    }
}
