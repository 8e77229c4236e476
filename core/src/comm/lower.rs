//! Recordings of several ranks become one recording for each device.
//!
//! A collective between ranks of one device becomes dispatches; others cut the recordings of the
//! devices they join into segments. What several ranks of a device compute alike (norms of the same
//! sums) is computed once.

mod counted;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::{Collective, CollectiveKind, Reduce, Traffic};
use crate::kernels::{Access, Kernel, Params, all_reduce, copy, matmul, matvec};
use crate::recording::{Dispatch, Item, Paged, Recording};
use crate::tensor::{Storage, Tensor};
use crate::{DType, Error, Result};

pub use counted::CountedRows;

/// What a process does in one step.
#[derive(Debug)]
pub enum Step {
    /// A device runs a segment.
    Run {
        /// Which device.
        device: usize,
        /// Which segment of its recording.
        segment: usize,
    },
    /// Ranks communicate.
    Communicate(Vec<Staged>),
    /// A device runs a segment once in each round of what is brought in.
    Paged {
        /// Which device.
        device: usize,
        /// Which segment of its recording.
        segment: usize,
        /// Who brings what; the tensor is that of the device's recording.
        paged: Paged,
    },
}

/// A rank's part in a collective between devices or processes.
#[derive(Debug)]
pub struct Staged {
    /// Its device.
    pub device: usize,
    /// Its part; tensors are those of the device's recording.
    pub collective: Collective,
}

/// The recordings of all ranks, by device.
#[derive(Debug)]
pub struct Lowered {
    /// One recording for each device.
    pub recordings: Vec<Recording>,
    /// What is done in which order.
    pub steps: Vec<Step>,
    /// By rank: the scratch tensor of its device's recording that each of its own became.
    pub slots: Vec<Vec<Option<usize>>>,
    /// What the collectives that became dispatches would have sent.
    pub traffic: Traffic,
    /// Those of them of which data says how much they send.
    pub counted: Vec<CountedRows>,
}

/// Lowers the recordings of the ranks of one process; `devices` has the device of each.
///
/// # Errors
///
/// [`Error::Invalid`] when ranks wait for each other for ever, or for different things.
pub fn lower(ranks: &[Recording], devices: &[usize]) -> Result<Lowered> {
    let count = devices.iter().max().map_or(0, |last| last + 1);
    let mut lowering = Lowering {
        ranks,
        devices,
        place: HashMap::new(),
        writes: ranks.iter().map(writes).collect(),
        written: written_buffers(ranks),
        made: HashMap::new(),
        open: vec![false; count],
        segments: vec![0; count],
        lowered: Lowered {
            recordings: vec![Recording::new(); count],
            steps: Vec::new(),
            slots: (ranks.iter())
                .map(|r| vec![None; r.scratch_sizes().len()])
                .collect(),
            traffic: Traffic::default(),
            counted: Vec::new(),
        },
    };
    for (i, rank) in ranks.iter().enumerate() {
        lowering.place.insert(rank.placement().rank, i);
    }
    lowering.run()?;
    Ok(lowering.lowered)
}

/// How often each scratch tensor is written.
fn writes(recording: &Recording) -> Vec<usize> {
    let mut writes = vec![0; recording.scratch_sizes().len()];
    let mut count = |tensor: &Tensor| {
        if let Storage::Scratch(slot) = tensor.storage {
            writes[slot] += 1;
        }
    };
    for item in recording.items() {
        match item {
            Item::Dispatch(d) => d.written().for_each(&mut count),
            Item::Collective(c) => c.output.iter().for_each(&mut count),
            Item::Paged(_) | Item::EndPaged => {}
        }
    }
    writes
}

