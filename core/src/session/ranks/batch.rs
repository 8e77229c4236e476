//! Steps of tokens of several sequences, whose keys and values are in pages.

use std::collections::HashMap;

use super::{Ranks, words};
use crate::comm::Program;
use crate::device::{Buffer, Purpose};
use crate::kernels::{argmax, copy, pages};
use crate::kv_cache::KvCache;
use crate::tensor::Tensor;
use crate::{DType, Result};

/// Programs that are kept; each has scratch memory of its own.
const MOST_PROGRAMS: usize = 24;

/// What of the devices belongs to a batch.
pub(in crate::session) struct Pool {
    /// Of each rank.
    caches: Vec<KvCache>,
    /// Of each device.
    tokens: Vec<Buffer>,
    /// Of each rank: logits of the first rows of a step, for its rows of the vocabulary; on the last stage.
    logits: Vec<Option<Tensor>>,
    /// Of each rank: their likeliest tokens.
    best: Vec<Buffer>,
    /// Most tokens of a step, and most of them that have logits.
    most: [usize; 2],
    /// By tokens and by those that have logits.
    steps: HashMap<[usize; 2], Program>,
    /// By row: makes a row's logits the last token's.
    takes: HashMap<usize, Program>,
}

/// A token of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct Row {
    pub(in crate::session) token: u32,
    pub(in crate::session) position: usize,
    /// Of the step's sequences.
    pub(in crate::session) sequence: usize,
}

/// Sizes that steps have, so that few programs serve all.
fn padded(rows: usize, most: usize) -> usize {
    let rows = match rows {
        0..=4 => rows,
        5..=16 => rows.next_multiple_of(4),
        17..=64 => rows.next_multiple_of(8),
        _ => rows.next_multiple_of(32),
    };
    rows.min(most)
}

impl Ranks {
    /// Room for `capacity` tokens in pages, for steps of `most` tokens and tokens with logits, and for lists of
    /// `lists` pages together.
    pub(in crate::session) async fn pool(
        &self,
        capacity: usize,
        most: [usize; 2],
        lists: usize,
    ) -> Result<Pool> {
        let mut pool = Pool {
            caches: Vec::new(),
            tokens: Vec::new(),
            logits: Vec::new(),
            best: Vec::new(),
            most,
            steps: HashMap::new(),
            takes: HashMap::new(),
        };
        let words = most[0] * pages::WORDS + lists + 1;
        for (i, rank) in self.ranks.iter().enumerate() {
            let device = self.world.device(i).as_ref();
            pool.caches
                .push(rank.cache.paged(device, capacity, words).await?);
            let alloc =
                |bytes: usize, label| device.alloc(4 * bytes as u64, Purpose::Activations, label);
            pool.logits.push(match &rank.logits {
                Some(last) => {
                    let shape = [most[1], last.cols()];
                    let buffer = alloc(shape[0] * shape[1], "logits").await?;
                    Some(Tensor::of(buffer, DType::F32, &shape))
                }
                None => None,
            });
            pool.best
                .push(alloc(most[1].max(4), "likeliest tokens").await?);
        }
        for device in self.world.devices() {
            let bytes = 4 * most[0] as u64;
            pool.tokens
                .push(device.alloc(bytes, Purpose::Activations, "tokens").await?);
        }
        Ok(pool)
    }

    /// Computes `rows`, each of one of the sequences whose pages are `lists`, and the logits of the first `heads`
    /// of them.
    pub(in crate::session) async fn batch(
        &mut self,
        pool: &mut Pool,
        rows: &[Row],
        lists: &[&[u32]],
        heads: usize,
    ) -> Result<()> {
        let size = padded(rows.len(), pool.most[0]);
        // The list with nothing but page 0, which nobody has, is for rows that only fill the step.
        let mut at = size * pages::WORDS + 1;
        let mut starts = Vec::with_capacity(lists.len());
        let mut list_words = vec![0];
        for list in lists {
            starts.push(at);
            at += list.len();
            list_words.extend_from_slice(list);
        }
        let (mut tokens, mut all) = (Vec::with_capacity(size), Vec::with_capacity(at));
        for row in rows {
            let page = lists[row.sequence][row.position / pages::PAGE] as usize;
            let slot = page * pages::PAGE + row.position % pages::PAGE;
            all.extend([row.position, slot, starts[row.sequence], 0].map(|x| x as u32));
            tokens.push(row.token);
        }
        tokens.resize(size, 0);
        for _ in rows.len()..size {
            all.extend([0, 0, (size * pages::WORDS) as u32, 0]);
        }
        all.extend(list_words);
        for (device, buffer) in self.world.devices().iter().zip(&pool.tokens) {
            device.write(buffer, 0, bytemuck::cast_slice(&tokens))?;
        }
        for (i, cache) in pool.caches.iter().enumerate() {
            if let Some(buffer) = cache.pages().and_then(Tensor::buffer) {
                self.world
                    .device(i)
                    .write(buffer, 0, bytemuck::cast_slice(&all))?;
            }
        }
        let step = self
            .batch_step(pool, [size, padded(heads, pool.most[1])])
            .await?;
        self.world.run(&step).await?;
        self.world.flush().await?;
        self.count(rows.len()).await
    }

