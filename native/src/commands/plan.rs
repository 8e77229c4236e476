//! `shardlight plan`: what a layout would do, without running it.

use std::fs;
use std::time::Instant;

use anyhow::Context;
use console::style;
use indicatif::DecimalBytes;
use serde_json::json;
use shardlight::DType;
use shardlight::comm::SplitChoice;
use shardlight::device::{self, DeviceChoice};
use shardlight::plan::{self, DeviceSpec, Layout, Link, Phase, Request, SHAPES, Shape};
use shardlight::shard::Split;
use shardlight::weights::ModelFiles;

use crate::cli::Plan;
use crate::commands::plan_check;
use crate::exit::usage;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints a plan; with `--json` an object, with `--sweep` a table of layouts, with `--check` predictions beside
/// measurements.
pub fn run(args: &Plan, ui: Ui) -> anyhow::Result<()> {
    let mut out = Out::new();
    if args.list {
        list(&mut out)?;
        return out.finish();
    }
    let files = files(args, ui)?;
    let shape = args.shape.as_deref().map(Shape::find).transpose()?;
    let context = args
        .ctx
        .map_or(files.config.max_position_embeddings.min(4096), |tokens| {
            tokens as usize
        });
    let dtype = files.main_dtype();
    let mut request = Request {
        files: &files,
        experts: shape.and_then(|shape| shape.experts),
        layout: layout(args)?,
        device: device(args, &files, dtype)?,
        peak: args.peak.into(),
        context,
        prompt: (args.prompt as usize).min(context.saturating_sub(1)),
        batch: args.batch as usize,
        kv: args.kv.into(),
    };
    if let Some(gigabytes) = args.memory {
        request.device.memory = Some((f64::from(gigabytes) * 1e9) as u64);
    }
    if args.check {
        plan_check::run(args, &request, ui, &mut out)?;
    } else if let Some(ranks) = args.sweep {
        sweep(args, &request, ranks as usize, &mut out)?;
    } else {
        one(args, &request, dtype, &mut out)?;
    }
    out.finish()
}

fn files(args: &Plan, ui: Ui) -> anyhow::Result<ModelFiles> {
    match (&args.shape, &args.model) {
        (Some(shape), _) => Ok(Shape::find(shape)?.files(args.dtype)?),
        (None, Some(model)) => load::open(model, ui),
        (None, None) => Err(usage(
            "name a model: --shape SHAPE or -m MODEL; --list has the shapes",
        )),
    }
}

/// The element type that most bytes have.
fn layout(args: &Plan) -> anyhow::Result<Layout> {
    let mesh = args.shares.mesh();
    let split = match &args.shares.split {
        SplitChoice::Even => Split::even(mesh.tp),
        SplitChoice::Of(shares) => Split::new(shares)?,
        SplitChoice::Auto => {
            return Err(usage(
                "--split auto measures devices; a plan has equal ones, so give shares such as 0.7,0.3",
            ));
        }
    };
    let near = Link::find(&args.link)?;
    Ok(Layout {
        mesh,
        split,
        sequence_parallel: args.shares.sp,
        near,
        far: args.far_link.as_deref().map_or(Ok(near), Link::find)?,
        ranks_per_host: args.ranks_per_host as usize,
        one_device: args.one_device,
    })
}

/// The device of the table, or what was measured here.
fn device(args: &Plan, files: &ModelFiles, dtype: DType) -> anyhow::Result<DeviceSpec> {
    let name = match (&args.device, args.check) {
        (Some(name), _) => name.as_str(),
        (None, true) => "measured",
        (None, false) => "h100",
    };
    let Some(choice) = measured(name)? else {
        if args.check {
            return Err(usage(format!(
                "--check measures this machine; --device {name} is of the table, use measured or measured:gpu:0"
            )));
        }
        return Ok(DeviceSpec::find(name)?);
    };
    let device = pollster::block_on(device::open(&choice))?;
    let begin = Instant::now();
    let clock = || begin.elapsed().as_secs_f64();
    let measured = plan::measure(
        device.as_ref(),
        &files.config,
        dtype,
        plan::Effort::THOROUGH,
        &clock,
    );
    Ok(pollster::block_on(measured)?)
}

