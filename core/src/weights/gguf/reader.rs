//! Reads a header front to back in bounded pieces and keeps count of the memory it leads to.

use crate::Error;
use crate::weights::WeightSource;

/// First piece asked of the source; each later one is twice as long, up to [`LAST_PIECE`].
const FIRST_PIECE: usize = 1 << 20;
const LAST_PIECE: usize = 4 << 20;

/// Most memory a parsed header may take. The largest vocabularies known (262,144 tokens with
/// half a million merges) stay under 20 MiB.
pub(super) const MEMORY_LIMIT: u64 = 32 << 20;

/// What went wrong, before the caller adds where.
pub(super) enum Fault {
    /// The source's own error, which already says where.
    Source(Error),
    /// The bytes are wrong: the reason.
    Bad(String),
    /// The type is not supported: what, and what there is.
    Unsupported(String, String),
}

impl Fault {
    /// The error with its place.
    pub(super) fn at(self, place: impl FnOnce() -> String) -> Error {
        match self {
            Fault::Source(error) => error,
            Fault::Bad(reason) => Error::format(place(), reason),
            Fault::Unsupported(what, supported) => Error::Unsupported {
                what: format!("{}: {what}", place()),
                supported,
            },
        }
    }
}

/// Shorthand for `Err(Fault::Bad(format!(..)))`.
macro_rules! bad {
    ($($text:tt)*) => { Err(Fault::Bad(format!($($text)*))) };
}
pub(super) use bad;

/// A position in a file, read forwards only.
pub(super) struct Reader<'a> {
    source: &'a dyn WeightSource,
    window: Vec<u8>,
    /// File offset of `window[0]`.
    base: u64,
    /// Next byte to hand out, in `window`.
    next: usize,
    piece: usize,
    memory: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn WeightSource) -> Self {
        Reader {
            source,
            window: Vec::new(),
            base: 0,
            next: 0,
            piece: FIRST_PIECE,
            memory: 0,
        }
    }

    /// Offset in the file of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.next as u64
    }

    /// Bytes from here to the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        self.source.len().saturating_sub(self.offset())
    }

    /// The first bytes of the file, as many as there are up to `n`; valid before anything is read.
    pub(super) async fn peek(&mut self, n: usize) -> Result<&[u8], Fault> {
        while self.window.len() - self.next < n {
            if !self.refill().await? {
                break;
            }
        }
        let end = self.window.len().min(self.next + n);
        Ok(&self.window[self.next..end])
    }

    /// Counts memory that the header will occupy, before it is allocated.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Fault> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MEMORY_LIMIT {
            return bad!(
                "header needs {} bytes of memory up to here, at most {MEMORY_LIMIT} are allowed",
                self.memory
            );
        }
        Ok(())
    }

    /// Checks a count of things of at least `least` bytes each against the rest of the file.
    pub(super) fn check_count(&self, n: u64, least: u64, what: &str) -> Result<usize, Fault> {
        let left = self.remaining();
        match usize::try_from(n) {
            Ok(count) if n <= left / least => Ok(count),
            _ => bad!("{what}, file has {left} bytes left"),
        }
    }

    async fn refill(&mut self) -> Result<bool, Fault> {
        self.window.drain(..self.next);
        self.base += self.next as u64;
        self.next = 0;
        let at = self.base + self.window.len() as u64;
        let left = self.source.len().saturating_sub(at);
        let n = usize::try_from(left).map_or(self.piece, |left| left.min(self.piece));
        if n == 0 {
            return Ok(false);
        }
        let old = self.window.len();
        self.window.resize(old + n, 0);
        let read = self.source.read(at, &mut self.window[old..]).await;
        read.map_err(Fault::Source)?;
        self.piece = (self.piece * 2).min(LAST_PIECE);
        Ok(true)
    }

    /// The next `N` bytes; `what` says what they are, for the error when the file ends.
    pub(super) async fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        while self.window.len() - self.next < N {
            if !self.refill().await? {
                return bad!("file of {} bytes ends inside {what}", self.source.len());
            }
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.window[self.next..self.next + N]);
        self.next += N;
        Ok(out)
    }

    pub(super) async fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take(what).await?))
    }

    pub(super) async fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take(what).await?))
    }

    /// Fills `out`, which the caller has checked against [`Reader::remaining`].
    pub(super) async fn fill(&mut self, mut out: &mut [u8], what: &str) -> Result<(), Fault> {
        while !out.is_empty() {
            if self.next == self.window.len() && !self.refill().await? {
                return bad!("file of {} bytes ends inside {what}", self.source.len());
            }
            let n = out.len().min(self.window.len() - self.next);
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&self.window[self.next..self.next + n]);
            self.next += n;
            out = later;
        }
        Ok(())
    }

    /// A string's length and bytes into `scratch`, returned as text of at most `most` bytes.
    pub(super) async fn string<'s>(
        &mut self,
        scratch: &'s mut Vec<u8>,
        most: u64,
        what: &str,
    ) -> Result<&'s str, Fault> {
        let n = self.u64(what).await?;
        // Not check_count: a vocabulary has 10^5 strings, so no text is made unless it is needed.
        if n > self.remaining() {
            let left = self.remaining();
            return bad!("{what} is {n} bytes long, file has {left} bytes left");
        }
        if n > most {
            return bad!("{what} is {n} bytes long, at most {most} are allowed");
        }
        self.charge(n)?;
        let n = n as usize;
        scratch.clear();
        scratch.resize(n, 0);
        self.fill(scratch, what).await?;
        match std::str::from_utf8(scratch) {
            Ok(text) => Ok(text),
            Err(error) => bad!("{what} is not UTF-8 at byte {}", error.valid_up_to()),
        }
    }
}
