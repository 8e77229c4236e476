//! `shardlight synth`: a model file made out of another, or of random numbers.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context;
use shardlight::Error;
use shardlight::plan::Shape;
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
    match (&args.upcycle, &args.shape) {
        (Some(model), _) => {
            let sources = load::sources(model, ui)?;
            let [source] = &sources[..] else {
                return Err(usage(format!("{model}: is a folder; give one GGUF file")));
            };
            let how = Upcycle {
                experts: args.experts,
                chosen: args.k,
                seed: args.seed,
            };
            write(out, |write| {
                pollster::block_on(upcycle(source.as_ref(), how, write))
            })?;
        }
        (None, shape) => {
            let shape = Shape::find(shape.as_deref().unwrap_or_default())?;
            write(out, |write| {
                shape.write_random(args.dtype, args.seed, write)
            })?;
        }
    }
    let mut told = Out::new();
    told.line(out.display())?;
    told.finish()
}

type Pieces<'a> = dyn FnMut(&[u8]) -> shardlight::Result<()> + 'a;

/// Into a file of a new name beside `path`, which then takes its place; without it nothing is left behind.
fn write(
    path: &Path,
    make: impl FnOnce(&mut Pieces<'_>) -> shardlight::Result<()>,
) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be written", path.display());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".shardlight-").suffix(".part");
    #[cfg(unix)]
    {
        // As any other new file; temporary ones are for their owner only.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let part = builder.tempfile_in(folder).with_context(failed)?;
    let mut file = BufWriter::new(part);
    make(&mut |piece| {
        file.write_all(piece)
            .map_err(|e| Error::io(path.display().to_string(), e))
    })?;
    let part = file.into_inner().map_err(|e| e.into_error());
    let part = part.with_context(failed)?;
    part.as_file().sync_all().with_context(failed)?;
    part.persist(path).with_context(failed)?;
    Ok(())
}
