//! `shardlight bench`: tokens per second of prefill and decode.

use std::time::Instant;

use console::style;
use serde::Serialize;
use serde_json::json;
use shardlight::session::GenerateOptions;

use crate::answer::{self, rate};
use crate::cli::Bench;
use crate::exit::usage;
use crate::load::{self, Loaded};
use crate::out::Out;
use crate::ui::Ui;

/// Speeds of one test over its repetitions, in tokens per second.
#[derive(Serialize)]
struct Line {
    test: String,
    tokens: usize,
    median: f64,
    min: f64,
    max: f64,
    runs: Vec<f64>,
}

impl Line {
    fn new(test: String, tokens: usize, runs: Vec<f64>) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Line {
            test,
            tokens,
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            runs,
        }
    }
}

/// Prints a table, or with `--json` an object `{model, device, kv, load_ms, results}`.
pub fn run(args: &Bench, ui: Ui) -> anyhow::Result<()> {
    let mut files = load::open(&args.model.name.model, ui)?;
    // Without a tokenizer nothing ends an answer early, and only the model is measured.
    files.tokenizer = None;
    let mut loaded = load::session(files, &args.model, ui)?;
    let longest = (args.prompt.iter())
        .chain(args.generate.iter())
        .max()
        .copied()
        .unwrap_or(0) as usize;
    let room = loaded.session.context_length();
    if longest + 1 > room {
        return Err(usage(format!(
            "a test of {longest} tokens needs a context of {}, this one has {room}; shorten it or raise --ctx",
            longest + 1
        )));
    }
    let total = (args.prompt.len() + args.generate.len()) * (args.reps as usize + 1);
    let bar = ui.steps("measuring", total as u64);
    let mut lines = Vec::new();
    for &tokens in &args.prompt {
        let runs = repeat(args.reps, &bar, || prefill(&mut loaded, tokens as usize))?;
        lines.push(Line::new(format!("pp{tokens}"), tokens as usize, runs));
    }
    for &tokens in &args.generate {
        let runs = repeat(args.reps, &bar, || decode(&mut loaded, tokens as usize))?;
        lines.push(Line::new(format!("tg{tokens}"), tokens as usize, runs));
    }
    bar.finish_and_clear();
    print(args, &loaded, &lines)
}

/// The results of `reps` runs, after one that compiles kernels and warms caches.
fn repeat(
    reps: u32,
    bar: &indicatif::ProgressBar,
    mut measure: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<f64>> {
    measure()?;
    bar.inc(1);
    (0..reps)
        .map(|_| {
            let speed = measure();
            bar.inc(1);
            speed
        })
        .collect()
}

/// `count` token ids spread over the vocabulary, the same each time.
fn some_tokens(loaded: &Loaded, count: usize) -> Vec<u32> {
    let vocab = loaded.session.config().vocab_size as u64;
    let mut state = 1_u64;
    let mut next = || {
        // Knuth's MMIX generator: any spread will do, the work does not depend on which tokens these are.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    };
    (0..count).map(|_| next()).collect()
}

/// Tokens per second of reading `count` tokens, until the first token of an answer is known.
fn prefill(loaded: &mut Loaded, count: usize) -> anyhow::Result<f64> {
    let tokens = some_tokens(loaded, count);
    let options = GenerateOptions {
        max_tokens: 1,
        ..GenerateOptions::default()
    };
    loaded.session.reset();
    let begin = Instant::now();
    answer::generate(
        &mut loaded.session,
        &tokens,
        &options,
        Ui::new(true),
        &mut |_| Ok(()),
    )?;
    Ok(rate(count, begin.elapsed()))
}

/// Tokens per second of writing `count` tokens, after one that belongs to the prefill.
fn decode(loaded: &mut Loaded, count: usize) -> anyhow::Result<f64> {
    let tokens = some_tokens(loaded, 1);
    let options = GenerateOptions {
        max_tokens: count + 1,
        ..GenerateOptions::default()
    };
    loaded.session.reset();
    let answer = answer::generate(
        &mut loaded.session,
        &tokens,
        &options,
        Ui::new(true),
        &mut |_| Ok(()),
    )?;
    Ok(answer.times.decode_rate())
}

fn print(args: &Bench, loaded: &Loaded, lines: &[Line]) -> anyhow::Result<()> {
    let device = loaded.device();
    let mut out = Out::new();
    if args.format.json {
        out.json(&json!({
            "model": args.model.name.model,
            "device": device,
            "load_ms": answer::ms(loaded.load),
            "results": lines,
        }))?;
        return out.finish();
    }
    out.line(format_args!(
        "{} on {device}, {} runs each",
        args.model.name.model, args.reps
    ))?;
    out.line(
        style(format!(
            "{:<8}{:>12}{:>12}{:>12}",
            "test", "tok/s", "min", "max"
        ))
        .dim(),
    )?;
    for line in lines {
        let median = style(format!("{:>12.1}", line.median)).bold();
        out.line(format_args!(
            "{:<8}{median}{:>12.1}{:>12.1}",
            line.test, line.min, line.max
        ))?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_middle_of_two() {
        let line = Line::new("x".into(), 1, vec![4.0, 1.0, 3.0, 100.0]);
        assert_eq!((line.median, line.min, line.max), (3.5, 1.0, 100.0));
        assert_eq!(Line::new("x".into(), 1, vec![9.0, 1.0, 2.0]).median, 2.0);
    }
}
