//! Communication between ranks: [collectives](Collective) are items of a
//! [`Recording`](crate::recording::Recording), a [`Communicator`] performs those that cross devices or
//! processes.
//!
//! Sums are made in the order of ranks, always: the same layout gives the same bits on every run,
//! whether its ranks share a device, a process or nothing but a network.

mod counted;
pub mod host;
mod local;
pub mod lower;
mod mesh;
mod placement;
mod sharding;
mod world;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::device::{Buffer, Device};
use crate::tensor::Tensor;
use crate::weights::source::LocalFuture;
use crate::{Error, Result};

pub use counted::Counted;
pub use local::LocalComm;
pub use mesh::{Axis, Coordinate, Group, Mesh};
pub use placement::{Heads, Placement};
pub use sharding::{Opened, Process, Sharding, SplitChoice, speed};
pub use world::{Program, World};

/// How elements of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// Their sum, in the order of ranks.
    Sum,
    /// The largest; NaN if any is.
    Max,
}

impl Reduce {
    /// The reduction of two elements. Of zeros of both signs the first is the largest.
    pub fn f32(self, a: f32, b: f32) -> f32 {
        match self {
            Reduce::Sum => a + b,
            // NaN is not lost: `f32::max` would drop it.
            Reduce::Max if a.is_nan() || b.is_nan() => f32::NAN,
            Reduce::Max if b > a => b,
            Reduce::Max => a,
        }
    }
}

/// What a collective does. Ranks are places in the group, lengths are given for each of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CollectiveKind {
    /// Everybody gets the reduction of everybody's input.
    AllReduce(Reduce),
    /// Everybody gets the parts of all, joined along `axis`, in the order of ranks.
    AllGather {
        /// Axis of the tensors.
        axis: usize,
        /// Length of each rank's part along it.
        lens: Vec<usize>,
    },
    /// Everybody gets some rows (axis 0) of the reduction of everybody's input.
    ReduceScatter {
        /// How rows become one.
        reduce: Reduce,
        /// Rows of each rank.
        lens: Vec<usize>,
    },
    /// Everybody gets what `root` has. Its input may be its output.
    Broadcast {
        /// Who gives.
        root: usize,
    },
    /// Everybody gives rows (axis 0) to everybody, in the order of ranks.
    AllToAll {
        /// Rows that this rank gives to each.
        sends: Vec<usize>,
        /// Rows that it gets from each.
        receives: Vec<usize>,
    },
    /// Rank s gives rank d the first `counts[s, d]` of the rows that its input `(R, L, ...)` has room for; in d's
    /// output, of the same shape, they are those of s. The rest of it stays.
    AllToAllCounted {
        /// They are `counts[d, s]`: what came goes back to where it came from.
        back: bool,
    },
    /// Gives the input to one rank.
    Send {
        /// To whom.
        to: usize,
    },
    /// Gets the output from one rank.
    Receive {
        /// From whom.
        from: usize,
    },
}

impl CollectiveKind {
    /// What MPI and NCCL call it.
    pub fn name(&self) -> &'static str {
        match self {
            CollectiveKind::AllReduce(_) => "all_reduce",
            CollectiveKind::AllGather { .. } => "all_gather",
            CollectiveKind::ReduceScatter { .. } => "reduce_scatter",
            CollectiveKind::Broadcast { .. } => "broadcast",
            CollectiveKind::AllToAll { .. } => "all_to_all",
            CollectiveKind::AllToAllCounted { .. } => "all_to_all_counted",
            CollectiveKind::Send { .. } => "send",
            CollectiveKind::Receive { .. } => "receive",
        }
    }
}

/// One rank's part in a collective.
#[derive(Clone, Debug)]
pub struct Collective {
    /// What is done.
    pub kind: CollectiveKind,
    /// Among whom, and who of them this rank is.
    pub group: Rc<Group>,
    /// What this rank gives; `None` for [`CollectiveKind::Receive`], and for a broadcast by others.
    pub input: Option<Tensor>,
    /// What it gets; `None` for [`CollectiveKind::Send`].
    pub output: Option<Tensor>,
    /// `(R, R)` u32, the same on every rank, for [`CollectiveKind::AllToAllCounted`].
    pub counts: Option<Tensor>,
}

