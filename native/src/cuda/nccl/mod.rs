//! Collectives between CUDA devices, of one process or several, from device to device by NCCL.
//!
//! NCCL only moves bytes, by `ncclSend` and `ncclRecv`. Sums are ours: its own reductions add in an order that depends
//! on how devices are wired and on the size of what is summed, and we promise the order of ranks. So an all-reduce sends
//! every part to its owner, who sums it by the kernel that ranks of one device use, and back to everybody: as many bytes
//! as a ring sends.
//!
//! All of it is queued on the devices' streams; the host does not wait.

mod choose;
mod library;
mod reduce;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr;
use std::rc::Rc;

use cudarc::driver::sys::CUdeviceptr;
use shardlight::comm::{
    CollectiveKind, Communicator, Counted, Group, Part, Reduce, communication, host,
};
use shardlight::device::{Buffer, Device, Purpose};
use shardlight::tensor::Tensor;
use shardlight::weights::source::LocalFuture;
use shardlight::{DType, Error, Result};

use super::device::CudaDevice;
use library::{Handle, Library, UniqueId};
use reduce::Reduction;

pub use choose::{Choice, choose};

/// Communication by NCCL, among the ranks whose groups allow it.
pub struct NcclComm {
    library: &'static Library,
    /// For groups with ranks on other devices, or several on one, and for element types that we sum on the host.
    host: Rc<dyn Communicator>,
    /// NCCL's rank of each of ours: one for each device.
    numbers: BTreeMap<usize, usize>,
    /// Those of this process, by NCCL's rank.
    ends: BTreeMap<usize, End>,
    /// After an error nothing can be ended in good order.
    failed: Cell<bool>,
}

/// One device's end of the communicator.
struct End {
    device: Rc<dyn Device>,
    handle: Handle,
    reductions: RefCell<BTreeMap<(usize, usize, bool), Rc<Reduction>>>,
}

/// Reductions of so many sizes are kept ready; a decode step has one or two.
const KEPT: usize = 8;

/// Address and size of device memory.
type Piece = (CUdeviceptr, u64);

const NOTHING: Piece = (0, 0);

/// What one rank gives to each of its group, and gets; what it gives to itself is copied.
struct Side<'a> {
    end: &'a End,
    group: &'a Group,
    sends: Vec<Piece>,
    receives: Vec<Piece>,
}

/// What is left to do when all has come.
enum Then {
    Nothing,
    /// To sum the own piece, if it is not empty; how many bytes each rank's piece has.
    Reduce(Option<Rc<Reduction>>, Vec<usize>),
    /// To put `outer` rows of each rank where they belong.
    Join {
        outer: usize,
        _memory: Buffer,
    },
}

impl End {
    fn cuda(&self) -> Result<&CudaDevice> {
        let found = self.device.as_any().and_then(|any| any.downcast_ref());
        found.ok_or_else(|| Error::Invalid("NCCL joins CUDA devices only".into()))
    }

    async fn reduction(&self, how: Reduce, ranks: usize, n: usize) -> Result<Rc<Reduction>> {
        let key = (ranks, n, how == Reduce::Max);
        if let Some(found) = self.reductions.borrow().get(&key) {
            return Ok(Rc::clone(found));
        }
        let made = Rc::new(Reduction::new(self.device.as_ref(), how, ranks, n).await?);
        let mut kept = self.reductions.borrow_mut();
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.insert(key, Rc::clone(&made));
        Ok(made)
    }

    /// All of a buffer's tensor.
    fn all(&self, buffer: Option<&Buffer>, tensor: Option<&Tensor>) -> Result<Piece> {
        match (buffer, tensor) {
            (Some(buffer), Some(tensor)) => {
                let bytes = tensor.bytes();
                Ok((self.cuda()?.address(buffer, 0, bytes)?, bytes))
            }
            _ => Err(Error::Invalid("a collective has no memory".into())),
        }
    }
}

/// Consecutive pieces of `lens` bytes.
fn pieces((address, _): Piece, lens: &[usize]) -> Vec<Piece> {
    let ranges = host::pieces(lens, 1).into_iter();
    ranges
        .map(|r| (address + r.start as u64, r.len() as u64))
        .collect()
}

/// Rows in bytes, of a tensor that has as many as are listed.
fn in_bytes(rows: &[usize], (_, bytes): Piece) -> Vec<usize> {
    let row = bytes as usize / rows.iter().sum::<usize>().max(1);
    rows.iter().map(|n| n * row).collect()
}