/// The device of this machine that `measured` or `measured:gpu:0` names.
pub fn measured(name: &str) -> anyhow::Result<Option<DeviceChoice>> {
    if name == "measured" {
        return Ok(Some(DeviceChoice::Auto));
    }
    let choice = name.strip_prefix("measured:");
    Ok(choice.map(str::parse).transpose()?)
}

fn list(out: &mut Out) -> anyhow::Result<()> {
    out.line(style("shapes").bold())?;
    for s in SHAPES {
        let [heads, kv_heads, size] = s.heads;
        out.line(format_args!(
            "  {:14} {:3} layers of {:5} channels, hidden {:5}, {heads:3} heads ({kv_heads} kv) of {size}, vocabulary {}",
            s.name, s.layers, s.channels, s.hidden, s.vocab
        ))?;
    }
    out.line(style("devices").bold())?;
    for d in DeviceSpec::all() {
        out.line(format_args!(
            "  {:14} {:6.1} TFLOP/s f32, {:6.1} f16, {:6.1} GB/s, {:5.1} GB  {}",
            d.name,
            d.f32 / 1e12,
            d.f16 / 1e12,
            d.bandwidth / 1e9,
            d.memory.unwrap_or(0) as f64 / 1e9,
            style(d.source).dim()
        ))?;
    }
    out.line(style("links").bold())?;
    for link in plan::LINKS {
        out.line(format_args!(
            "  {:14} {:8.1} us, {:7.3} GB/s  {}",
            link.name,
            link.latency * 1e6,
            link.bandwidth / 1e9,
            style(link.source).dim()
        ))?;
    }
    Ok(())
}

fn one(args: &Plan, request: &Request<'_>, dtype: DType, out: &mut Out) -> anyhow::Result<()> {
    let plan = pollster::block_on(request.plan())?;
    if let Some(path) = &args.trace {
        let timeline = pollster::block_on(request.timeline())?;
        let trace = plan::trace(&timeline, request.layout.ranks_per_host);
        fs::write(path, trace.to_string()).with_context(|| path.display().to_string())?;
    }
    let layout = &request.layout;
    if args.format.json {
        return out.json(&json!({
            "model": request.files.name(),
            "type": dtype.name(),
            "layout": layout.mesh.to_string(),
            "device": request.device.name,
            "device_source": request.device.source,
            "link": layout.near.name,
            "far_link": layout.far.name,
            "context": request.context,
            "batch": request.batch,
            "plan": plan,
        }));
    }
    let places = match layout.one_device {
        true => "simulated on one device".to_owned(),
        false => format!(
            "{} between ranks of a host of {}, {} between hosts",
            layout.near.name, layout.ranks_per_host, layout.far.name
        ),
    };
    out.line(format_args!(
        "{} {dtype}, {} ({} ranks), {places}",
        style(request.files.name()).bold(),
        layout.mesh,
        plan.ranks
    ))?;
    let d = &request.device;
    out.line(format_args!(
        "{}: {:.3} TFLOP/s, {:.1} GB/s, launch {:.2} us ({})",
        d.name,
        d.flops(request.peak) / 1e12,
        d.bandwidth / 1e9,
        d.launch * 1e6,
        d.source
    ))?;
    if let Some(experts) = request.experts {
        out.line(format_args!(
            "{} experts, {} for a token; expected, balanced load (the runtime has no such layers yet)",
            experts.count, experts.active
        ))?;
    }
    phases(request, &plan.prefill, &plan.decode, out)?;
    kinds(&plan.kinds, out)?;
    let room = match plan.capacity {
        Some(capacity) => format!(
            "{} of {}{}",
            DecimalBytes(plan.memory),
            DecimalBytes(capacity),
            if plan.fits { "" } else { ": does not fit" }
        ),
        None => DecimalBytes(plan.memory).to_string(),
    };
    out.line(format_args!("memory of the fullest device: {room}"))?;
    if let (Some(context), Some(batch)) = (plan.largest_context, plan.largest_batch) {
        out.line(format_args!(
            "fits: context of {context} tokens at batch {}, or batch {batch} at context {}",
            request.batch, request.context
        ))?;
    }
    Ok(())
}