/// Addresses of the buffers that some rank writes.
fn written_buffers(ranks: &[Recording]) -> HashSet<usize> {
    let items = ranks.iter().flat_map(Recording::items);
    let mut written = HashSet::new();
    for item in items {
        let mut note = |tensor: &Tensor| {
            if let Storage::Buffer(buffer) = &tensor.storage {
                written.insert(buffer.address());
            }
        };
        match item {
            Item::Dispatch(d) => d.written().for_each(&mut note),
            Item::Collective(c) => c.output.iter().for_each(&mut note),
            Item::Paged(p) => p.by.written().iter().for_each(&mut note),
            Item::EndPaged => {}
        }
    }
    written
}

/// Names a dispatch by what it computes: device, kernel and inputs. Parameters are compared.
type Key = (usize, *const Kernel, Vec<Option<Id>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    Buffer(usize),
    Scratch(usize),
}

struct Lowering<'a> {
    ranks: &'a [Recording],
    devices: &'a [usize],
    /// From a rank's number in the world to its place here.
    place: HashMap<usize, usize>,
    writes: Vec<Vec<usize>>,
    written: HashSet<usize>,
    /// Dispatches that others may share, with their outputs' slots.
    made: HashMap<Key, Vec<(Params, Vec<usize>)>>,
    /// Has the device's current segment a dispatch?
    open: Vec<bool>,
    segments: Vec<usize>,
    lowered: Lowered,
}

impl<'a> Lowering<'a> {
    fn run(&mut self) -> Result<()> {
        let ranks = self.ranks;
        let mut cursors = vec![0; ranks.len()];
        loop {
            let mut progress = false;
            for (rank, recording) in ranks.iter().enumerate() {
                // In turns: what different ranks do is independent, so a GPU may do it at the same time.
                let rest = &recording.items()[cursors[rank]..];
                let taken = match rest.first() {
                    Some(Item::Dispatch(d)) => {
                        self.dispatch(rank, d)?;
                        1
                    }
                    Some(Item::Paged(paged)) => self.paged(rank, paged, rest)?,
                    _ => 0,
                };
                cursors[rank] += taken;
                progress |= taken > 0;
            }
            let waiting: Vec<Option<&'a Collective>> = (ranks.iter().zip(&cursors))
                .map(|(r, at)| match r.items().get(*at) {
                    Some(Item::Collective(c)) => Some(c),
                    _ => None,
                })
                .collect();
            for rank in 0..ranks.len() {
                let Some(members) = self.ready(rank, &waiting) else {
                    continue;
                };
                // The first member does it for all.
                if members[0] != rank {
                    continue;
                }
                let parts: Vec<_> = (members.iter())
                    .filter_map(|m| waiting[*m].map(|c| (*m, c)))
                    .collect();
                self.collective(&parts)?;
                for member in members {
                    cursors[member] += 1;
                }
                progress = true;
            }
            if !progress {
                break;
            }
        }
        let waits = |rank: usize| match ranks[rank].items().get(cursors[rank]) {
            Some(Item::Collective(c)) => {
                let (rank, kind) = (ranks[rank].placement().rank, &c.kind);
                Some(format!(
                    "rank {rank} for {kind:?} among {:?}",
                    c.group.ranks
                ))
            }
            _ => None,
        };
        let stuck: Vec<_> = (0..ranks.len()).filter_map(waits).take(4).collect();
        if !stuck.is_empty() {
            return Err(Error::Invalid(format!(
                "ranks wait for each other: {}",
                stuck.join(", ")
            )));
        }
        for device in 0..self.segments.len() {
            self.close(device);
        }
        Ok(())
    }

