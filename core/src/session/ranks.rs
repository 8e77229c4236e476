//! The ranks of this process: each one's part of the model, and the steps they take together.
//!
//! A step is recorded once for each rank and prepared as one program of the [`World`]. What changes from
//! step to step (tokens, positions) lies in small buffers that the ranks of a device share.

mod batch;
mod caches;
mod fill;

use std::collections::HashMap;
use std::rc::Rc;

use super::statistics::{ExpertStatistics, RouteCounts};
use super::{LOGIT_ROWS, MOST_TOP_K, SessionOptions};
use crate::comm::{Placement, Program, World};
use crate::device::{Buffer, Device, DeviceInfo, Purpose};
use crate::expert_cache::{ExpertCache, ExpertCacheUse};
use crate::kernels::router::NOT_A_NUMBER;
use crate::kernels::token_bitmask;
use crate::kv_cache::KvCache;
use crate::models::{self, Model, ModelConfig, Share};
use crate::recording::Recording;
use crate::sampler::Candidate;
use crate::shard::Split;
use crate::tensor::Tensor;
use crate::weights::{Held, Loader};
use crate::{DType, Error, Result};
pub(super) use batch::{Pool, Row};
pub(super) use caches::Caches;

pub(super) struct Ranks {
    config: ModelConfig,
    world: World,
    /// None while the model is not on the devices.
    ranks: Vec<Rank>,
    /// Of each device of the world, in its order.
    inputs: Vec<Inputs>,
    context: usize,
    chunk: usize,
    steps: Steps,
    picks: Picks,
    statistics: Option<ExpertStatistics>,
}

/// What a rank holds, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Number in the world.
    pub rank: usize,
    /// Place among the tensor-parallel ranks.
    pub tp: usize,
    /// Pipeline stage.
    pub pp: usize,
    /// Its device.
    pub device: DeviceInfo,
    /// What of the model.
    pub share: Share,
    /// Bytes of weights.
    pub held: Held,
    /// Bytes of keys and values.
    pub cache_bytes: u64,
}

/// One rank's part.
struct Rank {
    placement: Rc<Placement>,
    model: Box<dyn Model>,
    cache: KvCache,
    /// Place of its device's inputs.
    device: usize,
    /// Logits of the last token for its rows of the vocabulary, `(1, V)`; on the last stage.
    logits: Option<Tensor>,
    /// First of these rows.
    first: usize,
    held: Held,
    cache_bytes: u64,
    expert_cache: Option<Rc<ExpertCache>>,
    route_counts: Option<RouteCounts>,
}

/// Small buffers of one device.
struct Inputs {
    /// Position of the first token of a step (uniform, 16 bytes), and its tokens; for each micro-batch.
    micro: Vec<(Buffer, Buffer)>,
    /// The token that a decode step takes, and that the greedy one leaves.
    next: Buffer,
    penalised: Buffer,
    /// Bits of the tokens that may come next.
    allowed: Buffer,
}

/// Programs of the model's layers that were made ready; they are bound to a conversation's cache.
#[derive(Default)]
struct Steps {
    /// By number of tokens, and whether the last token's logits are computed.
    prefill: HashMap<(usize, bool), Program>,
    greedy: Option<Program>,
    decode: Option<Program>,
}

/// Programs that choose tokens.
#[derive(Default)]
struct Picks {
    argmax: Option<Program>,
    allow: Option<Program>,
    logits: Option<(Program, Tensor)>,
    top_k: HashMap<usize, (Program, [Tensor; 2])>,
}

