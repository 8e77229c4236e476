//! The ranks that a process steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::counted::{Counted, words};
use super::lower::{self, CountedRows, Staged, Step};
use super::{Communicator, LocalComm, Part, Placement, Traffic};
use crate::device::{Buffer, Device, DeviceKind, Prepared};
use crate::profile::{Clock, HostWork, Measured};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The ranks of this process, their devices, and what joins them to each other and to those of other
/// processes.
pub struct World {
    ranks: Vec<Rc<Placement>>,
    /// Place in `devices` of each rank's.
    device_of: Vec<usize>,
    devices: Vec<Rc<dyn Device>>,
    communicator: Rc<dyn Communicator>,
    traffic: RefCell<Traffic>,
    clock: Cell<Option<Clock>>,
    host: RefCell<Vec<HostWork>>,
}

/// A step of all ranks, made ready. It can be run any number of times.
#[derive(Clone)]
pub struct Program(Rc<Inner>);

struct Inner {
    prepared: Vec<Prepared>,
    steps: Vec<Step>,
    slots: Vec<Vec<Option<usize>>>,
    device_of: Vec<usize>,
    /// Of collectives that became dispatches, at every run.
    traffic: Traffic,
    /// Those of them whose rows are counted.
    counted: Vec<CountedRows>,
}

impl World {
    /// One rank that holds everything.
    pub fn single(device: Rc<dyn Device>) -> Self {
        World {
            ranks: vec![Rc::new(Placement::alone())],
            device_of: vec![0],
            devices: vec![device],
            communicator: Rc::new(LocalComm),
            traffic: RefCell::default(),
            clock: Cell::new(None),
            host: RefCell::default(),
        }
    }

    /// These ranks on these devices; several may share one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are none, or not as many devices as ranks.
    pub fn new(
        ranks: Vec<(Placement, Rc<dyn Device>)>,
        communicator: Rc<dyn Communicator>,
    ) -> Result<Self> {
        if ranks.is_empty() {
            return Err(Error::Invalid("a world needs a rank".into()));
        }
        // GPUs first: they work on their own while the CPU device computes.
        let mut devices: Vec<Rc<dyn Device>> = Vec::new();
        for (_, device) in &ranks {
            if !devices.iter().any(|d| Rc::ptr_eq(d, device)) {
                devices.push(Rc::clone(device));
            }
        }
        devices.sort_by_key(|d| d.info().kind == DeviceKind::Cpu);
        let place = |device: &Rc<dyn Device>| {
            let found = devices.iter().position(|d| Rc::ptr_eq(d, device));
            found.unwrap_or_default()
        };
        let device_of = ranks.iter().map(|(_, device)| place(device)).collect();
        Ok(World {
            device_of,
            ranks: ranks.into_iter().map(|(p, _)| Rc::new(p)).collect(),
            devices,
            communicator,
            traffic: RefCell::default(),
            clock: Cell::new(None),
            host: RefCell::default(),
        })
    }

    /// The ranks of this process.
    pub fn ranks(&self) -> &[Rc<Placement>] {
        &self.ranks
    }

    /// The device of a rank of this process, by its place among them.
    pub fn device(&self, rank: usize) -> &Rc<dyn Device> {
        &self.devices[self.device_of[rank]]
    }

    /// The devices of this process.
    pub fn devices(&self) -> &[Rc<dyn Device>] {
        &self.devices
    }

    /// Do two ranks of this process share a device?
    pub fn share_device(&self, a: usize, b: usize) -> bool {
        self.device_of[a] == self.device_of[b]
    }

    /// Opens devices that were lost anew, and gives how many. All that was made on them is gone: what was
    /// prepared, and the weights.
    ///
    /// # Errors
    ///
    /// Those of [`Device::reopen`].
    pub async fn reopen(&self) -> Result<usize> {
        let mut opened = 0;
        for device in &self.devices {
            opened += usize::from(device.reopen().await?);
        }
        Ok(opened)
    }

    /// What joins devices and processes.
    pub fn communicator(&self) -> &Rc<dyn Communicator> {
        &self.communicator
    }

    /// Joins devices and processes by another one, from the next run on.
    pub fn set_communicator(&mut self, communicator: Rc<dyn Communicator>) {
        self.communicator = communicator;
    }

