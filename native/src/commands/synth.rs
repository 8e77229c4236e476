//! `shardlight synth`: a model file made out of another.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context;
use shardlight::Error;
use shardlight::weights::gguf::{Upcycle, upcycle};

use crate::cli::Synth;
use crate::exit::usage;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Writes the file, whole or not at all, and prints where it is.
pub fn run(args: &Synth, ui: Ui) -> anyhow::Result<()> {
    let out = &args.out;
    if out.exists() && !args.force {
        return Err(usage(format!(
            "{} is there already; --force writes over it",
            out.display()
        )));
    }
    let sources = load::sources(&args.upcycle, ui)?;
    let [source] = &sources[..] else {
        return Err(usage(format!(
            "{}: is a folder; give one GGUF file",
            args.upcycle
        )));
    };
    let how = Upcycle {
        experts: args.experts,
        chosen: args.k,
        seed: args.seed,
    };
    let mut part = OsString::from(out);
    part.push(".part");
    let part = Path::new(&part);
    let made = write(part, |write| {
        pollster::block_on(upcycle(source.as_ref(), how, write))
    });
    let made = made.and_then(|()| {
        fs::rename(part, out).with_context(|| format!("{}: cannot be written", out.display()))
    });
    if made.is_err() {
        // There may be none; the first error is the one to tell.
        let _ = fs::remove_file(part);
    }
    made?;
    let mut told = Out::new();
    told.line(out.display())?;
    told.finish()
}

type Pieces<'a> = dyn FnMut(&[u8]) -> shardlight::Result<()> + 'a;

fn write(
    path: &Path,
    make: impl FnOnce(&mut Pieces<'_>) -> shardlight::Result<()>,
) -> anyhow::Result<()> {
    let place = path.display();
    let file = File::create(path).with_context(|| format!("{place}: cannot be written"))?;
    let mut file = BufWriter::new(file);
    make(&mut |piece| {
        file.write_all(piece)
            .map_err(|e| Error::io(place.to_string(), e))
    })?;
    let file = file.into_inner().map_err(|e| e.into_error());
    file.and_then(|file| file.sync_all())
        .with_context(|| format!("{place}: cannot be written"))
}
