//! `shardlight op` from outside: the list, a call, a check, and how each fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use shardlight::ops::{Array, TensorFile};
use shardlight_tests::data;

use crate::program::Program;

fn layer(name: &str) -> String {
    data().join("layers").join(name).display().to_string()
}

/// A folder of this test's own, emptied.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It need not be there.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder can be made");
    folder
}

fn file(tensors: &[(&str, Array)], metadata: &[(&str, &str)]) -> Vec<u8> {
    let tensors = tensors.iter().map(|(n, a)| ((*n).to_owned(), a.clone()));
    let metadata = metadata
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let file = TensorFile {
        metadata: metadata.collect::<BTreeMap<_, _>>(),
        tensors: tensors.collect(),
    };
    file.write().expect("the types can be stored")
}

#[test]
fn the_list_says_inputs_settings_and_outputs() {
    let table = Program::new(&["op", "--list"]).run().ok();
    for line in [
        "rms_norm  y = x",
        "    in   x (... K)",
        "    set  eps = 1e-5",
    ] {
        assert!(table.stdout.contains(line), "{line}: {table:?}");
    }
    let one = Program::new(&["op", "--list", "RMSNorm"]).run().ok();
    assert!(one.stdout.starts_with("rms_norm  ") && !one.stdout.contains("layer_norm  "));
    let end = Program::new(&["op", "--list", "--json"]).run().ok();
    let list: Value = serde_json::from_str(&end.stdout).expect("it is JSON");
    let norm = list["ops"]
        .as_array()
        .expect("ops")
        .iter()
        .find(|op| op["name"] == "rms_norm");
    let norm = norm.expect("rms_norm is there");
    assert_eq!(norm["inputs"][0]["shape"], "any");
    assert_eq!(norm["settings"][0]["default"], 1e-5);
}

#[test]
fn a_call_writes_what_it_computed() {
    let folder = folder("cli_op_call");
    let (input, output) = (folder.join("x.safetensors"), folder.join("y.safetensors"));
    let bytes = file(&[("hidden", Array::f32(&[1, 2], &[3.0, 4.0]))], &[]);
    fs::write(&input, bytes).expect("it can be written");
    let [input, output] = [&input, &output].map(|p| p.display().to_string());
    let mut call = vec![
        "op", "rms_norm", "--in", &input, "--tensor", "x=hidden", "--set", "eps=0",
    ];
    call.extend(["--device", "cpu", "--json"]);
    let end = Program::new(&call).run().ok();
    let said: Value = serde_json::from_str(&end.stdout).expect("it is JSON");
    let y = &said["outputs"]["y"];
    assert_eq!(y["shape"], serde_json::json!([1, 2]));
    assert!((y["data"][0].as_f64().expect("a number") - 3.0 / 12.5f64.sqrt()).abs() < 1e-6);
    call.extend(["--out", &output, "--reps", "2"]);
    let end = Program::new(&call).run().ok();
    let said: Value = serde_json::from_str(&end.stdout).expect("it is JSON");
    assert!(said["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{said}");
    let written = TensorFile::read("y", &fs::read(&output).expect("y was written")).expect("sound");
    assert_eq!(written.tensors["y"].shape, [1, 2]);
}

#[test]
fn a_weight_of_a_gguf_file_is_taken_quantised() {
    let folder = folder("cli_op_gguf");
    let input = folder.join("x.safetensors");
    let tiny = folder.join("tiny.gguf");
    fs::write(&tiny, shardlight::builtin::TINY).expect("it can be written");
    let end = Program::new(&["info", "-m", "builtin:tiny", "--tensors", "--json"])
        .run()
        .ok();
    let info: Value = serde_json::from_str(&end.stdout).expect("it is JSON");
    let tensors = info["tensors"].as_array().expect("tensors");
    let down = tensors
        .iter()
        .find(|t| t["name"] == "blk.0.ffn_down.weight")
        .expect("it is there");
    let cols = down["shape"][1].as_u64().expect("a number") as usize;
    let bytes = file(&[("x", Array::f32(&[1, cols], &vec![1.0; cols]))], &[]);
    fs::write(&input, bytes).expect("it can be written");
    let [input, tiny] = [&input, &tiny].map(|p| p.display().to_string());
    let call = [
        "op", "linear", "--in", &input, "--in", &tiny, "--device", "cpu",
    ];
    let end = Program::new(&call)
        .arg("--tensor")
        .arg("weight=blk.0.ffn_down.weight")
        .run()
        .ok();
    assert!(end.stdout.starts_with("y f32 [1, "), "{end:?}");
}

#[test]
fn recorded_results_are_compared_and_a_wrong_one_fails() {
    let good = layer("rms_norm.safetensors");
    let end = Program::new(&["op", "--check", &good, "--device", "cpu"])
        .run()
        .ok();
    assert!(end.stdout.contains("rms_norm y: NMSE"), "{end:?}");
    assert!(
        end.stdout.contains("rms_norm_backward d_weight: NMSE"),
        "{end:?}"
    );
    assert!(
        end.stdout.contains("3 tensors of 1 files compared"),
        "{end:?}"
    );

    let bytes = fs::read(&good).expect("it is there");
    let mut wrong = TensorFile::read("good", &bytes).expect("it is sound");
    wrong.tensors.get_mut("y").expect("y").bytes[3] ^= 0x80;
    let path = folder("cli_op_check").join("wrong.safetensors");
    fs::write(&path, wrong.write().expect("it can be stored")).expect("it can be written");
    let wrong = path.display().to_string();
    let end = Program::new(&["op", "--check", &wrong, "--device", "cpu"]).run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stdout.contains("y: NMSE") && end.stdout.contains("PAST THE BOUND"),
        "{end:?}"
    );
    assert_eq!(end.stderr, "error: 1 of 3 tensors are past their bounds\n");
}