fn phases(
    request: &Request<'_>,
    prefill: &Phase,
    decode: &Phase,
    out: &mut Out,
) -> anyhow::Result<()> {
    let titles = [
        format!("prefill {}", prefill.tokens),
        format!("decode at {}", request.prompt),
    ];
    let row = |label: &str, value: &dyn Fn(&Phase) -> String| {
        format!("{label:28}{:>16}{:>16}", value(prefill), value(decode))
    };
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    out.line(style(format!("{:28}{:>16}{:>16}", "", titles[0], titles[1])).dim())?;
    out.line(row("time", &|p| format!("{:.3} ms", p.seconds * 1e3)))?;
    out.line(row("tokens/s", &|p| format!("{:.1}", p.tokens_per_second)))?;
    out.line(row("GFLOP, all ranks", &|p| {
        format!("{:.3}", p.flops / 1e9)
    }))?;
    out.line(row("GB of memory, all ranks", &|p| {
        format!("{:.3}", p.bytes / 1e9)
    }))?;
    out.line(row("computing", &|p| percent(p.compute)))?;
    out.line(row("lost to communication", &|p| percent(p.communication)))?;
    out.line(row("lost to waiting", &|p| percent(p.waiting)))?;
    out.line(row("imbalance (longest / mean)", &|p| {
        format!("{:.3}", p.imbalance)
    }))?;
    out.line(row("one rank", &|p| format!("{:.3} ms", p.alone * 1e3)))?;
    out.line(row("speed-up", &|p| {
        format!("{:.2} of {}", p.speedup, p.ideal)
    }))?;
    out.line(row("serial share (Karp-Flatt)", &|p| percent(p.serial)))?;
    for (title, phase) in [("prefill", prefill), ("decode", decode)] {
        for sent in &phase.collectives {
            out.line(format_args!(
                "{:28}{:>16}{:>16}",
                format!("{title} step, {} tokens: {}", phase.step_tokens, sent.name),
                format!("{} calls", sent.calls),
                format!("{} B", sent.bytes)
            ))?;
        }
    }
    Ok(())
}

/// What each kind of rank holds.
fn kinds(kinds: &[plan::Kind], out: &mut Out) -> anyhow::Result<()> {
    out.line(
        style(format!(
            "{:12}{:>7}{:>6}{:>5}{:>7}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "rank (of)",
            "layers",
            "heads",
            "kv",
            "hidden",
            "vocab",
            "weights",
            "replicated",
            "cache",
            "scratch",
            "total"
        ))
        .dim(),
    )?;
    for kind in kinds {
        let memory = &kind.memory;
        out.line(format_args!(
            "{:12}{:>7}{:>6}{:>5}{:>7}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}",
            format!("{} ({})", kind.rank, kind.ranks),
            kind.layers,
            kind.heads,
            kind.kv_heads,
            kind.hidden,
            kind.vocab,
            DecimalBytes(kind.weights).to_string(),
            DecimalBytes(kind.replicated).to_string(),
            DecimalBytes(memory.cache).to_string(),
            DecimalBytes(memory.activations).to_string(),
            DecimalBytes(kind.total).to_string()
        ))?;
    }
    Ok(())
}

fn sweep(args: &Plan, request: &Request<'_>, ranks: usize, out: &mut Out) -> anyhow::Result<()> {
    let found = pollster::block_on(plan::sweep(request, ranks))?;
    if args.format.json {
        return out.json(&json!({
            "model": request.files.name(),
            "ranks": ranks,
            "device": request.device.name,
            "layouts": found,
        }));
    }
    out.line(
        style(format!(
            "  {:24}{:>14}{:>14}{:>14}{:>14}{:>10}",
            "layout", "prefill ms", "decode ms", "tokens/s", "memory", "batch"
        ))
        .dim(),
    )?;
    for candidate in &found {
        let mark = if candidate.best { "*" } else { " " };
        match &candidate.plan {
            Ok(plan) => out.line(format_args!(
                "{mark} {:24}{:>14.3}{:>14.3}{:>14.1}{:>14}{:>10}",
                candidate.layout,
                plan.prefill.seconds * 1e3,
                plan.decode.seconds * 1e3,
                plan.decode.tokens_per_second,
                DecimalBytes(plan.memory).to_string(),
                match (plan.fits, plan.largest_batch) {
                    (false, _) => "no room".to_owned(),
                    (true, Some(batch)) => batch.to_string(),
                    (true, None) => "?".to_owned(),
                }
            ))?,
            Err(reason) => out.line(format_args!("{mark} {:24}{reason}", candidate.layout))?,
        }
    }
    out.line(style("* no other is at least as good in latency, tokens/s and memory; batch: what fits on a replica").dim())
}
