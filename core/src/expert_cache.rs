//! Experts that stay in the model's files until a token needs them.
//!
//! The blocks of a rank register where their experts are. [`ExpertCache::allocate`] then makes *pools* of slots, one
//! for all blocks whose experts have the same types and shapes, as large as the budget allows. While a step
//! runs, the ids that a router chose are read back; experts that are in no slot take the place of those that will
//! probably not be needed for the longest time, and kernels find experts by the number of their slot. Where a step needs more experts than
//! there are slots, its calls run in several rounds.
//!
//! While a GPU computes a block, the next block's likely experts are brought in: those that followed one of the chosen ones
//! more than half of the time so far.

mod followers;
mod pages;

use std::cell::RefCell;
use std::ops::{AddAssign, Range};
use std::rc::Rc;

use crate::device::{Device, Purpose};
use crate::tensor::{Storage, Tensor};
use crate::weights::{Repacker, StoredBias, StoredExperts, Weight, row_bytes};
use crate::{DType, Error, Result};
use followers::Followers;
pub(crate) use pages::Pages;

/// Written bytes after which the device gets time to take them.
const FLUSH: u64 = 16 << 20;

/// How much a step counts in the share of steps that need an expert.
const RECENT: f64 = 1.0 / 8.0;

/// What a cache has, and what it has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpertCacheUse {
    /// Device memory of the slots.
    pub bytes: u64,
    /// Experts that it has room for.
    pub slots: usize,
    /// Experts that share it, of all blocks.
    pub experts: usize,
    /// Experts that a block needed in a step and found.
    pub hits: u64,
    /// Experts that had to be read then.
    pub misses: u64,
    /// Bytes read from files, ahead or not.
    pub bytes_read: u64,
    /// Experts that were read ahead.
    pub prefetched: u64,
    /// Of those, experts that were then needed.
    pub prefetch_hits: u64,
}

impl ExpertCacheUse {
    /// Hits among what was needed; 0 before anything was.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

impl AddAssign for ExpertCacheUse {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.slots += other.slots;
        self.experts += other.experts;
        self.hits += other.hits;
        self.misses += other.misses;
        self.bytes_read += other.bytes_read;
        self.prefetched += other.prefetched;
        self.prefetch_hits += other.prefetch_hits;
    }
}

/// The experts of one block, in files.
pub(crate) struct StoredBlock {
    /// Experts of the block, on all ranks.
    pub count: usize,
    /// Those of this rank.
    pub held: Range<usize>,
    /// Experts of a token.
    pub k: usize,
    /// Gate if there is one, up and down.
    pub matrices: Vec<(StoredExperts, Option<StoredBias>)>,
}

impl StoredBlock {
    /// Bytes of the files that this rank's parts are read from.
    pub fn file_bytes(&self) -> u64 {
        self.held.clone().map(|e| self.file_bytes_of(e)).sum()
    }

    fn file_bytes_of(&self, expert: usize) -> u64 {
        let bias = |bias: &Option<StoredBias>| bias.as_ref().map_or(0, StoredBias::file_bytes);
        let matrices = self.matrices.iter();
        matrices.map(|(m, b)| m.file_bytes(expert) + bias(b)).sum()
    }

    fn kind(&self) -> Result<Kind> {
        let mut kind = Vec::with_capacity(self.matrices.len());
        for (matrix, bias) in &self.matrices {
            let dtype = matrix.dtype(self.held.start);
            if let Some(other) = self.held.clone().find(|e| matrix.dtype(*e) != dtype) {
                return Err(Error::Unsupported {
                    what: format!(
                        "{}: {} in an expert cache, beside {dtype}",
                        matrix.name(other),
                        matrix.dtype(other)
                    ),
                    supported: "experts of one type in a layer, or no --expert-cache".into(),
                });
            }
            kind.push((dtype, matrix.shape(), bias.is_some()));
        }
        Ok(kind)
    }
}

/// Matrices of all slots, one below the other, and biases: gate if there is one, up and down.
type SlotWeights = Vec<(Weight, Option<Tensor>)>;

/// Types and shapes of an expert's matrices, and which have biases.
type Kind = Vec<(DType, [usize; 2], bool)>;

