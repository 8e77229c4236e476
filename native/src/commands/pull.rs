//! `shardlight pull`: a catalogue model into the cache.

use serde_json::json;

use crate::cli::Pull;
use crate::exit::usage;
use crate::models::{self, CATALOGUE, catalogue};
use crate::out::Out;
use crate::ui::Ui;

/// Gets the model, or hashes it again if it is there, and prints where it is.
pub fn run(args: &Pull, ui: Ui) -> anyhow::Result<()> {
    let Some(entry) = catalogue::find(&args.name) else {
        let names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        return Err(usage(format!(
            "{} is not in the catalogue; there is: {}",
            args.name,
            names.join(", ")
        )));
    };
    let path = models::get(entry, true, ui)?;
    let mut out = Out::new();
    if args.format.json {
        out.json(&json!({
            "name": entry.name,
            "path": path,
            "bytes": entry.bytes,
            "sha256": entry.sha256,
        }))?;
    } else {
        out.line(path.display())?;
    }
    out.finish()
}
