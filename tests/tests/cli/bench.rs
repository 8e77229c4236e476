//! `shardlight bench` from outside: speeds, what they are held against, and the device's own limits.

use serde_json::Value;

use crate::{json, tiny};

fn number(line: &Value, name: &str) -> f64 {
    let found = line[name].as_f64();
    found.unwrap_or_else(|| panic!("no number {name}: {line}"))
}

#[test]
fn bench_reports_medians_between_the_extremes() {
    let args = [
        "--device", "cpu", "--prompt", "8,16", "--gen", "4", "--reps", "3", "--json",
    ];
    let object = json(&tiny("bench", &args).run().ok());
    let results = object["results"].as_array().unwrap();
    let names: Vec<_> = results
        .iter()
        .map(|line| line["test"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["pp8", "pp16", "tg4"]);
    for line in results {
        let speed = |name: &str| number(line, name);
        assert!(
            0.0 < speed("min") && speed("min") <= speed("median"),
            "{line}"
        );
        assert!(speed("median") <= speed("max"), "{line}");
        assert_eq!(line["runs"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn bench_says_what_a_token_needs_and_what_is_reached() {
    let args = [
        "--device", "cpu", "--prompt", "8", "--gen", "4", "--reps", "1", "--json",
    ];
    let object = json(&tiny("bench", &args).run().ok());
    assert!(object["limits"].is_null(), "{object}");
    let results = object["results"].as_array().expect("results");
    let info = json(&tiny("info", &["--json"]).run().ok());
    let file = number(&info, "bytes");
    for (line, tokens) in results.iter().zip([8.0, 1.0]) {
        let weights = number(line, "weight_bytes_per_token");
        // All of the file's tensors once, and a row of the embedding for each token: 4 blocks of 34 bytes.
        assert_eq!(weights, file / tokens + 136.0, "{line}");
        let bytes = weights + number(line, "cache_bytes_per_token");
        let reached = bytes * number(line, "median") / 1e9;
        let told = number(line, "gb_per_second");
        assert!((told / reached - 1.0).abs() < 1e-9, "{line}");
        let reached = number(line, "flops_per_token") * number(line, "median") / 1e12;
        let told = number(line, "tflops_per_second");
        assert!((told / reached - 1.0).abs() < 1e-9, "{line}");
        assert!(line["percent_of_copy"].is_null(), "{line}");
    }
}

#[test]
fn bench_measures_the_limits_of_the_device() {
    let args = [
        "--device",
        "cpu",
        "--prompt",
        "4",
        "--gen",
        "4",
        "--reps",
        "1",
        "--limits=2MiB",
    ];
    let object = json(&tiny("bench", &args).arg("--json").run().ok());
    let limits = &object["limits"];
    assert_eq!(limits["copy_bytes"], 2 << 20, "{object}");
    let copy = number(limits, "copy_gb_per_second");
    let [prefill, decode] = [0, 1].map(|i| &object["results"][i]);
    assert!(prefill["percent_of_copy"].is_null(), "{object}");
    let percent = 100.0 * number(decode, "gb_per_second") / copy;
    let told = number(decode, "percent_of_copy");
    assert!(
        copy > 0.0 && (told / percent - 1.0).abs() < 1e-9,
        "{object}"
    );

    let table = tiny("bench", &args).run().ok().stdout;
    for text in ["copying 2.0 MiB: ", "GB/s", "TFLOP/s", "of copy", "%"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    // Ranks that share the device have its limits.
    let ranks = tiny("bench", &args).arg("--tp").arg("2").run().ok();
    assert!(ranks.stdout.contains("of copy"), "{ranks:?}");
}
