//! Ranks in Workers of their own: each has its own wasm and its part of the model, and what tensor-parallel ranks send
//! goes through memory that they share. So a browser computes on several cores without threads inside wasm.

use std::cell::Cell;
use std::rc::Rc;

use js_sys::{Atomics, Int32Array, SharedArrayBuffer, Uint8Array};
use shardlight::comm::{Collective, CollectiveKind, Communicator, Part, communication, host};
use shardlight::tensor::Tensor;
use shardlight::weights::source::LocalFuture;
use shardlight::{Error, Result};
use wasm_bindgen::prelude::*;

use crate::browser;
use crate::error::Failure;

/// A cache line: each rank's counter has one of its own, behind one for failures.
const LINE: u32 = 64;

/// Place of the word that says which rank is gone, plus 1: www/src/ranks.ts writes it.
const FAILED: u32 = 0;

/// Looks at a counter before sleeping: some tens of microseconds, longer than ranks usually differ by.
const LOOKS: u32 = 2000;

/// Longest sleep before looking whether a rank has failed, in milliseconds.
const SLEEP: f64 = 200.0;

/// One rank among those that share memory.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Thread(Rc<Shared>);

/// Rank i counts its rounds in a word of its own. In a round it writes its bytes into one of its two slots, counts, and
/// reads the slots of those who have counted as far. The slot of the round before last is free by then: who has counted
/// the last round has read all of the one before.
struct Shared {
    words: Int32Array,
    bytes: Uint8Array,
    rank: u32,
    ranks: u32,
    /// Bytes that a rank can give at once; more go in pieces.
    slot: u32,
    round: Cell<u32>,
}

#[wasm_bindgen]
impl Thread {
    /// Rank `rank` of `ranks`, over memory whose bytes are zeros at first. The more there is, the larger are the pieces
    /// in which ranks exchange.
    ///
    /// # Errors
    ///
    /// When there is no such rank, or not enough memory.
    #[wasm_bindgen(constructor)]
    pub fn new(memory: &SharedArrayBuffer, rank: u32, ranks: u32) -> Result<Thread, Failure> {
        let bytes = memory.byte_length();
        let slots = ranks.checked_mul(2).filter(|_| rank < ranks);
        let head = ranks.checked_add(1).and_then(|n| n.checked_mul(LINE));
        let slot = slots.and_then(|slots| Some(bytes.checked_sub(head?)? / slots / LINE * LINE));
        let Some(slot) = slot.filter(|slot| *slot > 0) else {
            let reason = format!("thread {rank} of {ranks} with {bytes} bytes of shared memory");
            return Err(Error::Invalid(reason).into());
        };
        Ok(Thread(Rc::new(Shared {
            words: Int32Array::new(memory),
            bytes: Uint8Array::new(memory),
            rank,
            ranks,
            slot,
            round: Cell::new(0),
        })))
    }
}

impl Thread {
    /// This rank, and how many there are.
    pub fn place(&self) -> (usize, usize) {
        (self.0.rank as usize, self.0.ranks as usize)
    }

    /// Rank 0's answer to a question that it alone can answer.
    ///
    /// # Errors
    ///
    /// [`Error::Communication`] when a rank is gone.
    pub fn first(&self, answer: bool) -> Result<bool> {
        let all = self.0.exchange(&[u8::from(answer)], &self.even(1))?;
        Ok(all[0] == [1])
    }

    /// Everybody's number.
    pub fn gather(&self, number: f64) -> Vec<f64> {
        let all = self.0.exchange(&number.to_le_bytes(), &self.even(8));
        let all = all.unwrap_or_default();
        (all.iter())
            .map(|b| b.as_array().map_or(f64::NAN, |b| f64::from_le_bytes(*b)))
            .collect()
    }

    fn even(&self, bytes: usize) -> Vec<usize> {
        vec![bytes; self.0.ranks as usize]
    }

    async fn perform_one(&self, part: &Part<'_>) -> Result<u64> {
        let collective = part.collective;
        host::check(collective)?;
        let shared = &self.0;
        let everybody = (0..shared.ranks as usize).eq(collective.group.ranks.iter().copied());
        if !everybody || collective.group.me != shared.rank as usize {
            return Err(Error::Unsupported {
                what: format!("{} among some of the threads", collective.kind.name()),
                supported: "tensor parallelism of all".into(),
            });
        }
        let input = match (part.input, &collective.input) {
            (Some(buffer), Some(tensor)) => part.device.read(buffer, 0, tensor.bytes()).await?,
            _ => Vec::new(),
        };
        let lens = lens(collective, input.len(), shared.ranks as usize)?;
        let parts = shared.exchange(&input, &lens)?;
        let output = joined(collective, parts)?;
        if let (Some(buffer), Some(_)) = (part.output, &collective.output) {
            part.device.write(buffer, 0, &output)?;
        }
        Ok(u64::from(shared.ranks - 1) * input.len() as u64)
    }
}

impl Communicator for Thread {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn perform<'a>(&'a self, parts: &'a [Part<'a>]) -> LocalFuture<'a, Result<Vec<u64>>> {
        Box::pin(async move {
            match parts {
                [part] => Ok(vec![self.perform_one(part).await?]),
                _ => {
                    let reason = format!("steps {} ranks, a thread is one", parts.len());
                    Err(communication(self.0.rank as usize, reason))
                }
            }
        })
    }
}

