//! The ONNX project's backend node tests of the operators we have, on every device.
//!
//! `docs/onnx.md` says how many pass; `SHARDLIGHT_BLESS=1` writes it anew. `SHARDLIGHT_ONNX=text`
//! runs the cases whose name holds that text only.
//!
//! Origin of the cases: tests/tools/onnx_cases.py.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use pollster::block_on;
use serde::Deserialize;
use serde_json::Value;
use shardlight::ops::{self, Array, ElementType, TensorFile};
use shardlight_tests::{data, devices};

/// One case: a node, with its tensors in node.safetensors.
#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    opset: i64,
    attributes: BTreeMap<String, Value>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// An element type that no array here holds.
    strange: Option<String>,
}

/// Our operator for a node: its name, the names of the node's inputs and outputs by place, and
/// settings.
struct Call {
    op: &'static str,
    inputs: &'static [&'static str],
    outputs: &'static [&'static str],
    settings: BTreeMap<String, String>,
}

/// Cases that are not run, with the reason.
const LEFT_OUT: &[(&str, &str)] = &[
    ("training_dropout", NUMPY),
    ("training_dropout_default", NUMPY),
    ("training_dropout_default_mask", NUMPY),
    ("training_dropout_mask", NUMPY),
];
const NUMPY: &str = "which elements are dropped comes from NumPy's generator";

/// Why a case is not run, if it is not.
fn left_out(case: &Case) -> Option<String> {
    if let Some(element) = &case.strange {
        return Some(format!("element type {element} is not among ours"));
    }
    let found = LEFT_OUT.iter().find(|(name, _)| case.name == *name);
    found.map(|(_, reason)| (*reason).to_owned())
}