impl Ranks {
    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// S: tokens that the caches have room for.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Most tokens of a step.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    pub(super) fn shards(&self) -> Vec<ShardInfo> {
        let info = |(rank, device): (&Rank, usize)| ShardInfo {
            rank: rank.placement.rank,
            tp: rank.placement.tp.me,
            pp: rank.placement.pp.me,
            device: self.world.device(device).info().clone(),
            share: rank.model.share().clone(),
            held: rank.held,
            cache_bytes: rank.cache_bytes,
        };
        self.ranks.iter().zip(0..).map(info).collect()
    }

    pub(super) fn expert_cache(&self) -> Option<ExpertCacheUse> {
        let caches = self
            .ranks
            .iter()
            .filter_map(|rank| rank.expert_cache.as_ref());
        caches.map(|cache| cache.used()).reduce(|mut sum, used| {
            sum += used;
            sum
        })
    }

    pub(super) fn expert_statistics(&self) -> Option<&ExpertStatistics> {
        self.statistics.as_ref()
    }

    /// Reads which experts a step of `tokens` tokens chose.
    async fn count(&mut self, tokens: usize) -> Result<()> {
        let cache = self.expert_cache();
        let Some(statistics) = &mut self.statistics else {
            return Ok(());
        };
        for (i, rank) in self.ranks.iter_mut().enumerate() {
            if let Some(counts) = &mut rank.route_counts {
                let device = self.world.device(i).as_ref();
                counts.read(device, statistics).await?;
            }
        }
        statistics.tokens += tokens as u64;
        statistics.cache = cache;
        Ok(())
    }

    /// Computes `tokens` at `position`, and the last one's logits if asked for.
    pub(super) async fn prefill(
        &mut self,
        tokens: &[u32],
        position: usize,
        head: bool,
    ) -> Result<()> {
        let lens = self.micro_batches(tokens.len());
        self.write_tokens(tokens, position, &lens)?;
        let step = self.prefill_step(tokens.len(), head).await?;
        self.world.run(&step).await?;
        // Wait, so that cancelling works and submits stay short.
        self.world.flush().await?;
        self.count(tokens.len()).await
    }

    /// Computes the token in `next`, and leaves the likeliest one after it there.
    pub(super) async fn greedy(&mut self, position: usize) -> Result<()> {
        self.write_position(position)?;
        let step = self.greedy_step().await?;
        self.world.run(&step).await?;
        self.count(1).await
    }

    /// Puts a token where a decode step takes it.
    pub(super) fn set_next(&self, id: u32) -> Result<()> {
        for (inputs, device) in self.inputs.iter().zip(self.world.devices()) {
            device.write(&inputs.next, 0, &id.to_le_bytes())?;
        }
        Ok(())
    }

    /// Computes token `id`, and its logits.
    pub(super) async fn decode(&mut self, id: u32, position: usize) -> Result<()> {
        self.write_position(position)?;
        self.set_next(id)?;
        if self.steps.decode.is_none() {
            self.steps.decode = Some(self.one_token(false).await?);
        }
        self.run(&self.steps.decode).await?;
        self.count(1).await
    }

    /// Leaves the token of the largest logit in `next`.
    pub(super) async fn argmax(&mut self) -> Result<()> {
        if self.picks.argmax.is_none() {
            let mut recordings = self.world.recordings();
            for (rank, r) in self.ranks.iter().zip(&mut recordings) {
                rank.pick(r, &self.inputs[rank.device].next)?;
            }
            self.picks.argmax = Some(self.world.prepare(recordings).await?);
        }
        self.run(&self.picks.argmax).await
    }

    /// The token in `next`; `None` when logits were not numbers.
    pub(super) async fn read_next(&self) -> Result<Option<u32>> {
        let rank = &self.ranks[0];
        let next = &self.inputs[rank.device].next;
        let bytes = self.world.device(0).read(next, 0, 4).await?;
        Ok(match words(&bytes)[..] {
            [u32::MAX] | [] => None,
            [id, ..] => Some(id),
        })
    }

    /// Makes the tokens `ids` less likely.
    pub(super) async fn penalise(&mut self, ids: &[u32], penalty: f32) -> Result<()> {
        let mut recordings = self.world.recordings();
        for (inputs, device) in self.inputs.iter().zip(self.world.devices()) {
            device.write(&inputs.penalised, 0, bytemuck::cast_slice(ids))?;
        }
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            if let Some(logits) = &rank.logits {
                let buffer = self.inputs[rank.device].penalised.clone();
                let ids = Tensor::of(buffer, DType::U32, &[ids.len()]);
                r.repeat_penalty(&ids, logits, rank.first, penalty)?;
            }
        }
        let step = self.world.prepare(recordings).await?;
        self.world.run(&step).await
    }

    /// Makes tokens impossible whose bits are not set in `mask`.
    pub(super) async fn allow(&mut self, mask: &[u32]) -> Result<()> {
        for (inputs, device) in self.inputs.iter().zip(self.world.devices()) {
            device.write(&inputs.allowed, 0, bytemuck::cast_slice(mask))?;
        }
        if self.picks.allow.is_none() {
            let mut recordings = self.world.recordings();
            for (rank, r) in self.ranks.iter().zip(&mut recordings) {
                if let Some(logits) = &rank.logits {
                    let buffer = self.inputs[rank.device].allowed.clone();
                    let mask = Tensor::of(buffer, DType::U32, &[mask.len()]);
                    r.token_bitmask(&mask, logits, rank.first)?;
                }
            }
            self.picks.allow = Some(self.world.prepare(recordings).await?);
        }
        self.run(&self.picks.allow).await
    }

    /// The `k` largest logits: each rank's own are found on its device, only those are gathered.
    pub(super) async fn top_k(&mut self, k: usize) -> Result<Vec<Candidate>> {
        if !self.picks.top_k.contains_key(&k) {
            let mut recordings = self.world.recordings();
            let mut found = Vec::with_capacity(self.ranks.len());
            let vocab = self.config.vocab_size;
            for (rank, r) in self.ranks.iter().zip(&mut recordings) {
                let parts = rank.placement.vocab_parts(vocab)?;
                let lens: Vec<_> = parts.iter().map(|p| p.len().min(k)).collect();
                let total = lens.iter().sum();
                let local = match &rank.logits {
                    Some(logits) => {
                        Some(r.top_k(logits, lens[rank.placement.tp.me], rank.first)?)
                    }
                    None => None,
                };
                let values =
                    rank.share(r, local.as_ref().map(|l| &l.0), DType::F32, total, &lens)?;
                let ids = rank.share(r, local.as_ref().map(|l| &l.1), DType::U32, total, &lens)?;
                found.push([values, ids]);
            }
            let step = self.world.prepare(recordings).await?;
            self.picks.top_k.insert(k, (step, found.swap_remove(0)));
        }
        let (step, [values, ids]) = &self.picks.top_k[&k];
        self.world.run(step).await?;
        let values = floats(&self.read(step, values).await?);
        let ids = words(&self.read(step, ids).await?);
        let pairs = values.into_iter().zip(ids);
        let mut found: Vec<_> = pairs.map(|(logit, id)| Candidate { id, logit }).collect();
        if self.ranks[0].placement.tp.len() > 1 {
            crate::sampler::sort(&mut found);
            found.truncate(k);
        }
        Ok(found)
    }

    /// Logits of the last token, `(V,)`.
    pub(super) async fn logits(&mut self) -> Result<Vec<f32>> {
        if self.picks.logits.is_none() {
            let mut recordings = self.world.recordings();
            let mut found = Vec::with_capacity(self.ranks.len());
            for (rank, r) in self.ranks.iter().zip(&mut recordings) {
                found.push(rank.share_logits(r, rank.logits.as_ref(), 1)?);
            }
            let step = self.world.prepare(recordings).await?;
            self.picks.logits = Some((step, found.swap_remove(0)));
        }
        let Some((step, logits)) = &self.picks.logits else {
            return Ok(Vec::new());
        };
        self.world.run(step).await?;
        Ok(floats(&self.read(step, logits).await?))
    }

    /// Logits of each of `tokens` at `position`, `(T, V)`.
    pub(super) async fn all_logits(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let n = tokens.len();
        self.write_tokens(tokens, position, &[n])?;
        let mut recordings = self.world.recordings();
        let mut found = Vec::with_capacity(self.ranks.len());
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            let (step, tokens) = self.inputs[rank.device].micro(0, n);
            let hidden = rank.forward(r, &tokens, &step)?;
            let logits = match &rank.logits {
                Some(last) => {
                    let logits = r.scratch(DType::F32, &[n, last.cols()])?;
                    rank.model.head(r, &hidden, 0, &logits)?;
                    Some(logits)
                }
                None => None,
            };
            found.push(rank.share_logits(r, logits.as_ref(), n)?);
        }
        let step = self.world.prepare(recordings).await?;
        self.world.run(&step).await?;
        let logits = floats(&self.read(&step, &found[0]).await?);
        self.count(n).await?;
        Ok(logits)
    }

    /// Hidden states of each of `tokens` at `position` behind the last norm, `(T, C)`.
    pub(super) async fn hidden(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let n = tokens.len();
        self.write_tokens(tokens, position, &[n])?;
        let len = n * self.config().hidden_size;
        let mut recordings = self.world.recordings();
        let mut found = Vec::with_capacity(self.ranks.len());
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            let (step, tokens) = self.inputs[rank.device].micro(0, n);
            let hidden = rank.forward(r, &tokens, &step)?;
            let hidden = rank.model.norm(r, &hidden)?;
            // Every rank of the last stage has all of it.
            found.push(rank.share(r, hidden.as_ref(), DType::F32, len, &[len])?);
        }
        let step = self.world.prepare(recordings).await?;
        self.world.run(&step).await?;
        let rows = floats(&self.read(&step, &found[0]).await?);
        self.count(n).await?;
        Ok(rows)
    }

    /// Computes `tokens` at `position` again: the first layer whose router could not route one of them, and which.
    pub(super) async fn unrouted(
        &mut self,
        tokens: &[u32],
        position: usize,
    ) -> Result<Option<(usize, usize)>> {
        let n = tokens.len();
        self.write_tokens(tokens, position, &[n])?;
        let mut recordings = self.world.recordings();
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            let (step, tokens) = self.inputs[rank.device].micro(0, n);
            rank.model.forward(r, &tokens, &step, &rank.cache)?;
            for (_, experts) in r.routes().to_vec() {
                r.keep(&experts);
            }
        }
        let routes: Vec<_> = recordings.iter().map(|r| r.routes().to_vec()).collect();
        let step = self.world.prepare(recordings).await?;
        self.world.run(&step).await?;
        let mut found = None;
        for (rank, routes) in routes.iter().enumerate() {
            let placement = &self.world.ranks()[rank];
            // Ranks that exchange tokens route their own.
            let first: usize = match placement.exchanges_tokens(n) {
                true => placement.token_lens(n)[..placement.tp.me].iter().sum(),
                false => 0,
            };
            for (layer, experts) in routes {
                let Some(buffer) = step.tensor(rank, experts) else {
                    continue;
                };
                let bytes = self
                    .world
                    .device(rank)
                    .read(&buffer, 0, experts.bytes())
                    .await?;
                let bad = words(&bytes).iter().position(|id| *id == NOT_A_NUMBER);
                let place = bad.map(|pair| (*layer, first + pair / experts.cols()));
                found = found.into_iter().chain(place).min();
            }
        }
        Ok(found)
    }

    async fn read(&self, step: &Program, tensor: &Tensor) -> Result<Vec<u8>> {
        let buffer = step.tensor(0, tensor);
        let buffer = buffer.ok_or_else(|| Error::Invalid("a result was not kept".into()))?;
        self.world.device(0).read(&buffer, 0, tensor.bytes()).await
    }

    async fn run(&self, step: &Option<Program>) -> Result<()> {
        match step {
            Some(step) => self.world.run(step).await,
            None => Ok(()),
        }
    }

    fn write_position(&self, position: usize) -> Result<()> {
        for (inputs, device) in self.inputs.iter().zip(self.world.devices()) {
            device.write(&inputs.micro[0].0, 0, &(position as u32).to_le_bytes())?;
        }
        Ok(())
    }

    fn write_tokens(&self, tokens: &[u32], position: usize, lens: &[usize]) -> Result<()> {
        for (inputs, device) in self.inputs.iter().zip(self.world.devices()) {
            let mut at = 0;
            for (len, (step, buffer)) in lens.iter().zip(&inputs.micro) {
                let first = (position + at) as u32;
                device.write(step, 0, &first.to_le_bytes())?;
                device.write(buffer, 0, bytemuck::cast_slice(&tokens[at..at + len]))?;
                at += len;
            }
        }
        Ok(())
    }

    /// Lengths of the micro-batches of a step: one for each pipeline stage, so that all have something
    /// to do (GPipe, arXiv:1811.06965). They are pieces of one sequence: a stage computes them in order, so
    /// that each finds the keys of those before it.
    fn micro_batches(&self, tokens: usize) -> Vec<usize> {
        let count = self.world.ranks()[0].pp.len().min(tokens);
        let split = Split::even(count);
        let len = |i| split.range(i, tokens, 1).map_or(0, |range| range.len());
        (0..count).map(len).collect()
    }

    /// All layers for `n` tokens, and the last one's logits if asked for.
    async fn prefill_step(&mut self, n: usize, head: bool) -> Result<Program> {
        if let Some(step) = self.steps.prefill.get(&(n, head)) {
            return Ok(step.clone());
        }
        let lens = self.micro_batches(n);
        let mut recordings = self.world.recordings();
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            let mut last = None;
            for (i, len) in lens.iter().enumerate() {
                let (step, tokens) = self.inputs[rank.device].micro(i, *len);
                let hidden = rank.forward(r, &tokens, &step)?;
                last = Some((hidden, len - 1));
            }
            if let (true, Some((hidden, row)), Some(logits)) = (head, last, &rank.logits) {
                rank.model.head(r, &hidden, row, logits)?;
            }
        }
        let step = self.world.prepare(recordings).await?;
        // Whole chunks come again and again, other lengths rarely.
        if n == self.chunk {
            self.steps.prefill.insert((n, head), step.clone());
        }
        Ok(step)
    }

    /// One token from `next`, its logits, and the next token into `next`.
    async fn greedy_step(&mut self) -> Result<Program> {
        if let Some(step) = &self.steps.greedy {
            return Ok(step.clone());
        }
        let step = self.one_token(true).await?;
        self.steps.greedy = Some(step.clone());
        Ok(step)
    }

    async fn one_token(&self, pick: bool) -> Result<Program> {
        let mut recordings = self.world.recordings();
        for (rank, r) in self.ranks.iter().zip(&mut recordings) {
            let inputs = &self.inputs[rank.device];
            let next = Tensor::of(inputs.next.clone(), DType::U32, &[1]);
            let (step, _) = inputs.micro(0, 1);
            let hidden = rank.forward(r, &next, &step)?;
            if let Some(logits) = &rank.logits {
                rank.model.head(r, &hidden, 0, logits)?;
            }
            if pick {
                rank.pick(r, &inputs.next)?;
            }
        }
        self.world.prepare(recordings).await
    }
}

