//! Sharded models from outside: the same answers, and how a layout that cannot be fails.

use std::fs;

use serde_json::Value;

use crate::program::Program;
use crate::{json, tiny};

const CPU: [&str; 2] = ["--device", "cpu"];

fn answer(more: &[&str]) -> Value {
    let args = [
        &["-n", "24", "--json", "Tell me a story about a fox."],
        more,
    ]
    .concat();
    json(&tiny("run", &args).run().ok())
}

#[test]
fn a_sharded_model_says_the_same() {
    let whole = answer(&CPU);
    assert!(whole["tokens"].as_array().unwrap().len() > 8, "{whole}");
    for layout in [
        &["--tp", "2", "--device", "cpu"][..],
        &["--pp", "2", "--device", "cpu"],
        &["--tp", "2", "--sp", "--device", "cpu"],
        &["--tp", "2", "--pp", "2", "--devices", "cpu"],
        &["--tp", "2", "--devices", "cpu", "--split", "0.7,0.3"],
        &["--tp", "2", "--devices", "cpu", "--split", "auto"],
    ] {
        let sharded = answer(layout);
        assert_eq!(sharded["tokens"], whole["tokens"], "{layout:?}");
        assert_eq!(sharded["text"], whole["text"], "{layout:?}");
        let device = sharded["device"].as_str().unwrap();
        assert!(device.contains("p 2"), "{device}");
    }
}

#[test]
fn the_builtin_mixture_says_the_same_with_experts_apart() {
    let answer = |more: &[&str]| {
        let args = [
            &["run", "-m", "builtin:tiny-moe", "--device", "cpu"][..],
            &["-n", "24", "--json", "Tell me a story about a fox."],
            more,
        ];
        json(&Program::new(&args.concat()).run().ok())
    };
    let whole = answer(&[]);
    assert!(whole["text"].as_str().unwrap().contains("fox"), "{whole}");
    for ranks in ["2", "4"] {
        let apart = answer(&["--tp", ranks, "--ep", ranks]);
        assert_eq!(apart["tokens"], whole["tokens"], "ep {ranks}");
    }
}

#[test]
fn replicas_answer_the_prompts_of_a_file_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.txt");
    let prompts = [
        "Tell me a story about a fox.",
        "What is two and two?",
        "Hello.",
        "A bird sings.",
    ];
    fs::write(&file, prompts.join("\n\n")).unwrap();
    let file = file.to_str().unwrap();
    let answers = |replicas| {
        let args = [
            "--prompts",
            file,
            "--dp",
            replicas,
            "-n",
            "12",
            "--json",
            "--device",
            "cpu",
        ];
        json(&tiny("run", &args).run().ok())
    };
    let (one, three) = (answers("1"), answers("3"));
    assert_eq!(one["answers"], three["answers"]);
    let first = &one["answers"][0];
    assert_eq!(first["prompt"], prompts[0]);
    let alone = answer(&CPU);
    let tokens = first["tokens"].as_array().unwrap();
    assert_eq!(
        tokens[..],
        alone["tokens"].as_array().unwrap()[..tokens.len()]
    );
    assert_eq!(one["answers"].as_array().unwrap().len(), prompts.len());

    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "\n \n").unwrap();
    let end = tiny("run", &["--prompts", empty.to_str().unwrap()]).run();
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(end.stderr.contains("holds no prompts"), "{end:?}");
}

#[test]
fn a_layout_that_cannot_be_is_one_line_with_its_numbers() {
    for (args, code, text) in [
        (&["--tp", "99", "x"][..], 1, "attention heads: cannot split"),
        (&["--pp", "99", "x"], 1, "layers: cannot split"),
        (&["--tp", "0", "x"], 2, "--tp"),
        (
            &["--tp", "2", "--devices", "cpu,cpu,cpu", "x"],
            1,
            "3 devices for the 2 ranks of tp 2",
        ),
        (&["--tp", "2", "--devices", "gpu:99", "x"], 1, "gpu:99"),
        (&["--tp", "2", "--devices", "cpu,tpu", "x"], 2, "tpu"),
        (
            &["--tp", "3", "--split", "0.7,0.3", "x"],
            1,
            "2 shares for tp 3",
        ),
        (&["--split", "0.7,-1", "x"], 2, "not a number above 0"),
        (&["--split", "most", "x"], 2, "even, auto, shares"),
        (&["--dp", "2", "x"], 2, "run --prompts FILE"),
        (
            &["--device", "cpu", "--devices", "cpu", "x"],
            2,
            "--devices",
        ),
    ] {
        let end = tiny("run", args).run();
        assert_eq!(end.code, Some(code), "{args:?}: {end:?}");
        assert_eq!(end.stdout, "", "{args:?}");
        // Which device was taken may be said before.
        let mut lines = end.stderr.lines();
        let told = lines.any(|line| line.starts_with("error: ") && line.contains(text));
        assert!(told, "{args:?}: {end:?}");
    }
    let end = Program::new(&["bench", "-m", "builtin:tiny", "--dp", "2"]).run();
    assert_eq!(end.code, Some(2), "{end:?}");
}
