//! What is told of mixtures of experts.

use serde::Serialize;
use shardlight::expert_cache::ExpertCacheUse;

/// What a cache of experts has, and what it has done so far.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertCache {
    bytes: u64,
    slots: usize,
    experts: usize,
    hits: u64,
    misses: u64,
    hit_rate: f64,
    bytes_read: u64,
    prefetched: u64,
    prefetch_hits: u64,
}

impl From<&ExpertCacheUse> for ExpertCache {
    fn from(used: &ExpertCacheUse) -> Self {
        ExpertCache {
            bytes: used.bytes,
            slots: used.slots,
            experts: used.experts,
            hits: used.hits,
            misses: used.misses,
            hit_rate: used.hit_rate(),
            bytes_read: used.bytes_read,
            prefetched: used.prefetched,
            prefetch_hits: used.prefetch_hits,
        }
    }
}