/// The call of our operator that computes this node.
fn call(case: &Case, tensors: &BTreeMap<String, Array>) -> Result<Call, String> {
    let mut settings = BTreeMap::new();
    for (name, value) in &case.attributes {
        let name = match &name[..] {
            "epsilon" => "eps",
            "select_last_index" => "last",
            "transA" => "trans_a",
            "transB" => "trans_b",
            "num_groups" => "groups",
            // Order of the results: ours are always sorted.
            "sorted" => continue,
            // Which numbers are drawn is compared nowhere.
            "seed" if case.op == "Dropout" => continue,
            name => name,
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Array(list) => list
                .iter()
                .map(Value::to_string)
                .collect::<Vec<_>>()
                .join(","),
            value => value.to_string(),
        };
        settings.insert(name.to_owned(), text);
    }
    let mut default = |name: &str, value: &str| {
        settings.entry(name.into()).or_insert_with(|| value.into());
    };
    let (inputs, outputs): (&[_], &[_]) = match &case.op[..] {
        "ArgMax" | "ArgMin" => {
            default("axis", "0");
            (&["x"], &["y"])
        }
        "Attention" => {
            if case.outputs.len() > 3 {
                default("return_qk", "true");
            }
            (
                &[
                    "q",
                    "k",
                    "v",
                    "mask",
                    "past_key",
                    "past_value",
                    "kv_lengths",
                ],
                &["y", "present_key", "present_value", "qk_matmul_output"],
            )
        }
        "Conv" => (&["x", "weight", "bias"], &["y"]),
        "DequantizeLinear" => {
            default("axis", "1");
            (&["x", "scale", "zero_point"], &["y"])
        }
        "Dropout" => {
            let scalar = |place: usize| {
                let array = tensors.get(&format!("{}/in{place}", case.name));
                array.map(|a| a.to_f32()[0])
            };
            default(
                "training",
                if scalar(2) == Some(1.0) {
                    "true"
                } else {
                    "false"
                },
            );
            let ratio = settings.remove("ratio");
            let ratio = ratio.or(scalar(1).map(|r| r.to_string()));
            settings.insert("p".into(), ratio.unwrap_or("0.5".into()));
            (&["x", "", ""], &["y", "mask"])
        }
        "GRU" => (
            &["x", "w", "r", "b", "sequence_lens", "initial_h"],
            &["y", "y_h"],
        ),
        "LSTM" => (
            &[
                "x",
                "w",
                "r",
                "b",
                "sequence_lens",
                "initial_h",
                "initial_c",
                "p",
            ],
            &["y", "y_h", "y_c"],
        ),
        "Gemm" => (&["a", "b", "c"], &["y"]),
        "MatMul" => (&["a", "b"], &["y"]),
        "MatMulInteger" => (&["a", "b", "a_zero_point", "b_zero_point"], &["y"]),
        "LayerNormalization" => (&["x", "weight", "bias"], &["y", "mean", "rstd"]),
        "RMSNormalization" => (&["x", "weight"], &["y"]),
        "InstanceNormalization" => {
            // As many groups as channels.
            default("groups", "0");
            (&["x", "weight", "bias"], &["y"])
        }
        "GroupNormalization" => (&["x", "weight", "bias"], &["y"]),
        "OneHot" => {
            let array = |place: usize| tensors[&format!("{}/in{place}", case.name)].to_f32();
            default("depth", &array(1)[0].to_string());
            default("off", &array(2)[0].to_string());
            default("on", &array(2)[1].to_string());
            (&["ids", "", ""], &["y"])
        }
        "MaxPool" => {
            default("indices_of", "tensor");
            (&["x"], &["y", "indices"])
        }
        "NegativeLogLikelihoodLoss" => (&["x", "labels", "class_weight"], &["loss"]),
        "SoftmaxCrossEntropyLoss" => {
            if case.outputs.len() > 1 {
                default("log_prob", "true");
            }
            (&["logits", "labels", "class_weight"], &["loss", "log_prob"])
        }
        "RotaryEmbedding" => (&["x", "cos_cache", "sin_cache", "positions"], &["y"]),
        "TopK" => {
            let k = &tensors[&format!("{}/in1", case.name)];
            default(
                "k",
                &k.to_i64().expect("k is a whole number")[0].to_string(),
            );
            (&["x", ""], &["values", "indices"])
        }
        // One input, one output: activations, softmax, flatten.
        _ => (&["x"], &["y"]),
    };
    let op = match &case.op[..] {
        "GRU" => "onnx_gru",
        "LSTM" => "onnx_lstm",
        "NegativeLogLikelihoodLoss" => "nll_loss",
        "SoftmaxCrossEntropyLoss" => "cross_entropy",
        "RMSNormalization" => "rms_norm",
        "LayerNormalization" => "layer_norm",
        "GroupNormalization" | "InstanceNormalization" => "group_norm",
        other => other,
    };
    Ok(Call {
        op: ops::find(op).map_err(|e| e.to_string())?.name,
        inputs,
        outputs,
        settings,
    })
}

/// Runs a case; an error says what differs.
fn run(
    device: &dyn shardlight::device::Device,
    case: &Case,
    tensors: &BTreeMap<String, Array>,
) -> Result<(), String> {
    let call = call(case, tensors)?;
    let mut inputs = BTreeMap::new();
    for (place, given) in case.inputs.iter().enumerate() {
        let name = call.inputs.get(place).copied().unwrap_or("");
        let array = tensors.get(&format!("{}/in{place}", case.name));
        match (name, array) {
            (_, None) if given.is_empty() => {}
            ("", Some(_)) => {}
            // ONNX allows ids in any type; ours are whole numbers.
            ("ids", Some(array)) => {
                let ids: Vec<i64> = array.to_f32().iter().map(|v| *v as i64).collect();
                inputs.insert("ids".to_owned(), Array::i64(&array.shape, &ids));
            }
            (name, Some(array)) => drop(inputs.insert(name.to_owned(), array.clone())),
            (_, None) => return Err(format!("no tensor for input {given}")),
        }
    }
    let op = ops::find(call.op).map_err(|e| e.to_string())?;
    let ran = block_on(ops::run(device, op, inputs, &call.settings)).map_err(|e| e.to_string())?;
    let mut compared = 0;
    for (place, given) in case.outputs.iter().enumerate() {
        if given.is_empty() {
            continue;
        }
        let name = call.outputs[place];
        let want = &tensors[&format!("{}/out{place}", case.name)];
        let got = ran
            .outputs
            .get(name)
            .ok_or_else(|| format!("{name} was not given"))?;
        compare(got, want).map_err(|e| format!("{name}: {e}"))?;
        compared += 1;
    }
    if compared == 0 {
        Err("nothing was compared".into())
    } else {
        Ok(())
    }
}

