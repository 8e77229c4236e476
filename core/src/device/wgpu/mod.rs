//! The WebGPU device, native and in browsers: one source.
//!
//! A kernel's text is specialised for the adapter and compiled once; a prepared recording holds
//! its bind groups, so that a run is one command buffer with one compute pass.

mod pipeline;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;

use super::{
    Buffer, Device, DeviceInfo, DeviceKind, Entry, Layout, Ledger, Limits, Prepared, Purpose,
};
use crate::profile::{Clock, Measured};
use crate::recording::Recording;
use crate::weights::source::LocalFuture;
use crate::{Error, Result};
use pipeline::{Compiled, WgpuPrepared};
use timer::Timer;

/// An adapter that could become a device.
pub struct Adapter {
    adapter: wgpu::Adapter,
    packed_dot: bool,
    /// What it calls itself.
    pub info: DeviceInfo,
    /// How many adapters before it call themselves the same.
    twin: usize,
}

/// A GPU (or a software one) behind WebGPU's interface.
pub struct WgpuDevice {
    info: DeviceInfo,
    twin: usize,
    limits: Limits,
    ledger: Ledger,
    live: RefCell<Rc<Live>>,
    measures: Cell<bool>,
}

/// What is lost when the driver resets.
struct Live {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: RefCell<HashMap<String, Rc<Compiled>>>,
    fault: Arc<Mutex<Option<Fault>>>,
    /// Writes of which it is not known that they have been done.
    writes: RefCell<Option<Entry>>,
    timer: RefCell<Timer>,
}

/// Why the device cannot go on; set by wgpu's callbacks.
#[derive(Clone)]
enum Fault {
    Lost(String),
    OutOfMemory,
    Other(String),
}

struct WgpuBuffer(wgpu::Buffer);

/// In browsers memory is otherwise kept until the garbage collector comes by.
impl Drop for WgpuBuffer {
    fn drop(&mut self) {
        self.0.destroy();
    }
}

/// Every adapter there is, best first. In browsers: the one that the page is given.
pub async fn adapters() -> Vec<Adapter> {
    // Where wasm runs there may be nothing of WebGPU, as in Node; an instance would panic there.
    #[cfg(target_arch = "wasm32")]
    if !wgpu::util::is_browser_webgpu_supported().await {
        return Vec::new();
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN
        | wgpu::Backends::METAL
        | wgpu::Backends::DX12
        | wgpu::Backends::BROWSER_WEBGPU;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let found = if cfg!(target_arch = "wasm32") {
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        instance
            .request_adapter(&options)
            .await
            .into_iter()
            .collect()
    } else {
        instance.enumerate_adapters(wgpu::Backends::all()).await
    };
    let packed_dot = (instance.wgsl_language_features())
        .contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
    let adapter = |a| Adapter::new(a, packed_dot);
    let mut adapters: Vec<Adapter> = found.into_iter().map(adapter).collect();
    for i in 1..adapters.len() {
        let twins = adapters[..i].iter().filter(|a| a.info == adapters[i].info);
        adapters[i].twin = twins.count();
    }
    adapters.sort_by_key(|a| a.info.kind);
    adapters
}

impl Adapter {
    fn new(adapter: wgpu::Adapter, packed_dot: bool) -> Self {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => DeviceKind::OtherGpu,
            wgpu::DeviceType::Cpu => DeviceKind::SoftwareGpu,
        };
        let backend = match info.backend {
            wgpu::Backend::Vulkan => "vulkan",
            wgpu::Backend::Metal => "metal",
            wgpu::Backend::Dx12 => "dx12",
            wgpu::Backend::BrowserWebGpu => "webgpu",
            wgpu::Backend::Gl => "gl",
            wgpu::Backend::Noop => "noop",
        };
        let name = match info.name.as_str() {
            "" => "WebGPU adapter".to_string(),
            name => name.to_string(),
        };
        let driver = format!("{} {}", info.driver, info.driver_info);
        Adapter {
            adapter,
            packed_dot,
            info: DeviceInfo {
                name,
                backend: backend.to_string(),
                kind,
                driver: driver.trim().to_string(),
            },
            twin: 0,
        }
    }

    /// Opens the device with all that the adapter offers and kernels use.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] with the driver's words.
    pub async fn open(self) -> Result<WgpuDevice> {
        let live = self.live().await?;
        let mut limits = limits(&self.info, &live.device, &self.adapter.get_info());
        limits.packed_dot = self.packed_dot;
        Ok(WgpuDevice {
            info: self.info,
            twin: self.twin,
            limits,
            ledger: Ledger::default(),
            live: RefCell::new(Rc::new(live)),
            measures: Cell::new(false),
        })
    }

    async fn live(&self) -> Result<Live> {
        let offered = self.adapter.features();
        let wanted =
            wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("shardlight"),
            required_features: offered & wanted,
            required_limits: self.adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let opened = self.adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|e| Error::Device {
            device: self.info.name.clone(),
            reason: e.to_string(),
        })?;
        let fault = Arc::new(Mutex::new(None));
        let lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |_, message| {
            let message = match message.as_str() {
                "" => "the driver gives no reason",
                message => message,
            };
            set_fault(&lost, Fault::Lost(message.to_string()));
        });
        let uncaptured = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error| set_fault(&uncaptured, error.into())));
        Ok(Live {
            device,
            queue,
            pipelines: RefCell::default(),
            fault,
            writes: RefCell::default(),
            timer: RefCell::default(),
        })
    }
}