/// The slots of a device for experts of a rank's blocks.
pub struct ExpertCache {
    device: Rc<dyn Device>,
    budget: u64,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    blocks: Vec<Block>,
    pools: Vec<Pool>,
    /// Written before each round: the slot of each pair.
    slot_ids: Option<Tensor>,
    /// Counts steps of blocks.
    clock: u64,
    /// What the last block's tokens chose.
    last: Option<(usize, Vec<u32>)>,
    /// What each round of the present step needs.
    rounds: Vec<Vec<usize>>,
    unflushed: u64,
    used: ExpertCacheUse,
}

struct Block {
    stored: Rc<StoredBlock>,
    pool: usize,
    /// Slot of each held expert.
    slots: Vec<Option<usize>>,
    /// Share of the recent steps that needed each held expert.
    shares: Vec<f64>,
    /// Of this block's experts to the next one's.
    followers: Followers,
}

struct Pool {
    kind: Kind,
    /// One below the other, with biases.
    weights: SlotWeights,
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    /// Block and expert.
    owner: Option<(usize, usize)>,
    /// When it was last needed, or expected.
    used: u64,
    /// Was it brought in ahead, and not needed yet?
    ahead: bool,
}

impl ExpertCache {
    /// A cache of at most `budget` bytes of device memory.
    pub fn new(device: Rc<dyn Device>, budget: u64) -> Self {
        ExpertCache {
            device,
            budget,
            state: RefCell::default(),
        }
    }

    /// Takes a block's experts; blocks come in the order of layers.
    pub(crate) fn register(self: &Rc<Self>, stored: StoredBlock) -> Pages {
        let stored = Rc::new(stored);
        let mut state = self.state.borrow_mut();
        state.used.experts += stored.held.len();
        state.blocks.push(Block {
            pool: 0,
            slots: vec![None; stored.held.len()],
            shares: vec![stored.k as f64 / stored.count as f64; stored.held.len()],
            followers: Followers::default(),
            stored: Rc::clone(&stored),
        });
        Pages {
            cache: Rc::clone(self),
            block: state.blocks.len() - 1,
            stored,
        }
    }

    /// Makes the slots, for steps of up to `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are no experts, or the experts of one token do not fit; [`Error::Unsupported`] for a layer
    /// of experts of several types, [`Error::OutOfMemory`].
    pub async fn allocate(&self, tokens: usize) -> Result<()> {
        let mut pools: Vec<(Kind, u64, usize, usize)> = Vec::new();
        let (mut total, mut pairs) = (0u64, 0);
        let layout = self.device.limits().layout;
        for block in &mut self.state.borrow_mut().blocks {
            let (stored, kind) = (&block.stored, block.stored.kind()?);
            let matrix = |(dtype, [rows, cols], bias): &(DType, [usize; 2], bool)| {
                (rows * (row_bytes(layout, *dtype, *cols) + 4 * usize::from(*bias))) as u64
            };
            let expert: u64 = kind.iter().map(matrix).sum();
            let held = stored.held.len();
            total += expert * held as u64;
            pairs = pairs.max(tokens * stored.k);
            let most = stored.k.min(held);
            block.pool = match pools.iter().position(|p| p.0 == kind) {
                Some(found) => found,
                None => {
                    pools.push((kind, expert, 0, 0));
                    pools.len() - 1
                }
            };
            let pool = &mut pools[block.pool];
            (pool.2, pool.3) = (pool.2 + held, pool.3.max(most));
        }
        if pools.is_empty() {
            return Err(Error::Invalid(
                "expert cache: this model has no experts; leave it out".into(),
            ));
        }
        // Each pool's share of the budget is that of its experts.
        let share = |expert: u64, count: usize| {
            let part = u128::from(expert) * count as u128;
            (u128::from(self.budget) * part / u128::from(total.max(1))) as u64
        };
        for (_, expert, count, needed) in &pools {
            let slots = share(*expert, *count) / expert;
            if slots < *needed as u64 {
                let least = (pools.iter())
                    .map(|(_, _, count, needed)| total * *needed as u64 / *count as u64 + 1)
                    .max();
                return Err(Error::Invalid(format!(
                    "expert cache: {} bytes have room for {slots} experts of {expert} bytes, and a token of a \
                     layer needs {needed} of them; use at least {} bytes, or leave it out",
                    self.budget,
                    least.unwrap_or(total),
                )));
            }
        }
        for (kind, expert, count, _) in pools {
            let slots = (share(expert, count) / expert).min(count as u64) as usize;
            let mut weights = Vec::with_capacity(kind.len());
            for (dtype, [rows, cols], bias) in &kind {
                let shape = [slots, *rows, *cols];
                let device = self.device.as_ref();
                let weight = Weight::room(device, "expert cache", *dtype, shape).await?;
                let bias = match bias {
                    true => {
                        let bytes = 4 * slots * rows;
                        let buffer = device
                            .alloc(bytes as u64, Purpose::Experts, "expert cache")
                            .await?;
                        Some(Tensor::of(buffer, DType::F32, &[slots * rows]))
                    }
                    false => None,
                };
                weights.push((weight, bias));
            }
            let mut state = self.state.borrow_mut();
            state.used.slots += slots;
            state.used.bytes += slots as u64 * expert;
            state.pools.push(Pool {
                kind,
                weights,
                slots: vec![Slot::default(); slots],
            });
        }
        let ids = self
            .device
            .alloc(4 * pairs as u64, Purpose::Experts, "slots of pairs")
            .await?;
        self.state.borrow_mut().slot_ids = Some(Tensor::of(ids, DType::U32, &[pairs]));
        Ok(())
    }

