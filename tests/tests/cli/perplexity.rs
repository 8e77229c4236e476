//! `shardlight perplexity` from outside: what `logits --all` says of the same windows.

use std::fs;

use serde_json::Value;

use crate::{json, tiny};

fn number(object: &Value, name: &str) -> f64 {
    object[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {name}: {object}"))
}

/// Natural logarithm of the probability of `next` by these logits.
fn log(logits: &[f64], next: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits[next] - largest - logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln()
}

#[test]
fn a_text_is_as_surprising_as_its_logits_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.txt");
    let story = "Once upon a time there was a fox who lived in a den near the river. The fox had a friend, a small bird. ";
    fs::write(&path, story.repeat(4)).unwrap();
    let file = path.to_str().unwrap();
    let tokens = json(&tiny("tokenize", &["--json", &story.repeat(4)]).run().ok());
    let tokens: Vec<u32> = (tokens["tokens"].as_array().unwrap().iter())
        .map(|t| t["id"].as_u64().or(t.as_u64()).unwrap() as u32)
        .collect();
    for (more, length, step, first) in [
        (&[][..], 24, 24, 13),
        (&["--stride", "8"], 24, 8, 16),
        (&["--tp", "2", "--stride", "8"], 24, 8, 16),
    ] {
        let args = [
            &[
                "-f", file, "--window", "24", "--chunks", "3", "--json", "--device", "cpu", "--kv",
                "f32",
            ],
            more,
        ]
        .concat();
        let told = json(&tiny("perplexity", &args).run().ok());
        let mut logs = Vec::new();
        for i in 0..3 {
            // This model has no token that every text begins with.
            let window = &tokens[i * step..][..length];
            let ids: Vec<_> = window.iter().map(u32::to_string).collect();
            let args = [
                "--tokens",
                &ids.join(","),
                "--all",
                "--json",
                "--device",
                "cpu",
                "--kv",
                "f32",
            ];
            let rows = json(&tiny("logits", &args).run().ok());
            for place in first..length {
                let row: Vec<f64> = (rows["logits"][place - 1].as_array().unwrap().iter())
                    .map(|l| l.as_f64().unwrap())
                    .collect();
                logs.push(-log(&row, window[place] as usize));
            }
        }
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let squares = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / logs.len() as f64;
        let want = (
            mean.exp(),
            (squares / (logs.len() - 1) as f64).sqrt() * mean.exp(),
        );
        for (name, want) in [("perplexity", want.0), ("error", want.1)] {
            let got = number(&told, name);
            assert!(
                (got / want - 1.0).abs() < 1e-4,
                "{name} {got}, expected {want}: {told}"
            );
        }
        assert_eq!(number(&told, "counted"), logs.len() as f64);
        assert_eq!(
            (number(&told, "windows"), number(&told, "tokens")),
            (3.0, tokens.len() as f64)
        );
    }
    let plain = tiny(
        "perplexity",
        &["-f", file, "--window", "24", "--device", "cpu"],
    )
    .run()
    .ok();
    assert!(
        plain.stdout.starts_with("perplexity ") && plain.stdout.contains(" +/- "),
        "{plain:?}"
    );
}

#[test]
fn texts_that_are_too_short_and_files_that_are_none_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.txt");
    fs::write(&short, "Once upon a time").unwrap();
    let bytes = folder.path().join("bytes.txt");
    fs::write(&bytes, [0xff, 0xfe, 0x41]).unwrap();
    let cases = [
        (&short, &[][..], 2, "a window 512; give a longer text"),
        (
            &short,
            &["--window", "8", "--stride", "8"],
            2,
            "need a stride of less",
        ),
        (&bytes, &[], 1, "bytes.txt"),
        (&folder.path().join("none.txt"), &[], 1, "none.txt"),
    ];
    for (path, more, code, words) in cases {
        let args = [
            &["-f", path.to_str().unwrap(), "--device", "cpu", "--quiet"],
            more,
        ]
        .concat();
        let end = tiny("perplexity", &args).run();
        assert_eq!(end.code, Some(code), "{end:?}");
        assert!(
            end.stdout.is_empty() && end.stderr.contains(words),
            "{words:?} in {end:?}"
        );
        assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    }
}
