//! `--profile FILE`: a timeline, a table, and the same in `--json`.

use std::fs;

use serde_json::Value;

use crate::{json, tiny};

fn trace(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let object: Value = serde_json::from_str(&text).unwrap();
    object["traceEvents"].as_array().unwrap().clone()
}

#[test]
fn an_answer_is_measured_kernel_by_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answer.json");
    let file = path.to_str().unwrap();
    let args = [
        "--device",
        "cpu",
        "--temp",
        "0",
        "-n",
        "8",
        "--profile",
        file,
        "Hello",
    ];
    let end = tiny("run", &args).run().ok();
    let plain = tiny(
        "run",
        &["--device", "cpu", "--temp", "0", "-n", "8", "Hello"],
    )
    .run()
    .ok();
    assert_eq!(end.stdout, plain.stdout);
    for word in [
        "prefill: ",
        "decode: 7 tokens in 8 steps",
        "kernel  ",
        "  attention  ",
        "GB/s",
        "ui.perfetto.dev",
    ] {
        assert!(end.stderr.contains(word), "{word:?} in {}", end.stderr);
    }
    let events = trace(&path);
    let spans: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
    assert!(
        end.stderr.contains(&format!("{} calls", spans.len())),
        "{}",
        end.stderr
    );
    assert!(
        spans
            .iter()
            .any(|e| e["cat"] == "decode" && e["name"] == "attention")
    );
    assert!(
        spans
            .iter()
            .all(|e| e["ts"].as_f64() >= Some(0.0) && e["dur"].as_f64() >= Some(0.0))
    );

    let mut args = args.to_vec();
    args.push("--json");
    let object = json(&tiny("run", &args).run().ok());
    let kernels = object["profile"]["kernels"].as_array().unwrap();
    assert!(kernels.iter().any(|k| k["kernel"] == "attention"
        && k["stage"] == "prefill"
        && k["bytes"].as_u64() > Some(0)));
    assert_eq!(
        object["profile"]["stages"].as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn one_more_run_of_each_test_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.json");
    let args = [
        "--device",
        "cpu",
        "--prompt",
        "8",
        "--gen",
        "4",
        "--reps",
        "2",
        "--json",
        "--profile",
        path.to_str().unwrap(),
    ];
    let object = json(&tiny("bench", &args).run().ok());
    assert_eq!(
        object["results"][0]["runs"].as_array().map(Vec::len),
        Some(2)
    );
    // Eight tokens, and one before the four that are written.
    assert_eq!(object["profile"]["stages"][0]["tokens"], 8 + 1);
    assert_eq!(object["profile"]["stages"][1]["tokens"], 4);
    let begins: Vec<f64> = trace(&path)
        .iter()
        .filter_map(|e| e["ts"].as_f64())
        .collect();
    assert!(begins.is_sorted() && begins.len() > 50, "{begins:?}");
}

#[test]
fn a_file_that_cannot_be_written_costs_no_answer() {
    let end = tiny("run", &["--profile", "/no/such/folder/p.json", "Hello"]).run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stdout.is_empty() && end.stderr.contains("/no/such/folder/p.json"),
        "{end:?}"
    );
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    let end = tiny("run", &["--profile", "p.json", "--prompts", "x.txt"]).run();
    assert_eq!(end.code, Some(2), "{end:?}");
}
