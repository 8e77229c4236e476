//! What of the devices belongs to one conversation.

use super::{Ranks, Steps};
use crate::Result;
use crate::kv_cache::KvCache;

/// Keys and values of each rank, and the programs that are bound to them. Empty ones get memory when they are needed.
#[derive(Default)]
pub(in crate::session) struct Caches {
    caches: Vec<KvCache>,
    steps: Steps,
}

impl Ranks {
    /// Goes on with the caches of another conversation, which gets those of this one.
    pub(in crate::session) async fn exchange(&mut self, other: &mut Caches) -> Result<()> {
        if other.caches.is_empty() {
            other.caches = self.more_caches().await?;
        }
        for (rank, cache) in self.ranks.iter_mut().zip(&mut other.caches) {
            std::mem::swap(&mut rank.cache, cache);
        }
        std::mem::swap(&mut self.steps, &mut other.steps);
        Ok(())
    }

    /// Caches that begin with the first `tokens` tokens of this conversation's; and whether they do, or are empty.
    pub(in crate::session) async fn copy_caches(
        &mut self,
        tokens: usize,
    ) -> Result<(Caches, bool)> {
        let caches = self.more_caches().await?;
        let mut recordings = self.world.recordings();
        let mut copied = tokens > 0;
        for ((rank, r), to) in self.ranks.iter().zip(&mut recordings).zip(&caches) {
            copied = copied && rank.cache.copy(r, to, tokens)?;
        }
        if copied {
            let step = self.world.prepare(recordings).await?;
            self.world.run(&step).await?;
        }
        let steps = Steps::default();
        Ok((Caches { caches, steps }, copied))
    }

    async fn more_caches(&self) -> Result<Vec<KvCache>> {
        let mut caches = Vec::with_capacity(self.ranks.len());
        for (i, rank) in self.ranks.iter().enumerate() {
            caches.push(rank.cache.another(self.world.device(i).as_ref()).await?);
        }
        Ok(caches)
    }
}
