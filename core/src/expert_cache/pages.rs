//! The experts of one block, brought in as its calls need them.

use std::rc::Rc;

use super::{ExpertCache, Slot, SlotWeights, StoredBlock};
use crate::device::DeviceKind;
use crate::recording::Paging;
use crate::tensor::{Storage, Tensor};
use crate::weights::source::LocalFuture;
use crate::{DType, Error, Result};

/// A pair whose expert is in no slot; kernels skip it.
const NOWHERE: u32 = u32::MAX;

/// Up to this many tokens the next block's experts are brought in ahead; more tokens need most experts anyway.
const FEW_TOKENS: usize = 4;

/// The experts of one block in an [`ExpertCache`].
#[derive(Clone)]
pub(crate) struct Pages {
    pub(super) cache: Rc<ExpertCache>,
    pub(super) block: usize,
    pub(super) stored: Rc<StoredBlock>,
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
    pub fn weights(&self) -> Result<(SlotWeights, usize)> {
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