    /// What collectives have sent so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic.borrow().clone()
    }

    /// Measures from now on, or no longer.
    ///
    /// # Errors
    ///
    /// Those of [`Device::measure`]; none is measured then.
    pub fn measure(&self, clock: Option<Clock>) -> Result<()> {
        self.clock.set(clock);
        self.host.take();
        for device in &self.devices {
            if let Err(error) = device.measure(clock) {
                self.measure(None)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// What each device has measured since this was asked the last time, and what was done between them.
    ///
    /// # Errors
    ///
    /// Those of [`Device::measured`].
    pub async fn measured(&self) -> Result<(Vec<Vec<Measured>>, Vec<HostWork>)> {
        let mut devices = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            devices.push(device.measured().await?);
        }
        Ok((devices, self.host.take()))
    }

    fn now(&self) -> Option<f64> {
        self.clock.get().map(|clock| clock())
    }

    fn note(&self, name: &'static str, begin: Option<f64>, bytes: u64) {
        if let (Some(begin), Some(now)) = (begin, self.now()) {
            self.host.borrow_mut().push(HostWork {
                name,
                begin,
                seconds: now - begin,
                bytes,
            });
        }
    }

    /// An empty recording for each rank.
    pub fn recordings(&self) -> Vec<Recording> {
        let recording = |rank: &Rc<Placement>| Recording::of(Rc::clone(rank));
        self.ranks.iter().map(recording).collect()
    }

    /// Makes a step ready: one recording for each rank of this process.
    ///
    /// # Errors
    ///
    /// Those of [`Device::prepare`]; [`Error::Invalid`] when ranks wait for each other.
    pub async fn prepare(&self, mut recordings: Vec<Recording>) -> Result<Program> {
        let inner = if let [recording] = &mut recordings[..]
            && recording.items().len() == recording.dispatches().count()
        {
            let recording = std::mem::take(recording).fuse(self.devices[0].limits());
            let slots = (0..recording.scratch_sizes().len()).map(Some).collect();
            Inner {
                prepared: vec![self.devices[0].prepare(&recording).await?],
                steps: vec![Step::Run {
                    device: 0,
                    segment: 0,
                }],
                slots: vec![slots],
                device_of: vec![0],
                traffic: Traffic::default(),
                counted: Vec::new(),
            }
        } else {
            let lowered = lower::lower(&recordings, &self.device_of)?;
            let mut prepared = Vec::with_capacity(self.devices.len());
            for (device, recording) in self.devices.iter().zip(lowered.recordings) {
                let recording = recording.fuse(device.limits());
                prepared.push(device.prepare(&recording).await?);
            }
            Inner {
                prepared,
                steps: lowered.steps,
                slots: lowered.slots,
                device_of: self.device_of.clone(),
                traffic: lowered.traffic,
                counted: lowered.counted,
            }
        };
        Ok(Program(Rc::new(inner)))
    }

    /// Runs a step. When this returns, the last segment of each device is queued.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`], [`Error::Communication`].
    pub async fn run(&self, program: &Program) -> Result<()> {
        let program = &*program.0;
        for step in &program.steps {
            match step {
                Step::Run { device, segment } => {
                    let prepared = &program.prepared[*device];
                    self.devices[*device].run_segment(prepared, *segment)?;
                }
                Step::Communicate(staged) => self.communicate(program, staged).await?,
                Step::Paged {
                    device,
                    segment,
                    paged,
                } => {
                    let (device, prepared) = (&self.devices[*device], &program.prepared[*device]);
                    let ids = read_words(device.as_ref(), prepared, &paged.ids).await?;
                    for round in 0..paged.by.begin(&ids) {
                        let begin = self.now();
                        paged.by.page(round).await?;
                        self.note("paging", begin, 0);
                        device.run_segment(prepared, *segment)?;
                    }
                    paged.by.ahead().await?;
                }
            }
        }
        self.traffic.borrow_mut().add(&program.traffic);
        for rows in &program.counted {
            let found = program.prepared[rows.device].tensor(&rows.counts);
            let buffer = found.ok_or_else(|| Error::Invalid("counts have no memory".into()))?;
            let device = &self.devices[rows.device];
            let counts = words(&device.read(buffer, 0, rows.counts.bytes()).await?);
            for collective in &rows.collectives {
                let sent = Counted::new(collective, &counts)?.bytes_sent();
                self.traffic.borrow_mut().count(&collective.kind, sent);
            }
        }
        Ok(())
    }

    async fn communicate(&self, program: &Inner, staged: &[Staged]) -> Result<()> {
        let mut parts = Vec::with_capacity(staged.len());
        for Staged { device, collective } in staged {
            let buffer = |tensor: &'_ Option<Tensor>| -> Result<Option<Buffer>> {
                let Some(tensor) = tensor else {
                    return Ok(None);
                };
                let found = program.prepared[*device].tensor(tensor).cloned();
                let found = found.ok_or_else(|| Error::Invalid("a tensor has no memory".into()))?;
                Ok(Some(found))
            };
            parts.push((
                &self.devices[*device],
                collective,
                buffer(&collective.input)?,
                buffer(&collective.output)?,
                buffer(&collective.counts)?,
            ));
        }
        let parts: Vec<Part<'_>> = (parts.iter())
            .map(|(device, collective, input, output, counts)| Part {
                device: device.as_ref(),
                collective,
                input: input.as_ref(),
                output: output.as_ref(),
                counts: counts.as_ref(),
            })
            .collect();
        let begin = self.now();
        let sent = self.communicator.perform(&parts).await?;
        self.note("communication", begin, sent.iter().sum());
        let mut traffic = self.traffic.borrow_mut();
        for (part, bytes) in parts.iter().zip(sent) {
            traffic.count(&part.collective.kind, bytes);
        }
        Ok(())
    }

    /// Waits until queued work is done.
    ///
    /// # Errors
    ///
    /// As [`Device::flush`].
    pub async fn flush(&self) -> Result<()> {
        for device in &self.devices {
            device.flush().await?;
        }
        Ok(())
    }
}

async fn read_words(device: &dyn Device, prepared: &Prepared, tensor: &Tensor) -> Result<Vec<u32>> {
    let buffer = prepared.tensor(tensor);
    let buffer = buffer.ok_or_else(|| Error::Invalid("a tensor has no memory".into()))?;
    let bytes = device.read(buffer, 0, tensor.bytes()).await?;
    Ok(bytemuck::allocation::pod_collect_to_vec(&bytes))
}

impl Program {
    /// Where a rank's tensor ended up; see [`Prepared::tensor`].
    pub fn tensor(&self, rank: usize, tensor: &Tensor) -> Option<Buffer> {
        let mapped = lower::mapped(&self.0.slots[rank], tensor)?;
        let prepared = &self.0.prepared[self.0.device_of[rank]];
        prepared.tensor(&mapped).cloned()
    }
}