    /// The places here of the ranks that a waiting rank's collective needs, if all of them wait for it.
    fn ready(&self, rank: usize, waiting: &[Option<&Collective>]) -> Option<Vec<usize>> {
        let own = waiting[rank]?;
        let mut members = Vec::new();
        let peers: Vec<usize> = match own.kind {
            CollectiveKind::Send { to: peer } | CollectiveKind::Receive { from: peer } => {
                vec![own.group.me.min(peer), own.group.me.max(peer)]
            }
            _ => (0..own.group.len()).collect(),
        };
        for peer in peers {
            let Some(&member) = self.place.get(&own.group.ranks[peer]) else {
                // Of another process.
                continue;
            };
            let other = waiting[member]?;
            if other.group.ranks != own.group.ranks {
                return None;
            }
            let same = match (&own.kind, &other.kind) {
                _ if member == rank => true,
                (CollectiveKind::Send { to: peer }, CollectiveKind::Receive { from: me })
                | (CollectiveKind::Receive { from: peer }, CollectiveKind::Send { to: me }) => {
                    (*peer, *me) == (other.group.me, own.group.me)
                }
                (CollectiveKind::Send { .. } | CollectiveKind::Receive { .. }, _) => false,
                (a, b) => a.name() == b.name(),
            };
            // It may come to this one later.
            if !same {
                return None;
            }
            members.push(member);
        }
        Some(members)
    }

    /// The device's tensor that a rank's tensor becomes.
    fn map(&mut self, rank: usize, tensor: &Tensor) -> Tensor {
        let Storage::Scratch(slot) = tensor.storage else {
            return tensor.clone();
        };
        let mapped = match self.lowered.slots[rank][slot] {
            Some(mapped) => mapped,
            None => {
                let recording = &mut self.lowered.recordings[self.devices[rank]];
                let mapped = recording.scratch_bytes(self.ranks[rank].scratch_sizes()[slot]);
                self.lowered.slots[rank][slot] = Some(mapped);
                mapped
            }
        };
        if self.ranks[rank].kept().contains(&slot) {
            let tensor = Tensor::new(Storage::Scratch(mapped), tensor.dtype, &tensor.shape);
            self.lowered.recordings[self.devices[rank]].keep(&tensor);
        }
        Tensor::new(Storage::Scratch(mapped), tensor.dtype, &tensor.shape)
    }

    /// A scratch tensor that is written once: nothing changes it after that.
    fn is_constant(&self, rank: usize, tensor: &Tensor) -> bool {
        match &tensor.storage {
            Storage::Scratch(slot) => self.writes[rank][*slot] == 1,
            Storage::Buffer(buffer) => !self.written.contains(&buffer.address()),
        }
    }

    fn dispatch(&mut self, rank: usize, dispatch: &Dispatch) -> Result<()> {
        let constant = (dispatch.bindings.iter().flatten()).all(|t| self.is_constant(rank, t));
        let scratch = dispatch
            .written()
            .all(|t| matches!(t.storage, Storage::Scratch(_)));
        let shared = constant && scratch && self.lowered.recordings.len() < self.ranks.len();
        let key = shared.then(|| self.key(rank, dispatch));
        if let Some(key) = &key
            && let Some(found) = self.made.get(key)
            && let Some((_, slots)) = found.iter().find(|(p, _)| *p == dispatch.params)
        {
            for (output, slot) in dispatch.written().zip(slots.clone()) {
                self.alias(rank, output, slot);
            }
            return Ok(());
        }
        let mut mapped = dispatch.clone();
        for tensor in mapped.bindings.iter_mut().flatten() {
            *tensor = self.map(rank, tensor);
        }
        if let Some(key) = key {
            let slots = mapped.written().filter_map(|t| match t.storage {
                Storage::Scratch(slot) => Some(slot),
                Storage::Buffer(_) => None,
            });
            let made = (dispatch.params.clone(), slots.collect());
            self.made.entry(key).or_default().push(made);
        }
        let device = self.devices[rank];
        self.lowered.recordings[device].push_item(Item::Dispatch(mapped));
        self.open[device] = true;
        Ok(())
    }

