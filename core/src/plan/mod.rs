//! What a layout would do before anyone buys the hardware: memory, operations, bytes and times of every rank.
//!
//! A plan loads the model of each rank without its data ([`dry`]), takes the recordings that a
//! [`Session`](crate::session::Session) makes, and runs them in a [simulation](simulate): every dispatch takes
//! its [cost](cost()) on the [device](DeviceSpec), every collective what its [link](Link) needs for
//! [`Collective::bytes_sent`](crate::comm::Collective::bytes_sent). So plan and runtime cannot drift.
//!
//! Times are what peak figures allow, unless the device was [measured](measure()). Links join devices directly,
//! as NCCL has it; ranks that NCCL does not join are staged through host memory, which is slower.

mod cost;
mod devices;
mod dry;
mod fit;
mod layout;
mod links;
mod measure;
mod moe;
mod needs;
mod phase;
mod shapes;
mod simulate;
mod sweep;
mod synthetic;
#[cfg(test)]
mod tests;
mod trace;

use serde::Serialize;

use crate::comm::Placement;
use crate::device::Limits;
use crate::kv_cache::KvDType;
use crate::recording::Recording;
use crate::session::ShardInfo;
use crate::weights::ModelFiles;
use crate::{Error, Result};

pub use cost::{Cost, When, cost};
pub use devices::{DeviceSpec, Peak};
pub use dry::{Dry, Memory, PlanDevice, Sizes, dry_run};
pub use fit::{Fit, Speed, fit};
pub use layout::Layout;
pub use links::{LINKS, Link, messages};
pub use measure::{Copied, Effort, copy_bandwidth, measure};
pub use moe::Experts;
pub use needs::{Needs, decode_needs, prefill_needs};
pub use phase::{Phase, Sending, Steps};
pub use shapes::{SHAPES, Shape};
pub use simulate::{Event, Lane, Members, Program, Ranks, Span, Step, Timeline, simulate};
pub use sweep::{Candidate, layouts, mark_best, sweep};
pub use trace::trace;

/// Tokens of a prompt that a session computes at once.
const CHUNK: usize = 256;

/// What is asked.
#[derive(Clone)]
pub struct Request<'a> {
    /// Tensors of the model; their data is not read.
    pub files: &'a ModelFiles,
    /// Experts in place of each feed-forward block, whose hidden size is one expert's. Their load is taken to
    /// be balanced.
    pub experts: Option<Experts>,
    /// How ranks are arranged and joined.
    pub layout: Layout,
    /// The device of each rank.
    pub device: DeviceSpec,
    /// Which of its units compute products.
    pub peak: Peak,
    /// S: tokens of context.
    pub context: usize,
    /// Tokens of the prompt; decoding goes on after it.
    pub prompt: usize,
    /// Sequences that a replica decodes at once. A session decodes one; more are planned as a step of so many
    /// tokens, each with a cache of its own, that gives one row of logits.
    pub batch: usize,
    /// Element type of the cache.
    pub kv: KvDType,
}

/// Ranks that hold parts of the same sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// One of them.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Channels inside the feed-forward block.
    pub hidden: usize,
    /// Rows of the vocabulary.
    pub vocab: usize,
    /// Bytes of weights as in the file.
    pub weights: u64,
    /// Of those, bytes that other tensor-parallel ranks hold too.
    pub replicated: u64,
    /// Device memory.
    pub memory: Memory,
    /// Its sum.
    pub total: u64,
}

/// What a layout would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Number of ranks.
    pub ranks: usize,
    /// Devices: one for each rank, or one for all.
    pub devices: usize,
    /// Kinds of ranks.
    pub kinds: Vec<Kind>,
    /// Bytes of device memory that the fullest device needs.
    pub memory: u64,
    /// Bytes that it has, if that is known.
    pub capacity: Option<u64>,
    /// Is there room?
    pub fits: bool,
    /// Longest context that fits, at this batch; the model's own bounds it.
    pub largest_context: Option<usize>,
    /// Most sequences of this context that fit on each replica.
    pub largest_batch: Option<usize>,
    /// Computing the prompt.
    pub prefill: Phase,
    /// Computing one token after it.
    pub decode: Phase,
}

