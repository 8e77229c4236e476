//! `shardlight info`: what a model file holds, without loading it.

use std::collections::BTreeMap;

use console::style;
use indicatif::DecimalBytes;
use serde_json::{Value, json};
use shardlight::weights::{ModelFiles, TensorInfo};

use crate::cli::Info;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints a summary, and with `--tensors` each tensor; with `--json` an object
/// `{name, architecture, config, parameters, bytes, types, tensors}`.
pub fn run(args: &Info, ui: Ui) -> anyhow::Result<()> {
    let files = load::open(&args.name.model, ui)?;
    let mut out = Out::new();
    if args.format.json {
        out.json(&object(&files, args.tensors))?;
    } else {
        table(&files, args.tensors, &mut out)?;
    }
    out.finish()
}

#[derive(Default)]
struct Share {
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// Totals by element type.
fn shares(files: &ModelFiles) -> BTreeMap<&'static str, Share> {
    let mut shares = BTreeMap::<_, Share>::new();
    for tensor in files.tensors() {
        let share = shares.entry(tensor.dtype.name()).or_default();
        share.tensors += 1;
        share.parameters += parameters(tensor);
        share.bytes += tensor.bytes;
    }
    shares
}

fn parameters(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().map(|&n| n as u64).product()
}

/// Name and value of what the configuration says, in the words of Hugging Face.
fn config(files: &ModelFiles) -> Vec<(&'static str, Value)> {
    let c = &files.config;
    vec![
        ("architecture", json!(c.architecture)),
        ("num_hidden_layers", json!(c.num_hidden_layers)),
        ("hidden_size", json!(c.hidden_size)),
        ("intermediate_size", json!(c.intermediate_size)),
        ("num_attention_heads", json!(c.num_attention_heads)),
        ("num_key_value_heads", json!(c.num_key_value_heads)),
        ("head_dim", json!(c.head_dim)),
        ("vocab_size", json!(c.vocab_size)),
        ("max_position_embeddings", json!(c.max_position_embeddings)),
        ("rms_norm_eps", json!(c.rms_norm_eps)),
        ("rope_theta", json!(c.rope.theta)),
    ]
}

/// What a GGUF file says about itself, if it does.
fn about(files: &ModelFiles, key: &str) -> Option<String> {
    let metadata = files.metadata.as_ref()?;
    metadata.opt_str(key).ok()?.map(str::to_owned)
}

fn object(files: &ModelFiles, tensors: bool) -> Value {
    let shares = shares(files);
    let types: Vec<Value> = shares
        .iter()
        .map(|(dtype, share)| {
            json!({
                "type": dtype,
                "tensors": share.tensors,
                "parameters": share.parameters,
                "bytes": share.bytes,
            })
        })
        .collect();
    let mut object = json!({
        "file": files.name(),
        "name": about(files, "general.name"),
        "license": about(files, "general.license"),
        "config": config(files).into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<serde_json::Map<_, _>>(),
        "parameters": shares.values().map(|share| share.parameters).sum::<u64>(),
        "bytes": files.bytes(),
        "tokenizer": files.tokenizer.is_some(),
        "chat_template": files.template.is_some(),
        "types": types,
    });
    if tensors {
        object["tensors"] = files
            .tensors()
            .map(|tensor| {
                json!({
                    "name": tensor.name,
                    "type": tensor.dtype.name(),
                    "shape": tensor.shape,
                    "bytes": tensor.bytes,
                })
            })
            .collect();
    }
    object
}

fn table(files: &ModelFiles, tensors: bool, out: &mut Out) -> anyhow::Result<()> {
    out.line(style(files.name()).bold())?;
    let texts = [("name", "general.name"), ("license", "general.license")];
    for (label, key) in texts {
        if let Some(text) = about(files, key) {
            out.line(format_args!("{label:24} {text}"))?;
        }
    }
    for (label, value) in config(files) {
        match value {
            Value::String(text) => out.line(format_args!("{label:24} {text}"))?,
            value => out.line(format_args!("{label:24} {value}"))?,
        }
    }
    let tokenizer = match &files.tokenizer {
        Some(tokenizer) => format!("{} tokens", tokenizer.vocab_size()),
        None => "none".to_owned(),
    };
    out.line(format_args!("{:24} {tokenizer}", "tokenizer"))?;
    let template = if files.template.is_some() {
        "yes"
    } else {
        "none"
    };
    out.line(format_args!("{:24} {template}", "chat template"))?;
    let shares = shares(files);
    let parameters: u64 = shares.values().map(|share| share.parameters).sum();
    out.line(format_args!(
        "{:24} {:.1} M in {} tensors, {}",
        "parameters",
        parameters as f64 / 1e6,
        files.tensors().len(),
        DecimalBytes(files.bytes())
    ))?;
    for (dtype, share) in &shares {
        out.line(format_args!(
            "  {dtype:22} {:.1} M in {} tensors, {}",
            share.parameters as f64 / 1e6,
            share.tensors,
            DecimalBytes(share.bytes)
        ))?;
    }
    if tensors {
        for tensor in files.tensors() {
            let shape = format!("{:?}", tensor.shape);
            out.line(format_args!(
                "{:32} {:6} {shape}",
                tensor.name,
                tensor.dtype.name()
            ))?;
        }
    }
    Ok(())
}