    /// What it has, and what it has done so far.
    pub fn used(&self) -> ExpertCacheUse {
        self.state.borrow().used
    }

    /// Brings experts of a block into slots, but for those that `keep` says.
    async fn bring(
        &self,
        block: usize,
        experts: &[usize],
        ahead: bool,
        keep: impl Fn(&Slot) -> bool,
    ) -> Result<()> {
        for expert in experts {
            let found = self.state.borrow_mut().free_slot(block, &keep);
            let Some((slot, weights)) = found else { break };
            let stored = Rc::clone(&self.state.borrow().blocks[block].stored);
            for ((matrix, bias), (weight, biases)) in stored.matrices.iter().zip(&weights) {
                self.read(matrix, *expert, weight, slot).await?;
                if let (Some(bias), Some(Storage::Buffer(buffer))) =
                    (bias, biases.as_ref().map(|t| &t.storage))
                {
                    let values = bias.read(*expert).await?;
                    let at = 4 * slot * values.len();
                    self.device
                        .write(buffer, at as u64, bytemuck::cast_slice(&values))?;
                }
            }
            let mut state = self.state.borrow_mut();
            // Only now, so that what was cut short belongs to nobody.
            state.put(block, *expert, slot, ahead);
            state.used.bytes_read += stored.file_bytes_of(*expert);
        }
        Ok(())
    }

    async fn read(
        &self,
        matrix: &StoredExperts,
        expert: usize,
        weight: &Weight,
        slot: usize,
    ) -> Result<()> {
        let row = slot * matrix.shape()[0];
        let slice = weight
            .slices
            .iter()
            .find(|s| (s.first..s.first + s.rows).contains(&row));
        let place = slice.and_then(|s| match &s.tensor.storage {
            Storage::Buffer(buffer) => Some((buffer, row - s.first)),
            Storage::Scratch(_) => None,
        });
        let (buffer, row) = place.ok_or_else(|| Error::Invalid(format!("no slot {slot}")))?;
        let layout = self.device.limits().layout;
        let width = row_bytes(layout, matrix.dtype(expert), weight.cols);
        let mut at = (row * width) as u64;
        let mut repacker = Repacker::new(layout);
        for piece in matrix.pieces(expert, &repacker) {
            let bytes = matrix.read(expert, &piece, &mut repacker).await?;
            self.device.write(buffer, at, bytes)?;
            at += bytes.len() as u64;
            let flush = {
                let mut state = self.state.borrow_mut();
                state.unflushed += bytes.len() as u64;
                state.unflushed >= FLUSH
            };
            if flush {
                self.state.borrow_mut().unflushed = 0;
                self.device.flush().await?;
            }
        }
        Ok(())
    }
}