impl Rank {
    async fn load(
        loader: &mut Loader<'_>,
        world: &World,
        rank: usize,
        context: usize,
        options: &SessionOptions,
    ) -> Result<Rank> {
        let placement = Rc::clone(&world.ranks()[rank]);
        let device = world.device(rank);
        let sharing = (0..world.ranks().len()).filter(|other| world.share_device(rank, *other));
        let sharing = sharing.count() as u64;
        let expert_cache = (options.expert_cache)
            .map(|bytes| Rc::new(ExpertCache::new(Rc::clone(device), bytes / sharing)));
        loader.go_to(Rc::clone(&placement), Rc::clone(device));
        loader.leave_experts(expert_cache.clone());
        let model = models::load(loader, context).await?;
        if let Some(cache) = &expert_cache {
            // Ranks that exchange tokens have room for as many of each.
            let tokens = options.prefill_chunk.clamp(1, context).max(LOGIT_ROWS);
            cache.allocate(tokens * placement.tp.len()).await?;
        }
        let route_counts = match options.expert_statistics {
            true => {
                let share = model.share();
                RouteCounts::new(device.as_ref(), model.config(), &placement, share).await?
            }
            false => None,
        };
        let shape = model.cache_shape();
        let cache = KvCache::new(device.as_ref(), shape, context, options.kv).await?;
        let rows = placement.vocab(model.config().vocab_size)?;
        let logits = match placement.is_last_stage() {
            true => {
                let buffer = device
                    .alloc(4 * rows.len() as u64, Purpose::Activations, "logits")
                    .await?;
                Some(Tensor::of(buffer, DType::F32, &[1, rows.len()]))
            }
            false => None,
        };
        let place = (world.devices().iter()).position(|d| Rc::ptr_eq(d, device));
        Ok(Rank {
            placement,
            model,
            cache,
            device: place.unwrap_or_default(),
            logits,
            first: rows.start,
            held: loader.held(),
            cache_bytes: {
                let layout = device.limits().layout;
                shape.layers as u64 * shape.layer_bytes(context, options.kv, layout)
            },
            expert_cache,
            route_counts,
        })
    }