fn limits(info: &DeviceInfo, device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Limits {
    let limits = device.limits();
    let features = device.features();
    let subgroup = (adapter.subgroup_min_size, adapter.subgroup_max_size);
    Limits {
        kind: info.kind,
        layout: Layout::Planar,
        max_binding_bytes: limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size),
        max_workgroup_size: limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x),
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        subgroup: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some(subgroup),
        f16: features.contains(wgpu::Features::SHADER_F16),
        packed_dot: false,
    }
}

/// Keeps the first fault: those that follow are its consequences. A loss is told late, and is the cause of all.
fn set_fault(fault: &Mutex<Option<Fault>>, new: Fault) {
    let mut fault = fault.lock().unwrap_or_else(PoisonError::into_inner);
    match (&*fault, &new) {
        (None, _) | (Some(Fault::OutOfMemory | Fault::Other(_)), Fault::Lost(_)) => {
            *fault = Some(new);
        }
        _ => {}
    }
}

impl From<wgpu::Error> for Fault {
    fn from(error: wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
            other => Fault::Other(other.to_string()),
        }
    }
}

impl Live {
    fn fault(&self) -> Option<Fault> {
        let fault = || {
            let fault = self.fault.lock();
            fault.unwrap_or_else(PoisonError::into_inner).clone()
        };
        match fault() {
            Some(Fault::OutOfMemory | Fault::Other(_)) => {
                // What a lost device says first is that its buffers are not valid.
                self.poll();
                fault()
            }
            found => found,
        }
    }

    /// Lets callbacks run: natively this waits for the queue, in browsers the event loop does.
    fn poll(&self) {
        // Without a time limit it fails only for a submission that never was.
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }

    /// Waits until what was queued has been done, or a fault has been noted.
    async fn settle(&self) {
        let (done, wait) = oneshot::channel();
        self.queue.submit([]);
        self.queue.on_submitted_work_done(move || {
            // Nobody waits any more: nothing to tell.
            let _ = done.send(());
        });
        self.poll();
        let _ = wait.await;
        self.writes.take();
    }
}

impl WgpuDevice {
    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Device {
            device: self.info.name.clone(),
            reason: reason.into(),
        }
    }

    fn out_of_memory(&self, bytes: u64, what: &str) -> Error {
        Error::OutOfMemory {
            device: self.info.name.clone(),
            bytes,
            what: what.to_string(),
        }
    }

    fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    /// The fault that a callback has noted, if any.
    fn check(&self) -> Result<()> {
        let Some(fault) = self.live.borrow().fault() else {
            return Ok(());
        };
        Err(match fault {
            Fault::Lost(reason) => Error::DeviceLost {
                device: self.info.name.clone(),
                reason,
            },
            Fault::OutOfMemory => self.out_of_memory(0, "queued work"),
            Fault::Other(reason) => self.error(reason),
        })
    }

    fn buffer<'a>(&self, buffer: &'a Buffer) -> Result<&'a wgpu::Buffer> {
        let found = buffer.downcast::<WgpuBuffer>();
        let found = found.ok_or_else(|| self.error("the buffer belongs to another device"))?;
        Ok(&found.0)
    }

    async fn allocate(&self, bytes: u64, purpose: Purpose, label: &str) -> Result<Buffer> {
        self.check()?;
        let live = self.live();
        let size = bytes.max(16).next_multiple_of(16);
        if size > live.device.limits().max_buffer_size {
            return Err(self.out_of_memory(bytes, label));
        }
        let mut usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        // Only small buffers are ever bound as uniforms (`step`).
        if size <= 256 {
            usage |= wgpu::BufferUsages::UNIFORM;
        }
        let scope = live.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = live.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        if scope.pop().await.is_some() {
            return Err(self.out_of_memory(bytes, label));
        }
        let buffer = WgpuBuffer(buffer);
        Ok(self.ledger.buffer(buffer, bytes, size, purpose))
    }

    /// What an error scope has caught: the consequence of a loss, or else what it says.
    async fn caught(&self, error: Error) -> Error {
        self.live().settle().await;
        self.check().err().unwrap_or(error)
    }
}

