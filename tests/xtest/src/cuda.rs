//! NVIDIA's compiler, and the driver or what stands in for it (tests/cuda-host).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec::{apt_install, command, files_with_ending, find_program, output, run};

/// Compiles for every driver since CUDA 13.0; a newer one writes PTX that those refuse.
const NVRTC: &str = "nvidia-cuda-nvrtc==13.0.88";
const LIBRARY: &str = "libnvrtc.so.13";

/// Installs NVRTC and g++.
///
/// # Errors
///
/// If one is missing and cannot be installed; the message says what to install.
pub fn install(tools: &Path) -> Result<()> {
    if find_program("g++").is_none() {
        apt_install(&["g++"])?;
    }
    let folder = tools.join("nvrtc");
    if nvrtc(tools).is_none() {
        let pip = [
            "python3",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
        ];
        run(command(&pip).arg(&folder).arg(NVRTC))
            .with_context(|| format!("pip must reach an index that has {NVRTC}"))?;
    }
    let found = nvrtc(tools);
    let found = found.with_context(|| format!("{}: no {LIBRARY} in {NVRTC}", folder.display()))?;
    println!("nvrtc: {}", found.display());
    Ok(())
}

fn nvrtc(tools: &Path) -> Option<PathBuf> {
    let found = files_with_ending(&tools.join("nvrtc"), LIBRARY);
    found.into_iter().next()
}

/// Does this machine have NVIDIA's driver?
pub fn has_driver() -> bool {
    output(&mut command(&["nvidia-smi", "-L"])).is_ok_and(|list| list.contains("GPU 0"))
}

/// Puts what stands in for a driver before a program that a loader of its own starts, for Vulkan: by name it would not
/// be found.
///
/// # Errors
///
/// If the folder cannot be in a list.
pub fn preload(cargo: &mut Command, host: &Path) -> Result<()> {
    let names = [
        "libcuda.so.1",
        "libnvrtc.so.13",
        "libnccl.so.2",
        "libcublasLt.so.13",
    ];
    let libraries = std::env::join_paths(names.map(|name| host.join(name)))?;
    cargo
        .env("LD_PRELOAD", libraries)
        .env("SHARDLIGHT_REQUIRE_CUDA", "1")
        .env("SHARDLIGHT_CUDA_HOST_DEVICES", "4")
        .env_remove("SHARDLIGHT_NVRTC")
        .env_remove("SHARDLIGHT_NCCL")
        .env_remove("SHARDLIGHT_CUBLASLT");
    Ok(())
}

/// Lets tests find a driver, or what stands in for one in the folder `host`, and NVRTC.
///
/// # Errors
///
/// If NVRTC is missing.
pub fn environment(cargo: &mut Command, host: &Path, tools: &Path) -> Result<()> {
    let nvrtc = nvrtc(tools).context("NVRTC is missing; run `cargo xtest tools`")?;
    cargo.env("SHARDLIGHT_REQUIRE_CUDA", "1");
    if has_driver() {
        cargo.env("SHARDLIGHT_NVRTC", nvrtc);
        return Ok(());
    }
    ensure!(
        host.join("libcuda.so.1").is_file(),
        "{}: not built",
        host.display()
    );
    // Theirs first: the machine may have one of NVIDIA's libraries without a driver.
    let name = OsStr::new("LD_LIBRARY_PATH");
    let set = cargo.get_envs().find(|(key, _)| *key == name);
    let path = match set {
        Some((_, path)) => path.map(ToOwned::to_owned),
        None => std::env::var_os(name),
    };
    let mut folders = vec![host.to_owned()];
    folders.extend(path.iter().flat_map(std::env::split_paths));
    cargo.env("LD_LIBRARY_PATH", std::env::join_paths(folders)?);
    cargo
        .env_remove("SHARDLIGHT_NVRTC")
        .env_remove("SHARDLIGHT_NCCL")
        .env_remove("SHARDLIGHT_CUBLASLT");
    // For ranks with a device each.
    cargo.env("SHARDLIGHT_CUDA_HOST_DEVICES", "4");
    // A runner that starts programs by a loader of its own hides that path.
    let runner = format!(
        "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
        std::env::consts::ARCH.to_uppercase()
    );
    cargo.env_remove(runner).env_remove("SHARDLIGHT_RUNNER");
    cargo.env("SHARDLIGHT_REAL_NVRTC", nvrtc);
    Ok(())
}