    /// All layers of this rank for `tokens`, counting what its routers choose.
    fn forward(&self, r: &mut Recording, tokens: &Tensor, step: &Tensor) -> Result<Tensor> {
        self.forward_with(r, tokens, step, &self.cache)
    }

    /// The same with another cache.
    fn forward_with(
        &self,
        r: &mut Recording,
        tokens: &Tensor,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        // Each token once: its own ones where ranks route these, else the first rank all.
        let placement = &self.placement;
        let counts = self.route_counts.as_ref();
        let counts =
            counts.filter(|_| placement.tp.me == 0 || placement.exchanges_tokens(tokens.len()));
        let counts = counts.map(RouteCounts::tensor);
        r.count_routes(counts.as_ref());
        self.model.forward(r, tokens, step, cache)
    }

    /// The token of the largest logit of all ranks into `next`, on every rank: the best of each rank's
    /// rows, then the best of these.
    fn pick(&self, r: &mut Recording, next: &Buffer) -> Result<()> {
        let next = Tensor::of(next.clone(), DType::U32, &[1]);
        let ranks = self.placement.tp.len();
        match &self.logits {
            Some(logits) if ranks > 1 => {
                let (value, id) = r.top_k(logits, 1, self.first)?;
                let values = r.all_gather(&value, 0, vec![1; ranks])?;
                let ids = r.all_gather(&id, 0, vec![1; ranks])?;
                r.argmax_of(&values, &ids, &next)?;
            }
            Some(logits) => r.argmax(logits, &next)?,
            None => {}
        }
        self.spread_from_last_stage(r, &next)
    }