impl Device for WgpuDevice {
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
        Box::pin(self.allocate(bytes, purpose, label))
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let target = self.buffer(buffer)?;
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > target.size()) || !aligned(offset, bytes.len() as u64) {
            return Err(Error::Invalid(format!(
                "write of bytes {offset} + {} into a buffer of {}",
                bytes.len(),
                target.size()
            )));
        }
        let live = self.live();
        live.queue.write_buffer(target, offset, bytes);
        let mut writes = live.writes.borrow_mut();
        let entry = || self.ledger.memory(Purpose::Staging, 0);
        writes.get_or_insert_with(entry).add(bytes.len() as u64);
        Ok(())
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            self.live().settle().await;
            self.check()
        })
    }

    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            self.check()?;
            let source = self.buffer(buffer)?;
            let end = offset.checked_add(bytes);
            if end.is_none_or(|end| end > source.size()) || !aligned(offset, bytes) {
                return Err(Error::Invalid(format!(
                    "read of bytes {offset} + {bytes} from a buffer of {}",
                    source.size()
                )));
            }
            if bytes == 0 {
                return Ok(Vec::new());
            }
            let live = self.live();
            let staging = live.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let _entry = self.ledger.memory(Purpose::Staging, bytes);
            let staging = WgpuBuffer(staging);
            let WgpuBuffer(staging) = &staging;
            let mut encoder = live.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(source, offset, staging, 0, bytes);
            live.queue.submit([encoder.finish()]);
            let (done, wait) = oneshot::channel();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let _ = done.send(result);
            });
            live.poll();
            let mapped = wait.await.unwrap_or(Err(wgpu::BufferAsyncError));
            if let Err(e) = mapped {
                live.settle().await;
                // If nobody has told why, there is nothing to read from any more.
                if live.fault().is_none() {
                    set_fault(&live.fault, Fault::Lost(e.to_string()));
                }
            }
            self.check()?;
            live.writes.take();
            let mapped = staging.get_mapped_range(..);
            let mapped = mapped.map_err(|e| self.error(e.to_string()))?;
            let data = mapped.to_vec();
            drop(mapped);
            staging.unmap();
            Ok(data)
        })
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        Box::pin(self.bind(recording))
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        self.check()?;
        let prepared = prepared.downcast::<WgpuPrepared>();
        let prepared =
            prepared.ok_or_else(|| self.error("the recording was prepared for another device"))?;
        let live = self.live();
        let mut encoder = live.device.create_command_encoder(&Default::default());
        match self.measures.get() {
            true => {
                let timer = &mut live.timer.borrow_mut();
                prepared.encode_timed(segment, &mut encoder, &live.device, timer);
            }
            false => prepared.encode(segment, &mut encoder),
        }
        live.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn measure(&self, clock: Option<Clock>) -> Result<()> {
        if clock.is_some() && !self.has_timestamps() {
            return Err(
                self.error("it has no timestamp queries, so its kernels cannot be measured")
            );
        }
        self.measures.set(clock.is_some());
        self.live().timer.take();
        Ok(())
    }

    fn measured(&self) -> LocalFuture<'_, Result<Vec<Measured>>> {
        Box::pin(self.times())
    }

    fn destroy(&self) {
        let live = self.live();
        live.pipelines.borrow_mut().clear();
        live.device.destroy();
    }

    fn reopen(&self) -> LocalFuture<'_, Result<bool>> {
        Box::pin(self.open_again())
    }
}

impl WgpuDevice {
    async fn open_again(&self) -> Result<bool> {
        if !matches!(self.live().fault(), Some(Fault::Lost(_))) {
            return Ok(false);
        }
        let mut found = adapters().await;
        let Some(same) = (found.iter()).position(|a| a.info == self.info && a.twin == self.twin)
        else {
            let there: Vec<_> = found.iter().map(|a| a.info.to_string()).collect();
            let there = match there.is_empty() {
                true => "no adapter at all".to_string(),
                false => there.join(", "),
            };
            return Err(self.error(format!("it is gone; there is {there}")));
        };
        let live = found.swap_remove(same).live().await?;
        self.live.replace(Rc::new(live));
        Ok(true)
    }
}

/// WebGPU copies whole words.
fn aligned(offset: u64, bytes: u64) -> bool {
    offset.is_multiple_of(4) && bytes.is_multiple_of(4)
}
