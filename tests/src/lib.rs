//! What the tests share: devices to test on, model files, recorded results.

pub mod conformance;
pub mod cuda;
pub mod golden;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use shardlight::device::{self, Device, DeviceChoice};
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};

/// The folder of recorded results.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The CPU device, and a GPU adapter if there is one.
///
/// # Panics
///
/// When `SHARDLIGHT_REQUIRE_VULKAN` is set and no adapter is there.
pub fn devices() -> Vec<Rc<dyn Device>> {
    let open = |choice| pollster::block_on(device::open(&choice));
    let mut devices = vec![open(DeviceChoice::Cpu).expect("the CPU device always exists")];
    match open(DeviceChoice::Gpu) {
        Ok(gpu) => devices.push(gpu),
        Err(e) if std::env::var_os("SHARDLIGHT_REQUIRE_VULKAN").is_some() => {
            panic!("a GPU adapter is required: {e}")
        }
        Err(e) => eprintln!("tested on the CPU device only: {e}"),
    }
    devices
}

/// A file in memory.
pub fn source(path: &Path) -> Rc<dyn WeightSource> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Rc::new(BytesSource::new(path.to_string_lossy(), bytes))
}

/// The model in these files.
pub fn open(paths: &[PathBuf]) -> ModelFiles {
    let sources = paths.iter().map(|p| source(p)).collect();
    pollster::block_on(ModelFiles::open(sources)).unwrap_or_else(|e| panic!("{e}"))
}

/// The command under test, with the wrapper that lets it see the Vulkan driver.
///
/// # Panics
///
/// When it was not built.
pub fn shardlight() -> Command {
    let program = program("shardlight");
    match std::env::var_os("SHARDLIGHT_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// One of our programs: `shardlight`, what lies beside it, or `examples/NAME`.
///
/// # Panics
///
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("SHARDLIGHT_BIN").map(PathBuf::from);
    let named = named.map_or_else(built, |bin| bin.parent().unwrap_or(Path::new(".")).into());
    let program = named.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.is_file(),
        "{}: not built; run cargo build --workspace, or cargo xtest",
        program.display()
    );
    program
}

/// Above the test program's folder; argv[0], since a wrapper's loader is the current program.
fn built() -> PathBuf {
    let test = std::env::args_os().next().map(PathBuf::from);
    let folder = test
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent);
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// SmolLM2's file: `$SHARDLIGHT_SMOLLM2`, else the one in the CLI's cache.
///
/// # Panics
///
/// When it is not there.
pub fn smollm2() -> PathBuf {
    if let Some(path) = std::env::var_os("SHARDLIGHT_SMOLLM2") {
        return PathBuf::from(path);
    }
    let output = shardlight().args(["list", "--json"]).output();
    let output = output.expect("shardlight list runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("list is JSON");
    let entries = list["models"].as_array().expect("list names models");
    let entry = entries.iter().find(|e| e["name"] == "smollm2:135m");
    let path = entry.and_then(|e| e["path"].as_str());
    PathBuf::from(path.expect("SmolLM2 is not in the cache; run shardlight pull smollm2:135m"))
}
