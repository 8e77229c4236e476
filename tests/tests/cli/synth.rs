//! `shardlight synth` from outside.

use std::fs;

use super::{TINY, json};
use crate::program::Program;

fn synth(args: &[&str]) -> Program {
    let mut all = vec!["synth"];
    all.extend(args);
    Program::new(&all)
}

/// What a failing program says on standard error.
fn told(mut program: Program, code: i32) -> String {
    let end = program.run();
    assert_eq!((end.code, end.stdout.as_str()), (Some(code), ""), "{end:?}");
    end.stderr
}

#[test]
fn an_upcycled_model_answers_as_the_dense_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("moe.gguf");
    let path = path.to_str().expect("UTF-8");
    let made = synth(&["--upcycle", TINY, "--experts", "5", "-k", "3", path])
        .run()
        .ok();
    assert_eq!(made.stdout.trim(), path);
    let answer = |model: &str| {
        let args = [
            "run",
            "-m",
            model,
            "--device",
            "cpu",
            "--temp",
            "0",
            "-n",
            "32",
            "Tell me a story",
        ];
        Program::new(&args).run().ok().stdout
    };
    assert_eq!(answer(path), answer(TINY));
    let config = json(&Program::new(&["info", "-m", path, "--json"]).run().ok())["config"].clone();
    let fields = [
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
    ];
    assert_eq!(
        fields.map(|name| config[name].as_u64()),
        [5, 3, 384].map(Some)
    );

    let before = fs::read(path).expect("a file");
    let said = told(synth(&["--upcycle", TINY, path]), 2);
    assert!(
        said.contains("is there already; --force writes over it"),
        "{said}"
    );
    assert_eq!(fs::read(path).expect("a file"), before);
    let said = told(synth(&["--upcycle", path, "--force", path]), 1);
    assert!(said.contains("already a mixture of experts"), "{said}");
    assert_eq!(fs::read(path).expect("a file"), before, "nothing lost");
    for (experts, k) in [("2", "3"), ("0", "1"), ("513", "1"), ("4", "0")] {
        let args = [
            "--upcycle",
            TINY,
            "--experts",
            experts,
            "-k",
            k,
            "--force",
            path,
        ];
        let said = told(synth(&args), 1);
        let want = format!("{k} of {experts} experts; there can be 512");
        assert!(said.contains(&want), "{said}");
    }
    // A file of a likely name is nobody's but the user's.
    let other = format!("{path}.part");
    fs::write(&other, "mine").expect("writes");
    told(synth(&["--upcycle", TINY, "-k", "9", "--force", path]), 1);
    synth(&["--upcycle", TINY, "--force", path]).run().ok();
    assert_eq!(fs::read(&other).expect("a file"), b"mine");
    fs::remove_file(&other).expect("removes");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "nothing is left behind: {left:?}");
}

#[test]
fn experts_are_counted_when_asked_for() {
    let run = |more: &[&str]| {
        let args = [
            "run",
            "-m",
            "builtin:tiny-moe",
            "--device",
            "cpu",
            "--raw",
            "-n",
            "16",
        ];
        let args: Vec<_> = (args.iter().chain(more).copied())
            .chain(["Once upon a time"])
            .collect();
        Program::new(&args).run().ok()
    };
    let plain = json(&run(&["--json"]));
    assert!(plain.get("experts").is_none(), "{plain}");
    let object = json(&run(&["--json", "--expert-stats"]));
    assert_eq!(object["text"], plain["text"]);
    let experts = &object["experts"];
    // The last token is not computed.
    let tokens = object["timings"]["prefill_tokens"].as_u64().unwrap() + 15;
    assert_eq!(experts["tokens"].as_u64(), Some(tokens), "{experts}");
    assert_eq!(experts["count"], 8, "{experts}");
    let layers = experts["layers"].as_array().unwrap();
    let chosen = experts["chosen"].as_array().unwrap();
    assert_eq!(chosen.len(), layers.len(), "{experts}");
    for chosen in chosen {
        let chosen: Vec<u64> = (chosen.as_array().unwrap().iter())
            .map(|n| n.as_u64().unwrap())
            .collect();
        assert_eq!(
            (chosen.len(), chosen.iter().sum()),
            (8, 2 * tokens),
            "{experts}"
        );
    }

    let said = run(&["--expert-stats"]);
    assert_eq!(said.stdout.trim_end(), object["text"].as_str().unwrap());
    let lines: Vec<_> = said.stderr.lines().collect();
    let first = lines.iter().position(|line| line.starts_with("layer 0 "));
    let first = first.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(
        lines[first - 1],
        format!("tokens of each of 8 experts, of {tokens} tokens")
    );
    assert!(lines[first + layers.len()].starts_with("all "), "{lines:?}");
}

