//! The job of several processes that this one may be a rank of, as `shardlight-mpi` is; `shardlight` is
//! always alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use shardlight::comm::Communicator;
use shardlight::weights::WeightSource;

use crate::exit::exit_code;

/// What a job's ranks can do together.
pub trait Job {
    /// Number of ranks.
    fn size(&self) -> usize;

    /// For the collectives of a model.
    fn communicator(&self) -> Rc<dyn Communicator>;

    /// Everybody's bytes, in the order of ranks.
    fn all_gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;
}

/// What any thread must know: panics and Ctrl-C come on all of them.
struct Rank {
    rank: usize,
    abort: fn(i32) -> !,
}

static RANK: OnceLock<Rank> = OnceLock::new();

thread_local! {
    static JOB: RefCell<Option<Rc<dyn Job>>> = const { RefCell::new(None) };
}

/// Makes this process rank `rank` of a job, which `abort` ends at once for all, with an exit code.
#[cfg_attr(
    not(feature = "mpi"),
    expect(dead_code, reason = "only shardlight-mpi is a rank")
)]
pub fn enter(rank: usize, abort: fn(i32) -> !, job: Rc<dyn Job>) {
    RANK.get_or_init(|| Rank { rank, abort });
    JOB.set(Some(job));
}

/// Gives up what belongs to the job; it must not outlive it.
#[cfg_attr(
    not(feature = "mpi"),
    expect(dead_code, reason = "only shardlight-mpi is a rank")
)]
pub fn leave() {
    JOB.take();
}

fn job() -> Option<Rc<dyn Job>> {
    JOB.with_borrow(Option::clone)
}

/// This process's rank, if there is a job.
pub fn rank() -> Option<usize> {
    RANK.get().map(|rank| rank.rank)
}

/// Number of ranks; 1 without a job.
pub fn size() -> usize {
    job().map_or(1, |job| job.size())
}

/// Is this process alone, or the one that speaks for all?
pub fn is_first() -> bool {
    rank().unwrap_or(0) == 0
}

/// Number of ranks and what they communicate with, if there is a job.
pub fn communicator() -> Option<(usize, Rc<dyn Communicator>)> {
    job().map(|job| (job.size(), job.communicator()))
}

/// Ends the whole job, if there is one.
pub fn abort(code: i32) {
    if let Some(rank) = RANK.get() {
        (rank.abort)(code);
    }
}

/// Everybody's bytes, in the order of ranks.
pub fn all_gather(bytes: &[u8]) -> Vec<Vec<u8>> {
    job().map_or_else(|| vec![bytes.to_vec()], |job| job.all_gather(bytes))
}

/// What rank 0 gives.
pub fn broadcast(bytes: Vec<u8>) -> Vec<u8> {
    match job() {
        Some(job) => {
            let mine = if is_first() { &bytes[..] } else { &[] };
            job.all_gather(mine).swap_remove(0)
        }
        None => bytes,
    }
}

/// Rank 0's random number or time.
pub fn broadcast_u64(number: u64) -> u64 {
    let bytes = broadcast(number.to_le_bytes().to_vec());
    bytes.as_array().map_or(number, |b| u64::from_le_bytes(*b))
}

/// Every rank's number.
pub fn all_gather_f64(number: f64) -> Vec<f64> {
    let Some(job) = job() else {
        return vec![number];
    };
    let all = job.all_gather(&number.to_le_bytes()).into_iter();
    all.map(|b| b.as_array().map_or(f64::NAN, |b| f64::from_le_bytes(*b)))
        .collect()
}

/// An error that every rank has: one of them tells it, and the job ends in good order.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Agreed {
    /// What is wrong, and with which rank; empty when it was told already.
    pub message: String,
    /// The job's exit code.
    pub code: u8,
}