    async fn batch_step(&mut self, pool: &mut Pool, [size, heads]: [usize; 2]) -> Result<Program> {
        if let Some(step) = pool.steps.get(&[size, heads]) {
            return Ok(step.clone());
        }
        let mut recordings = self.world.recordings();
        for (i, (rank, r)) in self.ranks.iter().zip(&mut recordings).enumerate() {
            let tokens = Tensor::of(pool.tokens[rank.device].clone(), DType::U32, &[size]);
            let (step, _) = self.inputs[rank.device].micro(0, 1);
            let hidden = rank.forward_with(r, &tokens, &step, &pool.caches[i])?;
            if heads == 0 {
                continue;
            }
            let logits = pool.logits[i].as_ref();
            let logits = logits
                .map(|all| Tensor::new(all.storage.clone(), DType::F32, &[heads, all.cols()]));
            if let Some(logits) = &logits {
                rank.model.head(r, &hidden, 0, logits)?;
            }
            let all = rank.share_logits(r, logits.as_ref(), heads)?;
            let best = Tensor::of(pool.best[i].clone(), DType::U32, &[heads]);
            r.argmax(&all, &best)?;
        }
        let step = self.world.prepare(recordings).await?;
        if pool.steps.len() >= MOST_PROGRAMS {
            pool.steps.clear();
        }
        pool.steps.insert([size, heads], step.clone());
        Ok(step)
    }

    /// The likeliest token of each of the first `heads` rows of the last step; `None` where logits were not numbers.
    pub(in crate::session) async fn batch_best(
        &self,
        pool: &Pool,
        heads: usize,
    ) -> Result<Vec<Option<u32>>> {
        let bytes = self
            .world
            .device(0)
            .read(&pool.best[0], 0, 4 * heads as u64)
            .await?;
        let known = |id: u32| (id != argmax::NOT_A_NUMBER).then_some(id);
        Ok(words(&bytes).into_iter().map(known).collect())
    }

    /// Makes the logits of row `row` of the last step those that a token is chosen of.
    pub(in crate::session) async fn take_row(&mut self, pool: &mut Pool, row: usize) -> Result<()> {
        if !pool.takes.contains_key(&row) {
            let mut recordings = self.world.recordings();
            for ((rank, r), all) in self.ranks.iter().zip(&mut recordings).zip(&pool.logits) {
                if let (Some(last), Some(all)) = (&rank.logits, all) {
                    let along = ((all.rows(), row), (1, 0));
                    let params = copy::params(1, all.cols(), along.0, along.1, 1);
                    let bindings = vec![Some(all.clone()), Some(last.clone())];
                    r.push(&copy::KERNEL, params, bindings)?;
                }
            }
            let step = self.world.prepare(recordings).await?;
            pool.takes.insert(row, step);
        }
        self.world.run(&pool.takes[&row]).await
    }

    /// Copies the first `rows` rows of a page to another one. False, and nothing, where rows are no whole words.
    pub(in crate::session) async fn copy_page(
        &mut self,
        pool: &Pool,
        along: [u32; 2],
        rows: usize,
    ) -> Result<bool> {
        let mut recordings = self.world.recordings();
        for (cache, r) in pool.caches.iter().zip(&mut recordings) {
            if !cache.copy_page(r, along.map(|page| page as usize), rows)? {
                return Ok(false);
            }
        }
        let step = self.world.prepare(recordings).await?;
        self.world.run(&step).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_few_sizes() {
        let sizes: std::collections::BTreeSet<_> = (0..=256).map(|n| padded(n, 256)).collect();
        assert!(sizes.len() < 22, "{sizes:?}");
        assert!((0..=256).all(|n| padded(n, 256) >= n));
        assert_eq!((padded(0, 8), padded(7, 7)), (0, 7));
    }
}