#[test]
fn a_wrong_call_is_one_line_and_an_exit_code() {
    let folder = folder("cli_op_wrong");
    let path = folder.join("x.safetensors");
    let x = Array::f32(&[2, 3], &[1.0; 6]);
    let weight = Array::f32(&[2], &[1.0; 2]);
    fs::write(&path, file(&[("x", x), ("weight", weight)], &[])).expect("it can be written");
    let cut = folder.join("cut.safetensors");
    fs::write(&cut, &fs::read(&path).expect("it is there")[..50]).expect("it can be written");
    let kindless = folder.join("kindless.safetensors");
    fs::write(&kindless, file(&[("x", Array::f32(&[1], &[1.0]))], &[])).expect("it can be written");
    let [x, cut, kindless] = [&path, &cut, &kindless].map(|p| p.display().to_string());
    for (args, code, said) in [
        (&["op"][..], 2, "required arguments"),
        (
            &["op", "rms_norm", "--in", &x, "--set", "eps"],
            2,
            "--set eps: expected NAME=VALUE",
        ),
        (
            &["op", "rms_norm", "--in", &x],
            1,
            "rms_norm: weight has shape (2), expected (3)",
        ),
        (&["op", "rms_norm"], 1, "rms_norm: input x is missing"),
        (
            &["op", "rms_norm", "--in", &x, "--set", "eps=x"],
            1,
            "setting eps: \"x\" is not a number",
        ),
        (
            &["op", "rms_norm", "--in", &x, "--set", "e=1"],
            1,
            "rms_norm: unknown setting \"e\"",
        ),
        (
            &["op", "rms_norm", "--in", &cut],
            1,
            "cut.safetensors: not a sound safetensors file",
        ),
        (
            &["op", "rms_norm", "--in", "no-such-file"],
            1,
            "no-such-file",
        ),
        (
            &["op", "rms_norm", "--in", &x, "--tensor", "x=y"],
            1,
            "no file given with --in holds y",
        ),
        (
            &["op", "nonsense"],
            1,
            "no operator is called \"nonsense\"; supported: ",
        ),
        (
            &["op", "--check", &kindless],
            1,
            "its metadata has no key \"kind\"",
        ),
    ] {
        let end = Program::new(args).env("SHARDLIGHT_DEVICE", "cpu").run();
        assert_eq!(end.code, Some(code), "{args:?}: {end:?}");
        assert!(end.stderr.contains(said), "{args:?}: {end:?}");
        if code == 1 {
            assert_eq!(end.stderr.lines().count(), 1, "{args:?}: {end:?}");
        }
    }
}
