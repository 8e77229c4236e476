//! From what a user asks for to a [`World`].

use std::rc::Rc;
use std::str::FromStr;

use super::{Communicator, LocalComm, Mesh, Placement, World};
use crate::device::{self, Device, DeviceChoice};
use crate::recording::Recording;
use crate::shard::Split;
use crate::weights::Weight;
use crate::{DType, Error, Result, nn};

/// How a model is shared among ranks.
#[derive(Clone, Debug, Default)]
pub struct Sharding {
    /// Sizes of the groups.
    pub mesh: Mesh,
    /// Sequence parallelism (arXiv:2205.05198).
    pub sequence_parallel: bool,
    /// Shares of the tensor-parallel ranks.
    pub split: SplitChoice,
    /// Devices, given to the ranks in turn. None is `auto`.
    pub devices: Vec<DeviceChoice>,
}

/// Shares of the tensor-parallel ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SplitChoice {
    /// Equal ones.
    #[default]
    Even,
    /// In proportion to how fast the devices multiply.
    Auto,
    /// These.
    Of(Vec<f64>),
}

impl FromStr for SplitChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "even" => Ok(SplitChoice::Even),
            "auto" => Ok(SplitChoice::Auto),
            _ => {
                let shares: std::result::Result<Vec<f64>, _> =
                    text.split(',').map(|s| s.trim().parse()).collect();
                let shares = shares.map_err(|_| Error::Unsupported {
                    what: format!("split {text:?}"),
                    supported: "even, auto, shares like 0.7,0.3".into(),
                })?;
                Split::new(&shares)?;
                Ok(SplitChoice::Of(shares))
            }
        }
    }
}

/// One rank among those that have processes of their own.
pub struct Process<'a> {
    /// Which rank this process is.
    pub rank: usize,
    /// What joins it to the others.
    pub communicator: Rc<dyn Communicator>,
    /// Gives every rank's number, in the order of ranks.
    pub gather: &'a dyn Fn(f64) -> Vec<f64>,
}

/// A world, and why `auto` fell back to the CPU device, or to another GPU than the best one.
pub struct Opened {
    /// The world.
    pub world: World,
    /// Why there is no GPU, or not the best one.
    pub no_gpu: Option<String>,
}

impl Sharding {
    /// Opens the devices and places the ranks of data-parallel replica `replica` in this process. `clock`
    /// tells seconds, for [`SplitChoice::Auto`]; `wrap` may put something around each device.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a mesh that cannot be, or more devices than ranks; [`Error::Device`] for one
    /// that is not there.
    pub async fn open(
        &self,
        replica: usize,
        clock: &dyn Fn() -> f64,
        wrap: &dyn Fn(Rc<dyn Device>) -> Rc<dyn Device>,
    ) -> Result<Opened> {
        let mesh = self.mesh;
        let choices = self.choices()?;
        let mine: Vec<usize> = (0..mesh.world_size())
            .filter(|rank| mesh.coordinate(*rank).dp == replica)
            .collect();
        let mut no_gpu = None;
        let mut opened: Vec<(&DeviceChoice, Rc<dyn Device>)> = Vec::new();
        let mut devices: Vec<Rc<dyn Device>> = Vec::with_capacity(mine.len());
        for rank in &mine {
            let choice = &choices[rank % choices.len()];
            // One device for one adapter: its ranks then need no staging.
            let same = opened.iter().find(|(c, _)| *c == choice);
            devices.push(match same {
                Some((_, same)) => Rc::clone(same),
                None => {
                    let (device, reason) = device::open_with_reason(choice).await?;
                    no_gpu = no_gpu.or(reason);
                    let device = wrap(device);
                    opened.push((choice, Rc::clone(&device)));
                    device
                }
            });
        }
        let split = self.split(&devices[..mesh.tp], clock).await?;
        let placed: Vec<_> = (mine.into_iter().zip(devices))
            .map(|(rank, device)| {
                let placement = Placement::new(mesh, rank, split.clone(), self.sequence_parallel);
                Ok((placement?, device))
            })
            .collect::<Result<_>>()?;
        Ok(Opened {
            world: World::new(placed, Rc::new(LocalComm))?,
            no_gpu,
        })
    }

