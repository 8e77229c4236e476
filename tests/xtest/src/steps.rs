//! The steps, in the order they run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    counts::{Counts, Runner},
    cuda,
    exec::{command, count_tests, files_with_ending, output, run},
    tools::{Tools, target_folder},
};

/// One named step.
#[derive(Clone, Copy)]
pub struct Step {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it runs when no step is named; the others repeat a part of one that does.
    pub by_default: bool,
    /// Does it and counts its tests.
    pub run: fn(&Tools) -> Result<Counts>,
}

const WASM_PACKAGES: &[&str] = &[
    "-p",
    "shardlight",
    "-p",
    "shardlight-shaders",
    "-p",
    "shardlight-tools",
    "-p",
    "shardlight-web",
    "-p",
    "shardlight-web-grammar",
];

/// Every step.
pub const STEPS: &[Step] = &[
    Step {
        name: "tools",
        about: "find or install what the other steps need",
        by_default: true,
        run: tools,
    },
    Step {
        name: "fmt",
        about: "rustfmt's check",
        by_default: true,
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "clippy for this machine, every target",
        by_default: true,
        run: clippy,
    },
    Step {
        name: "clippy-wasm",
        about: "clippy for wasm32",
        by_default: true,
        run: clippy_wasm,
    },
    Step {
        name: "unit",
        about: "unit and documentation tests of every package",
        by_default: true,
        run: unit,
    },
    Step {
        name: "model",
        about: "fetch SmolLM2 into the cache with our own `pull`",
        by_default: true,
        run: model,
    },
    Step {
        name: "tests",
        about: "kernels and goldens on CPU and Vulkan, command line, tidy rules",
        by_default: true,
        run: tests,
    },
    Step {
        name: "tidy",
        about: "only the tidy rules (a part of `tests`)",
        by_default: false,
        run: tidy,
    },
    Step {
        name: "mpi",
        about: "ranks in processes and in network namespaces, under mpirun",
        by_default: true,
        run: mpi,
    },
    Step {
        name: "cuda",
        about: "CUDA kernels: compiled by NVRTC, run by a driver or what stands in for one",
        by_default: true,
        run: cuda,
    },
    Step {
        name: "web",
        about: "build wasm and page, print sizes",
        by_default: true,
        run: web,
    },
    Step {
        name: "browser",
        about: "tests in headless Chromium with WebGPU",
        by_default: true,
        run: browser,
    },
];

fn tools(tools: &Tools) -> Result<Counts> {
    tools.install()?;
    Ok(Counts::ONE_PASSED)
}

fn fmt(tools: &Tools) -> Result<Counts> {
    run(tools.cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Counts::ONE_PASSED)
}

