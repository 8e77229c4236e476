//! A communicator over MPI. Tensors go through host memory: read from the device, handed to MPI, written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use mpi::Count;
use mpi::collective::{CommunicatorCollectives as _, Root as _};
use mpi::datatype::{Partition, PartitionMut};
use mpi::point_to_point::{Destination as _, Source as _};
use mpi::topology::{Communicator as _, Group as _, SimpleCommunicator};
use shardlight::comm::{
    Collective, CollectiveKind, Communicator, Counted, Part, Reduce, communication, host,
};
use shardlight::tensor::Tensor;
use shardlight::weights::source::LocalFuture;
use shardlight::{DType, Error, Result};

/// One rank's communication with the other processes of a job.
///
/// MPI's own reductions may add in any order, and f16 is not among its types. So ranks exchange parts by
/// all-to-all, each sums its own in the order of ranks, as [`host::reduce`] does, and all-gather joins them.
pub struct MpiComm {
    world: SimpleCommunicator,
    groups: RefCell<BTreeMap<Vec<usize>, Rc<SimpleCommunicator>>>,
}

impl MpiComm {
    /// Communication among the processes of `world`, whose ranks are the model's.
    pub fn new(world: SimpleCommunicator) -> Self {
        MpiComm {
            world,
            groups: RefCell::default(),
        }
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// Everybody's bytes in the order of ranks, however many each has.
    pub(super) fn all_gather_any(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lens = vec![0_u64; self.size()];
        self.world
            .all_gather_into(&(bytes.len() as u64), &mut lens[..]);
        let lens: Vec<usize> = lens.into_iter().map(|len| len as usize).collect();
        let mut exchange = Exchange {
            comm: &self.world,
            me: self.rank(),
            rank: self.rank(),
            sent: 0,
        };
        // Messages for people and hashes: far from MPI's limit.
        let all = exchange.gather(bytes, &lens).unwrap_or_default();
        let pieces = host::pieces(&lens, 1).into_iter();
        pieces.map(|piece| all[piece].to_vec()).collect()
    }

    /// The communicator of a group. Its members make it together when they first need it.
    fn group(&self, ranks: &[usize]) -> Result<Rc<SimpleCommunicator>> {
        if let Some(comm) = self.groups.borrow().get(ranks) {
            return Ok(Rc::clone(comm));
        }
        if let Some(&far) = ranks.iter().find(|rank| **rank >= self.size()) {
            let reason = format!("is asked for, but there are {} processes", self.size());
            return Err(communication(far, reason));
        }
        let members: Vec<mpi::Rank> = ranks.iter().map(|rank| *rank as mpi::Rank).collect();
        let group = self.world.group().include(&members);
        let comm = self
            .world
            .split_by_subgroup(&group)
            .ok_or_else(|| communication(self.rank(), format!("is not in the group {ranks:?}")))?;
        let comm = Rc::new(comm);
        let mut groups = self.groups.borrow_mut();
        groups.insert(ranks.to_vec(), Rc::clone(&comm));
        Ok(comm)
    }

    async fn perform_one(&self, part: &Part<'_>) -> Result<u64> {
        let collective = part.collective;
        host::check(collective)?;
        let group = &collective.group;
        if group.ranks.get(group.me) != Some(&self.rank()) {
            return Err(communication(
                self.rank(),
                format!(
                    "steps a part of the group {:?} that is not its own",
                    group.ranks
                ),
            ));
        }
        let comm = self.group(&group.ranks)?;
        let mut exchange = Exchange {
            comm: &comm,
            me: group.me,
            rank: self.rank(),
            sent: 0,
        };
        if collective.counts.is_some() {
            let counted = Counted::read(part).await?;
            let rows = counted.rows(part).await?;
            let rows = exchange.all_to_all(&rows, &counted.sends, &counted.receives)?;
            counted.write(part, &rows)?;
            return Ok(exchange.sent);
        }
        let input = match (part.input, &collective.input) {
            (Some(buffer), Some(tensor)) => part.device.read(buffer, 0, tensor.bytes()).await?,
            _ => Vec::new(),
        };
        let output = exchange.perform(collective, input)?;
        if let (Some(buffer), Some(_)) = (part.output, &collective.output) {
            part.device.write(buffer, 0, &output)?;
        }
        Ok(exchange.sent)
    }
}

impl Communicator for MpiComm {
    fn name(&self) -> &'static str {
        "mpi"
    }

