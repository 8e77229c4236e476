//! Recordings to launches, and those to graphs.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaGraph, CudaStream, DriverError, LaunchConfig, PushKernelArg, sys,
};
use shardlight::device::{Buffer, Prepared, Purpose};
use shardlight::recording::{Dispatch, PackedArgs, Recording, resolve};

use super::blas::{Addresses, Blas, Matmul, Place, Plan};
use super::device::{Compiled, CudaDevice, Step};
use super::timer::Timer;
use super::tuned::Memory;

/// Bytes between the uniform arguments of two dispatches.
const ALIGN: usize = 16;

/// A recording with every launch's parameters.
pub struct CudaPrepared {
    launches: Vec<Queued>,
    segments: Vec<Segment>,
    /// What the launches' addresses belong to.
    _buffers: Vec<Buffer>,
}

struct Segment {
    launches: Range<usize>,
    /// Its calls, and which of the launches are theirs.
    calls: Vec<(Rc<Dispatch>, Range<usize>)>,
    replay: RefCell<Replay>,
}

/// A segment that runs again is worth a graph.
enum Replay {
    Never,
    Once,
    Graph(CudaGraph),
}

/// What could not be queued.
pub(super) enum Failed {
    /// By the driver.
    Driver(DriverError),
    /// By cuBLASLt, in words.
    Product(String),
}

impl From<DriverError> for Failed {
    fn from(error: DriverError) -> Self {
        Failed::Driver(error)
    }
}

/// One thing after the other on the stream.
enum Queued {
    Launch(Launch),
    Product {
        blas: Rc<Blas>,
        plan: Rc<Plan>,
        at: Addresses,
    },
}

impl Queued {
    fn queue(&self, stream: &CudaStream) -> Result<(), Failed> {
        match self {
            Queued::Launch(launch) => launch.queue(stream),
            Queued::Product { blas, plan, at } => {
                // SAFETY: `CudaDevice::product` has checked the buffers, which `CudaPrepared` keeps alive.
                let queued = unsafe { blas.multiply(plan, at, stream.cu_stream()) };
                queued.map_err(Failed::Product)
            }
        }
    }
}

struct Launch {
    function: CudaFunction,
    addresses: Vec<sys::CUdeviceptr>,
    lengths: Vec<u32>,
    config: LaunchConfig,
}

impl Launch {
    fn queue(&self, stream: &CudaStream) -> Result<(), Failed> {
        let mut launch = stream.launch_builder(&self.function);
        for address in &self.addresses {
            launch.arg(address);
        }
        for length in &self.lengths {
            launch.arg(length);
        }
        // SAFETY: these are the parameters that `naga_cuda::Output` lists, with the lengths of their buffers, which
        // `CudaPrepared` keeps alive. The kernel's indices are checked as the device's `BoundsPolicy` says.
        let launched = unsafe { launch.launch(self.config) };
        Ok(launched.map(|_| ())?)
    }
}

impl CudaPrepared {
    /// Queues a segment.
    pub fn run(&self, stream: &Arc<CudaStream>, segment: usize) -> Result<(), Failed> {
        let segment = &self.segments[segment];
        let launches = &self.launches[segment.launches.clone()];
        let queue = || launches.iter().try_for_each(|launch| launch.queue(stream));
        let mut replay = segment.replay.borrow_mut();
        match &*replay {
            Replay::Graph(graph) => Ok(graph.launch()?),
            Replay::Never => {
                *replay = Replay::Once;
                queue()
            }
            Replay::Once if launches.len() < 2 => queue(),
            Replay::Once => {
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                stream.begin_capture(mode)?;
                let queued = queue();
                let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
                queued?;
                match graph? {
                    Some(graph) => {
                        graph.launch()?;
                        *replay = Replay::Graph(graph);
                        Ok(())
                    }
                    None => queue(),
                }
            }
        }
    }
}

impl CudaPrepared {
    /// Queues a segment, call by call.
    pub(super) fn run_timed(
        &self,
        stream: &Arc<CudaStream>,
        segment: usize,
        timer: &mut Timer,
    ) -> Result<(), Failed> {
        for (dispatch, launches) in &self.segments[segment].calls {
            let launches = &self.launches[launches.clone()];
            timer.around(stream, dispatch, || {
                launches.iter().try_for_each(|launch| launch.queue(stream))
            })?;
        }
        Ok(())
    }
}