    /// What the last stage has, to all stages.
    fn spread_from_last_stage(&self, r: &mut Recording, x: &Tensor) -> Result<()> {
        let group = &self.placement.pp;
        r.broadcast(x, group, group.len() - 1)
    }

    /// Gathers vectors of `lens` elements of the last stage's ranks into one of `total` on every rank.
    fn share(
        &self,
        r: &mut Recording,
        local: Option<&Tensor>,
        dtype: DType,
        total: usize,
        lens: &[usize],
    ) -> Result<Tensor> {
        let all = match local {
            Some(local) if lens.len() > 1 => r.all_gather(local, 0, lens.to_vec())?,
            Some(local) => local.clone(),
            None => r.scratch(dtype, &[total])?,
        };
        self.spread_from_last_stage(r, &all)?;
        r.keep(&all);
        Ok(all)
    }

    /// Gathers logits `(rows, V)` of the last stage's ranks on every rank.
    fn share_logits(
        &self,
        r: &mut Recording,
        local: Option<&Tensor>,
        rows: usize,
    ) -> Result<Tensor> {
        let vocab = self.model.config().vocab_size;
        let lens: Vec<usize> = (self.placement.vocab_parts(vocab)?.iter())
            .map(|part| part.len())
            .collect();
        let all = match local {
            Some(local) if lens.len() > 1 => r.all_gather(local, 1, lens)?,
            Some(local) => local.clone(),
            None => r.scratch(DType::F32, &[rows, vocab])?,
        };
        self.spread_from_last_stage(r, &all)?;
        r.keep(&all);
        Ok(all)
    }
}

impl Inputs {
    async fn new(device: &dyn Device, stages: usize, chunk: usize, vocab: usize) -> Result<Self> {
        let alloc = |bytes, label| device.alloc(bytes, Purpose::Activations, label);
        let mut micro = Vec::with_capacity(stages);
        for _ in 0..stages {
            let step = alloc(16, "step").await?;
            micro.push((step, alloc(4 * chunk as u64, "tokens").await?));
        }
        Ok(Inputs {
            micro,
            next: alloc(16, "next token").await?,
            penalised: alloc(4 * vocab as u64, "penalised tokens").await?,
            allowed: alloc(4 * token_bitmask::words(vocab) as u64, "allowed tokens").await?,
        })
    }

    /// Position and `len` tokens of a micro-batch.
    fn micro(&self, i: usize, len: usize) -> (Tensor, Tensor) {
        let (step, tokens) = &self.micro[i];
        (
            Tensor::of(step.clone(), DType::U32, &[4]),
            Tensor::of(tokens.clone(), DType::U32, &[len]),
        )
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::allocation::pod_collect_to_vec(bytes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::allocation::pod_collect_to_vec(bytes)
}

const _: () = assert!(MOST_TOP_K <= crate::kernels::top_k::MOST);
