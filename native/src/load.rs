//! From `--model` and `--device` to something that answers.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use shardlight::builtin::{self, TINY_MOE_NAME, TINY_NAME};
use shardlight::comm::Process;
use shardlight::device::DeviceInfo;
use shardlight::session::{Progress, Session, SessionOptions};
use shardlight::weights::gguf::split;
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};

use crate::cli::Model;
use crate::cuda::{self, Kernels, nccl};
use crate::exit::usage;
use crate::job;
use crate::models::{self, CATALOGUE, catalogue};
use crate::source::MmapSource;
use crate::ui::Ui;

/// Where a model's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled in.
    Builtin(&'static str, &'static [u8]),
    /// These files: one GGUF file, or config.json and its companions.
    Files(Vec<PathBuf>),
}

/// What is told when `auto` takes another device than the best one.
pub fn fallback(reason: &str, device: &DeviceInfo) -> String {
    match device.kind.is_gpu() {
        true => format!("{reason}; running on {device}"),
        false => format!("no GPU: {reason}; running on the CPU"),
    }
}

/// Finds what `name` means, and fetches it if it is in the catalogue.
pub fn resolve(name: &str, ui: Ui) -> anyhow::Result<Origin> {
    if let Some((name, bytes)) = builtin::MODELS.iter().find(|(n, _)| *n == name) {
        return Ok(Origin::Builtin(name, bytes));
    }
    if let Some(entry) = catalogue::find(name) {
        return Ok(Origin::Files(vec![models::get(entry, false, ui)?]));
    }
    let path = Path::new(name);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Origin::Files(folder(path)?)),
        Ok(_)
            if path
                .extension()
                .is_some_and(|extension| extension == "safetensors") =>
        {
            let folder = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            Ok(Origin::Files(with_companions(
                folder.unwrap_or(Path::new(".")),
                vec![path.to_owned()],
            )?))
        }
        Ok(_) => Ok(Origin::Files(parts(path)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
            bail!(
                "model {name}: no such file or name; there are {TINY_NAME}, {TINY_MOE_NAME}, {}, a path to a .gguf file, and a folder with config.json and *.safetensors",
                names.join(", ")
            )
        }
        Err(error) => Err(error).with_context(|| name.to_owned()),
    }
}

/// The files of a model folder: the weights that the index names, else every *.safetensors, else the only *.gguf.
fn folder(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let index = path.join("model.safetensors.index.json");
    if index.exists() {
        let mut weights = indexed(path, &index)?;
        weights.push(index);
        return with_companions(path, weights);
    }
    let weights = with_extension(path, "safetensors")?;
    if !weights.is_empty() {
        return with_companions(path, weights);
    }
    let gguf = with_extension(path, "gguf")?;
    if let Some(first) = gguf.first()
        && parts(first)? == gguf
    {
        return Ok(gguf);
    }
    match gguf.len() {
        0 => bail!(
            "{}: holds neither *.safetensors nor a .gguf file",
            path.display()
        ),
        1 => Ok(gguf),
        n => bail!(
            "{}: holds {n} .gguf files; name one of them",
            path.display()
        ),
    }
}

/// All files of a split GGUF of which `one` is given by its name, in order; of any other file that file.
fn parts(one: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = one.file_name().and_then(|name| name.to_str());
    let Some(names) = name.and_then(split::names) else {
        return Ok(vec![one.to_owned()]);
    };
    let paths: Vec<_> = (names.iter())
        .map(|name| one.with_file_name(name))
        .collect();
    match paths.iter().find(|path| !path.exists()) {
        Some(missing) => bail!(
            "{}: one of {} files; {} is not there",
            one.display(),
            paths.len(),
            missing.display()
        ),
        None => Ok(paths),
    }
}

fn with_extension(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    Ok(paths)
}

