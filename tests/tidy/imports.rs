//! Which way imports run.

use crate::{assert_finds, assert_holds, source::File};

/// The packages below `tests`, which may use everything.
const PACKAGES: [&str; 4] = ["shaders/", "core/", "native/", "web/"];

fn starts_with_path(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Findings for each of these crates or modules that Rust source uses where `place` holds.
fn uses(files: &[File], place: impl Fn(&File) -> bool, forbidden: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && place(file))
    {
        for (line, path) in file.paths() {
            if let Some(name) = forbidden.iter().find(|name| starts_with_path(&path, name)) {
                findings.push(file.finding(line, &format!("`{name}` is not used here")));
            }
        }
    }
    findings
}

/// Findings for each of these crates that a package's Cargo.toml depends on.
fn depends(files: &[File], manifest: &str, forbidden: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path == manifest) {
        for (line, name) in file.dependencies(true) {
            if forbidden.contains(&name.as_str()) {
                findings.push(file.finding(
                    line,
                    &format!("`{name}` is not a dependency of this package"),
                ));
            }
        }
    }
    findings
}

fn shaders_depend_on_nothing(files: &[File]) -> Vec<String> {
    let manifests = files
        .iter()
        .filter(|file| file.path == "shaders/Cargo.toml");
    let all = manifests.flat_map(|file| {
        let names = file.dependencies(false).into_iter();
        names.map(|(line, name)| {
            file.finding(line, &format!("shaders depend on nothing, not on `{name}`"))
        })
    });
    all.collect()
}

#[test]
fn shaders_have_no_dependencies() {
    assert_holds(shaders_depend_on_nothing);
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nserde = \"1\"\n[dev-dependencies]\nnaga = \"30\"\n";
    assert_finds(
        shaders_depend_on_nothing,
        &[("shaders/Cargo.toml", manifest)],
        &["shaders/Cargo.toml:4"],
    );
}

fn core_touches_no_system(files: &[File]) -> Vec<String> {
    let modules = [
        "std::fs",
        "std::net",
        "std::time",
        "wasm_bindgen",
        "clap",
        "anyhow",
        "cudarc",
    ];
    let mut findings = uses(files, |file| file.is_rust_in("core/src/"), &modules);
    findings.extend(depends(
        files,
        "core/Cargo.toml",
        &["wasm-bindgen", "clap", "anyhow", "cudarc"],
    ));
    findings
}

#[test]
fn core_has_no_files_network_clocks_or_bindings() {
    assert_holds(core_touches_no_system);
    let sample = [
        (
            "core/src/a.rs",
            "use std::{\n    sync::Arc,\n    time::Instant,\n};\n// std::fs\nlet x = std::fs::read(p);",
        ),
        (
            "core/Cargo.toml",
            "[target.'cfg(unix)'.dependencies]\nanyhow.workspace = true\n",
        ),
        ("native/src/a.rs", "use std::fs;"),
    ];
    assert_finds(
        core_touches_no_system,
        &sample,
        &["core/src/a.rs:3", "core/src/a.rs:6", "core/Cargo.toml:2"],
    );
}

fn each_backend_has_one_home(files: &[File]) -> Vec<String> {
    let homes: [(&[&str], &str); 3] = [
        (&["wgpu"], "core/src/device/wgpu"),
        (&["cudarc"], "native/src/cuda"),
        (&["wasm_bindgen", "wasm_bindgen_futures", "js_sys"], "web/"),
    ];
    let mut findings = Vec::new();
    for (crates, home) in homes {
        let elsewhere = |file: &File| {
            PACKAGES
                .iter()
                .any(|package| file.path.starts_with(package))
                && !file.path.starts_with(home)
        };
        findings.extend(uses(files, elsewhere, crates));
    }
    findings
}

