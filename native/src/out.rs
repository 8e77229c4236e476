//! Standard output: the only place that writes to it.

use std::io::{self, BufWriter, Write};

use anyhow::anyhow;
use serde::Serialize;

use crate::exit::Stop;
use crate::job;

/// Buffered standard output. Dropping it without [`Out::finish`] loses the last error, so commands end with it.
///
/// Of a [`job`]'s ranks only the first one writes.
pub struct Out {
    stdout: BufWriter<Box<dyn Write>>,
}

impl Out {
    /// Opens it.
    pub fn new() -> Self {
        let stdout: Box<dyn Write> = if job::is_first() {
            Box::new(io::stdout())
        } else {
            Box::new(io::sink())
        };
        Out {
            stdout: BufWriter::new(stdout),
        }
    }

    /// Writes `text` and shows it at once.
    pub fn stream(&mut self, text: &str) -> anyhow::Result<()> {
        self.stdout.write_all(text.as_bytes()).map_err(explain)?;
        self.stdout.flush().map_err(explain)
    }

    /// Writes a line.
    pub fn line(&mut self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        writeln!(self.stdout, "{text}").map_err(explain)
    }

    /// Writes `value` as JSON on one line.
    pub fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.stdout, value).map_err(|error| explain(error.into()))?;
        self.line("")
    }

    /// Flushes; a full disk shows itself here at the latest.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(explain)
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::StdoutClosed.into(),
        io::ErrorKind::StorageFull => {
            anyhow!(
                "standard output: no space left on the disk it goes to; free some or write elsewhere"
            )
        }
        _ => anyhow!("standard output: {error}"),
    }
}
