//! `shardlight list`: what there is, and what of it is on this machine.

use std::fs;

use console::style;
use indicatif::{DecimalBytes, HumanBytes};
use serde::Serialize;
use serde_json::json;
use shardlight::builtin::{MODELS, TINY_NAME};

use crate::cli::List;
use crate::models::cache::State;
use crate::models::{CATALOGUE, Cache};
use crate::out::Out;

#[derive(Serialize)]
struct Row {
    name: String,
    about: String,
    /// Length of the whole file.
    bytes: u64,
    /// `built in`, `cached`, `unchecked`, `partial` or `not here`.
    state: &'static str,
    path: Option<String>,
    license: Option<&'static str>,
}

/// Prints a table, or with `--json` an object `{cache, models}`.
pub fn run(args: &List) -> anyhow::Result<()> {
    let cache = Cache::open()?;
    let rows = rows(&cache);
    let mut out = Out::new();
    if args.format.json {
        out.json(&json!({ "cache": cache.models(), "models": rows }))?;
        return out.finish();
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &rows {
        let size = DecimalBytes(row.bytes).to_string();
        let name = style(format!("{:width$}", row.name)).bold();
        out.line(format_args!(
            "{name}  {size:>10}  {:9}  {}",
            row.state, row.about
        ))?;
        if let Some(path) = &row.path {
            out.line(style(format!("{:width$}  {path}", "")).dim())?;
        }
    }
    out.finish()
}

fn rows(cache: &Cache) -> Vec<Row> {
    let builtin = MODELS.iter().map(|(name, bytes)| Row {
        name: (*name).to_owned(),
        about: match *name {
            TINY_NAME => "writes children's stories; for trying things out".to_owned(),
            _ => "the same as a mixture of 8 experts".to_owned(),
        },
        bytes: bytes.len() as u64,
        state: "built in",
        path: None,
        license: Some("MIT OR Apache-2.0"),
    });
    let mut rows: Vec<Row> = builtin.collect();
    for entry in CATALOGUE {
        let path = cache.path(entry);
        let part = cache.beside(entry, "part");
        let state = match cache.state(entry) {
            State::Good => "cached",
            State::Unchecked | State::Wrong => "unchecked",
            State::Missing if part.exists() => "partial",
            State::Missing => "not here",
        };
        let about = match fs::metadata(&part) {
            Ok(part) if state == "partial" => {
                format!("{} ({} so far)", entry.about, HumanBytes(part.len()))
            }
            _ => entry.about.to_owned(),
        };
        rows.push(Row {
            name: entry.name.to_owned(),
            about,
            bytes: entry.bytes,
            state,
            path: path.exists().then(|| path.display().to_string()),
            license: Some(entry.license),
        });
    }
    rows.extend(strangers(cache));
    rows
}

/// Files that somebody put into the cache by hand; `--model` takes their path.
fn strangers(cache: &Cache) -> Vec<Row> {
    let Ok(files) = fs::read_dir(cache.models()) else {
        return Vec::new();
    };
    let mut rows: Vec<Row> = files
        .flatten()
        .filter_map(|file| {
            let path = file.path();
            let name = file.file_name().to_string_lossy().into_owned();
            let known = CATALOGUE.iter().any(|entry| entry.file == name);
            if known || path.extension().is_none_or(|extension| extension != "gguf") {
                return None;
            }
            Some(Row {
                name,
                about: "put there by hand".to_owned(),
                bytes: file.metadata().ok()?.len(),
                state: "unchecked",
                path: Some(path.display().to_string()),
                license: None,
            })
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