impl NcclComm {
    /// Makes the ends of this process; those of other processes make theirs now too.
    ///
    /// # Errors
    ///
    /// What NCCL says.
    fn new(
        library: &'static Library,
        host: Rc<dyn Communicator>,
        numbers: BTreeMap<usize, usize>,
        devices: BTreeMap<usize, Rc<dyn Device>>,
        id: UniqueId,
    ) -> std::result::Result<Self, String> {
        let size = numbers.values().max().map_or(0, |last| last + 1);
        let mut ends = BTreeMap::new();
        for (number, device) in devices {
            let end = End {
                device,
                handle: ptr::null_mut(),
                reductions: RefCell::default(),
            };
            ends.insert(number, end);
        }
        let mut made = NcclComm {
            library,
            host,
            numbers,
            ends,
            failed: Cell::new(true),
        };
        library.group(|| {
            for (number, end) in &mut made.ends {
                let cuda = end.cuda().map_err(|e| e.to_string())?;
                cuda.bind_to_thread().map_err(|e| e.to_string())?;
                let handle = &raw mut end.handle;
                // SAFETY: the handles stay where they are until the group has ended.
                unsafe { library.init_rank(handle, size, id, *number) }?;
            }
            Ok(())
        })?;
        made.failed.set(false);
        Ok(made)
    }

    /// Does NCCL join all ranks of a group, each by a device of its own?
    fn joins(&self, group: &Group) -> bool {
        let mut seen = Vec::with_capacity(group.len());
        group.ranks.iter().all(|rank| {
            let number = self.numbers.get(rank);
            let new = number.is_some_and(|n| !seen.contains(n));
            seen.extend(number);
            new
        })
    }

    /// Is it a collective that we do on devices?
    fn does(&self, part: &Part<'_>) -> bool {
        let collective = part.collective;
        let dtype = collective.input.as_ref().map(|t| t.dtype);
        let sums = match collective.kind {
            CollectiveKind::AllReduce(_) | CollectiveKind::ReduceScatter { .. } => {
                dtype == Some(DType::F32)
            }
            _ => true,
        };
        sums && self.joins(&collective.group)
    }

    /// The end of a part's rank.
    fn end(&self, part: &Part<'_>) -> Result<&End> {
        let group = &part.collective.group;
        let rank = group.ranks.get(group.me).copied().unwrap_or_default();
        let end = self.numbers.get(&rank).and_then(|n| self.ends.get(n));
        let own = end.filter(|end| ptr::addr_eq(end.device.as_ref(), part.device));
        own.ok_or_else(|| communication(rank, "is on another device than it was joined by"))
    }

