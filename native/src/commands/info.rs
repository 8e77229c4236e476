//! `shardlight info`: what a model file holds, without loading it.

use std::collections::BTreeMap;
use std::ops::Range;

use console::style;
use indicatif::DecimalBytes;
use serde_json::{Value, json};
use shardlight::comm::{Placement, SplitChoice};
use shardlight::kv_cache::KvDType;
use shardlight::plan::{self, Sizes};
use shardlight::session::ShardInfo;
use shardlight::shard::Split;
use shardlight::weights::{ModelFiles, TensorInfo};

use crate::cli::{Info, Shares};
use crate::exit::usage;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints a summary, and with `--tensors` each tensor; with `--json` an object
/// `{name, architecture, config, parameters, bytes, types, tensors, shards}`.
pub fn run(args: &Info, ui: Ui) -> anyhow::Result<()> {
    let files = load::open(&args.name.model, ui)?;
    let shards = shards(&files, &args.shares)?;
    let mut out = Out::new();
    if args.format.json {
        let mut object = object(&files, args.tensors);
        if !shards.is_empty() {
            object["shards"] = shards.iter().map(|s| shard_object(&files, s)).collect();
        }
        out.json(&object)?;
    } else {
        table(&files, args.tensors, &mut out)?;
        if !shards.is_empty() {
            shard_table(&files, &shards, &mut out)?;
        }
    }
    out.finish()
}

/// What each rank of a layout would hold; nothing for one rank. No weights are read.
fn shards(files: &ModelFiles, shares: &Shares) -> anyhow::Result<Vec<ShardInfo>> {
    let mesh = shares.mesh();
    if mesh.dp > 1 {
        return Err(usage(format!(
            "--dp {}: replicas hold the same; leave it out",
            mesh.dp
        )));
    }
    let split = match &shares.split {
        SplitChoice::Even => Split::even(mesh.tp),
        SplitChoice::Of(shares) => Split::new(shares)?,
        SplitChoice::Auto => {
            return Err(usage(
                "--split auto measures devices; give shares such as 0.7,0.3",
            ));
        }
    };
    mesh.check()?;
    if mesh.world_size() == 1 {
        return Ok(Vec::new());
    }
    let placement = |rank| Placement::new(mesh, rank, split.clone(), shares.sp);
    let ranks = (0..mesh.world_size()).map(placement);
    // Weights do not depend on these.
    let sizes = Sizes {
        context: 1,
        kv: KvDType::F32,
        chunk: 1,
    };
    let ranks = ranks.collect::<shardlight::Result<_>>()?;
    Ok(pollster::block_on(plan::dry_run(files, ranks, sizes, None))?.shards)
}

/// Bytes that other ranks hold too: of its tensor-parallel group, and of the other end of the pipeline where both
/// have the embedding.
fn replicated(files: &ModelFiles, shard: &ShardInfo) -> u64 {
    let stages = shard.share.layers.len() < files.config.num_hidden_layers;
    let tied = stages && !files.has("output.weight") && !shard.share.vocab.is_empty();
    let embedding = files
        .tensors()
        .find(|t| tied && t.name == "token_embd.weight");
    let row = embedding.map_or(0, |t| t.bytes / t.rows().max(1) as u64);
    shard.held.replicated + row * shard.share.vocab.len() as u64
}

fn shard_object(files: &ModelFiles, shard: &ShardInfo) -> Value {
    let share = &shard.share;
    let range = |range: &Range<usize>| json!([range.start, range.end]);
    json!({
        "rank": shard.rank,
        "tp": shard.tp,
        "pp": shard.pp,
        "layers": range(&share.layers),
        "heads": range(&share.heads),
        "kv_heads": range(&share.kv_heads),
        "hidden": range(&share.hidden),
        "vocab": range(&share.vocab),
        "bytes": shard.held.bytes,
        "replicated": replicated(files, shard),
        "read": shard.held.read,
    })
}

fn shard_table(files: &ModelFiles, shards: &[ShardInfo], out: &mut Out) -> anyhow::Result<()> {
    let title = format!(
        "{:6}{:>10}{:>10}{:>10}{:>14}{:>16}{:>12}{:>12}",
        "rank", "layers", "heads", "kv heads", "hidden", "vocabulary", "weights", "replicated"
    );
    out.line(style(title).dim())?;
    let text = |range: &Range<usize>| match range.is_empty() {
        true => "-".to_owned(),
        false => format!("{}..{}", range.start, range.end),
    };
    for shard in shards {
        let share = &shard.share;
        out.line(format_args!(
            "{:<6}{:>10}{:>10}{:>10}{:>14}{:>16}{:>12}{:>12}",
            shard.rank,
            text(&share.layers),
            text(&share.heads),
            text(&share.kv_heads),
            text(&share.hidden),
            text(&share.vocab),
            DecimalBytes(shard.held.bytes).to_string(),
            DecimalBytes(replicated(files, shard)).to_string()
        ))?;
    }
    let sum: u64 = shards.iter().map(|shard| shard.held.bytes).sum();
    let shared: u64 = shards.iter().map(|shard| replicated(files, shard)).sum();
    out.line(format_args!(
        "{:24} {} ({:.3} of the model's {}), of which {} are held by several ranks",
        "all ranks",
        DecimalBytes(sum),
        sum as f64 / files.bytes() as f64,
        DecimalBytes(files.bytes()),
        DecimalBytes(shared)
    ))
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
    let mut fields = vec![
        ("architecture", json!(c.architecture)),
        ("num_hidden_layers", json!(c.num_hidden_layers)),
        ("hidden_size", json!(c.hidden_size)),
        ("intermediate_size", json!(c.intermediate_size)),
        ("num_attention_heads", json!(c.num_attention_heads)),
        ("num_key_value_heads", json!(c.num_key_value_heads)),
        ("head_dim", json!(c.head_dim)),
        ("vocab_size", json!(c.vocab_size)),
        ("max_position_embeddings", json!(c.max_position_embeddings)),
        ("norm_eps", json!(c.norm_eps)),
        ("rope_theta", json!(c.rope.theta)),
    ];
    if let Some(window) = &c.window {
        fields.push(("sliding_window", json!(window.tokens)));
    }
    if let Some(latent) = &c.latent {
        fields.push(("kv_lora_rank", json!(latent.kv_lora_rank)));
    }
    if let Some(moe) = &c.moe {
        fields.extend([
            ("num_experts", json!(moe.num_experts)),
            ("num_experts_per_tok", json!(moe.router.k)),
            ("moe_intermediate_size", json!(moe.intermediate_size)),
        ]);
        if moe.shared_intermediate_size > 0 {
            let size = json!(moe.shared_intermediate_size);
            fields.push(("shared_expert_intermediate_size", size));
        }
    }
    fields
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