/// Seconds of prefill and decode on one rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alone {
    prefill: f64,
    decode: f64,
}

/// The dry runs of each kind of rank.
struct Loaded {
    kinds: Vec<usize>,
    ranks: Vec<(Placement, Dry)>,
    /// The batch's step, where there are several sequences.
    batch: Vec<Recording>,
}

impl Request<'_> {
    /// Tokens of a prefill step.
    fn chunk(&self) -> usize {
        self.prompt.clamp(1, CHUNK)
    }

    fn limits(&self) -> Option<&Limits> {
        self.device.limits.as_ref()
    }

    fn check(&self) -> Result<()> {
        let max = self.files.config.max_position_embeddings;
        if self.prompt == 0 || self.batch == 0 || self.prompt >= self.context {
            return Err(Error::Invalid(format!(
                "prompt of {} tokens, batch of {} and context of {}: at least one each, and room for a token more",
                self.prompt, self.batch, self.context
            )));
        }
        if self.context > max {
            return Err(Error::Invalid(format!(
                "context of {} tokens, this model allows 1 to {max}",
                self.context
            )));
        }
        self.layout.mesh.check()?;
        self.layout.check_experts(self.experts)
    }

    fn sizes(&self, chunk: usize) -> Sizes {
        Sizes {
            context: self.context,
            kv: self.kv,
            chunk,
        }
    }

    async fn load(&self, layout: &Layout) -> Result<Loaded> {
        let (kinds, first) = layout.kinds(&self.files.config)?;
        let (mut ranks, mut batch) = (Vec::new(), Vec::new());
        for rank in first {
            let placement = layout.placement(rank)?;
            let place = || vec![placement.clone()];
            let mut dry =
                dry_run(self.files, place(), self.sizes(self.chunk()), self.limits()).await?;
            let mut several = match self.batch {
                1 => None,
                n => Some(
                    dry_run(self.files, place(), self.sizes(n), self.limits())
                        .await?
                        .prefill,
                ),
            };
            if let Some(experts) = self.experts {
                let share = self.share(layout, &dry, experts)?;
                share.add(&mut dry, several.as_mut(), &placement)?;
            }
            batch.extend(several);
            ranks.push((placement, dry));
        }
        Ok(Loaded {
            kinds,
            ranks,
            batch,
        })
    }

    /// A rank's part of the experts.
    fn share(&self, layout: &Layout, dry: &Dry, experts: Experts) -> Result<moe::Share> {
        let hidden = dry.shards[0].share.hidden.len();
        let dtype = self.files.dtype("blk.0.ffn_gate.weight")?;
        let (rank, config) = (dry.shards[0].rank, &self.files.config);
        Ok(moe::Share::new(
            layout, rank, experts, config, hidden, dtype,
        ))
    }

    /// The steps of both phases: prefill, then decode.
    fn steps<'s>(
        &'s self,
        layout: &'s Layout,
        kinds: &'s [usize],
        prefill: &'s [(Placement, &'s Recording)],
        decode: &'s [(Placement, &'s Recording)],
    ) -> [Steps<'s>; 2] {
        [(prefill, 1), (decode, self.batch)].map(|(recordings, sequences)| Steps {
            layout,
            device: &self.device,
            peak: self.peak,
            kinds,
            recordings,
            sequences,
        })
    }

    /// Positions of a prompt's chunks and how often a step there counts. What a step costs grows with its
    /// position along a line, so the first and the last chunk stand for those between.
    fn chunks(&self) -> Vec<(usize, f64)> {
        let n = self.chunk();
        let (full, rest) = (self.prompt / n, self.prompt % n);
        let mut steps = match full {
            1 => vec![(0, 1.0)],
            full => vec![(0, full as f64 / 2.0), ((full - 1) * n, full as f64 / 2.0)],
        };
        if rest > 0 {
            steps.push((full * n, rest as f64 / n as f64));
        }
        steps
    }

    fn phases(
        &self,
        [prefill, decode]: &[Steps<'_>; 2],
        alone: Option<Alone>,
    ) -> Result<[Phase; 2]> {
        let chunks = self.chunks();
        Ok([
            prefill.phase(self.prompt, self.chunk(), &chunks, alone.map(|a| a.prefill))?,
            decode.phase(
                self.batch,
                self.batch,
                &[(self.prompt, 1.0)],
                alone.map(|a| a.decode),
            )?,
        ])
    }

    /// What one rank with this device would need.
    ///
    /// # Errors
    ///
    /// As [`Request::plan`].
    pub async fn alone(&self) -> Result<Alone> {
        self.check()?;
        let layout = self.layout.alone();
        let loaded = self.load(&layout).await?;
        let [prefill, decode] = loaded.recordings();
        let steps = self.steps(&layout, &loaded.kinds, &prefill, &decode);
        let [prefill, decode] = self.phases(&steps, None)?;
        Ok(Alone {
            prefill: prefill.seconds,
            decode: decode.seconds,
        })
    }

    /// What the layout would do.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for sizes and layouts that cannot be, and those of
    /// [`Session::load`](crate::session::Session::load).
    pub async fn plan(&self) -> Result<Plan> {
        self.plan_beside(self.alone().await?).await
    }

    /// The same, when it is known what one rank needs.
    ///
    /// # Errors
    ///
    /// As [`Request::plan`].
    pub async fn plan_beside(&self, alone: Alone) -> Result<Plan> {
        self.check()?;
        let layout = &self.layout;
        let loaded = self.load(layout).await?;
        let [prefill, decode] = loaded.recordings();
        let steps = self.steps(layout, &loaded.kinds, &prefill, &decode);
        let kinds: Vec<Kind> = (loaded.ranks.iter().enumerate())
            .map(|(kind, (_, dry))| {
                let ranks = loaded.kinds.iter().filter(|k| **k == kind).count();
                self.kind(&dry.shards[0], dry.memory, ranks)
            })
            .collect();
        let together = match layout.one_device {
            true => Some(self.together().await?),
            false => None,
        };
        let [prefill, decode] = match &together {
            Some(dry) => {
                let single = layout.alone();
                let place = Placement::alone();
                let prefill = [(place.clone(), &dry.prefill)];
                let decode = [(place, &dry.decode)];
                let merged = self.steps(&single, &[0], &prefill, &decode);
                let mut phases = self.phases(&merged, Some(alone))?;
                for ((phase, steps), merged) in phases.iter_mut().zip(&steps).zip(&merged) {
                    phase.collectives = steps.sent();
                    // Collectives have become dispatches.
                    let moved = phase.compute * merged.moving(self.prompt);
                    phase.compute -= moved;
                    phase.communication += moved;
                    // They take turns.
                    phase.ideal = 1;
                }
                phases
            }
            None => self.phases(&steps, Some(alone))?,
        };
        let memories: Vec<Memory> = match &together {
            Some(dry) => vec![self.batched(dry.memory)],
            None => kinds.iter().map(|kind| kind.memory).collect(),
        };
        let memory = memories.iter().map(Memory::total).max().unwrap_or(0);
        let ranks = layout.mesh.world_size();
        Ok(Plan {
            ranks,
            kinds: merged(kinds),
            devices: if layout.one_device { 1 } else { ranks },
            memory,
            capacity: self.device.memory,
            fits: self.device.memory.is_none_or(|capacity| memory <= capacity),
            largest_context: self
                .largest(&memories, |m| m.cache + m.tables, self.context)
                .map(|n| n.min(self.files.config.max_position_embeddings)),
            largest_batch: self.largest(&memories, |m| m.cache, self.batch),
            prefill,
            decode,
        })
    }

    /// All ranks on one device, as a [`World`](crate::comm::World) runs them.
    async fn together(&self) -> Result<Dry> {
        if self.batch > 1 {
            return Err(Error::Invalid(format!(
                "batch of {} on one device; a session decodes one sequence at a time",
                self.batch
            )));
        }
        let mesh = crate::comm::Mesh {
            dp: 1,
            ..self.layout.mesh
        };
        let layout = Layout {
            mesh,
            ..self.layout.clone()
        };
        let ranks: Result<Vec<_>> = (0..mesh.world_size())
            .map(|r| layout.placement(r))
            .collect();
        dry_run(self.files, ranks?, self.sizes(self.chunk()), self.limits()).await
    }

    /// The largest number `n` for which memory that grows in proportion to it fits every device; it is
    /// `now` for these memories.
    fn largest(&self, memories: &[Memory], grows: fn(&Memory) -> u64, now: usize) -> Option<usize> {
        let capacity = self.device.memory?;
        let of = |m: &Memory| {
            let grows = grows(m);
            let free = capacity.saturating_sub(m.total() - grows);
            let n = u128::from(free) * now as u128 / u128::from(grows.max(1));
            usize::try_from(n).unwrap_or(usize::MAX)
        };
        memories.iter().map(of).min()
    }

    /// With a cache for each sequence.
    fn batched(&self, memory: Memory) -> Memory {
        Memory {
            cache: memory.cache * self.batch as u64,
            ..memory
        }
    }

    fn kind(&self, shard: &ShardInfo, memory: Memory, ranks: usize) -> Kind {
        let share = &shard.share;
        let memory = self.batched(memory);
        Kind {
            rank: shard.rank,
            ranks,
            layers: share.layers.len(),
            heads: share.heads.len(),
            kv_heads: share.kv_heads.len(),
            hidden: share.hidden.len(),
            vocab: share.vocab.len(),
            weights: shard.held.bytes,
            replicated: shard.held.replicated,
            memory,
            total: memory.total(),
        }
    }

    /// One decode step, event by event.
    ///
    /// # Errors
    ///
    /// As [`Request::plan`].
    pub async fn timeline(&self) -> Result<Timeline> {
        self.check()?;
        let loaded = self.load(&self.layout).await?;
        let [prefill, decode] = loaded.recordings();
        let [_, decode] = self.steps(&self.layout, &loaded.kinds, &prefill, &decode);
        decode.timeline(self.prompt, true)
    }

    /// What of the model each rank of a replica holds, in the order of ranks.
    ///
    /// # Errors
    ///
    /// As [`Request::plan`].
    pub async fn shards(&self) -> Result<Vec<Kind>> {
        self.check()?;
        let loaded = self.load(&self.layout).await?;
        let rank = |(rank, kind): (usize, &usize)| {
            let (_, dry) = &loaded.ranks[*kind];
            let kind = self.kind(&dry.shards[0], dry.memory, 1);
            Kind { rank, ..kind }
        };
        Ok(loaded.kinds.iter().enumerate().map(rank).collect())
    }
}

/// Kinds that hold as much become one.
fn merged(kinds: Vec<Kind>) -> Vec<Kind> {
    let mut merged: Vec<Kind> = Vec::new();
    for kind in kinds {
        let same = |other: &&mut Kind| {
            let (rank, ranks) = (kind.rank, kind.ranks);
            kind == Kind {
                rank,
                ranks,
                ..**other
            }
        };
        match merged.iter_mut().find(same) {
            Some(found) => found.ranks += kind.ranks,
            None => merged.push(kind),
        }
    }
    merged
}

impl Loaded {
    /// Of each kind: the prefill's, then the decode's.
    fn recordings(&self) -> [Vec<(Placement, &Recording)>; 2] {
        let prefill = self.ranks.iter().map(|(p, dry)| (p.clone(), &dry.prefill));
        let decode = self.ranks.iter().enumerate().map(|(i, (p, dry))| {
            let step = self.batch.get(i).unwrap_or(&dry.decode);
            (p.clone(), step)
        });
        [prefill.collect(), decode.collect()]
    }
}