#[test]
fn experts_that_stay_in_the_file_answer_as_those_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("moe.gguf");
    let path = path.to_str().expect("UTF-8");
    synth(&["--upcycle", TINY, "--experts", "8", "-k", "2", path])
        .run()
        .ok();
    let run = |more: &[&str]| {
        let args = ["run", "-m", path, "--device", "cpu", "-n", "24", "--json"];
        let args: Vec<_> = args
            .iter()
            .chain(more)
            .copied()
            .chain(["Tell me a story"])
            .collect();
        Program::new(&args)
    };
    let whole = json(&run(&[]).run().ok());
    assert!(whole.get("expert_cache").is_none(), "{whole}");
    let paged = json(&run(&["--expert-cache", "1MiB"]).run().ok());
    assert_eq!(paged["text"], whole["text"]);
    let used = &paged["expert_cache"];
    let number = |name: &str| {
        used[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {used}"))
    };
    assert!(
        number("bytes") <= 1 << 20 && number("slots") < number("experts"),
        "{used}"
    );
    assert!(number("hits") > 0 && number("misses") > 0, "{used}");
    let rate = number("hits") as f64 / (number("hits") + number("misses")) as f64;
    assert_eq!(used["hit_rate"].as_f64(), Some(rate));
    assert!(
        number("bytes_read") >= number("misses") * number("bytes") / number("slots"),
        "{used}"
    );

    let said = told(run(&["--expert-cache", "1kB"]), 1);
    assert!(
        said.contains("expert cache: 1000 bytes have room for 0 experts of "),
        "{said}"
    );
    assert!(said.contains("needs 2 of them; use at least "), "{said}");
    told(run(&["--expert-cache", "some"]), 2);
}

#[test]
fn a_shape_of_random_weights_is_a_model_for_bench() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("random.gguf");
    let path = path.to_str().expect("UTF-8");
    let made = ["--shape", "smollm2-135m", "--type", "q4_1", path];
    assert_eq!(synth(&made).run().ok().stdout.trim(), path);
    let info = json(&Program::new(&["info", "-m", path, "--json"]).run().ok());
    assert_eq!(info["config"]["hidden_size"].as_u64(), Some(576));
    assert_eq!(info["parameters"].as_u64(), Some(134_515_008));
    let bench = [
        "bench", "-m", path, "--device", "cpu", "--prompt", "4", "--gen", "4", "--reps", "1",
        "--json",
    ];
    let lines = json(&Program::new(&bench).run().ok())["results"].clone();
    assert!(lines[0]["median"].as_f64() > Some(0.0), "{lines}");

    let said = told(synth(&["--shape", "nobody", "--force", path]), 1);
    assert!(said.contains("llama3-8b"), "{said}");
    let said = told(
        synth(&["--shape", "smollm2-135m", "--type", "q9", "--force", path]),
        2,
    );
    assert!(said.contains("supported: f32"), "{said}");
    let said = told(synth(&["--shape", "mixtral-8x7b", "--force", path]), 1);
    assert!(said.contains("--upcycle"), "{said}");
    told(synth(&[path]), 2);
}
