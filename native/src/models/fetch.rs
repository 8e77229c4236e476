//! Getting a catalogue entry's file: cache first, then each source in turn.
//!
//! Bytes go to `NAME.part`; only a file that is complete, on disk and has the right SHA-256 is renamed
//! to its final name, so a broken download never leaves a half file there. A `.part` left behind is
//! continued by the next source that can, whichever wrote it: the hash decides in the end.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::cache::{Cache, State, sha256};
use super::catalogue::Entry;
use crate::ui::{Bar, Ui};

/// How often one source is asked to go on after it broke off.
const ATTEMPTS: usize = 4;

/// A place a file can be had from.
pub trait Source {
    /// For messages: `the Hugging Face hub`.
    fn name(&self) -> &'static str;

    /// Whether [`Source::fetch`] goes on where the part ends; one that does not starts over.
    fn resumes(&self) -> bool;

    /// Appends what is missing to `part`.
    ///
    /// # Errors
    ///
    /// [`FetchError::Source`] to go on with the next source, [`FetchError::Disk`] to give up.
    fn fetch(&self, part: &mut Part<'_>) -> Result<(), FetchError>;
}

/// Why a source did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It does not have the file, or is out of reach.
    #[error("{0}")]
    Source(String),
    /// The file cannot be written here, whatever the source.
    #[error("{path}: {error}")]
    Disk {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

impl FetchError {
    /// A [`FetchError::Source`] of `reason`.
    pub fn source(reason: impl std::fmt::Display) -> Self {
        FetchError::Source(reason.to_string())
    }
}

/// A download under way: `NAME.part`.
pub struct Part<'a> {
    file: File,
    path: PathBuf,
    len: u64,
    want: u64,
    bar: &'a Bar,
}

impl<'a> Part<'a> {
    fn open(path: PathBuf, want: u64, bar: &'a Bar) -> Result<Self, FetchError> {
        let opened = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| Ok((file.seek(SeekFrom::End(0))?, file)));
        let (len, file) = opened.map_err(|error| disk(&path, error))?;
        let mut part = Part {
            file,
            path,
            len,
            want,
            bar,
        };
        if part.len > want {
            part.restart()?;
        }
        bar.set(part.len);
        Ok(part)
    }

    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes there must be in the end.
    pub fn want(&self) -> u64 {
        self.want
    }

    /// The bar that shows it.
    pub fn bar(&self) -> &Bar {
        self.bar
    }

    /// Forgets what is there.
    pub fn restart(&mut self) -> Result<(), FetchError> {
        if self.len > 0 {
            self.file
                .set_len(0)
                .map_err(|error| disk(&self.path, error))?;
            self.len = 0;
            self.bar.set(0);
        }
        Ok(())
    }

    /// Appends everything `reader` gives.
    ///
    /// # Errors
    ///
    /// Reading fails or gives more than the file may have: [`FetchError::Source`]. Writing fails:
    /// [`FetchError::Disk`].
    pub fn append(&mut self, reader: &mut dyn Read) -> Result<(), FetchError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(FetchError::source(format!(
                        "broke off after {} of {} bytes: {error}",
                        self.len, self.want
                    )));
                }
            };
            if self.len + n as u64 > self.want {
                self.restart()?;
                return Err(FetchError::source(format!(
                    "sends more than the {} bytes of the file",
                    self.want
                )));
            }
            self.file
                .write_all(&buffer[..n])
                .map_err(|error| disk(&self.path, error))?;
            self.len += n as u64;
            self.bar.set(self.len);
        }
    }
}

fn disk(path: &Path, error: io::Error) -> FetchError {
    FetchError::Disk {
        path: path.display().to_string(),
        error,
    }
}

/// The good file of `entry`: from the cache, else from the first of `sources` that has it.
///
/// `recheck` hashes a cached file even if its stamp says that it is good.
pub fn ensure(
    entry: &Entry,
    cache: &Cache,
    sources: &[&dyn Source],
    recheck: bool,
    ui: Ui,
) -> anyhow::Result<PathBuf> {
    let path = cache.path(entry);
    if cache.state(entry) == State::Good && !recheck {
        return Ok(path);
    }
    // A file that only lacks its stamp must be usable from a cache that cannot be written.
    if check(entry, cache, ui) {
        return Ok(path);
    }
    cache.create()?;
    let _lock = lock(&cache.beside(entry, "lock"), entry, ui)?;
    if check(entry, cache, ui) {
        return Ok(path); // another process was faster
    }
    download(entry, cache, sources, ui)?;
    Ok(path)
}

