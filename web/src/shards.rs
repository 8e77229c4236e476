//! What ranks hold, and what they have told each other, as JavaScript sees it.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use shardlight::comm::{Sent, Traffic};
use shardlight::session::ShardInfo;

use crate::options::Device;

/// One rank's part; ranges are `[first, end]`, the end not included.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    rank: usize,
    tp: usize,
    pp: usize,
    device: Device,
    layers: [usize; 2],
    heads: [usize; 2],
    kv_heads: [usize; 2],
    hidden: [usize; 2],
    vocab: [usize; 2],
    bytes: u64,
    replicated: u64,
    read: u64,
    cache_bytes: u64,
}

impl From<&ShardInfo> for Shard {
    fn from(info: &ShardInfo) -> Self {
        let ends = |range: &Range<usize>| [range.start, range.end];
        Shard {
            rank: info.rank,
            tp: info.tp,
            pp: info.pp,
            device: (&info.device).into(),
            layers: ends(&info.share.layers),
            heads: ends(&info.share.heads),
            kv_heads: ends(&info.share.kv_heads),
            hidden: ends(&info.share.hidden),
            vocab: ends(&info.share.vocab),
            bytes: info.held.bytes,
            replicated: info.held.replicated,
            read: info.held.read,
            cache_bytes: info.cache_bytes,
        }
    }
}

/// Of one kind of collective, all ranks together.
#[derive(Serialize)]
pub struct Counted {
    calls: u64,
    bytes: u64,
}

/// By name of the collective.
pub fn counted(traffic: &Traffic) -> BTreeMap<&'static str, Counted> {
    let counted = |Sent { calls, bytes }| Counted { calls, bytes };
    (traffic.iter())
        .map(|(name, sent)| (name, counted(sent)))
        .collect()
}
