//! `shardlight plan --check`: predicted steps beside measured ones, on one device of this machine.

use std::ops::ControlFlow;
use std::time::Instant;

use console::style;
use serde::Serialize;
use serde_json::json;
use shardlight::comm::{Mesh, Sharding, SplitChoice};
use shardlight::device::DeviceChoice;
use shardlight::plan::{Layout, Request};
use shardlight::session::{Event, GenerateOptions, Session, SessionOptions};
use shardlight::shard::Split;

use crate::cli::Plan;
use crate::commands::plan::measured;
use crate::exit::usage;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Tensor-parallel sizes that are compared.
const SIZES: [usize; 3] = [1, 2, 3];

/// Tokens whose decoding is measured, after two that are not.
const TOKENS: usize = 32;

#[derive(Serialize)]
struct Line {
    tp: usize,
    predicted_ms: f64,
    measured_ms: f64,
    /// `predicted / measured - 1`.
    error: f64,
}

/// Predicts and measures a decode step for each of [`SIZES`] on the device that `request` was measured on.
pub fn run(args: &Plan, request: &Request<'_>, ui: Ui, out: &mut Out) -> anyhow::Result<()> {
    let Some(model) = &args.model else {
        return Err(usage("--check runs the model, so it needs -m MODEL"));
    };
    let choice = measured(args.device.as_deref().unwrap_or("measured"))?;
    let choice = choice.unwrap_or(DeviceChoice::Auto);
    let mut lines = Vec::new();
    for tp in SIZES {
        let mut request = request.clone();
        request.layout = Layout {
            mesh: Mesh::tensor(tp),
            split: Split::even(tp),
            one_device: tp > 1,
            ..request.layout.clone()
        };
        request.batch = 1;
        let first = request.prompt;
        request.prompt = (first + TOKENS / 2).min(request.context - 1);
        let plan = pollster::block_on(request.plan())?;
        let step = measure(model, tp, &choice, first, request.context, &request, ui)?;
        lines.push(Line {
            tp,
            predicted_ms: plan.decode.seconds * 1e3,
            measured_ms: step * 1e3,
            error: plan.decode.seconds / step - 1.0,
        });
    }
    let d = &request.device;
    if args.format.json {
        return out.json(&json!({
            "model": model,
            "device": d.name,
            "flops": d.f32,
            "bandwidth": d.bandwidth,
            "launch": d.launch,
            "submit": d.submit,
            "steps": lines,
        }));
    }
    out.line(format_args!(
        "{}: {:.4} TFLOP/s, {:.2} GB/s, launch {:.2} us, submission {:.1} us ({})",
        style(&d.name).bold(),
        d.f32 / 1e12,
        d.bandwidth / 1e9,
        d.launch * 1e6,
        d.submit * 1e6,
        d.source
    ))?;
    let title = format!(
        "{:8}{:>16}{:>16}{:>10}",
        "decode", "predicted ms", "measured ms", "error"
    );
    out.line(style(title).dim())?;
    for line in &lines {
        out.line(format_args!(
            "tp {:5}{:>16.3}{:>16.3}{:>9.1}%",
            line.tp,
            line.predicted_ms,
            line.measured_ms,
            100.0 * line.error
        ))?;
    }
    Ok(())
}

/// Seconds of a decode step: the shortest of [`TOKENS`], as the device's own figures are of shortest runs.
fn measure(
    model: &str,
    tp: usize,
    choice: &DeviceChoice,
    prompt: usize,
    context: usize,
    request: &Request<'_>,
    ui: Ui,
) -> anyhow::Result<f64> {
    let mut files = load::open(model, ui)?;
    // Without a tokenizer nothing ends an answer early.
    files.tokenizer = None;
    let vocab = files.config.vocab_size;
    let begin = Instant::now();
    let sharding = Sharding {
        mesh: Mesh::tensor(tp),
        sequence_parallel: false,
        split: SplitChoice::Even,
        devices: vec![choice.clone()],
    };
    let clock = || begin.elapsed().as_secs_f64();
    let opened = pollster::block_on(sharding.open(0, &clock, &|device| device))?;
    let options = SessionOptions {
        context_length: Some(context),
        kv: request.kv,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    let mut session = pollster::block_on(Session::load(files, opened.world, options, quiet))?;
    // Any tokens will do, the work does not depend on which these are.
    let tokens: Vec<u32> = (0..prompt).map(|i| (i * 7919 % vocab) as u32).collect();
    let options = GenerateOptions {
        max_tokens: (TOKENS + 2).min(context - prompt),
        ..GenerateOptions::default()
    };
    let mut times = Vec::with_capacity(TOKENS + 2);
    let mut on_event = |event: Event<'_>| {
        if let Event::Token { .. } = event {
            times.push(clock());
        }
        ControlFlow::Continue(())
    };
    pollster::block_on(session.generate(&tokens, &options, &mut on_event))?;
    let steps = times.windows(2).skip(1).map(|w| w[1] - w[0]);
    steps
        .reduce(f64::min)
        .ok_or_else(|| usage("no room to decode; shorten --prompt or raise --ctx"))
}
