//! What is told of mixtures of experts.

use serde::Serialize;
use shardlight::expert_cache::ExpertCacheUse;
use shardlight::session::ExpertStatistics;

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

/// What a session has counted.
#[derive(Serialize)]
pub struct Statistics<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<Experts<'a>>,
}

/// How often each of `count` experts of each of these layers was chosen.
#[derive(Serialize)]
struct Experts<'a> {
    layers: &'a [usize],
    count: usize,
    chosen: Vec<&'a [u64]>,
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<ExpertCache>,
}

impl<'a> Statistics<'a> {
    pub fn of(experts: Option<&'a ExpertStatistics>) -> Self {
        let experts = experts.map(|told| Experts {
            layers: &told.layers,
            count: told.experts,
            chosen: told.counts.chunks(told.experts).collect(),
            tokens: told.tokens,
            cache: told.cache.as_ref().map(ExpertCache::from),
        });
        Statistics { experts }
    }
}