fn clippy(tools: &Tools) -> Result<Counts> {
    run(tools.cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(tools.cargo().args([
        "clippy",
        "-p",
        "shardlight",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Counts::ONE_PASSED)
}

fn clippy_wasm(tools: &Tools) -> Result<Counts> {
    let target = ["--target", "wasm32-unknown-unknown"];
    run(tools
        .cargo()
        .arg("clippy")
        .args(WASM_PACKAGES)
        .args(target)
        .args(["--", "-D", "warnings"]))?;
    Ok(Counts::ONE_PASSED)
}

// cargo unites the features of the packages it is asked for, and builds wgpu anew for every other union.
// So whatever builds for this machine names the whole workspace with its tests, and only narrows targets.

/// Builds every program and test.
fn build(tools: &Tools) -> Result<()> {
    run(tools
        .cargo()
        .args(["build", "--workspace", "--lib", "--bins", "--tests"]))
}

fn cargo_test(tools: &Tools, targets: &[&str]) -> Result<Counts> {
    let mut cargo = tools.cargo_with_vulkan()?;
    cargo.env("SHARDLIGHT_BIN", program(tools, "shardlight"));
    cargo.env("SHARDLIGHT_REQUIRE_ALL", "1");
    cargo.env("SHARDLIGHT_TOOLS", &tools.folder);
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    count_tests(cargo.args(targets), Runner::Cargo)
}

fn unit(tools: &Tools) -> Result<Counts> {
    let mut counts = cargo_test(tools, &["--lib", "--bins"])?;
    counts.add(cargo_test(tools, &["--doc"])?);
    Ok(counts)
}

fn model(tools: &Tools) -> Result<Counts> {
    build(tools)?;
    run(command(&[program(tools, "shardlight")]).args(["pull", "smollm2:135m"]))?;
    Ok(Counts::ONE_PASSED)
}

fn tests(tools: &Tools) -> Result<Counts> {
    build(tools)?;
    cargo_test(tools, &["--test", "*"])
}

fn tidy(tools: &Tools) -> Result<Counts> {
    let tidy = ["test", "--workspace", "--test", "tidy"];
    count_tests(tools.cargo().args(tidy), Runner::Cargo)
}

/// A command of cargo's on all that needs MPI.
fn cargo_mpi(tools: &Tools, args: &[&str]) -> Result<Command> {
    let features = "shardlight-cli/mpi,shardlight-tests/mpi";
    let mut cargo = tools.cargo_with_mpi()?;
    cargo.env("SHARDLIGHT_BIN", program(tools, "shardlight"));
    cargo.env("SHARDLIGHT_REQUIRE_ALL", "1");
    cargo
        .arg(args[0])
        .args(["--workspace", "--features", features]);
    cargo.args(&args[1..]);
    Ok(cargo)
}

fn mpi(tools: &Tools) -> Result<Counts> {
    let cargo = |args: &[&str]| cargo_mpi(tools, args);
    run(&mut cargo(&["build", "--bins", "--examples"])?)?;
    let lib = ["test", "--lib", "--", "mpi::"];
    let mut counts = count_tests(&mut cargo(&lib)?, Runner::Cargo)?;
    // Every job has as many processes as there are cores, or more.
    let jobs = ["test", "--test", "mpi", "--", "--test-threads", "1"];
    counts.add(count_tests(&mut cargo(&jobs)?, Runner::Cargo)?);
    Ok(counts)
}

fn cuda(tools: &Tools) -> Result<Counts> {
    if !cfg!(target_os = "linux") {
        println!("cuda: not run: what stands in for a driver is written for Linux");
        return Ok(Counts::default());
    }
    build(tools)?;
    let host = target_folder(&tools.root).join("cuda-host");
    let mut counts = Counts::default();
    if !cuda::has_driver() {
        let script = tools.root.join("tests/cuda-host/build.sh");
        run(command(&[&script, &host]).arg("test"))?;
        counts.add(Counts::ONE_PASSED);
    }
    let mut cargo = tools.cargo();
    cuda::environment(&mut cargo, &host, &tools.folder)?;
    cargo.env("SHARDLIGHT_BIN", program(tools, "shardlight"));
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    cargo.args([
        "--test",
        "cuda",
        "--test",
        "cuda_language",
        "--test",
        "nccl",
    ]);
    counts.add(count_tests(
        cargo.args(["--", "--nocapture"]),
        Runner::Cargo,
    )?);
    if !cuda::has_driver() {
        // With Vulkan in the same process.
        let mut cargo = tools.cargo_with_vulkan()?;
        cuda::preload(&mut cargo, &host)?;
        cargo.env("SHARDLIGHT_BIN", program(tools, "shardlight"));
        let test = [
            "--test",
            "nccl",
            "devices_of_several_backends_share_a_model",
        ];
        cargo.args(["test", "--workspace"]).args(test);
        counts.add(count_tests(
            cargo.args(["--", "--nocapture"]),
            Runner::Cargo,
        )?);
    }
    // NCCL between processes.
    let mut cargo = cargo_mpi(tools, &["build", "--bins"])?;
    run(&mut cargo)?;
    let mut cargo = cargo_mpi(tools, &["test", "--test", "mpi", "--", "nccl::"])?;
    cuda::environment(&mut cargo, &host, &tools.folder)?;
    counts.add(count_tests(
        cargo.args(["--test-threads", "1"]),
        Runner::Cargo,
    )?);
    // What a machine with a GPU is given, at sizes that measure nothing.
    let packed = target_folder(&tools.root).join("gpu");
    let mut pack = tools.script("tests/gpu/pack.sh");
    run(pack.arg(&packed).arg("dev").env("WITHOUT", "nvrtc model"))?;
    let mut smoke = command(&[packed.join("run.sh"), packed.join("results")]);
    cuda::environment(&mut smoke, &host, &tools.folder)?;
    smoke.env("SMOKE", "1").env_remove("SHARDLIGHT_BIN");
    run(&mut smoke)?;
    counts.add(Counts::ONE_PASSED);
    Ok(counts)
}

fn web(tools: &Tools) -> Result<Counts> {
    build(tools)?;
    let mut npm = tools.npm("www")?;
    npm.env("SHARDLIGHT_BINDGEN", program(tools, "shardlight-bindgen"));
    run(npm.args(["run", "build"]))?;
    run(tools.npm("www")?.args(["run", "check"]))?;
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let raw = files_with_ending(
        &target_folder(&tools.root).join("wasm32-unknown-unknown"),
        "shardlight_web.wasm",
    );
    let raw = raw
        .into_iter()
        .max_by_key(|path| {
            path.metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
        })
        .context("the build left no shardlight_web.wasm")?;
    let small = files_with_ending(&tools.root.join("www/dist"), ".wasm");
    let small = small
        .into_iter()
        .max_by_key(|path| size(path))
        .context("www/dist: no .wasm after the build")?;
    let script = "const { readFileSync } = require('fs'); const { brotliCompressSync } = require('zlib'); \
                  console.log(brotliCompressSync(readFileSync(process.argv[1])).length)";
    let brotli = output(tools.node("www")?.arg("-e").arg(script).arg(&small))?;
    ensure!(
        size(&small) <= size(&raw),
        "{}: larger than {}",
        small.display(),
        raw.display()
    );
    println!(
        "wasm: {} bytes raw, {} after wasm-opt, {} brotli",
        size(&raw),
        size(&small),
        brotli.trim()
    );
    Ok(Counts::ONE_PASSED)
}

fn browser(tools: &Tools) -> Result<Counts> {
    let folder = tools.root.join("tests/web");
    let mut files = files_with_ending(&folder, ".test.mjs");
    files.retain(|file| file.parent() == Some(&folder));
    ensure!(!files.is_empty(), "{}: no *.test.mjs", folder.display());
    // One at a time: every test drives a browser whose GPU is this machine's CPU.
    let options = ["--test", "--test-reporter=tap", "--test-concurrency=1"];
    build(tools)?;
    let mut node = tools.node("tests/web")?;
    node.env("SHARDLIGHT_BIN", program(tools, "shardlight"));
    count_tests(node.args(options).args(files), Runner::Node)
}

/// One of our programs as `cargo build` leaves it.
fn program(tools: &Tools, name: &str) -> PathBuf {
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    target_folder(&tools.root).join("debug").join(name)
}