/// Hashes the cached file; says what is wrong with it, if anything.
fn check(entry: &Entry, cache: &Cache, ui: Ui) -> bool {
    let path = cache.path(entry);
    match cache.state(entry) {
        State::Missing => return false,
        State::Wrong => {
            ui.note(format_args!(
                "{}: wrong length, getting it again",
                path.display()
            ));
            return false;
        }
        State::Good | State::Unchecked => {}
    }
    let bar = ui.percent("checking");
    bar.set_length(entry.bytes);
    let sum = sha256(&path, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    match sum {
        Ok(sum) if sum == entry.sha256 => {
            cache.remember(entry);
            true
        }
        Ok(_) => {
            ui.note(format_args!(
                "{}: wrong SHA-256, getting it again",
                path.display()
            ));
            false
        }
        Err(error) => {
            ui.note(format_args!(
                "{}: {error}, getting it again",
                path.display()
            ));
            false
        }
    }
}

/// Holds `path` against other processes until dropped; the lock goes with the process, so a crash leaves none.
fn lock(path: &Path, entry: &Entry, ui: Ui) -> anyhow::Result<File> {
    let place = || path.display().to_string();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(place)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => ui.note(format_args!(
            "{}: another process is getting it, waiting",
            entry.name
        )),
        // Some network file systems have no locks: then two downloads at once are the user's to avoid.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            return Ok(file);
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(place),
    }
    file.lock().with_context(place)?;
    Ok(file)
}

fn download(entry: &Entry, cache: &Cache, sources: &[&dyn Source], ui: Ui) -> anyhow::Result<()> {
    let part_path = cache.beside(entry, "part");
    let bar = ui.bytes(entry.name, entry.bytes);
    let fetched = try_sources(entry, &part_path, sources, &bar).and_then(|()| {
        fs::rename(&part_path, cache.path(entry))
            .map_err(|error| Failure::from(disk(&part_path, error)))
    });
    match fetched {
        Ok(()) => {
            sync_folder(&cache.models());
            cache.remember(entry);
            bar.done();
            Ok(())
        }
        Err(Failure::Disk { path, error }) => {
            if error.kind() == io::ErrorKind::StorageFull {
                // Do not sit on the last bytes of a full disk.
                let _ = fs::remove_file(&part_path);
                return Err(anyhow!(
                    "{path}: no space left on device, {} needs {} bytes; free some or set SHARDLIGHT_CACHE to a folder with room",
                    entry.name,
                    entry.bytes
                ));
            }
            Err(anyhow!("{path}: {error}"))
        }
        Err(Failure::NoSource(reasons)) => {
            if fs::metadata(&part_path).is_ok_and(|part| part.len() == 0) {
                let _ = fs::remove_file(&part_path);
            }
            Err(anyhow!(
                "{}: no source could deliver it ({}); check the network, put the file at {} yourself, or name another model with --model",
                entry.name,
                reasons.join("; "),
                cache.path(entry).display()
            ))
        }
    }
}

enum Failure {
    NoSource(Vec<String>),
    Disk { path: String, error: io::Error },
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Source(reason) => Failure::NoSource(vec![reason]),
            FetchError::Disk { path, error } => Failure::Disk { path, error },
        }
    }
}

/// Leaves a complete file with the right hash at `path`.
fn try_sources(
    entry: &Entry,
    path: &Path,
    sources: &[&dyn Source],
    bar: &Bar,
) -> Result<(), Failure> {
    let mut part = Part::open(path.to_owned(), entry.bytes, bar)?;
    let mut reasons = Vec::new();
    if part.len == part.want && complete(entry, &mut part)?.is_ok() {
        return Ok(()); // the last run ended between the last byte and the rename
    }
    for (i, source) in sources.iter().enumerate() {
        let reason = ask(*source, entry, &mut part)?;
        let Err(reason) = reason else {
            return Ok(());
        };
        if let Some(next) = sources.get(i + 1) {
            let (this, next) = (source.name(), next.name());
            bar.note(format_args!("{this}: {reason}; trying {next}"));
        }
        reasons.push(format!("{}: {reason}", source.name()));
    }
    Err(Failure::NoSource(reasons))
}

/// Asks one source, again where it broke off as long as that gets further. The inner error is why not.
fn ask(
    source: &dyn Source,
    entry: &Entry,
    part: &mut Part<'_>,
) -> Result<Result<(), String>, FetchError> {
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        let before = part.len;
        reason = match source.fetch(part) {
            Ok(()) if part.len == part.want => match complete(entry, part)? {
                Ok(()) => return Ok(Ok(())),
                // What was there before may have been the bad half: once more from the start.
                Err(reason) if before > 0 && source.resumes() => {
                    part.restart()?;
                    reason
                }
                Err(reason) => return Ok(Err(reason)),
            },
            Ok(()) => format!("ended after {} of {} bytes", part.len, part.want),
            Err(FetchError::Source(reason)) => reason,
            Err(error) => return Err(error),
        };
        let further = part.len > before || (before > 0 && part.len == 0);
        if !(source.resumes() && further) {
            break;
        }
    }
    Ok(Err(reason))
}

/// Puts the part on disk and checks its hash; a wrong one is thrown away.
fn complete(entry: &Entry, part: &mut Part<'_>) -> Result<Result<(), String>, FetchError> {
    part.file
        .sync_all()
        .map_err(|error| disk(&part.path, error))?;
    let sum = sha256(&part.path, &mut |_| {}).map_err(|error| disk(&part.path, error))?;
    if sum == entry.sha256 {
        return Ok(Ok(()));
    }
    part.restart()?;
    Ok(Err(format!("SHA-256 is {sum}, expected {}", entry.sha256)))
}

/// Makes the rename itself durable, where a folder can be opened (not on Windows).
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
