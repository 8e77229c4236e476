//! A model over processes gives what it gives in one.

use std::process::Stdio;
use std::sync::LazyLock;

use serde_json::Value;
use shardlight_tests::{program, smollm2};

use crate::job::Job;

static SMOLLM2: LazyLock<String> = LazyLock::new(|| smollm2().to_string_lossy().into_owned());

/// 64 tokens of SmolLM2 on the CPU.
pub fn run<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "run", "-m", &SMOLLM2, "--device", "cpu", "--json", "-n", "64",
    ];
    args.extend(more);
    args.push("Write a short story about a fox.");
    args
}

/// Text and tokens of `run --json`.
pub fn answer(stdout: &str) -> (String, Value) {
    assert_eq!(stdout.lines().count(), 1, "only rank 0 speaks: {stdout}");
    let object: Value = serde_json::from_str(stdout).unwrap_or_else(|e| panic!("{stdout}: {e}"));
    let text = object["text"].as_str().expect("a text");
    assert_eq!(
        object["tokens"].as_array().map(Vec::len),
        Some(64),
        "{stdout}"
    );
    (text.to_owned(), object["tokens"].clone())
}

pub fn local(args: &[&str]) -> String {
    let mut command = shardlight_tests::shardlight();
    command.args(args).stderr(Stdio::inherit());
    let output = command.output().expect("shardlight starts");
    assert!(output.status.success(), "{args:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What one process without ranks answers.
pub fn alone() -> (String, Value) {
    static ALONE: LazyLock<(String, Value)> = LazyLock::new(|| answer(&local(&run(&[]))));
    ALONE.clone()
}

#[test]
fn three_processes_write_what_one_does() {
    for layout in [&[][..], &["--tp", "3"], &["--pp", "3"], &["--sp"]] {
        let end = Job::new(3, &program("shardlight-mpi"), &run(layout))
            .run()
            .ok();
        assert_eq!(answer(&end.stdout), alone(), "{layout:?}");
    }
}

#[test]
fn logits_have_the_bits_of_ranks_in_one_process() {
    for (ranks, layout) in [
        (2, &["--tp", "2"][..]),
        (2, &["--pp", "2"]),
        (3, &["--tp", "3", "--split", "0.5,0.3,0.2"]),
        (4, &["--tp", "2", "--pp", "2", "--sp"]),
    ] {
        let mut args = vec!["logits", "-m", &SMOLLM2, "--device", "cpu"];
        args.extend(["--tokens", "504,3575,282,4649,314,7042,30"]);
        args.extend(layout);
        let end = Job::new(ranks, &program("shardlight-mpi"), &args)
            .run()
            .ok();
        assert_eq!(end.stdout.lines().count(), 49152, "{layout:?}");
        assert!(end.stdout == local(&args), "{layout:?}: other bits");
    }
}

#[test]
fn tokens_go_to_their_experts_in_other_processes() {
    for (ranks, layout) in [
        (2, ["--tp", "2", "--ep", "2"]),
        (4, ["--tp", "4", "--ep", "2"]),
    ] {
        let tokens: Vec<String> = (0..23).map(|i| (i * 37 % 1000 + 3).to_string()).collect();
        let tokens = tokens.join(",");
        let mut args = vec![
            "logits",
            "-m",
            "builtin:tiny-moe",
            "--device",
            "cpu",
            "--sp",
        ];
        args.extend(["--tokens", &tokens]);
        args.extend(layout);
        let end = Job::new(ranks, &program("shardlight-mpi"), &args)
            .run()
            .ok();
        assert_eq!(end.stdout.lines().count(), 1024, "{layout:?}");
        assert!(end.stdout == local(&args), "{layout:?}: other bits");
    }
}

#[test]
fn random_choices_are_the_same_on_all_ranks() {
    // Without a seed each rank would take the time.
    let mut args = vec!["run", "-m", "builtin:tiny", "--device", "cpu", "--json"];
    args.extend(["-n", "32", "--temp", "1", "Once upon a time"]);
    let end = Job::new(2, &program("shardlight-mpi"), &args).run().ok();
    let object: Value = serde_json::from_str(&end.stdout).expect("an object");
    assert!(
        !object["tokens"].as_array().expect("tokens").is_empty(),
        "{object}"
    );
}

#[test]
fn a_layout_of_another_size_says_both_numbers() {
    for (layout, told) in [
        (["--tp", "2"], "tp 2 is a layout of 2 ranks, there are 3"),
        (["--pp", "2"], "pp 2 is a layout of 2 ranks, there are 3"),
    ] {
        let end = Job::new(3, &program("shardlight-mpi"), &run(&layout)).run();
        assert!(!end.success && end.stderr.contains(told), "{end:?}");
    }
}
