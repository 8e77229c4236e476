//! NCCL between processes, one for each CUDA device, where there are several or what stands in for them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use shardlight_tests::cuda::{nccl_counters, several};
use shardlight_tests::program;

use crate::job::{End, Job};
use crate::model::local;

fn run(ranks: usize, model: &str, more: &[&str]) -> Job {
    let mut args = vec!["run", "-m", model, "--json", "-n", "16"];
    args.extend(more);
    args.push("Once upon a time");
    Job::new(ranks, &program("shardlight-mpi"), &args)
}

fn tokens(stdout: &str) -> (Value, String) {
    let object: Value = serde_json::from_str(stdout).unwrap_or_else(|e| panic!("{stdout}: {e}"));
    (object["tokens"].clone(), object["device"].to_string())
}

/// A job whose rank has failed is over by then, its start included.
const SOON: Duration = Duration::from_secs(30);

const DEVICES: [&str; 2] = ["--devices", "cuda:0,cuda:1,cuda:2,cuda:3"];

#[test]
fn processes_joined_by_nccl_write_what_one_does() {
    if !several(4) {
        return;
    }
    for (ranks, model, layout) in [
        (
            2,
            "builtin:tiny",
            &["--tp", "2", "--devices", "cuda:0,cuda:1"][..],
        ),
        (
            4,
            "builtin:tiny",
            &["--tp", "2", "--pp", "2", "--sp", DEVICES[0], DEVICES[1]],
        ),
        (
            4,
            "builtin:tiny-moe",
            &["--tp", "4", "--ep", "2", "--sp", DEVICES[0], DEVICES[1]],
        ),
    ] {
        let (want, _) = tokens(&local(&[
            "run",
            "-m",
            model,
            "--json",
            "-n",
            "16",
            "--device",
            "cpu",
            "Once upon a time",
        ]));
        let end = run(ranks, model, &[layout, &["--comm", "nccl"]].concat())
            .run()
            .ok();
        let (got, device) = tokens(&end.stdout);
        assert_eq!(got, want, "{layout:?}");
        assert!(device.contains("joined by NCCL"), "{device}");
    }
    // Between CUDA and other devices it is MPI.
    let mixed = [
        "--tp",
        "2",
        "--pp",
        "2",
        "--devices",
        "cuda:0,cuda:1,cpu,cpu",
    ];
    let (want, _) = tokens(
        &run(
            4,
            "builtin:tiny",
            &["--device", "cpu", "--tp", "2", "--pp", "2"],
        )
        .run()
        .ok()
        .stdout,
    );
    let (got, device) = tokens(&run(4, "builtin:tiny", &mixed).run().ok().stdout);
    assert_eq!(got, want);
    assert!(device.contains("joined by NCCL"), "{device}");
}

#[test]
fn processes_that_cannot_be_joined_say_why_once() {
    if !several(2) {
        return;
    }
    let tell = |end: &End, reason: &str| {
        assert!(!end.success && end.errors() == 1, "{end:?}");
        assert!(end.stderr.contains(reason), "{end:?}");
    };
    let end = run(2, "builtin:tiny", &["--comm", "nccl", "--device", "cuda"]).run();
    tell(&end, "error: nccl: ranks 0 and 1 are both on one device, ");
    let end = run(
        2,
        "builtin:tiny",
        &["--comm", "nccl", "--devices", "cuda,cpu"],
    )
    .run();
    tell(&end, "error: nccl: rank 1 is on ");
}

#[test]
fn a_collective_that_fails_on_one_rank_ends_the_job() {
    if !several(2) || nccl_counters().is_none() {
        return;
    }
    let program = program("shardlight-mpi");
    let rest = [
        "run",
        "-m",
        "builtin:tiny",
        "--comm",
        "nccl",
        "--devices",
        "cuda:0,cuda:1",
        "Once upon a time",
    ];
    let failing = program.to_string_lossy();
    let failing = [&["SHARDLIGHT_NCCL_HOST_FAIL=7", &failing], &rest[..]].concat();
    let job = Job::new(1, Path::new("env"), &failing).and(1, &program, &rest);
    let begin = Instant::now();
    let end = job.run();
    assert!(!end.success && begin.elapsed() < SOON, "{end:?}");
    let line = "error: rank 0: NCCL: ncclGroupEnd: internal error: asked to fail";
    assert!(end.stderr.contains(line), "{end:?}");
}