    fn perform<'a>(&'a self, parts: &'a [Part<'a>]) -> LocalFuture<'a, Result<Vec<u64>>> {
        Box::pin(async move {
            match parts {
                [part] => Ok(vec![self.perform_one(part).await?]),
                _ => Err(communication(
                    self.rank(),
                    format!(
                        "its process has {} ranks, and under MPI every process is one; start more processes",
                        parts.len()
                    ),
                )),
            }
        })
    }
}

/// One collective among the members of a communicator.
struct Exchange<'a> {
    comm: &'a SimpleCommunicator,
    /// Place in the group.
    me: usize,
    /// Rank in the world, for messages.
    rank: usize,
    /// Bytes handed to MPI for others.
    sent: u64,
}

impl Exchange<'_> {
    fn perform(&mut self, collective: &Collective, input: Vec<u8>) -> Result<Vec<u8>> {
        let ranks = collective.group.len();
        let dtype = |t: &Option<Tensor>| t.as_ref().map_or(DType::F32, |t| t.dtype);
        let bytes = |t: &Option<Tensor>| t.as_ref().map_or(0, Tensor::bytes) as usize;
        match &collective.kind {
            CollectiveKind::AllReduce(how) => {
                let dtype = dtype(&collective.input);
                let element = dtype.block_bytes();
                let elements = (input.len() / element) as u64;
                let len = |rank| {
                    let chunk = host::chunk(elements, ranks as u64, rank as u64);
                    (chunk.end - chunk.start) as usize * element
                };
                let lens: Vec<usize> = (0..ranks).map(len).collect();
                let own = self.reduce_scatter(*how, dtype, &input, &lens)?;
                self.gather(&own, &lens)
            }
            CollectiveKind::ReduceScatter { reduce, lens } => {
                let row = input.len() / lens.iter().sum::<usize>().max(1);
                let lens: Vec<usize> = lens.iter().map(|rows| rows * row).collect();
                self.reduce_scatter(*reduce, dtype(&collective.input), &input, &lens)
            }
            CollectiveKind::AllGather { axis, lens } => {
                let Some(output) = &collective.output else {
                    return Err(Error::Invalid("an all_gather has no output".into()));
                };
                let step = bytes(&collective.output) / lens.iter().sum::<usize>().max(1);
                let byte_lens: Vec<usize> = lens.iter().map(|len| len * step).collect();
                let joined = self.gather(&input, &byte_lens)?;
                let pieces = host::pieces(&byte_lens, 1).into_iter();
                let parts: Vec<&[u8]> = pieces.map(|piece| &joined[piece]).collect();
                Ok(host::gather(output, *axis, lens, &parts))
            }
            CollectiveKind::Broadcast { root } => {
                let len = bytes(&collective.output);
                let mut buffer = memory(len);
                buffer[..input.len()].copy_from_slice(&input);
                self.count(len)?;
                let root_process = self.comm.process_at_rank(*root as mpi::Rank);
                root_process.broadcast_into(&mut buffer[..]);
                if *root == self.me {
                    self.sent += (ranks as u64 - 1) * len as u64;
                }
                Ok(buffer)
            }
            CollectiveKind::AllToAll { sends, receives } => {
                let row = |bytes: usize, rows: &[usize]| bytes / rows.iter().sum::<usize>().max(1);
                let in_bytes = |row, rows: &[usize]| rows.iter().map(|n| n * row).collect();
                let sends: Vec<usize> = in_bytes(row(input.len(), sends), sends);
                let step = row(bytes(&collective.output), receives);
                let receives: Vec<usize> = in_bytes(step, receives);
                self.all_to_all(&input, &sends, &receives)
            }
            CollectiveKind::AllToAllCounted { .. } => {
                Err(Error::Invalid("an all_to_all_counted has no counts".into()))
            }
            CollectiveKind::Send { to } => {
                self.count(input.len())?;
                self.sent += input.len() as u64;
                let process = self.comm.process_at_rank(*to as mpi::Rank);
                process.send(some(&input));
                Ok(Vec::new())
            }
            CollectiveKind::Receive { from } => {
                let mut buffer = memory(bytes(&collective.output));
                self.count(buffer.len())?;
                let process = self.comm.process_at_rank(*from as mpi::Rank);
                let status = process.receive_into(&mut buffer[..]);
                let got = status.count(<u8 as mpi::traits::Equivalence>::equivalent_datatype());
                if got as usize == buffer.len() {
                    return Ok(buffer);
                }
                Err(communication(
                    collective.group.ranks[*from],
                    format!(
                        "sent {got} bytes to rank {} that expects {}",
                        self.rank,
                        buffer.len()
                    ),
                ))
            }
        }
    }

    /// MPI counts in `int`.
    fn count(&self, bytes: usize) -> Result<Count> {
        Count::try_from(bytes).map_err(|_| {
            communication(
                self.rank,
                format!(
                    "a collective of {bytes} bytes, and MPI counts to {}; use a shorter context or more ranks",
                    Count::MAX
                ),
            )
        })
    }

    /// Counts and places of consecutive pieces, and the count of all.
    fn counts(&self, lens: &[usize]) -> Result<(Vec<Count>, Vec<Count>)> {
        self.count(lens.iter().sum())?;
        let pieces: Vec<Range<usize>> = host::pieces(lens, 1);
        let counts = lens.iter().map(|len| self.count(*len));
        let places = pieces.iter().map(|piece| self.count(piece.start));
        Ok((
            counts.collect::<Result<_>>()?,
            places.collect::<Result<_>>()?,
        ))
    }

    /// The ranks' bytes one after the other.
    fn gather(&mut self, mine: &[u8], lens: &[usize]) -> Result<Vec<u8>> {
        let (counts, places) = self.counts(lens)?;
        let mut all = memory(lens.iter().sum());
        let mut into = PartitionMut::new(&mut all[..], counts, places);
        self.comm.all_gather_varcount_into(some(mine), &mut into);
        self.sent += (lens.len() as u64 - 1) * mine.len() as u64;
        Ok(all)
    }

    fn all_to_all(&mut self, input: &[u8], sends: &[usize], receives: &[usize]) -> Result<Vec<u8>> {
        let (counts, places) = self.counts(sends)?;
        let from = Partition::new(some(input), counts, places);
        let (counts, places) = self.counts(receives)?;
        let mut all = memory(receives.iter().sum());
        let mut into = PartitionMut::new(&mut all[..], counts, places);
        self.comm.all_to_all_varcount_into(&from, &mut into);
        self.sent += (input.len() - sends[self.me]) as u64;
        Ok(all)
    }

    /// This rank's piece of the reduction of everybody's input.
    fn reduce_scatter(
        &mut self,
        how: Reduce,
        dtype: DType,
        input: &[u8],
        lens: &[usize],
    ) -> Result<Vec<u8>> {
        let own = lens[self.me];
        let mut pieces = self.all_to_all(input, lens, &vec![own; lens.len()])?;
        let (sum, others) = pieces.split_at_mut(own);
        for piece in others.chunks(own.max(1)) {
            host::reduce(how, dtype, sum, piece)?;
        }
        pieces.truncate(own);
        Ok(pieces)
    }
}

/// An empty slice may begin at address 1, which Open MPI takes for `MPI_IN_PLACE`; this one begins in memory.
fn some(bytes: &[u8]) -> &[u8] {
    if bytes.is_empty() { &[0][..0] } else { bytes }
}

/// So many zeros, in memory even when there are none.
fn memory(bytes: usize) -> Vec<u8> {
    let mut memory = Vec::with_capacity(bytes.max(1));
    memory.resize(bytes, 0);
    memory
}