    /// What a part sends and receives first.
    async fn first<'a>(&'a self, part: &Part<'a>) -> Result<(Side<'a>, Then)> {
        let end = self.end(part)?;
        let collective = part.collective;
        let (ranks, me) = (collective.group.len(), collective.group.me);
        let input = || end.all(part.input, collective.input.as_ref());
        let output = || end.all(part.output, collective.output.as_ref());
        let (mut sends, mut receives) = (vec![NOTHING; ranks], vec![NOTHING; ranks]);
        let mut then = Then::Nothing;
        match &collective.kind {
            CollectiveKind::AllReduce(how) | CollectiveKind::ReduceScatter { reduce: how, .. } => {
                let input = input()?;
                let chunk = |rank| {
                    let chunk = host::chunk(input.1 / 4, ranks as u64, rank as u64);
                    (chunk.end - chunk.start) as usize * 4
                };
                let lens = match &collective.kind {
                    CollectiveKind::ReduceScatter { lens, .. } => in_bytes(lens, input),
                    _ => (0..ranks).map(chunk).collect(),
                };
                sends = pieces(input, &lens);
                let mut reduction = None;
                if lens[me] > 0 {
                    let made = end.reduction(*how, ranks, lens[me] / 4).await?;
                    for (receive, piece) in receives.iter_mut().zip(&made.pieces) {
                        let bytes = lens[me] as u64;
                        *receive = (end.cuda()?.address(piece, 0, bytes)?, bytes);
                    }
                    reduction = Some(made);
                }
                then = Then::Reduce(reduction, lens);
            }
            CollectiveKind::AllGather { axis, lens } => {
                let Some(tensor) = &collective.output else {
                    return Err(Error::Invalid("an all_gather has no output".into()));
                };
                let (outer, step) = host::strides(tensor, *axis);
                let lens: Vec<usize> = lens.iter().map(|len| outer * len * step).collect();
                sends = vec![input()?; ranks];
                receives = match outer {
                    1 => pieces(output()?, &lens),
                    _ => {
                        // Rows of several ranks lie side by side: they are put there when all have come.
                        let bytes = tensor.bytes();
                        let all = end
                            .device
                            .alloc(bytes, Purpose::Activations, "parts of an all_gather")
                            .await?;
                        let pieces = pieces((end.cuda()?.address(&all, 0, bytes)?, bytes), &lens);
                        then = Then::Join {
                            outer,
                            _memory: all,
                        };
                        pieces
                    }
                };
            }
            CollectiveKind::Broadcast { root } => {
                receives[*root] = output()?;
                if *root == me {
                    sends = vec![input()?; ranks];
                }
            }
            CollectiveKind::AllToAll {
                sends: given,
                receives: got,
            } => {
                let (input, output) = (input()?, output()?);
                sends = pieces(input, &in_bytes(given, input));
                receives = pieces(output, &in_bytes(got, output));
            }
            CollectiveKind::AllToAllCounted { .. } => {
                let counted = Counted::read(part).await?;
                let ((input, _), (output, _)) = (input()?, output()?);
                let place = |address: CUdeviceptr, lens: &[usize]| {
                    let at = |(rank, len): (usize, &usize)| {
                        (address + (rank * counted.room) as u64, *len as u64)
                    };
                    lens.iter().enumerate().map(at).collect()
                };
                sends = place(input, &counted.sends);
                receives = place(output, &counted.receives);
            }
            CollectiveKind::Send { to } => sends[*to] = input()?,
            CollectiveKind::Receive { from } => receives[*from] = output()?,
        }
        let side = Side {
            end,
            group: &collective.group,
            sends,
            receives,
        };
        Ok((side, then))
    }

    /// What it does with that, and what it then sends and receives.
    fn second<'a>(&'a self, part: &Part<'a>, first: &Side<'a>, then: &Then) -> Result<Side<'a>> {
        let (end, me) = (first.end, first.group.me);
        let cuda = end.cuda()?;
        let output = || end.all(part.output, part.collective.output.as_ref());
        let mut side = Side {
            end,
            group: first.group,
            sends: vec![NOTHING; first.group.len()],
            receives: vec![NOTHING; first.group.len()],
        };
        match then {
            Then::Nothing => {}
            Then::Join { outer, .. } => {
                let (mut to, total) = output()?;
                for (from, bytes) in &first.receives {
                    let width = *bytes as usize / outer;
                    let pitch = (width, total as usize / outer);
                    // SAFETY: what came, and the output; the former is freed after the copy, in the stream's order.
                    unsafe { cuda.copy_rows(*from, to, pitch, (*outer, width)) }?;
                    to += width as u64;
                }
            }
            Then::Reduce(reduction, lens) => {
                let mut own = NOTHING;
                if let Some(reduction) = reduction {
                    reduction.run(part.device)?;
                    let bytes = lens[me] as u64;
                    own = (cuda.address(&reduction.result, 0, bytes)?, bytes);
                }
                match part.collective.kind {
                    CollectiveKind::AllReduce(_) => {
                        side.sends.fill(own);
                        side.receives = pieces(output()?, lens);
                    }
                    _ => {
                        side.sends[me] = own;
                        side.receives[me] = output()?;
                    }
                }
            }
        }
        Ok(side)
    }

    /// Queues what these sides send and receive.
    fn exchange(&self, sides: &[Side<'_>], sent: &mut [u64]) -> Result<()> {
        self.agree(sides)?;
        for side in sides {
            let me = side.group.me;
            let ((from, bytes), (to, _)) = (side.sends[me], side.receives[me]);
            let size = (1, bytes as usize);
            // SAFETY: the part's memory, which the caller keeps until its stream has done what is queued.
            unsafe { side.end.cuda()?.copy_rows(from, to, (0, 0), size) }?;
        }
        let moves = |(place, piece): &(usize, &Piece), me: usize| *place != me && piece.1 > 0;
        for (side, sent) in sides.iter().zip(sent) {
            let others = side.sends.iter().enumerate();
            let others = others.filter(|p| moves(p, side.group.me));
            *sent += others.map(|(_, (_, bytes))| bytes).sum::<u64>();
        }
        let Some(first) = sides.first() else {
            return Ok(());
        };
        let queued = self.library.group(|| {
            for side in sides {
                let cuda = side.end.cuda().map_err(|e| e.to_string())?;
                let stream = cuda.bind_to_thread().map_err(|e| e.to_string())?;
                let (handle, me) = (side.end.handle, side.group.me);
                // SAFETY: the communicator is there as long as its end.
                unsafe { self.library.health(handle) }?;
                let number = |place: usize| self.numbers[&side.group.ranks[place]];
                for (to, piece) in side.sends.iter().enumerate().filter(|p| moves(p, me)) {
                    // SAFETY: as for the copies above.
                    unsafe { self.library.send(*piece, number(to), handle, stream) }?;
                }
                for (from, piece) in side.receives.iter().enumerate().filter(|p| moves(p, me)) {
                    // SAFETY: as for the copies above.
                    unsafe { self.library.receive(*piece, number(from), handle, stream) }?;
                }
            }
            Ok(())
        });
        queued.map_err(|said| {
            self.failed.set(true);
            let rank = first.group.ranks[first.group.me];
            communication(rank, format!("NCCL: {said}"))
        })
    }

    /// Checks that ranks of this process expect what they are sent: NCCL would wait for ever.
    fn agree(&self, sides: &[Side<'_>]) -> Result<()> {
        for side in sides {
            let (ranks, me) = (&side.group.ranks, side.group.me);
            for (place, rank) in ranks.iter().enumerate() {
                let (_, gives) = side.sends[place];
                let (_, gets) = side.receives[place];
                let peer = sides.iter().find(|peer| peer.group.me == place);
                let (expects, sends) = match peer {
                    Some(peer) => (peer.receives[me].1, peer.sends[me].1),
                    // Its process checks it.
                    None if !self.ends.contains_key(&self.numbers[rank]) => continue,
                    None => (0, 0),
                };
                if (gives, gets) != (expects, sends) {
                    let rank = ranks[me];
                    return Err(Error::Invalid(format!(
                        "ranks do not agree on a collective: rank {rank} sends {gives} bytes and gets {gets}, the other side gets {expects} and sends {sends}",
                    )));
                }
            }
        }
        Ok(())
    }

    async fn perform_all(&self, parts: &[Part<'_>]) -> Result<Vec<u64>> {
        if self.failed.get() {
            let rank = parts
                .first()
                .map_or(0, |p| p.collective.group.ranks[p.collective.group.me]);
            return Err(communication(rank, "NCCL has failed before"));
        }
        let mut sent = vec![0; parts.len()];
        let (mut sides, mut then) = (Vec::new(), Vec::new());
        for part in parts {
            host::check(part.collective)?;
            let (side, next) = self.first(part).await?;
            sides.push(side);
            then.push(next);
        }
        self.exchange(&sides, &mut sent)?;
        if then.iter().all(|then| matches!(then, Then::Nothing)) {
            return Ok(sent);
        }
        let mut others = Vec::with_capacity(parts.len());
        for ((part, side), then) in parts.iter().zip(&sides).zip(&then) {
            others.push(self.second(part, side, then)?);
        }
        self.exchange(&others, &mut sent)?;
        Ok(sent)
    }
}

impl Communicator for NcclComm {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn perform<'a>(&'a self, parts: &'a [Part<'a>]) -> LocalFuture<'a, Result<Vec<u64>>> {
        Box::pin(async move {
            match parts.iter().all(|part| self.does(part)) {
                true => self.perform_all(parts).await,
                false => self.host.perform(parts).await,
            }
        })
    }
}

impl Drop for NcclComm {
    fn drop(&mut self) {
        let ends = || self.ends.values().filter(|end| !end.handle.is_null());
        // What others wait for is sent before the end.
        let done = |end: &End| end.cuda().and_then(CudaDevice::synchronize).is_ok();
        let at_once = self.failed.get() || !ends().all(done);
        let end = |end: &End| {
            if end.cuda().and_then(CudaDevice::bind_to_thread).is_ok() {
                // SAFETY: it was made, and goes with this.
                unsafe { self.library.end(end.handle, at_once) };
            }
        };
        let end_all = || ends().for_each(end);
        match at_once {
            true => end_all(),
            // Together: each waits for the others. Nobody is left who could do something about an error.
            false => drop(self.library.group(|| {
                end_all();
                Ok(())
            })),
        }
    }
}