impl CudaDevice {
    /// Compiles what `recording` needs, allocates its scratch memory, and lists its launches.
    pub(super) fn bind(&self, recording: &Recording) -> shardlight::Result<Prepared> {
        let dispatches: Vec<&Dispatch> = recording.dispatches().collect();
        // With the number of their dispatch.
        let mut chosen = Vec::with_capacity(dispatches.len());
        for (i, dispatch) in dispatches.iter().enumerate() {
            chosen.extend(self.choose(dispatch)?.into_iter().map(|chosen| (i, chosen)));
        }
        let plan = recording.plan_scratch();
        let mut pool = Vec::with_capacity(plan.buffers.len());
        for bytes in &plan.buffers {
            pool.push(self.allocate(*bytes, Purpose::Activations, "scratch")?);
        }
        let PackedArgs { bytes, places } = PackedArgs::new(&dispatches, ALIGN);
        let args = match bytes.is_empty() {
            true => None,
            false => {
                let buffer = self.allocate(bytes.len() as u64, Purpose::Activations, "args")?;
                self.upload(&buffer, 0, &bytes)?;
                Some(buffer)
            }
        };
        // Launches are one after the other, so one does for all.
        let shared = |bytes: fn(&Memory) -> u64, label: &str| {
            let most = chosen.iter().map(|(_, c)| bytes(&c.memory)).max();
            let most = most.filter(|bytes| *bytes > 0);
            most.map(|bytes| self.allocate(bytes, Purpose::Activations, label))
                .transpose()
        };
        let workspace = shared(|m| m.workspace, "workspace")?;
        let counters = shared(|m| m.counters, "counters")?;
        let own = args.iter().chain(&workspace).chain(&counters);
        let mut buffers: Vec<Buffer> = own.cloned().collect();
        // Where the launches of each dispatch begin, and the last one's end.
        let mut starts = vec![0; dispatches.len() + 1];
        let mut launches = Vec::with_capacity(chosen.len());
        for (i, chosen) in chosen {
            let dispatch = dispatches[i];
            let (compiled, grid) = match chosen.step {
                Step::Kernel(compiled, grid) => (compiled, grid),
                Step::Product(product, how, room) => {
                    let bound = |binding: Option<usize>| {
                        let Some(binding) = binding else {
                            return workspace.clone().ok_or_else(|| self.unbound(dispatch, 0));
                        };
                        match dispatch.bindings.get(binding) {
                            Some(Some(tensor)) => Ok(resolve(tensor, &plan, &pool).clone()),
                            _ => Err(self.unbound(dispatch, binding)),
                        }
                    };
                    let mut keep = |place: Place| {
                        let buffer = bound(place.binding)?;
                        buffers.push(buffer.clone());
                        Ok(buffer)
                    };
                    launches.push(self.product(&product, how, room, &mut keep)?);
                    starts[i + 1] = launches.len();
                    continue;
                }
            };
            let (mut addresses, mut lengths) = (Vec::new(), Vec::new());
            for binding in &compiled.bindings {
                let number = binding.binding as usize;
                let (address, size) = match dispatch.bindings.get(number) {
                    Some(Some(tensor)) => {
                        let buffer = resolve(tensor, &plan, &pool);
                        buffers.push(buffer.clone());
                        self.place(buffer)?
                    }
                    // The uniform arguments come behind the others.
                    None => match (&args, places[i]) {
                        (Some(args), Some((offset, size))) => (self.place(args)?.0 + offset, size),
                        _ => return Err(self.unbound(dispatch, number)),
                    },
                    Some(None) => return Err(self.unbound(dispatch, number)),
                };
                addresses.push(address);
                if let Some(stride) = binding.stride {
                    let elements = size.saturating_sub(binding.bytes.into()) / u64::from(stride);
                    lengths.push(elements.min(u32::MAX.into()) as u32);
                }
            }
            let memory = chosen.memory;
            for (buffer, bytes) in [(&workspace, memory.workspace), (&counters, memory.counters)] {
                if let Some(buffer) = buffer.as_ref().filter(|_| bytes > 0) {
                    addresses.push(self.place(buffer)?.0);
                }
            }
            let [x, y, z] = grid;
            let [bx, by, bz] = compiled.workgroup_size;
            launches.push(Queued::Launch(Launch {
                function: compiled.function.clone(),
                addresses,
                lengths,
                config: LaunchConfig {
                    grid_dim: (x, y, z),
                    block_dim: (bx, by, bz),
                    shared_mem_bytes: memory.shared,
                },
            }));
            starts[i + 1] = launches.len();
        }
        let scratch = plan.slot.iter().map(|b| pool[*b].clone()).collect();
        let mut end = 0;
        let segment = |segment: Vec<&Dispatch>| {
            let start = end;
            end += segment.len();
            let call = |(i, dispatch): (usize, &Dispatch)| {
                let launches = starts[start + i]..starts[start + i + 1];
                (Rc::new(dispatch.clone()), launches)
            };
            Segment {
                launches: starts[start]..starts[end],
                calls: segment.into_iter().enumerate().map(call).collect(),
                replay: RefCell::new(Replay::Never),
            }
        };
        let segments: Vec<_> = recording.segments().into_iter().map(segment).collect();
        let count = segments.len();
        let prepared = CudaPrepared {
            launches,
            segments,
            _buffers: buffers,
        };
        Ok(Prepared::new(prepared, scratch, count))
    }

    /// A product with its addresses, which lie in the buffers that `bound` gives.
    fn product(
        &self,
        product: &Matmul,
        plan: Rc<Plan>,
        room: u64,
        bound: &mut dyn FnMut(Place) -> shardlight::Result<Buffer>,
    ) -> shardlight::Result<Queued> {
        let blas = self
            .blas()
            .ok_or_else(|| self.error("there is no cuBLASLt"))?;
        let too_long = || self.error("a product of more bytes than there can be");
        let [weight, x, y] = product.shape.extents().ok_or_else(too_long)?;
        let mut place = |place: Place, bytes: u64| {
            let buffer = bound(place)?;
            self.address(&buffer, place.offset, bytes)
        };
        let own = Place {
            binding: None,
            offset: room,
        };
        let at = Addresses {
            weight: place(product.weight, weight)?,
            x: place(product.x, x)?,
            y: place(product.y, y)?,
            residual: match product.residual {
                Some(residual) => Some(place(residual, y)?),
                None => None,
            },
            workspace: place(own, plan.workspace)?,
        };
        let blas = Rc::clone(blas);
        Ok(Queued::Product { blas, plan, at })
    }

    fn unbound(&self, dispatch: &Dispatch, binding: usize) -> shardlight::Error {
        self.error(format!(
            "{}: nothing is bound at {binding}",
            dispatch.kernel.name
        ))
    }
}

/// Shares a compiled kernel.
pub(super) type Shared = Rc<Compiled>;