/// The files an index names. It is somebody else's file: no name may leave the folder.
fn indexed(folder: &Path, index: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let place = || index.display().to_string();
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(index).with_context(place)?).with_context(place)?;
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| anyhow!("{}: has no weight_map", index.display()))?;
    let mut names = BTreeSet::new();
    for (tensor, name) in map {
        let name = name.as_str().unwrap_or_default();
        if name.is_empty() || name.contains(['/', '\\', ':']) || name.starts_with('.') {
            bail!(
                "{}: tensor {tensor} is in {name:?}, which is not a file of this folder",
                index.display()
            );
        }
        names.insert(name);
    }
    let paths: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    match paths.iter().find(|path| !path.exists()) {
        Some(missing) => bail!(
            "{}: names {}, which is not there",
            index.display(),
            missing.display()
        ),
        None => Ok(paths),
    }
}

/// Adds the files that belong to weights in Hugging Face's layout.
fn with_companions(folder: &Path, weights: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let config = folder.join("config.json");
    if !config.exists() {
        bail!(
            "{}: needs a config.json beside the weights",
            folder.display()
        );
    }
    let mut files = vec![config];
    files.extend(weights);
    let optional = [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ];
    files.extend(
        optional
            .map(|name| folder.join(name))
            .into_iter()
            .filter(|path| path.exists()),
    );
    Ok(files)
}

/// Opens the files and reads their headers.
pub fn open(name: &str, ui: Ui) -> anyhow::Result<ModelFiles> {
    let sources = job::agree(job::in_turn(|| sources(name, ui)))?;
    job::same_model(&sources)?;
    Ok(pollster::block_on(ModelFiles::open(sources))?)
}

/// Where the bytes of a model are.
pub fn sources(name: &str, ui: Ui) -> anyhow::Result<Vec<Rc<dyn WeightSource>>> {
    Ok(match resolve(name, ui)? {
        Origin::Builtin(name, bytes) => vec![Rc::new(BytesSource::new(name, bytes))],
        Origin::Files(paths) => paths
            .iter()
            .map(|path| Ok(Rc::new(MmapSource::open(path)?) as Rc<dyn WeightSource>))
            .collect::<shardlight::Result<_>>()?,
    })
}

/// A session, and how long it took to load.
pub struct Loaded {
    pub session: Session,
    pub load: Duration,
}

impl Loaded {
    /// The devices of its ranks, in words.
    pub fn device(&self) -> String {
        let world = self.session.world();
        let names: Vec<_> = world
            .devices()
            .iter()
            .map(|d| match cuda::kernels_of(d.as_ref()) {
                Some(kernels) => format!("{} with kernels {kernels}", d.info()),
                None => d.info().to_string(),
            })
            .collect();
        let mut names = names.join(" + ");
        if world.communicator().name() == "nccl" {
            names += ", joined by NCCL";
        }
        match world.ranks() {
            [_] => names,
            ranks => format!("{} on {names}", ranks[0].mesh),
        }
    }
}

/// Loads the model that `args` names. Fetching it does not count as loading.
pub fn load(args: &Model, ui: Ui) -> anyhow::Result<Loaded> {
    session(open(&args.name.model, ui)?, args, ui)
}

/// Puts a model whose headers were read onto the devices that `args` asks for.
pub fn session(files: ModelFiles, args: &Model, ui: Ui) -> anyhow::Result<Loaded> {
    if args.shards.shares.dp > 1 {
        return Err(usage(format!(
            "--dp {}: replicas answer several prompts; give them with `run --prompts FILE`",
            args.shards.shares.dp
        )));
    }
    replica(files, args, 0, ui)
}

