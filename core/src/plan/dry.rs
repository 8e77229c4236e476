//! Loading a model without its data: the recordings that a session makes, and the memory it asks for.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use crate::comm::{LocalComm, Placement, World};
use crate::device::{
    Buffer, Device, DeviceInfo, DeviceKind, Layout, Ledger, Limits, Prepared, Purpose,
};
use crate::kv_cache::KvDType;
use crate::recording::Recording;
use crate::session::{Session, SessionOptions, ShardInfo};
use crate::tensor::{Storage, Tensor};
use crate::weights::ModelFiles;
use crate::weights::source::LocalFuture;
use crate::{Error, Result};

/// Bytes of device memory, by what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Weights, in the device's layout.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Tables by position.
    pub tables: u64,
    /// Scratch memory of a decode and a prefill step.
    pub activations: u64,
    /// Logits and inputs.
    pub other: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.tables + self.activations + self.other
    }
}

/// What a buffer of a [`PlanDevice`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Weight,
    Other,
}

/// Is this a weight of the model, or a part of one?
pub(super) fn is_weight(tensor: &Tensor) -> bool {
    match &tensor.storage {
        Storage::Buffer(buffer) => buffer.downcast() == Some(&Holds::Weight),
        Storage::Scratch(_) => false,
    }
}

/// A device that computes nothing: it counts what is allocated and keeps what it shall run.
pub struct PlanDevice {
    info: DeviceInfo,
    limits: Limits,
    /// Names of the model's tensors.
    weights: Vec<String>,
    memory: RefCell<Memory>,
    ledger: Ledger,
    recordings: RefCell<Vec<Recording>>,
}

impl PlanDevice {
    /// A device of these limits, or else a GPU of today's, for the weights of `files`.
    pub fn new(files: &ModelFiles, limits: Option<&Limits>) -> Self {
        let mut weights: Vec<_> = files.tensors().map(|t| t.name.clone()).collect();
        weights.sort_unstable();
        PlanDevice {
            info: DeviceInfo {
                name: "plan".into(),
                backend: "plan".into(),
                kind: DeviceKind::DiscreteGpu,
                driver: String::new(),
            },
            limits: limits.cloned().unwrap_or(Limits {
                kind: DeviceKind::DiscreteGpu,
                layout: Layout::Planar,
                // What Vulkan drivers of large GPUs give (maxStorageBufferRange).
                max_binding_bytes: u64::from(u32::MAX),
                max_workgroup_size: 1024,
                max_workgroup_bytes: 48 << 10,
                max_workgroups: 65535,
                subgroup: Some((32, 32)),
                f16: true,
                packed_dot: true,
            }),
            weights,
            memory: RefCell::default(),
            ledger: Ledger::default(),
            recordings: RefCell::default(),
        }
    }

    /// What was allocated so far.
    pub fn memory(&self) -> Memory {
        *self.memory.borrow()
    }

    /// What was prepared so far, in order.
    pub fn recordings(&self) -> Vec<Recording> {
        self.recordings.borrow().clone()
    }
}

impl Device for PlanDevice {
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
        let memory = &mut *self.memory.borrow_mut();
        let named = self.weights.binary_search_by(|w| w.as_str().cmp(label));
        let holds = match named {
            Ok(_) => Holds::Weight,
            Err(_) => Holds::Other,
        };
        let place = match purpose {
            Purpose::Weights | Purpose::Experts => &mut memory.weights,
            Purpose::KvCache => &mut memory.cache,
            Purpose::Tables => &mut memory.tables,
            Purpose::Activations | Purpose::Staging => &mut memory.other,
        };
        *place += bytes;
        Box::pin(std::future::ready(Ok(Buffer::new(holds, bytes))))
    }

    fn write(&self, _: &Buffer, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn read<'a>(&'a self, _: &'a Buffer, _: u64, bytes: u64) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(std::future::ready(Ok(vec![0; bytes as usize])))
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        let plan = recording.plan_scratch();
        self.memory.borrow_mut().activations += plan.buffers.iter().sum::<u64>();
        self.recordings.borrow_mut().push(recording.clone());
        let buffers: Vec<_> = plan.buffers.iter().map(|b| Buffer::new((), *b)).collect();
        let scratch = plan
            .slot
            .iter()
            .map(|slot| buffers[*slot].clone())
            .collect();
        let prepared = Prepared::new((), scratch, recording.segments().len());
        Box::pin(std::future::ready(Ok(prepared)))
    }

    fn run_segment(&self, _: &Prepared, _: usize) -> Result<()> {
        Ok(())
    }

    fn takes_data(&self) -> bool {
        false
    }
}

/// What a session on these ranks would hold and run.
#[derive(Clone, Debug)]
pub struct Dry {
    /// What each rank holds.
    pub shards: Vec<ShardInfo>,
    /// Memory of the device.
    pub memory: Memory,
    /// One token.
    pub decode: Recording,
    /// As many tokens as the options say at once.
    pub prefill: Recording,
}

/// Sizes of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// S: tokens of context.
    pub context: usize,
    /// Element type of the cache.
    pub kv: KvDType,
    /// Tokens of a prefill step.
    pub chunk: usize,
}

/// Loads the parts of these ranks as a session does, all on one device of these limits.
///
/// # Errors
///
/// Those of [`Session::load`].
pub async fn dry_run(
    files: &ModelFiles,
    ranks: Vec<Placement>,
    sizes: Sizes,
    limits: Option<&Limits>,
) -> Result<Dry> {
    let device = Rc::new(PlanDevice::new(files, limits));
    let placed = ranks
        .into_iter()
        .map(|rank| (rank, Rc::clone(&device) as Rc<dyn Device>));
    let world = World::new(placed.collect(), Rc::new(LocalComm))?;
    let options = SessionOptions {
        context_length: Some(sizes.context),
        kv: sizes.kv,
        prefill_chunk: sizes.chunk,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    let session = Session::load(files.without_data(), world, options, quiet).await?;
    let shards = session.shards();
    // What a session makes ready when it is loaded: one token, then a whole chunk.
    let Ok([decode, prefill]) = <[Recording; 2]>::try_from(device.recordings()) else {
        return Err(Error::Invalid(
            "a session has other steps than expected".into(),
        ));
    };
    Ok(Dry {
        shards,
        memory: device.memory(),
        decode,
        prefill,
    })
}
