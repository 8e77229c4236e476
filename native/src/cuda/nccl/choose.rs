//! Whether the ranks of a world communicate by NCCL.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::anyhow;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use shardlight::comm::{Placement, World};
use shardlight::device::Device;

use super::library::{Library, UniqueId};
use super::{CudaDevice, NcclComm};
use crate::exit::usage;
use crate::job;

/// What moves data between devices.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// NCCL between CUDA devices where its library is found, host memory otherwise.
    #[default]
    Auto,
    /// Host memory, and MPI between processes.
    Host,
    /// NCCL, or an error if that cannot be.
    Nccl,
}

/// Where a rank computes.
#[derive(Serialize, Deserialize)]
struct Seat {
    rank: usize,
    device: String,
    /// Of a CUDA device.
    uuid: Option<[u8; 16]>,
}

/// What a process tells the others.
#[derive(Serialize, Deserialize)]
struct Process {
    seats: Vec<Seat>,
    /// Why there is no NCCL.
    missing: Option<String>,
}

/// Gives the world what `choice` says to communicate by. All processes of a job do it together. What the user may want to
/// know is returned: why devices that NCCL could join are not.
///
/// # Errors
///
/// When NCCL is asked for and cannot be; every rank has the same.
pub fn choose(choice: Choice, world: &mut World) -> anyhow::Result<Option<String>> {
    if choice == Choice::Host {
        return Ok(None);
    }
    let all = tell(world)?;
    let numbers = number(&all);
    if choice == Choice::Nccl
        && let Some(reason) = unfit(&all)
    {
        return job::agree(Err(usage(format!("nccl: {reason}"))));
    }
    // Fewer than two have nothing to tell each other.
    if numbers.values().max().is_none_or(|last| *last == 0) {
        return Ok(None);
    }
    let missing = all.iter().find_map(|process| process.missing.clone());
    let reason = match missing {
        Some(missing) => Some(missing),
        None => join(world, numbers)?,
    };
    match reason {
        Some(reason) if choice == Choice::Nccl => job::agree(Err(anyhow!("nccl: {reason}"))),
        Some(reason) => Ok(Some(format!(
            "nccl: {reason}; CUDA devices communicate through host memory"
        ))),
        None => Ok(None),
    }
}

/// What all processes have.
fn tell(world: &World) -> anyhow::Result<Vec<Process>> {
    let seat = |(place, rank): (usize, &Rc<Placement>)| {
        let device = world.device(place);
        Seat {
            rank: rank.rank,
            device: device.info().to_string(),
            uuid: cuda(device.as_ref()).and_then(|cuda| cuda.uuid().ok()),
        }
    };
    let seats: Vec<Seat> = world.ranks().iter().enumerate().map(seat).collect();
    let wanted = seats.iter().any(|seat| seat.uuid.is_some());
    let mine = Process {
        missing: wanted.then(|| Library::find().err()).flatten(),
        seats,
    };
    let told = job::all_gather(&serde_json::to_vec(&mine)?);
    let read = |bytes: &Vec<u8>| Ok(serde_json::from_slice(bytes)?);
    told.iter().map(read).collect()
}

fn cuda(device: &dyn Device) -> Option<&CudaDevice> {
    device.as_any()?.downcast_ref()
}

/// NCCL's rank for each of ours: one for each CUDA device, for the process that has it first.
fn number(all: &[Process]) -> BTreeMap<usize, usize> {
    let mut devices: Vec<(usize, [u8; 16])> = Vec::new();
    let mut numbers = BTreeMap::new();
    for (process, Process { seats, .. }) in all.iter().enumerate() {
        for seat in seats {
            let Some(uuid) = seat.uuid else { continue };
            let number = match devices.iter().position(|(_, known)| *known == uuid) {
                Some(number) if devices[number].0 == process => number,
                Some(_) => continue,
                None => {
                    devices.push((process, uuid));
                    devices.len() - 1
                }
            };
            numbers.insert(seat.rank, number);
        }
    }
    numbers
}

/// Why NCCL cannot do everything.
fn unfit(all: &[Process]) -> Option<String> {
    let mut seats: Vec<&Seat> = all.iter().flat_map(|process| &process.seats).collect();
    seats.sort_by_key(|seat| seat.rank);
    if seats.len() == 1 {
        return Some("there is one rank, which has nobody to communicate with".into());
    }
    for (i, seat) in seats.iter().enumerate() {
        let (rank, device) = (seat.rank, &seat.device);
        if seat.uuid.is_none() {
            return Some(format!(
                "rank {rank} is on {device}, which is no CUDA device"
            ));
        }
        if let Some(other) = seats[..i].iter().find(|other| other.uuid == seat.uuid) {
            let other = other.rank;
            return Some(format!(
                "ranks {other} and {rank} are both on one device, {device}"
            ));
        }
    }
    None
}

/// Makes the communicator; gives the reason if that cannot be.
fn join(world: &mut World, numbers: BTreeMap<usize, usize>) -> anyhow::Result<Option<String>> {
    let mut devices = BTreeMap::new();
    for (place, rank) in world.ranks().iter().enumerate() {
        if let Some(number) = numbers.get(&rank.rank) {
            devices.insert(*number, Rc::clone(world.device(place)));
        }
    }
    let library = Library::find();
    // The first one's process makes the id.
    let made = match &library {
        Ok(library) if devices.contains_key(&0) => Some(library.unique_id()),
        _ => None,
    };
    let told = job::all_gather(&serde_json::to_vec(
        &made.map(|id| id.map(|id| id.0.to_vec())),
    )?);
    let mut id = Err("nobody has made an id".to_owned());
    for bytes in &told {
        if let Some(made) = serde_json::from_slice::<Option<Result<Vec<u8>, String>>>(bytes)? {
            let wrong = "the id has another length".to_owned();
            id = made.and_then(|id| id.try_into().map(UniqueId).map_err(|_| wrong));
        }
    }
    let host = Rc::clone(world.communicator());
    let made = match (library, id) {
        (Ok(library), Ok(id)) if !devices.is_empty() => {
            NcclComm::new(library, host, numbers, devices, id).map(Some)
        }
        (_, Ok(_)) => Ok(None),
        (_, Err(reason)) => Err(reason),
    };
    let reason = made.as_ref().err().cloned().unwrap_or_default();
    let reasons = job::all_gather(reason.as_bytes());
    if let Some(reason) = reasons.iter().find(|reason| !reason.is_empty()) {
        return Ok(Some(String::from_utf8_lossy(reason).into_owned()));
    }
    if let Ok(Some(made)) = made {
        world.set_communicator(Rc::new(made));
    }
    Ok(None)
}