/// Lets every rank know when one has an error.
///
/// # Errors
///
/// The own one without a job, else [`Agreed`] with the first rank's.
pub fn agree<T>(result: anyhow::Result<T>) -> anyhow::Result<T> {
    let Some(job) = job() else { return result };
    let mine = match &result {
        Ok(_) => Vec::new(),
        Err(error) => [&[exit_code(error)], format!("{error:#}").as_bytes()].concat(),
    };
    let all = job.all_gather(&mine);
    let Some(failed) = all.iter().position(|bytes| !bytes.is_empty()) else {
        return result;
    };
    let (code, text) = (all[failed][0], String::from_utf8_lossy(&all[failed][1..]));
    // What rank 0 has told needs no repetition.
    let message = if text.is_empty() || all.iter().all(|bytes| *bytes == all[0]) {
        text.into_owned()
    } else {
        format!("rank {failed}: {text}")
    };
    Err(Agreed { message, code }.into())
}

/// Checks that every rank has the same of something: `key` is compared, `shown` is for the reader.
///
/// # Errors
///
/// [`Agreed`], naming the ranks that differ from rank 0.
pub fn same(what: &str, key: &[u8], shown: &str) -> anyhow::Result<()> {
    let Some(job) = job() else { return Ok(()) };
    let keys = job.all_gather(key);
    let shown = job.all_gather(shown.as_bytes());
    let differ = |rank: &usize| keys[*rank] != keys[0];
    let ranks: Vec<usize> = (0..keys.len()).filter(differ).collect();
    let Some(&first) = ranks.first() else {
        return Ok(());
    };
    let text = |rank: usize| String::from_utf8_lossy(&shown[rank]);
    let message = format!(
        "{} {} another {what} than rank 0: {}, not {}",
        names(&ranks),
        if ranks.len() == 1 { "has" } else { "have" },
        text(first),
        text(0),
    );
    Err(Agreed { message, code: 1 }.into())
}

/// Lets ranks do something one after the other: what the first one fetches others on its host find.
pub fn in_turn<T>(f: impl FnOnce() -> T) -> T {
    let (Some(job), Some(rank)) = (job(), rank()) else {
        return f();
    };
    (0..rank).for_each(|_| drop(job.all_gather(&[])));
    let result = f();
    (rank..job.size()).for_each(|_| drop(job.all_gather(&[])));
    result
}

/// Checks that every rank has opened the same model.
///
/// Of each file its length, the first 16 MiB, which hold names, shapes and the vocabulary, and 256 samples
/// of 4 KiB are compared: reading all of it would take longer than loading a rank's part.
///
/// # Errors
///
/// [`Agreed`], naming the ranks that differ from rank 0, or a rank that cannot read its files.
pub fn same_model(files: &[Rc<dyn WeightSource>]) -> anyhow::Result<()> {
    if rank().is_none() {
        return Ok(());
    }
    let digest = agree(pollster::block_on(digest(files)).map_err(Into::into))?;
    let bytes: u64 = files.iter().map(|file| file.len()).sum();
    let short: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    same(
        "model",
        &digest,
        &format!("{bytes} bytes with digest {short}"),
    )
}

async fn digest(files: &[Rc<dyn WeightSource>]) -> shardlight::Result<Vec<u8>> {
    const HEADER: u64 = 16 << 20;
    const SAMPLE: u64 = 4096;
    const SAMPLES: u64 = 256;
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.len().to_le_bytes());
        let header = HEADER.min(file.len());
        let sample = SAMPLE.min(file.len());
        let last = file.len() - sample;
        let places = (1..=SAMPLES).map(|i| (last as u128 * i as u128 / SAMPLES as u128) as u64);
        let samples = places.filter(|at| *at >= header).map(|at| (at, sample));
        for (at, len) in std::iter::once((0, header)).chain(samples) {
            let mut bytes = vec![0; len as usize];
            file.read(at, &mut bytes).await?;
            hash.update(&bytes);
        }
    }
    Ok(hash.finalize().to_vec())
}

/// `rank 1`, or `ranks 1, 2`.
fn names(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let s = if ranks.len() == 1 { "" } else { "s" };
    format!("rank{s} {}", list.join(", "))
}