impl State {
    /// The slot of a block's pool that will probably not be needed for the longest time; nobody has it then.
    ///
    /// Layers come in turns, so the one least recently used would often be the next one needed.
    fn free_slot(
        &mut self,
        block: usize,
        keep: &impl Fn(&Slot) -> bool,
    ) -> Option<(usize, SlotWeights)> {
        let pool = &self.pools[self.blocks[block].pool];
        let free = pool
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| !keep(slot));
        let (slot, _) = free.max_by(|(_, a), (_, b)| {
            let wait = |slot: &Slot| self.wait(block, slot);
            wait(a).total_cmp(&wait(b)).then(b.used.cmp(&a.used))
        })?;
        let pool = &mut self.pools[self.blocks[block].pool];
        if let Some((block, expert)) = pool.slots[slot].owner.take() {
            let block = &mut self.blocks[block];
            block.slots[expert - block.stored.held.start] = None;
        }
        Some((slot, pool.weights.clone()))
    }

    /// In how many blocks' time from `block` on what is in a slot will probably be needed.
    fn wait(&self, block: usize, slot: &Slot) -> f64 {
        let Some((owner, expert)) = slot.owner else {
            return f64::INFINITY;
        };
        let count = self.blocks.len();
        let next = (owner + count - block - 1) % count + 1;
        let Block { shares, stored, .. } = &self.blocks[owner];
        let steps = 1.0 / shares[expert - stored.held.start].max(1e-6) - 1.0;
        next as f64 + steps * count as f64
    }

    fn put(&mut self, block: usize, expert: usize, slot: usize, ahead: bool) {
        let Block {
            pool,
            slots,
            stored,
            ..
        } = &mut self.blocks[block];
        slots[expert - stored.held.start] = Some(slot);
        self.pools[*pool].slots[slot] = Slot {
            owner: Some((block, expert)),
            used: self.clock,
            ahead,
        };
        self.used.prefetched += u64::from(ahead);
    }

    /// Slot of an expert, if this rank holds it and it is there.
    fn slot(&self, block: usize, expert: usize) -> Option<usize> {
        let Block { slots, stored, .. } = &self.blocks[block];
        (*slots.get(expert.checked_sub(stored.held.start)?)?)
            .as_ref()
            .copied()
    }

    fn begin(&mut self, block: usize, ids: &[u32]) -> usize {
        self.clock += 1;
        let k = |block: usize, this: &Self| this.blocks[block].stored.k;
        if let Some((last, chosen)) = self.last.take().filter(|(last, _)| last + 1 == block) {
            let ks = [k(last, self), k(block, self)];
            let counts = [last, block].map(|b| self.blocks[b].stored.count);
            self.blocks[last].followers.note(counts, [&chosen, ids], ks);
        }
        self.last = Some((block, ids.to_vec()));
        let held = self.blocks[block].stored.held.clone();
        let mut needed: Vec<usize> = ids
            .iter()
            .map(|id| *id as usize)
            .filter(|e| held.contains(e))
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let (mut order, missing): (Vec<_>, Vec<_>) = needed
            .into_iter()
            .partition(|e| self.slot(block, *e).is_some());
        self.used.hits += order.len() as u64;
        self.used.misses += missing.len() as u64;
        let pool = self.blocks[block].pool;
        for expert in &order {
            if let Some(slot) = self.slot(block, *expert) {
                let slot = &mut self.pools[pool].slots[slot];
                slot.used = self.clock;
                self.used.prefetch_hits += u64::from(std::mem::take(&mut slot.ahead));
            }
        }
        order.extend(missing);
        let shares = &mut self.blocks[block].shares;
        shares.iter_mut().for_each(|share| *share *= 1.0 - RECENT);
        for expert in &order {
            shares[expert - held.start] += RECENT;
        }
        let most = self.pools[pool].slots.len();
        self.rounds = order.chunks(most).map(<[usize]>::to_vec).collect();
        self.rounds.len()
    }
}
