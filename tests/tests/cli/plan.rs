//! `shardlight plan` and `shardlight info --tp` from outside.

use std::fs;

use serde_json::Value;

use super::{TINY, json};
use crate::program::Program;

fn plan(args: &[&str]) -> Program {
    let mut all = vec!["plan"];
    all.extend(args);
    Program::new(&all)
}

#[test]
fn a_plan_says_memory_bytes_and_times() {
    let layout = ["--shape", "llama3-70b", "--tp", "8", "--pp", "2"];
    let table = plan(&layout).run().ok();
    for text in [
        "llama3-70b f16, tp 8 x pp 2 (16 ranks)",
        "all_reduce",
        "lost to communication",
    ] {
        assert!(table.stdout.contains(text), "{text}: {table:?}");
    }
    let mut args = layout.to_vec();
    args.push("--json");
    let plan = json(&plan(&args).run().ok())["plan"].clone();
    assert_eq!((&plan["ranks"], &plan["fits"]), (&16.into(), &true.into()));
    let weights: u64 = plan["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["weights"].as_u64().unwrap() * kind["ranks"].as_u64().unwrap())
        .sum();
    assert!((weights as f64 / 141.1e9 - 1.0).abs() < 0.01, "{weights}");
    assert!(plan["decode"]["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_trace_has_a_lane_for_each_rank() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let path = path.to_str().unwrap();
    plan(&["-m", TINY, "--tp", "2", "--pp", "2", "--trace", path])
        .run()
        .ok();
    let trace: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for rank in 0..4 {
        let of = |e: &&Value| e["ph"] == "X" && e["tid"] == rank;
        assert!(
            events
                .iter()
                .filter(of)
                .all(|e| e["dur"].as_f64().unwrap() > 0.0)
        );
        assert!(events.iter().any(|e| of(&e)), "rank {rank}");
    }
}

#[test]
fn a_sweep_tries_every_layout() {
    let end = plan(&["--shape", "llama2-7b", "--sweep", "4", "--json"])
        .run()
        .ok();
    let layouts = json(&end)["layouts"].as_array().unwrap().clone();
    assert_eq!(layouts.len(), 6);
    assert!(
        layouts
            .iter()
            .any(|l| l["best"] == true && l["layout"] == "tp 4")
    );
}

#[test]
fn predictions_are_checked_against_measurements() {
    let args = [
        "-m",
        TINY,
        "--check",
        "--device",
        "measured:cpu",
        "--prompt",
        "8",
        "--json",
    ];
    let steps = json(&plan(&args).run().ok())["steps"]
        .as_array()
        .unwrap()
        .clone();
    for (step, tp) in steps.iter().zip(1..) {
        assert_eq!(step["tp"], tp);
        let [predicted, measured, error] =
            ["predicted_ms", "measured_ms", "error"].map(|name| step[name].as_f64().unwrap());
        assert!(predicted > 0.0 && measured > 0.0, "{step}");
        assert!((predicted / measured - 1.0 - error).abs() < 1e-9, "{step}");
    }
    assert_eq!(steps.len(), 3);
}

#[test]
fn what_is_not_known_names_what_is() {
    for (args, text) in [
        (&["--shape", "gpt-9"][..], "llama3-70b"),
        (&["--shape", "llama2-7b", "--device", "tpu"], "h100"),
        (&["--shape", "llama2-7b", "--link", "string"], "nvlink4"),
        (&["--shape", "llama2-7b", "--type", "q9"], "q4_0"),
        (&["--shape", "llama2-7b", "--tp", "33"], "cannot split"),
        (
            &["--shape", "llama2-7b", "--pp", "64"],
            "layers: cannot split 32",
        ),
        (
            &["--shape", "llama2-7b", "--ctx", "100000"],
            "allows 1 to 4096",
        ),
        (
            &["--shape", "llama2-7b", "--tp", "3", "--split", "0.5,0.5"],
            "2 shares given for 3",
        ),
        (&[], "--shape"),
        (&["--shape", "llama2-7b", "--check"], "--check"),
    ] {
        let end = plan(args).run();
        assert!(
            end.code != Some(0) && end.stdout.is_empty(),
            "{args:?}: {end:?}"
        );
        assert!(
            end.stderr.starts_with("error: ") && end.stderr.contains(text),
            "{args:?}: {end:?}"
        );
    }
    let list = plan(&["--list"]).run().ok();
    for text in ["smollm2-135m", "rtx4090", "webrtc"] {
        assert!(list.stdout.contains(text), "{text}");
    }
}

#[test]
fn info_shows_what_each_rank_would_hold() {
    for (args, ranks) in [
        (&["--tp", "2"][..], 2),
        (&["--pp", "2"], 2),
        (&["--tp", "2", "--pp", "2"], 4),
    ] {
        let mut all = vec!["info", "-m", TINY, "--json"];
        all.extend(args);
        let info = json(&Program::new(&all).run().ok());
        let shards = info["shards"].as_array().unwrap();
        assert_eq!(shards.len(), ranks, "{args:?}");
        let sum = |name: &str| -> u64 { shards.iter().map(|s| s[name].as_u64().unwrap()).sum() };
        let whole = info["bytes"].as_u64().unwrap();
        assert!(sum("bytes") >= whole, "{args:?}: {} {whole}", sum("bytes"));
        let most = whole as f64 * 1.05 + sum("replicated") as f64;
        assert!(
            sum("bytes") as f64 <= most,
            "{args:?}: {} {whole}",
            sum("bytes")
        );
    }
    let table = Program::new(&["info", "-m", TINY, "--tp", "2"]).run().ok();
    assert!(table.stdout.contains("held by several ranks"), "{table:?}");
    let whole = json(&Program::new(&["info", "-m", TINY, "--json"]).run().ok());
    assert!(whole.get("shards").is_none());
    let many = Program::new(&["info", "-m", TINY, "--tp", "1000"]).run();
    assert!(many.stderr.contains("cannot split"), "{many:?}");
}