/// Bytes that each rank gives.
fn lens(collective: &Collective, mine: usize, ranks: usize) -> Result<Vec<usize>> {
    let bytes = |t: &Option<Tensor>| t.as_ref().map_or(0, Tensor::bytes) as usize;
    Ok(match &collective.kind {
        CollectiveKind::AllReduce(_) | CollectiveKind::ReduceScatter { .. } => vec![mine; ranks],
        CollectiveKind::AllGather { lens, .. } => {
            let step = bytes(&collective.output) / lens.iter().sum::<usize>().max(1);
            lens.iter().map(|len| len * step).collect()
        }
        CollectiveKind::Broadcast { root } => {
            let len = |rank| match rank == *root {
                true => bytes(&collective.output),
                false => 0,
            };
            (0..ranks).map(len).collect()
        }
        other => {
            return Err(Error::Unsupported {
                what: format!("{} among threads", other.name()),
                supported: "tensor parallelism of dense models".into(),
            });
        }
    })
}

/// What comes of everybody's bytes. Sums are made in the order of ranks, as everywhere.
fn joined(collective: &Collective, mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    let reduced = |how, parts: &mut Vec<Vec<u8>>| -> Result<Vec<u8>> {
        let dtype = collective.input.as_ref().map(|t| t.dtype);
        let mut sum = std::mem::take(&mut parts[0]);
        for part in &parts[1..] {
            host::reduce(how, dtype.unwrap_or(shardlight::DType::F32), &mut sum, part)?;
        }
        Ok(sum)
    };
    match &collective.kind {
        CollectiveKind::AllReduce(how) => reduced(*how, &mut parts),
        CollectiveKind::ReduceScatter { reduce, lens } => {
            let sum = reduced(*reduce, &mut parts)?;
            let row = sum.len() / lens.iter().sum::<usize>().max(1);
            let mut pieces = host::pieces(lens, row);
            Ok(sum[pieces.swap_remove(collective.group.me)].to_vec())
        }
        CollectiveKind::AllGather { axis, lens } => {
            let Some(output) = &collective.output else {
                return Err(Error::Invalid("an all_gather has no output".into()));
            };
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            Ok(host::gather(output, *axis, lens, &parts))
        }
        CollectiveKind::Broadcast { root } => Ok(parts.swap_remove(*root)),
        other => Err(Error::Invalid(format!("{} has no bytes", other.name()))),
    }
}

/// Place of a rank's counter among the words.
fn counter(rank: u32) -> u32 {
    LINE / 4 * (1 + rank)
}

impl Shared {
    /// Where a rank writes in a round.
    fn place(&self, rank: u32, round: u32, len: u32) -> Uint8Array {
        let start = LINE * (1 + self.ranks) + self.slot * (2 * rank + round % 2);
        self.bytes.subarray(start, start + len)
    }

    /// Everybody's bytes, in the order of ranks: `lens` of them, the same numbers on every rank.
    fn exchange(&self, mine: &[u8], lens: &[usize]) -> Result<Vec<Vec<u8>>> {
        let me = self.rank as usize;
        if lens.get(me) != Some(&mine.len()) {
            let reason = format!("gives {} bytes where {lens:?} are expected", mine.len());
            return Err(communication(me, reason));
        }
        let mut all: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
        let most = lens.iter().copied().max().unwrap_or(0);
        for at in (0..most.max(1)).step_by(self.slot as usize) {
            let piece = |len: usize| at.min(len)..(at + self.slot as usize).min(len);
            let round = self.round.get().wrapping_add(1);
            self.round.set(round);
            let own = piece(mine.len());
            self.place(self.rank, round, own.len() as u32)
                .copy_from(&mine[own]);
            let thrown = |e: JsValue| communication(me, browser::reason(&e));
            Atomics::store(&self.words, counter(self.rank), round as i32).map_err(thrown)?;
            Atomics::notify(&self.words, counter(self.rank)).map_err(thrown)?;
            for (rank, bytes) in (0..self.ranks).zip(&mut all) {
                if rank != self.rank {
                    self.wait(rank, round)?;
                }
                let theirs = piece(bytes.len());
                let slot = self.place(rank, round, theirs.len() as u32);
                slot.copy_to(&mut bytes[theirs]);
            }
        }
        Ok(all)
    }

    /// Until a rank has counted a round.
    fn wait(&self, rank: u32, round: u32) -> Result<()> {
        let me = self.rank as usize;
        let thrown = |e: JsValue| communication(me, browser::reason(&e));
        let place = counter(rank);
        let mut looks = 0;
        loop {
            let seen = Atomics::load(&self.words, place).map_err(thrown)?;
            // Counters wrap around.
            if (seen as u32).wrapping_sub(round) as i32 >= 0 {
                return Ok(());
            }
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
                continue;
            }
            self.check()?;
            Atomics::wait_with_timeout(&self.words, place, seen, SLEEP).map_err(thrown)?;
        }
    }

    /// The error of a rank that is gone.
    fn check(&self) -> Result<()> {
        let failed = Atomics::load(&self.words, FAILED).unwrap_or(0);
        match usize::try_from(failed - 1) {
            Ok(rank) => Err(communication(rank, "is gone; load the model again")),
            Err(_) => Ok(()),
        }
    }
}