    /// Calls that run in rounds are a segment of their own, without other ranks' calls; gives the number of items.
    fn paged(&mut self, rank: usize, paged: &Paged, items: &[Item]) -> Result<usize> {
        let device = self.devices[rank];
        self.close(device);
        let paged = Paged {
            by: Rc::clone(&paged.by),
            ids: self.map(rank, &paged.ids),
        };
        self.lowered.recordings[device].begin_paged(paged.clone());
        self.segments[device] += 1;
        let mut taken = 1;
        while let Some(Item::Dispatch(d)) = items.get(taken) {
            self.dispatch(rank, d)?;
            taken += 1;
        }
        let Some(Item::EndPaged) = items.get(taken) else {
            let what = "calls that run in rounds hold something else than calls";
            return Err(Error::Invalid(what.into()));
        };
        self.lowered.recordings[device].end_paged();
        self.open[device] = false;
        let segment = self.segments[device];
        self.segments[device] += 1;
        self.lowered.steps.push(Step::Paged {
            device,
            segment,
            paged,
        });
        Ok(taken + 1)
    }

    fn key(&mut self, rank: usize, dispatch: &Dispatch) -> Key {
        let bindings = dispatch.kernel.bindings.iter().zip(&dispatch.bindings);
        let mut ids = Vec::with_capacity(dispatch.bindings.len());
        for (binding, tensor) in bindings {
            ids.push(match tensor {
                Some(tensor) if binding.access != Access::Write => {
                    Some(match self.map(rank, tensor).storage {
                        Storage::Buffer(buffer) => Id::Buffer(buffer.address()),
                        Storage::Scratch(slot) => Id::Scratch(slot),
                    })
                }
                _ => None,
            });
        }
        (self.devices[rank], std::ptr::from_ref(dispatch.kernel), ids)
    }

    /// Lets a rank's scratch tensor be one that is there already.
    fn alias(&mut self, rank: usize, tensor: &Tensor, slot: usize) {
        if let Storage::Scratch(own) = tensor.storage {
            self.lowered.slots[rank][own] = Some(slot);
            // For what is kept.
            self.map(rank, tensor);
        }
    }

    fn close(&mut self, device: usize) {
        if self.open[device] {
            let segment = self.segments[device];
            self.lowered.steps.push(Step::Run { device, segment });
            self.open[device] = false;
        }
    }

    fn collective(&mut self, parts: &[(usize, &Collective)]) -> Result<()> {
        let (first, collective) = parts[0];
        let device = self.devices[first];
        let peers = match collective.kind {
            CollectiveKind::Send { .. } | CollectiveKind::Receive { .. } => 2,
            _ => collective.group.len(),
        };
        let together = parts.iter().all(|(rank, _)| self.devices[*rank] == device);
        if together && parts.len() == peers {
            for (_, c) in parts.iter().filter(|(_, c)| c.counts.is_none()) {
                self.lowered.traffic.count(&c.kind, c.bytes_sent());
            }
            return self.on_device(parts);
        }
        let mut involved: Vec<usize> = parts.iter().map(|(r, _)| self.devices[*r]).collect();
        involved.sort_unstable();
        involved.dedup();
        for device in &involved {
            self.close(*device);
        }
        let mut staged = Vec::with_capacity(parts.len());
        for (rank, collective) in parts {
            let device = self.devices[*rank];
            let mut collective = (*collective).clone();
            let Collective {
                input,
                output,
                counts,
                ..
            } = &mut collective;
            for tensor in [input, output, counts] {
                *tensor = tensor.as_ref().map(|t| self.map(*rank, t));
            }
            self.lowered.recordings[device].push_item(Item::Collective(collective.clone()));
            self.segments[device] += 1;
            staged.push(Staged { device, collective });
        }
        self.lowered.steps.push(Step::Communicate(staged));
        Ok(())
    }

    fn push(
        &mut self,
        device: usize,
        kernel: &'static Kernel,
        params: Params,
        bindings: Vec<Option<Tensor>>,
    ) -> Result<()> {
        self.open[device] = true;
        self.lowered.recordings[device].push(kernel, params, bindings)
    }

