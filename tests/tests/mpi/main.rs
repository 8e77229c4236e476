//! `shardlight-mpi` under `mpirun`: collectives between processes, and how a job ends when one of them does.
#![cfg(feature = "mpi")]

mod hosts;
mod job;
mod model;
mod nccl;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use job::{End, Job};
use shardlight_tests::program;

/// A job that has lost a rank must be over by then.
const SOON: Duration = Duration::from_secs(5);

fn collectives(ranks: usize) -> Job {
    Job::new(ranks, &program("examples/mpi-collectives"), &[])
}

/// `shardlight-mpi` on so many ranks, on the CPU.
fn shardlight(ranks: usize, args: &[&str]) -> Job {
    Job::new(ranks, &program("shardlight-mpi"), args).env("SHARDLIGHT_DEVICE", "cpu")
}

/// Two ranks with arguments of their own.
fn two(first: &[&str], second: &[&str]) -> End {
    let program = program("shardlight-mpi");
    let job = Job::new(1, &program, first).and(1, &program, second);
    job.env("SHARDLIGHT_DEVICE", "cpu").run()
}

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../core/data/tiny.gguf")
}

#[test]
fn collectives_between_processes_give_the_bits_and_bytes_of_one_process() {
    for ranks in 1..=4 {
        let end = collectives(ranks).run().ok();
        let line = end.stdout.trim();
        assert!(
            line.starts_with("ok: ") && line.ends_with(&format!("among {ranks} ranks")),
            "{end:?}"
        );
    }
}

#[test]
fn a_rank_that_panics_ends_the_job_and_is_named() {
    let (running, _) = started(3, &["panic", "1"]);
    let begin = Instant::now();
    let end = running.wait();
    assert!(!end.success && begin.elapsed() < SOON, "{end:?}");
    assert!(end.stderr.contains("error: rank 1: internal: "), "{end:?}");
}

/// Starts a job, and lists the processes of its ranks when all have come so far as to print them.
fn started(ranks: usize, args: &[&str]) -> (job::Running, Vec<u32>) {
    let mut running = collectives(ranks).args(args).spawn();
    let stdout = running.child.stdout.take().expect("a pipe");
    let mut processes = vec![0; ranks];
    for line in BufReader::new(stdout).lines().take(ranks) {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| {
            words[i]
                .parse::<u32>()
                .unwrap_or_else(|e| panic!("{line}: {e}"))
        };
        processes[number(1) as usize] = number(4);
    }
    (running, processes)
}

fn kill(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(status.expect("kill starts").success());
}

fn is_there(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_killed_rank_ends_the_job_and_is_named() {
    let (running, processes) = started(3, &["wait"]);
    let begin = Instant::now();
    kill("-KILL", processes[1]);
    let end = running.wait();
    assert!(!end.success && begin.elapsed() < SOON, "{end:?}");
    let said = format!("{}{}", end.stdout, end.stderr);
    assert!(
        said.contains("rank 1") && said.contains("signal 9"),
        "{end:?}"
    );
    assert!(
        !processes.iter().any(|process| is_there(*process)),
        "{end:?}"
    );
}

#[test]
fn an_interrupted_job_leaves_no_process() {
    for signal in ["-INT", "-TERM"] {
        let (running, processes) = started(3, &["wait"]);
        let begin = Instant::now();
        kill(signal, running.child.id());
        let end = running.wait();
        assert!(!end.success && begin.elapsed() < SOON, "{signal}: {end:?}");
        assert!(
            !processes.iter().any(|process| is_there(*process)),
            "{signal}: {end:?}"
        );
    }
}

#[test]
fn ranks_with_other_models_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = fs::read(tiny()).expect("the tiny model");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let other = folder.path().join("other.gguf");
    fs::write(&other, bytes).expect("room for a tiny model");
    let (tiny, other) = (tiny(), other);
    let args = |path: &PathBuf| {
        [
            "logits",
            "--tokens",
            "1,2",
            "-m",
            path.to_str().expect("UTF-8"),
        ]
        .map(str::to_owned)
    };
    let (first, second) = (args(&tiny), args(&other));
    let end = two(
        &first.each_ref().map(String::as_str),
        &second.each_ref().map(String::as_str),
    );
    assert!(!end.success, "{end:?}");
    assert_eq!(end.errors(), 1, "{end:?}");
    assert!(
        end.stderr
            .contains("error: rank 1 has another model than rank 0: "),
        "{end:?}"
    );
}

#[test]
fn a_rank_without_the_model_is_named() {
    let tiny = tiny();
    let args = |path| ["logits", "--tokens", "1,2", "-m", path];
    let end = two(&args(tiny.to_str().expect("UTF-8")), &args("no-such.gguf"));
    assert!(!end.success, "{end:?}");
    assert_eq!(end.errors(), 1, "{end:?}");
    assert!(
        end.stderr
            .contains("error: rank 1: model no-such.gguf: no such file"),
        "{end:?}"
    );
}

#[test]
fn ranks_with_other_arguments_are_named() {
    let args = |tokens| ["logits", "-m", "builtin:tiny", "--tokens", tokens];
    let end = two(&args("1,2"), &args("1,3"));
    assert!(!end.success, "{end:?}");
    assert_eq!(end.errors(), 1, "{end:?}");
    assert!(
        end.stderr
            .contains("error: rank 1 has another command line than rank 0: "),
        "{end:?}"
    );
    let end = two(&args("1,2"), &["logits", "--no-such-flag"]);
    assert!(!end.success, "{end:?}");
    assert!(
        end.stderr
            .contains("error: rank 1: unexpected argument '--no-such-flag'"),
        "{end:?}"
    );
}

#[test]
fn help_is_told_once_and_an_error_of_all_too() {
    let help = shardlight(3, &["--help"]).run().ok();
    assert_eq!(
        help.stdout.matches("Usage: shardlight-mpi").count(),
        1,
        "{help:?}"
    );
    let end = shardlight(3, &["list"]).run();
    assert!(!end.success && end.errors() == 1, "{end:?}");
    assert!(
        end.stderr.contains("error: several processes can `run`"),
        "{end:?}"
    );
}