#[test]
fn wgpu_cuda_and_wasm_bindgen_each_stay_in_their_folder() {
    assert_holds(each_backend_has_one_home);
    let sample = [
        ("core/src/device/wgpu.rs", "use wgpu::Device;"),
        (
            "core/src/device/mod.rs",
            "mod wgpu;\npub use self::wgpu::WgpuDevice;",
        ),
        ("core/src/kernels/a.rs", "fn f(d: &wgpu::Device) {}"),
        ("native/src/run.rs", "use cudarc::driver;"),
        ("native/src/cuda/mod.rs", "use cudarc::driver;"),
        ("core/src/b.rs", "use wasm_bindgen::prelude::*;"),
        ("tests/kernels.rs", "use wgpu::Device;"),
    ];
    let places = [
        "core/src/kernels/a.rs:1",
        "native/src/run.rs:1",
        "core/src/b.rs:1",
    ];
    assert_finds(each_backend_has_one_home, &sample, &places);
}

fn models_speak_nn(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.is_rust_in("core/src/models/"))
    {
        for (line, path) in file.paths() {
            let mut names = path
                .split("::")
                .skip_while(|name| ["crate", "super", "self"].contains(name));
            let module = names.next().unwrap_or_default();
            if path.contains("::") && ["device", "kernels"].contains(&module) {
                findings.push(file.finding(line, &format!("models use nn, not `{path}`")));
            }
        }
    }
    findings
}

#[test]
fn models_import_neither_devices_nor_kernels() {
    assert_holds(models_speak_nn);
    let sample = [
        (
            "core/src/models/a.rs",
            "use crate::{nn::Linear, device::Device};\nlet device = 1;\nsuper::super::kernels::run();",
        ),
        ("core/src/nn/a.rs", "use crate::device::Device;"),
    ];
    assert_finds(
        models_speak_nn,
        &sample,
        &["core/src/models/a.rs:1", "core/src/models/a.rs:3"],
    );
}

fn unsafe_has_few_homes(files: &[File]) -> Vec<String> {
    // SIMD, memory maps, CUDA and MPI.
    let homes = [
        "core/src/device/cpu/",
        "native/src/source.rs",
        "native/src/cuda/",
        "tests/src/cuda.rs",
        "native/src/mpi",
    ];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let at_home = homes.iter().any(|home| file.path.starts_with(home));
        for (line, text) in file.code().lines().enumerate() {
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            if !at_home && words.any(|word| word == "unsafe") {
                findings.push(
                    file.finding(line, "`unsafe` is only for SIMD, memory maps, CUDA and MPI"),
                );
            }
        }
    }
    findings
}

#[test]
fn unsafe_stays_in_the_few_files_that_need_it() {
    assert_holds(unsafe_has_few_homes);
    let sample = [
        (
            "core/src/device/cpu/x86.rs",
            "// SAFETY: checked above.\nunsafe { f() }",
        ),
        (
            "core/src/tensor.rs",
            "// unsafe\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }",
        ),
        ("web/src/lib.rs", "unsafe impl Send for X {}"),
    ];
    assert_finds(
        unsafe_has_few_homes,
        &sample,
        &["core/src/tensor.rs:3", "web/src/lib.rs:1"],
    );
}

fn anyhow_is_for_the_edge(files: &[File]) -> Vec<String> {
    let libraries = ["shaders", "core", "web"];
    let mut findings = uses(
        files,
        |file| {
            libraries
                .iter()
                .any(|folder| file.path.starts_with(&format!("{folder}/")))
        },
        &["anyhow"],
    );
    for folder in libraries {
        findings.extend(depends(files, &format!("{folder}/Cargo.toml"), &["anyhow"]));
    }
    findings
}

#[test]
fn anyhow_is_used_in_programs_and_tests_only() {
    assert_holds(anyhow_is_for_the_edge);
    let sample = [
        ("web/src/lib.rs", "fn f() -> anyhow::Result<()> { Ok(()) }"),
        ("web/Cargo.toml", "[dependencies]\nanyhow = \"1\""),
        ("native/src/main.rs", "use anyhow::Result;"),
    ];
    assert_finds(
        anyhow_is_for_the_edge,
        &sample,
        &["web/src/lib.rs:1", "web/Cargo.toml:2"],
    );
}