    /// A collective between ranks of one device, as dispatches.
    fn on_device(&mut self, parts: &[(usize, &Collective)]) -> Result<()> {
        let (_, collective) = parts[0];
        let mut inputs = Vec::with_capacity(parts.len());
        for (rank, c) in parts {
            inputs.push(c.input.as_ref().map(|t| self.map(*rank, t)));
        }
        let given = |i: usize| {
            let input = inputs[i].clone();
            input.ok_or_else(|| Error::Invalid("a rank gives nothing".into()))
        };
        match &collective.kind {
            CollectiveKind::AllReduce(how) => {
                let all: Vec<Tensor> = (0..parts.len()).map(given).collect::<Result<_>>()?;
                let n = all[0].len();
                if *how == Reduce::Sum && self.chain(parts, &all) {
                    return Ok(());
                }
                self.same_for_all(parts, |this, device, output| {
                    this.reduce(device, *how, &all, 0, n, output)
                })
            }
            CollectiveKind::AllGather { axis, lens } => {
                let all: Vec<Tensor> = (0..parts.len()).map(given).collect::<Result<_>>()?;
                let total = lens.iter().sum();
                self.same_for_all(parts, |this, device, output| {
                    let mut at = 0;
                    for (input, len) in all.iter().zip(lens) {
                        let outer = input.shape[..*axis].iter().product();
                        let inner = input.shape[axis + 1..].iter().product();
                        let params = copy::params(outer, inner, (*len, 0), (total, at), *len);
                        let bindings = [input, output].map(|t| Some(t.clone()));
                        this.push(device, &copy::KERNEL, params, bindings.into())?;
                        at += len;
                    }
                    Ok(())
                })
            }
            CollectiveKind::ReduceScatter { reduce, lens } => {
                let all: Vec<Tensor> = (0..parts.len()).map(given).collect::<Result<_>>()?;
                let row = all[0].len() / lens.iter().sum::<usize>().max(1);
                for (rank, c) in parts {
                    let first: usize = lens[..c.group.me].iter().sum();
                    let output = self.output(*rank, c)?;
                    let n = lens[c.group.me] * row;
                    let device = self.devices[*rank];
                    self.reduce(device, *reduce, &all, first * row, n, &output)?;
                }
                Ok(())
            }
            CollectiveKind::Broadcast { root } => {
                let root = parts.iter().position(|(_, c)| c.group.me == *root);
                let input = given(root.unwrap_or_default())?;
                self.same_as(parts, &input)
            }
            CollectiveKind::Send { .. } | CollectiveKind::Receive { .. } => {
                let sender = inputs.iter().position(Option::is_some).unwrap_or_default();
                let input = given(sender)?;
                let receivers: Vec<_> = (parts.iter().copied())
                    .filter(|(_, c)| c.output.is_some())
                    .collect();
                self.same_as(&receivers, &input)
            }
            CollectiveKind::AllToAll { .. } => self.all_to_all(parts, &inputs),
            CollectiveKind::AllToAllCounted { .. } => self.all_to_all_counted(parts, &inputs),
        }
    }

    fn output(&mut self, rank: usize, collective: &Collective) -> Result<Tensor> {
        let output = collective.output.as_ref();
        let output = output.ok_or_else(|| Error::Invalid("a rank gets nothing".into()))?;
        Ok(self.map(rank, output))
    }

