//! Experts that stay in the model's files until a token needs them.
//!
//! The blocks of a rank register where their experts are. [`ExpertCache::allocate`] then makes *pools* of slots, one
//! for all blocks whose experts have the same types and shapes, as large as the budget allows. While a step
//! runs, the ids that a router chose are read back; experts that are in no slot take the place of those that were not used for
//! the longest time, and kernels find experts by the number of their slot. Where a step needs more experts than
//! there are slots, its calls run in several rounds.
//!
//! While a GPU computes a block, the next block's likely experts are brought in: those that followed one of the chosen ones
//! more than half of the time so far.

mod followers;

use std::cell::RefCell;
use std::ops::{AddAssign, Range};
use std::rc::Rc;

use crate::device::{Device, DeviceKind};
use crate::recording::Paging;
use crate::tensor::{Storage, Tensor};
use crate::weights::source::LocalFuture;
use crate::weights::{Repacker, StoredBias, StoredExperts, Weight, row_bytes};
use crate::{DType, Error, Result};
use followers::Followers;

/// Written bytes after which the device gets time to take them.
const FLUSH: u64 = 16 << 20;

/// Up to this many tokens the next block's experts are brought in ahead; more tokens need most experts anyway.
const FEW_TOKENS: usize = 4;

/// A pair whose expert is in no slot; kernels skip it.
const NOWHERE: u32 = u32::MAX;

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
    /// Of this block's experts to the next one's.
    followers: Followers,
}

struct Pool {
    kind: Kind,
    /// One below the other, with biases.
    weights: Vec<(Weight, Option<Tensor>)>,
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    /// Block and expert.
    owner: Option<(usize, usize)>,
    /// When it was last needed.
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
                        let buffer = device.alloc(bytes as u64, "expert cache").await?;
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
            .alloc(4 * pairs as u64, "slots of pairs")
            .await?;
        self.state.borrow_mut().slot_ids = Some(Tensor::of(ids, DType::U32, &[pairs]));
        Ok(())
    }

    /// What it has, and what it has done so far.
    pub fn used(&self) -> ExpertCacheUse {
        self.state.borrow().used
    }

    /// Brings experts of a block into the slots that were not used for the longest time, but for those that `keep` says.
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
    /// The slot of a block's pool that was not used for the longest time; nobody has it then.
    fn free_slot(
        &mut self,
        block: usize,
        keep: &impl Fn(&Slot) -> bool,
    ) -> Option<(usize, Vec<(Weight, Option<Tensor>)>)> {
        let pool = &mut self.pools[self.blocks[block].pool];
        let free = pool
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| !keep(slot));
        let (slot, _) = free.min_by_key(|(_, slot)| (slot.owner.is_some(), slot.used))?;
        if let Some((block, expert)) = pool.slots[slot].owner.take() {
            let block = &mut self.blocks[block];
            block.slots[expert - block.stored.held.start] = None;
        }
        Some((slot, pool.weights.clone()))
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
        let most = self.pools[pool].slots.len();
        self.rounds = order.chunks(most).map(<[usize]>::to_vec).collect();
        self.rounds.len()
    }
}

/// The experts of one block in an [`ExpertCache`].
#[derive(Clone)]
pub(crate) struct Pages {
    cache: Rc<ExpertCache>,
    block: usize,
    stored: Rc<StoredBlock>,
}

impl Pages {
    /// Rows and columns of the matrices of an expert: gate if there is one, up and down.
    pub fn shapes(&self) -> Vec<[usize; 2]> {
        self.stored
            .matrices
            .iter()
            .map(|(m, _)| m.shape())
            .collect()
    }

    /// The block's experts.
    pub fn stored(&self) -> &StoredBlock {
        &self.stored
    }

    /// The slots' matrices, one below the other, and biases; and the number of slots.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] before [`ExpertCache::allocate`].
    pub fn weights(&self) -> Result<(Vec<(Weight, Option<Tensor>)>, usize)> {
        let state = self.cache.state.borrow();
        let pool = state.pools.get(state.blocks[self.block].pool);
        let pool = pool.ok_or_else(|| Error::Invalid("expert cache: not allocated".into()))?;
        debug_assert_eq!(Some(&pool.kind), self.stored.kind().as_ref().ok());
        Ok((pool.weights.clone(), pool.slots.len()))
    }

    /// The slots of the pairs `(T, k)` in a round.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for more pairs than there is room for.
    pub fn slot_ids(&self, shape: &[usize]) -> Result<Tensor> {
        let state = self.cache.state.borrow();
        let pairs: usize = shape.iter().product();
        match &state.slot_ids {
            Some(all) if pairs <= all.len() => {
                Ok(Tensor::new(all.storage.clone(), DType::U32, shape))
            }
            _ => Err(Error::Invalid(format!(
                "expert cache: no room for {pairs} pairs of tokens and experts"
            ))),
        }
    }
}

impl Paging for Pages {
    fn written(&self) -> Option<Tensor> {
        self.cache.state.borrow().slot_ids.clone()
    }

    fn begin(&self, ids: &[u32]) -> usize {
        self.cache.state.borrow_mut().begin(self.block, ids)
    }

    fn page(&self, round: usize) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            let (needed, missing) = {
                let state = self.cache.state.borrow();
                let needed = state.rounds.get(round).cloned().unwrap_or_default();
                let missing = needed.iter().copied();
                let missing: Vec<_> = missing
                    .filter(|e| state.slot(self.block, *e).is_none())
                    .collect();
                (needed, missing)
            };
            let block = self.block;
            let keep = |slot: &Slot| matches!(slot.owner, Some((b, e)) if b == block && needed.contains(&e));
            self.cache.bring(block, &missing, false, keep).await?;
            let state = self.cache.state.borrow();
            let ids = state.last.as_ref().map_or(&[][..], |(_, ids)| ids);
            let slot = |id: &u32| {
                let expert = *id as usize;
                let slot = needed.contains(&expert).then(|| state.slot(block, expert));
                slot.flatten().map_or(NOWHERE, |slot| slot as u32)
            };
            let slots: Vec<u32> = ids.iter().map(slot).collect();
            match state.slot_ids.as_ref().map(|t| &t.storage) {
                Some(Storage::Buffer(buffer)) => {
                    self.cache
                        .device
                        .write(buffer, 0, bytemuck::cast_slice(&slots))
                }
                _ => Err(Error::Invalid("expert cache: not allocated".into())),
            }
        })
    }

    fn ahead(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            let next = self.block + 1;
            let (missing, clock) = {
                let mut state = self.cache.state.borrow_mut();
                // The CPU device has computed already: nothing to do meanwhile.
                let waits = self.cache.device.info().kind == DeviceKind::Cpu;
                let Some((_, ids)) = state.last.as_ref().filter(|_| !waits) else {
                    return Ok(());
                };
                if ids.len() > FEW_TOKENS * self.stored.k || next >= state.blocks.len() {
                    return Ok(());
                }
                let held = state.blocks[next].stored.held.clone();
                let mut likely = state.blocks[self.block].followers.likely(ids);
                likely.retain(|e| held.contains(e));
                likely.truncate(ids.len());
                let (clock, pool) = (state.clock, state.blocks[next].pool);
                likely.retain(|expert| match state.slot(next, *expert) {
                    Some(slot) => {
                        state.pools[pool].slots[slot].used = clock;
                        false
                    }
                    None => true,
                });
                (likely, clock)
            };
            // What this step uses stays.
            let keep = |slot: &Slot| slot.owner.is_some() && slot.used == clock;
            self.cache.bring(next, &missing, true, keep).await
        })
    }
}