/// The same for one of the data-parallel replicas.
pub fn replica(files: ModelFiles, args: &Model, replica: usize, ui: Ui) -> anyhow::Result<Loaded> {
    let begin = Instant::now();
    args.device.choose_kernels(Kernels::Tuned);
    let sharding = args.shards.sharding(&args.device.device);
    let clock = move || begin.elapsed().as_secs_f64();
    let mut opened = match job::communicator() {
        Some((ranks, communicator)) => {
            sharding.mesh.check_ranks(ranks)?;
            let here = Process {
                rank: job::rank().unwrap_or_default(),
                communicator,
                gather: &job::all_gather_f64,
            };
            pollster::block_on(sharding.open_rank(here, &clock, &|device| device))?
        }
        None => pollster::block_on(sharding.open(replica, &clock, &|device| device))?,
    };
    if let Some(reason) = nccl::choose(args.shards.comm, &mut opened.world)? {
        ui.aside(reason);
    }
    let mut devices = opened.world.devices().iter();
    if let Some(reason) = devices.find_map(|d| cuda::refused_products(d.as_ref())) {
        ui.aside(reason);
    }
    let devices = opened.world.devices().iter();
    args.device.check_kernels(devices.map(|d| d.info()))?;
    if let (Some(reason), Some(device)) = (opened.no_gpu, opened.world.devices().first()) {
        ui.aside(fallback(&reason, device.info()));
    }
    let options = SessionOptions {
        context_length: args.ctx.map(|tokens| tokens as usize),
        kv: args.kv.into(),
        expert_cache: args.expert_cache.map(|size| size.as_u64()),
        expert_statistics: args.expert_stats,
        ..SessionOptions::default()
    };
    let bar = ui.percent("loading");
    let mut report = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        ControlFlow::Continue(())
    };
    let session = pollster::block_on(Session::load(files, opened.world, options, &mut report));
    bar.finish_and_clear();
    Ok(Loaded {
        session: session?,
        load: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).unwrap();
    }

    fn resolved(path: &Path) -> Result<Vec<String>, String> {
        match resolve(path.to_str().unwrap(), Ui::new(true)) {
            Ok(Origin::Files(paths)) => Ok(paths
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect()),
            Ok(Origin::Builtin(..)) => unreachable!("a path is not the model compiled in"),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let error = resolved(Path::new("no:such")).unwrap_err();
        for text in [
            "no:such",
            TINY_NAME,
            catalogue::DEFAULT,
            ".gguf",
            "config.json",
        ] {
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_split_model_is_all_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        put(at, names[1], "");
        let missing = resolved(&at.join(names[1])).unwrap_err();
        assert!(
            missing.contains("one of 2 files") && missing.contains(names[0]),
            "{missing}"
        );
        put(at, names[0], "");
        for one in [at.to_owned(), at.join(names[0]), at.join(names[1])] {
            assert_eq!(resolved(&one).unwrap(), names);
        }
        put(at, "other.gguf", "");
        assert!(resolved(at).unwrap_err().contains("3 .gguf files"));
    }

    #[test]
    fn a_folder_is_its_index_else_its_safetensors_else_its_only_gguf() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert!(resolved(at).unwrap_err().contains("neither"));
        put(at, "a.gguf", "");
        assert_eq!(resolved(at).unwrap(), ["a.gguf"]);
        put(at, "b.gguf", "");
        assert!(resolved(at).unwrap_err().contains("2 .gguf files"));
        put(at, "y.safetensors", "");
        assert!(resolved(at).unwrap_err().contains("config.json"));
        put(at, "x.safetensors", "");
        put(at, "config.json", "{}");
        put(at, "tokenizer.json", "{}");
        assert_eq!(
            resolved(at).unwrap(),
            [
                "config.json",
                "x.safetensors",
                "y.safetensors",
                "tokenizer.json"
            ]
        );
        assert_eq!(
            resolved(&at.join("x.safetensors")).unwrap(),
            ["config.json", "x.safetensors", "tokenizer.json"]
        );
        put(
            at,
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "y.safetensors", "b": "y.safetensors"}}"#,
        );
        assert_eq!(
            resolved(at).unwrap(),
            [
                "config.json",
                "y.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json"
            ]
        );
    }

    #[test]
    fn an_index_cannot_name_files_elsewhere_or_missing() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        put(at, "config.json", "{}");
        for (index, text) in [
            (
                r#"{"weight_map": {"a": "../x.safetensors"}}"#,
                "not a file of this folder",
            ),
            (
                r#"{"weight_map": {"a": "/etc/passwd"}}"#,
                "not a file of this folder",
            ),
            (r#"{"weight_map": {"a": 3}}"#, "not a file of this folder"),
            (r#"{"weight_map": {"a": "x.safetensors"}}"#, "not there"),
            ("{}", "no weight_map"),
            ("{", "EOF"),
        ] {
            put(at, "model.safetensors.index.json", index);
            let error = resolved(at).unwrap_err();
            assert!(error.contains(text), "{index}: {error}");
        }
    }
}