    /// A result that every rank gets: made once for all that never change it, else for each.
    fn same_for_all(
        &mut self,
        parts: &[(usize, &Collective)],
        make: impl Fn(&mut Self, usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut made: Option<usize> = None;
        for (rank, c) in parts {
            let Some(output) = &c.output else { continue };
            let scratch = matches!(output.storage, Storage::Scratch(_));
            let shares = scratch && self.is_constant(*rank, output);
            if let (true, Some(slot)) = (shares, made) {
                self.alias(*rank, output, slot);
                continue;
            }
            let mapped = self.map(*rank, output);
            make(self, self.devices[*rank], &mapped)?;
            if let (true, Storage::Scratch(slot)) = (shares, &mapped.storage) {
                made = Some(*slot);
            }
        }
        Ok(())
    }

    /// Every part's output becomes `input`: the same memory where nobody changes it, else a copy.
    fn same_as(&mut self, parts: &[(usize, &Collective)], input: &Tensor) -> Result<()> {
        for (rank, c) in parts {
            let Some(output) = &c.output else { continue };
            // The sender may still write a buffer, and a scratch tensor that it has written twice.
            if let (Storage::Scratch(_), Storage::Scratch(slot)) = (&output.storage, &input.storage)
                && self.is_constant(*rank, output)
                && self.is_constant_here(parts, *slot)
            {
                self.alias(*rank, output, *slot);
                continue;
            }
            let mapped = self.map(*rank, output);
            if mapped.shares_memory(input) {
                continue;
            }
            let n = input.len();
            let params = copy::params(1, 1, (n, 0), (n, 0), n);
            let bindings = [input, &mapped].map(|t| Some(t.clone()));
            self.push(self.devices[*rank], &copy::KERNEL, params, bindings.into())?;
        }
        Ok(())
    }

    /// Is a device's scratch tensor written once by the rank that it belongs to?
    fn is_constant_here(&self, parts: &[(usize, &Collective)], slot: usize) -> bool {
        let device = self.devices[parts[0].0];
        (0..self.ranks.len())
            .filter(|rank| self.devices[*rank] == device)
            .all(|rank| {
                let own = self.lowered.slots[rank].iter().zip(&self.writes[rank]);
                own.filter(|(mapped, _)| **mapped == Some(slot))
                    .all(|(_, writes)| *writes <= 1)
            })
    }

    /// Products that are only summed add to each other as they are made: the second rank's takes the first
    /// one's as its residual, and so on. The same sum in the same order, without a dispatch of its own.
    fn chain(&mut self, parts: &[(usize, &Collective)], inputs: &[Tensor]) -> bool {
        let device = self.devices[parts[0].0];
        let constant = |(rank, c): &(usize, &Collective)| {
            let output = c.output.as_ref();
            output.is_some_and(|t| {
                matches!(t.storage, Storage::Scratch(_)) && self.is_constant(*rank, t)
            })
        };
        if !parts.iter().all(constant) {
            return false;
        }
        let recording = &mut self.lowered.recordings[device];
        // Where each input is made; nobody else may have seen it.
        let mut makers = Vec::with_capacity(inputs.len());
        for ((rank, c), input) in parts.iter().zip(inputs) {
            let (Storage::Scratch(slot), Some(Storage::Scratch(own))) =
                (&input.storage, c.input.as_ref().map(|t| &t.storage))
            else {
                return false;
            };
            let readers = self.ranks[*rank].items().iter().filter(|item| {
                item.tensors()
                    .any(|t| matches!(t.storage, Storage::Scratch(s) if s == *own))
            });
            // Its maker and this collective.
            if readers.count() != 2 || recording.kept().contains(slot) {
                return false;
            }
            match recording.maker(*slot) {
                Some(maker) if makers.last().is_none_or(|last| *last < maker) => makers.push(maker),
                _ => return false,
            }
        }
        let fits = makers[1..].iter().all(|at| {
            matches!(recording.items().get(*at), Some(Item::Dispatch(d)) if residual(d).is_some())
        });
        if !fits {
            return false;
        }
        for (i, at) in makers.iter().enumerate().skip(1) {
            if let Some(dispatch) = recording.dispatch_mut(*at)
                && let Some(binding) = residual(dispatch)
            {
                dispatch.bindings[binding] = Some(inputs[i - 1].clone());
                dispatch.params = dispatch.params.clone().bool("RESIDUAL", true);
            }
        }
        let sum = inputs.last().map(|t| t.storage.clone());
        for (rank, c) in parts {
            if let (Some(output), Some(Storage::Scratch(slot))) = (&c.output, &sum) {
                self.alias(*rank, output, *slot);
            }
        }
        true
    }

    /// `output[i] = reduce of inputs[k][first + i]`, strictly in the order of ranks.
    fn reduce(
        &mut self,
        device: usize,
        how: Reduce,
        inputs: &[Tensor],
        first: usize,
        n: usize,
        output: &Tensor,
    ) -> Result<()> {
        let mut left = inputs;
        // What is reduced so far, and where it begins.
        let mut sum: Option<Tensor> = None;
        while !left.is_empty() {
            let most = all_reduce::MOST - usize::from(sum.is_some());
            let (now, later) = left.split_at(most.min(left.len()));
            left = later;
            let into = match left.is_empty() {
                true => output.clone(),
                // A part of the whole length, so that all begin at `first`.
                false => self.lowered.recordings[device].scratch(DType::F32, &inputs[0].shape)?,
            };
            let parts: Vec<Tensor> = sum.into_iter().chain(now.iter().cloned()).collect();
            let (from, n) = match left.is_empty() {
                true => (first, n),
                false => (0, inputs[0].len()),
            };
            let params = all_reduce::params(n, from, parts.len(), how);
            let mut bindings: Vec<_> = parts.into_iter().map(Some).collect();
            bindings.resize(all_reduce::MOST, None);
            bindings.push(Some(into.clone()));
            self.push(device, &all_reduce::KERNEL, params, bindings)?;
            sum = Some(into);
        }
        Ok(())
    }

    fn all_to_all(
        &mut self,
        parts: &[(usize, &Collective)],
        inputs: &[Option<Tensor>],
    ) -> Result<()> {
        for (to, c) in parts {
            let output = self.output(*to, c)?;
            let CollectiveKind::AllToAll { receives, .. } = &c.kind else {
                continue;
            };
            let rows: usize = receives.iter().sum();
            let mut at = 0;
            for ((_, from), input) in parts.iter().zip(inputs) {
                let (CollectiveKind::AllToAll { sends, .. }, Some(input)) = (&from.kind, input)
                else {
                    continue;
                };
                let len = sends[c.group.me];
                if len != receives[from.group.me] {
                    return Err(Error::Invalid(format!(
                        "all_to_all: rank {} sends {len} rows, rank {} expects {}",
                        from.group.ranks[from.group.me],
                        c.group.ranks[c.group.me],
                        receives[from.group.me]
                    )));
                }
                let given: usize = sends.iter().sum();
                let first = sends[..c.group.me].iter().sum();
                let inner = input.len() / given.max(1);
                if len > 0 {
                    let params = copy::params(1, inner, (given, first), (rows, at), len);
                    let bindings = [input, &output].map(|t| Some(t.clone()));
                    self.push(self.devices[*to], &copy::KERNEL, params, bindings.into())?;
                }
                at += len;
            }
        }
        Ok(())
    }
}

/// The binding to which a product that has none yet can be given a residual.
fn residual(dispatch: &Dispatch) -> Option<usize> {
    let product = [&matvec::KERNEL, &matmul::KERNEL]
        .iter()
        .any(|kernel| std::ptr::eq(*kernel, dispatch.kernel));
    let bindings = dispatch.kernel.bindings;
    let found = bindings.iter().position(|b| b.name == "residual")?;
    (product && dispatch.bindings[found].is_none()).then_some(found)
}

/// The device's tensor of a rank's, after lowering.
pub fn mapped(lowered: &[Option<usize>], tensor: &Tensor) -> Option<Tensor> {
    let Storage::Scratch(slot) = tensor.storage else {
        return Some(tensor.clone());
    };
    let slot = (*lowered.get(slot)?)?;
    Some(Tensor::new(
        Storage::Scratch(slot),
        tensor.dtype,
        &tensor.shape,
    ))
}