fn compare(got: &Array, want: &Array) -> Result<(), String> {
    if got.shape != want.shape {
        return Err(format!("shape {:?}, want {:?}", got.shape, want.shape));
    }
    if want.dtype.is_integer() {
        // Truth values and counts may come as floats.
        let want = want.to_f32();
        return if got.to_f32() == want {
            Ok(())
        } else {
            Err(format!("{:?}, want {want:?}", got.to_f32()))
        };
    }
    let half = want.dtype == ElementType::Weight(shardlight::DType::F16);
    // f16 rounds to 11 bits, and its cases were computed in it.
    let bound = if half { 2e-6 } else { 1e-10 };
    let nmse = ops::nmse(&got.to_f32(), &want.to_f32());
    if nmse <= bound {
        Ok(())
    } else {
        Err(format!("NMSE {nmse:.1e} > {bound:.0e}"))
    }
}

fn cases() -> (Vec<Case>, BTreeMap<String, Array>) {
    let folder = data().join("onnx");
    let text = fs::read_to_string(folder.join("node.json")).expect("node.json is there");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("node.json is JSON");
    let bytes = fs::read(folder.join("node.safetensors")).expect("node.safetensors is there");
    let file = TensorFile::read("node.safetensors", &bytes).expect("it is sound");
    (cases, file.tensors)
}

#[test]
fn the_onnx_projects_cases_pass_on_every_device() {
    let (cases, tensors) = cases();
    let only = std::env::var("SHARDLIGHT_ONNX").unwrap_or_default();
    for device in devices() {
        let (mut passed, mut failures) = (0, Vec::new());
        for case in cases.iter().filter(|c| c.name.contains(&only)) {
            if left_out(case).is_some() {
                continue;
            }
            match run(&*device, case, &tensors) {
                Ok(()) => passed += 1,
                Err(e) => failures.push(format!("{} (opset {}): {e}", case.name, case.opset)),
            }
        }
        println!("{}: {passed} cases of ONNX pass", device.info());
        assert!(
            failures.is_empty(),
            "{}: {} of {} fail:\n{}",
            device.info(),
            failures.len(),
            failures.len() + passed,
            failures.join("\n")
        );
    }
}

#[test]
fn the_documents_table_is_what_is_run() {
    let (cases, _) = cases();
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut reasons = Vec::new();
    for case in &cases {
        let row = rows.entry(&case.op).or_default();
        match left_out(case) {
            None => row.0 += 1,
            Some(reason) => {
                row.1 += 1;
                reasons.push(format!("- `{}`: {reason}\n", case.name));
            }
        }
    }
    let mut text = String::from(
        "# Conformance with ONNX\n\n\
         The ONNX project's backend node tests (PyPI package `onnx` 1.22.0) of the operators that `shardlight op --list`\n\
         has. `cargo test --workspace --test onnx` runs them on the CPU device and on Vulkan; every case that is run passes on\n\
         both. Cases named `_expanded` are left out: they are the same data for a graph of primitive operators.\n\n\
         | ONNX operator | pass | left out |\n|---|---:|---:|\n",
    );
    for (op, (passed, left)) in &rows {
        let _ = writeln!(text, "| {op} | {passed} | {left} |");
    }
    let passed: usize = rows.values().map(|r| r.0).sum();
    let left: usize = rows.values().map(|r| r.1).sum();
    let _ = writeln!(text, "| all | {passed} | {left} |\n\nLeft out:\n");
    text.push_str(&reasons.concat());
    let path = data().join("../../docs/onnx.md");
    if std::env::var_os("SHARDLIGHT_BLESS").is_some() {
        fs::write(&path, &text).expect("docs/onnx.md can be written");
    }
    let committed = fs::read_to_string(&path).expect("docs/onnx.md is there");
    assert_eq!(
        committed, text,
        "docs/onnx.md is old; SHARDLIGHT_BLESS=1 writes it anew"
    );
}
