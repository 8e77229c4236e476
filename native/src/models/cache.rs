//! The folder downloads are kept in, and which of them are known to be good.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::catalogue::Entry;

/// The cache: `$SHARDLIGHT_CACHE`, else the platform's cache folder.
pub struct Cache {
    root: PathBuf,
}

/// What is remembered about a file whose hash was right, beside it as `NAME.verified`.
///
/// Hashing 98 MB at every start would cost 0.1 to 0.5 s, so a file is hashed once and believed as long
/// as its length and time of change stay the same. A disk that rots silently keeps both: `pull` hashes
/// again whatever the stamp says.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Stamp {
    sha256: String,
    bytes: u64,
    modified_ns: u128,
}

/// State of an entry in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There, and its hash was checked.
    Good,
    /// There with the right length; its hash was not checked, or the file changed since.
    Unchecked,
    /// There with a wrong length.
    Wrong,
    /// Not there.
    Missing,
}

impl Cache {
    /// Finds the folder; creates nothing yet.
    pub fn open() -> anyhow::Result<Self> {
        if let Some(root) = std::env::var_os("SHARDLIGHT_CACHE").filter(|root| !root.is_empty()) {
            return Ok(Cache { root: root.into() });
        }
        let dirs = directories::ProjectDirs::from("", "", "shardlight").ok_or_else(|| {
            anyhow!("this user has no home folder to cache in; set SHARDLIGHT_CACHE to a folder")
        })?;
        Ok(Cache::at(dirs.cache_dir()))
    }

    /// The cache in `root`.
    pub fn at(root: &Path) -> Self {
        Cache {
            root: root.to_owned(),
        }
    }

    /// Where the models are.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Where `chat` keeps what was typed.
    pub fn history(&self) -> PathBuf {
        self.root.join("history.txt")
    }

    /// Where compiled CUDA kernels are.
    pub fn cuda(&self) -> PathBuf {
        self.root.join("cuda")
    }

    /// The final place of `entry`'s file.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.models().join(entry.file)
    }

    /// A companion of `entry`'s file: `NAME.suffix`.
    pub fn beside(&self, entry: &Entry, suffix: &str) -> PathBuf {
        self.models().join(format!("{}.{suffix}", entry.file))
    }

    /// Creates the folder.
    pub fn create(&self) -> anyhow::Result<()> {
        let models = self.models();
        fs::create_dir_all(&models).with_context(|| {
            format!(
                "{}: set SHARDLIGHT_CACHE to a folder that can be written",
                models.display()
            )
        })
    }

    /// What is there of `entry`, without hashing anything.
    pub fn state(&self, entry: &Entry) -> State {
        let Ok(metadata) = fs::metadata(self.path(entry)) else {
            return State::Missing;
        };
        if metadata.len() != entry.bytes || !metadata.is_file() {
            return State::Wrong;
        }
        let remembered = fs::read(self.beside(entry, "verified"))
            .ok()
            .and_then(|json| serde_json::from_slice::<Stamp>(&json).ok());
        match (remembered, stamp(entry, &metadata)) {
            (Some(remembered), Some(now)) if remembered == now => State::Good,
            _ => State::Unchecked,
        }
    }

    /// Remembers that `entry`'s file has the right hash. A cache that cannot be written only costs
    /// another hash next time.
    pub fn remember(&self, entry: &Entry) {
        let stamp = fs::metadata(self.path(entry))
            .ok()
            .and_then(|metadata| stamp(entry, &metadata))
            .and_then(|stamp| serde_json::to_vec(&stamp).ok());
        if let Some(json) = stamp {
            let _ = fs::write(self.beside(entry, "verified"), json);
        }
    }
}

fn stamp(entry: &Entry, metadata: &fs::Metadata) -> Option<Stamp> {
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Stamp {
        sha256: entry.sha256.to_owned(),
        bytes: metadata.len(),
        modified_ns: modified.as_nanos(),
    })
}

/// SHA-256 of a file in lower-case hex; `progress` hears how many bytes were read.
pub fn sha256(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..n]);
        done += n as u64;
        progress(done);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