    /// Opens the device of one rank and places it in this process.
    ///
    /// # Errors
    ///
    /// As [`Sharding::open`]. Ranks that are not the same number as processes are for the caller to refuse.
    pub async fn open_rank(
        &self,
        here: Process<'_>,
        clock: &dyn Fn() -> f64,
        wrap: &dyn Fn(Rc<dyn Device>) -> Rc<dyn Device>,
    ) -> Result<Opened> {
        let choices = self.choices()?;
        let choice = &choices[here.rank % choices.len()];
        let (device, no_gpu) = device::open_with_reason(choice).await?;
        let device = wrap(device);
        let split = match &self.split {
            SplitChoice::Auto => {
                let mut speeds = (here.gather)(speed(device.as_ref(), clock).await?);
                speeds.truncate(self.mesh.tp);
                Split::new(&speeds)?
            }
            _ => {
                self.split(&vec![Rc::clone(&device); self.mesh.tp], clock)
                    .await?
            }
        };
        let placement = Placement::new(self.mesh, here.rank, split, self.sequence_parallel)?;
        Ok(Opened {
            world: World::new(vec![(placement, device)], here.communicator)?,
            no_gpu,
        })
    }

    /// Devices, to be given to the ranks in turn.
    fn choices(&self) -> Result<&[DeviceChoice]> {
        self.mesh.check()?;
        let ranks = self.mesh.world_size();
        if self.devices.len() > ranks {
            return Err(Error::Invalid(format!(
                "{} devices for the {ranks} ranks of {}; raise tp or pp, or name fewer",
                self.devices.len(),
                self.mesh
            )));
        }
        Ok(match self.devices.is_empty() {
            true => &[DeviceChoice::Auto],
            false => &self.devices,
        })
    }

    /// Shares of the tensor-parallel ranks that have these devices.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another number of shares than ranks.
    pub async fn split(
        &self,
        devices: &[Rc<dyn Device>],
        clock: &dyn Fn() -> f64,
    ) -> Result<Split> {
        match &self.split {
            SplitChoice::Even => Ok(Split::even(devices.len())),
            SplitChoice::Of(shares) if shares.len() != devices.len() => Err(Error::Invalid(
                format!("{} shares for tp {}", shares.len(), devices.len()),
            )),
            SplitChoice::Of(shares) => Split::new(shares),
            SplitChoice::Auto => {
                let mut speeds: Vec<f64> = Vec::with_capacity(devices.len());
                for (i, device) in devices.iter().enumerate() {
                    let same = (devices[..i].iter()).position(|d| Rc::ptr_eq(d, device));
                    speeds.push(match same {
                        Some(same) => speeds[same],
                        None => {
                            let sharing = devices.iter().filter(|d| Rc::ptr_eq(d, device));
                            let sharing = sharing.count() as f64;
                            speed(device.as_ref(), clock).await? / sharing
                        }
                    });
                }
                Split::new(&speeds)
            }
        }
    }
}

/// Products per second of one token with a matrix of 4-bit weights: what decoding does most.
///
/// # Errors
///
/// [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn speed(device: &dyn Device, clock: &dyn Fn() -> f64) -> Result<f64> {
    const ROWS: usize = 2048;
    const COLS: usize = 2048;
    let bytes = DType::Q4_0.bytes(ROWS * COLS).unwrap_or_default();
    let weight = vec![0x11; bytes];
    let weight = Weight::from_bytes(device, "speed", DType::Q4_0, ROWS, COLS, &weight).await?;
    let linear = nn::Linear::new(weight);
    let mut r = Recording::new();
    let mut x = r.scratch(DType::F32, &[1, COLS])?;
    // Each takes what the one before it gives, as layers do.
    for _ in 0..8 {
        x = r.linear(&x, &linear)?;
    }
    r.keep(&x);
    let prepared = device.prepare(&r).await?;
    let wait = async || -> Result<()> {
        if let Some(buffer) = prepared.tensor(&x) {
            device.read(buffer, 0, 4).await?;
        }
        Ok(())
    };
    device.run(&prepared)?;
    wait().await?;
    let (mut runs, begin) = (0u32, clock());
    // A quarter of a second, and at least five runs.
    while runs < 5 || (clock() - begin < 0.25 && runs < 1000) {
        device.run(&prepared)?;
        wait().await?;
        runs += 1;
    }
    Ok(f64::from(runs) / (clock() - begin).max(1e-9))
}
