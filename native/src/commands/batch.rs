//! `shardlight run --prompts FILE`: many prompts, answered side by side by data-parallel replicas.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use shardlight::chat::Message;
use shardlight::session::{Event, Generated, StopReason};

use crate::answer::{self, rate};
use crate::cli::Run;
use crate::exit::{Stop, usage};
use crate::interrupt;
use crate::load;
use crate::out::Out;
use crate::prompt;
use crate::ui::Ui;

/// Answers every line of `file`; prints the answers in the order of the prompts, each after its prompt, or
/// with `--json` an object `{answers: [{prompt, text, tokens, stop}], seconds, tokens_per_second, device}`.
pub fn run(args: &Run, file: &Path, ui: Ui) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let prompts: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if prompts.is_empty() {
        return Err(usage(format!("{}: holds no prompts", file.display())));
    }
    let replicas = (args.model.shards.shares.dp as usize).min(prompts.len());
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<Generated>>> = Mutex::new(vec![None; prompts.len()]);
    let interrupt = interrupt::Answer::begin();
    let bar = ui.steps("answering", prompts.len() as u64);
    let stop = || interrupt.interrupted();
    // Loading is not answering: the clock starts when the first replica is ready.
    let begin = Mutex::new(None);
    let replica = |replica: usize| -> anyhow::Result<String> {
        // One replica tells how far loading is, and that there is no GPU.
        let ui = if replica == 0 { ui } else { Ui::new(true) };
        let files = load::open(&args.model.name.model, ui)?;
        let mut loaded = load::replica(files, &args.model, replica, ui)?;
        if let Ok(mut begin) = begin.lock() {
            begin.get_or_insert_with(Instant::now);
        }
        let constraint = args.talk.form.compile(&loaded.session)?;
        let options = answer::options(&args.talk, constraint);
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(text) = prompts.get(i) else {
                return Ok(loaded.device());
            };
            let tokens = if args.raw {
                prompt::raw(&loaded.session, text)?
            } else {
                let messages: Vec<_> = (prompt::begin(args.talk.system.as_deref()).into_iter())
                    .chain([Message::new("user", text)])
                    .collect();
                prompt::render(&loaded.session, &messages)?
            };
            let go_on = &mut |_: Event<'_>| match stop() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let made = loaded.session.generate(&tokens, &options, go_on);
            let made = pollster::block_on(made).with_context(|| format!("prompt {}", i + 1))?;
            let cancelled = made.stop == StopReason::Cancelled;
            if let Ok(mut found) = found.lock() {
                found[i] = Some(made);
            }
            bar.inc(1);
            if cancelled {
                return Err(Stop::Interrupted.into());
            }
        }
    };
    let results: Vec<anyhow::Result<String>> = std::thread::scope(|scope| {
        let replica = &replica;
        let threads: Vec<_> = (0..replicas)
            .map(|i| scope.spawn(move || replica(i)))
            .collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        // A panic has already ended the program, by its hook.
        joined
            .map(|result| result.unwrap_or_else(|_| Err(anyhow::anyhow!("a replica panicked"))))
            .collect()
    });
    bar.finish_and_clear();
    let seconds = begin.into_inner().ok().flatten();
    let seconds = seconds.map_or(0.0, |begin| begin.elapsed().as_secs_f64());
    let found = found.into_inner().unwrap_or_default();
    let tokens: usize = found.iter().flatten().map(|made| made.tokens.len()).sum();
    let speed = rate(tokens, std::time::Duration::from_secs_f64(seconds));
    let device = results.iter().flatten().next().cloned().unwrap_or_default();
    let mut out = Out::new();
    // What was answered is printed even if a replica failed.
    let answered = prompts.iter().zip(&found);
    if args.format.json {
        let answers: Vec<_> = answered
            .filter_map(|(prompt, made)| {
                let made = made.as_ref()?;
                Some(json!({
                    "prompt": prompt,
                    "text": made.text,
                    "tokens": made.tokens,
                    "stop": made.stop.name(),
                }))
            })
            .collect();
        out.json(&json!({
            "answers": answers,
            "seconds": seconds,
            "tokens_per_second": speed,
            "device": device,
        }))?;
    } else {
        for (prompt, made) in answered {
            if let Some(made) = made {
                out.line(console::style(format!("> {prompt}")).dim())?;
                out.line(format_args!("{}\n", made.text.trim_end()))?;
            }
        }
    }
    out.finish()?;
    for result in results {
        result?;
    }
    if !args.format.json {
        ui.aside(format_args!(
            "{} prompts, {tokens} tokens, {speed:.1} tok/s; {replicas} replicas, {device}",
            prompts.len()
        ));
    }
    Ok(())
}