impl Collective {
    /// Bytes that this rank sends to others: `2 (R - 1) / R n` for an all-reduce of `n` bytes where R
    /// divides its elements, and so on. Where rows are counted it is what there is room for; [`Counted`] knows
    /// what is sent.
    ///
    /// All-reduce is reduce-scatter, then all-gather, as in a ring (Patarasuk and Yuan, 2009,
    /// doi:10.1016/j.jpdc.2008.09.002); only that every part goes to its owner directly, so that sums
    /// are made in the order of ranks.
    pub fn bytes_sent(&self) -> u64 {
        let (ranks, me) = (self.group.len() as u64, self.group.me as u64);
        let others = ranks.saturating_sub(1);
        let input = self.input.as_ref().map_or(0, Tensor::bytes);
        match &self.kind {
            CollectiveKind::AllReduce(_) => {
                let element = self
                    .input
                    .as_ref()
                    .map_or(4, |t| t.dtype.block_bytes() as u64);
                let own = host::chunk(input / element, ranks, me);
                let own = (own.end - own.start) * element;
                (input - own) + others * own
            }
            CollectiveKind::AllGather { .. } => others * input,
            CollectiveKind::ReduceScatter { lens, .. } => {
                let rows: usize = lens.iter().sum();
                input - input / rows.max(1) as u64 * lens[self.group.me] as u64
            }
            CollectiveKind::Broadcast { root } if *root == self.group.me => {
                others * self.output.as_ref().map_or(input, Tensor::bytes)
            }
            CollectiveKind::Broadcast { .. } | CollectiveKind::Receive { .. } => 0,
            CollectiveKind::AllToAll { sends, .. } => {
                let rows: usize = sends.iter().sum();
                let kept = sends[self.group.me];
                input / rows.max(1) as u64 * (rows - kept) as u64
            }
            CollectiveKind::AllToAllCounted { .. } => input / ranks * others,
            CollectiveKind::Send { .. } => input,
        }
    }
}

/// What a communicator needs of one rank of its process that has reached a collective.
pub struct Part<'a> {
    /// The device that the buffers belong to.
    pub device: &'a dyn Device,
    /// What is to be done. Its tensors give shapes and element types.
    pub collective: &'a Collective,
    /// Memory of [`Collective::input`], from its start.
    pub input: Option<&'a Buffer>,
    /// Memory of [`Collective::output`], from its start.
    pub output: Option<&'a Buffer>,
    /// Memory of [`Collective::counts`].
    pub counts: Option<&'a Buffer>,
}

/// Performs collectives between ranks on different devices, or in different processes.
pub trait Communicator {
    /// `local`, `mpi`, `nccl`.
    fn name(&self) -> &'static str;

    /// Performs one collective for those of its group's ranks that this process steps: all of them
    /// for [`LocalComm`], else one. All work queued on the parts' devices is done first. Gives the
    /// bytes that each part has sent.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]; [`Error::Communication`] when a rank is gone or does something else.
    fn perform<'a>(&'a self, parts: &'a [Part<'a>]) -> LocalFuture<'a, Result<Vec<u64>>>;
}

/// Calls and bytes sent, by kind of collective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic(BTreeMap<&'static str, Sent>);

/// Of one kind of collective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Calls, one for each rank that takes part and sends or receives.
    pub calls: u64,
    /// Bytes sent to other ranks.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one rank's call.
    pub fn count(&mut self, kind: &CollectiveKind, bytes: u64) {
        let sent = self.0.entry(kind.name()).or_default();
        sent.calls += 1;
        sent.bytes += bytes;
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Traffic) {
        for (name, more) in &other.0 {
            let sent = self.0.entry(name).or_default();
            sent.calls += more.calls;
            sent.bytes += more.bytes;
        }
    }

    /// By name of the collective.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Sent)> + '_ {
        self.0.iter().map(|(name, sent)| (*name, *sent))
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|sent| sent.bytes).sum()
    }
}

/// A rank's [`Error::Communication`].
pub fn communication(rank: usize, reason: impl Into<String>) -> Error {
    Error::Communication {
        rank,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
