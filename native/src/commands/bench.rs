//! `shardlight bench`: tokens per second of prefill and decode.

use std::time::Instant;

use bytesize::ByteSize;
use console::style;
use serde::Serialize;
use serde_json::json;
use shardlight::plan::{Copied, Needs, copy_bandwidth, decode_needs, prefill_needs};
use shardlight::session::GenerateOptions;

use crate::answer::{self, rate};
use crate::cli::Bench;
use crate::exit::usage;
use crate::job;
use crate::load::{self, Loaded};
use crate::out::Out;
use crate::profile;
use crate::ui::Ui;

/// Speeds of one test over its repetitions, in tokens per second, and what its tokens need, each on average.
#[derive(Serialize)]
struct Line {
    test: String,
    tokens: usize,
    median: f64,
    min: f64,
    max: f64,
    runs: Vec<f64>,
    /// Bytes of weights that must be read for a token; a prompt's tokens share them.
    weight_bytes_per_token: f64,
    /// Bytes of keys and values.
    cache_bytes_per_token: f64,
    flops_per_token: f64,
    /// Of these bytes, at the median speed; units of 1e9 bytes.
    gb_per_second: f64,
    /// Units of 1e12 operations.
    tflops_per_second: f64,
    /// `gb_per_second` in per cent of what copying reaches; of decode, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_of_copy: Option<f64>,
}

impl Line {
    fn new(test: String, tokens: usize, needs: Needs, runs: Vec<f64>) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        let each = |count: u64| count as f64 / tokens as f64;
        Line {
            test,
            tokens,
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            runs,
            weight_bytes_per_token: each(needs.weights),
            cache_bytes_per_token: each(needs.cache),
            flops_per_token: each(needs.flops),
            gb_per_second: each(needs.bytes()) * median / 1e9,
            tflops_per_second: each(needs.flops) * median / 1e12,
            percent_of_copy: None,
        }
    }
}

/// Prints a table, or with `--json` an object `{model, device, load_ms, limits, results}`.
pub fn run(args: &Bench, ui: Ui) -> anyhow::Result<()> {
    let mut files = load::open(&args.model.name.model, ui)?;
    // Without a tokenizer nothing ends an answer early, and only the model is measured.
    files.tokenizer = None;
    let described = files.without_data();
    let mut loaded = load::session(files, &args.model, ui)?;
    let mut profile = (args.profile.as_deref().map(profile::Output::create)).transpose()?;
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
    let limits = match args.limits {
        Some(most) => Some(limits(&loaded, most)?),
        None => None,
    };
    let each = args.reps as usize + 1 + usize::from(profile.is_some());
    let total = (args.prompt.len() + args.generate.len()) * each;
    let bar = ui.steps("measuring", total as u64);
    let kv = args.model.kv.into();
    let mut lines = Vec::new();
    for tokens in args.prompt.iter().map(|n| *n as usize) {
        let needs = pollster::block_on(prefill_needs(&described, kv, tokens))?;
        let test = &mut |profile: &mut Profile| prefill(&mut loaded, tokens, profile);
        let runs = repeat(args.reps, &bar, &mut profile, test)?;
        lines.push(Line::new(format!("pp{tokens}"), tokens, needs, runs));
    }
    for tokens in args.generate.iter().map(|n| *n as usize) {
        // Behind the one token of the prompt.
        let needs = pollster::block_on(decode_needs(&described, kv, 1, tokens))?;
        let test = &mut |profile: &mut Profile| decode(&mut loaded, tokens, profile);
        let runs = repeat(args.reps, &bar, &mut profile, test)?;
        let mut line = Line::new(format!("tg{tokens}"), tokens, needs, runs);
        let reached = |copied: Copied| 1e11 * line.gb_per_second / copied.bandwidth;
        line.percent_of_copy = limits.map(reached);
        lines.push(line);
    }
    bar.finish_and_clear();
    print(args, &loaded, limits, &lines, profile.as_ref())?;
    match profile {
        Some(profile) => profile.finish(ui),
        None => Ok(()),
    }
}

/// How fast the device copies.
fn limits(loaded: &Loaded, most: ByteSize) -> anyhow::Result<Copied> {
    let [device] = loaded.session.world().devices() else {
        return Err(usage(
            "--limits measures one device, and these ranks have several",
        ));
    };
    if job::size() > 1 {
        return Err(usage("--limits measures the device of one process"));
    }
    let begin = Instant::now();
    let clock = || begin.elapsed().as_secs_f64();
    let copied = copy_bandwidth(device.as_ref(), most.as_u64(), &clock);
    Ok(pollster::block_on(copied)?)
}

/// Where a run's profile goes, if it is measured.
type Profile = Option<profile::Output>;

/// The results of `reps` runs, after one that compiles kernels and warms caches. Only a last one is measured kernel by kernel.
fn repeat(
    reps: u32,
    bar: &indicatif::ProgressBar,
    profile: &mut Profile,
    measure: &mut dyn FnMut(&mut Profile) -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<f64>> {
    let mut run = |profile: &mut Profile| {
        let speed = measure(profile);
        bar.inc(1);
        speed
    };
    run(&mut None)?;
    let speeds = (0..reps).map(|_| run(&mut None)).collect();
    if profile.is_some() {
        run(profile)?;
    }
    speeds
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
fn prefill(loaded: &mut Loaded, count: usize, profile: &mut Profile) -> anyhow::Result<f64> {
    let tokens = some_tokens(loaded, count);
    let options = GenerateOptions {
        max_tokens: 1,
        profile: profile.as_ref().map(profile::Output::profiling),
        ..GenerateOptions::default()
    };
    loaded.session.reset();
    let at = profile.as_ref().map_or(0.0, profile::Output::now);
    let begin = Instant::now();
    let answer = answer::generate(
        &mut loaded.session,
        &tokens,
        &options,
        Ui::new(true),
        &mut |_| Ok(()),
    )?;
    let took = begin.elapsed();
    if let Some(profile) = profile {
        profile.add(answer.profile, at);
    }
    Ok(rate(count, took))
}

/// Tokens per second of writing `count` tokens, after one that belongs to the prefill.
fn decode(loaded: &mut Loaded, count: usize, profile: &mut Profile) -> anyhow::Result<f64> {
    let tokens = some_tokens(loaded, 1);
    let options = GenerateOptions {
        max_tokens: count + 1,
        profile: profile.as_ref().map(profile::Output::profiling),
        ..GenerateOptions::default()
    };
    loaded.session.reset();
    let at = profile.as_ref().map_or(0.0, profile::Output::now);
    let answer = answer::generate(
        &mut loaded.session,
        &tokens,
        &options,
        Ui::new(true),
        &mut |_| Ok(()),
    )?;
    let rate = answer.times.decode_rate();
    if let Some(profile) = profile {
        profile.add(answer.profile, at);
    }
    Ok(rate)
}

fn print(
    args: &Bench,
    loaded: &Loaded,
    limits: Option<Copied>,
    lines: &[Line],
    profile: Option<&profile::Output>,
) -> anyhow::Result<()> {
    let device = loaded.device();
    let mut out = Out::new();
    if args.format.json {
        let limits = limits.map(|copied| {
            json!({
                "copy_bytes": copied.bytes,
                "copy_gb_per_second": copied.bandwidth / 1e9,
            })
        });
        let mut object = json!({
            "model": args.model.name.model,
            "device": device,
            "load_ms": answer::ms(loaded.load),
            "limits": limits,
            "results": lines,
        });
        if let Some(profile) = profile {
            object["profile"] = profile.summary();
        }
        out.json(&object)?;
        return out.finish();
    }
    out.line(format_args!(
        "{} on {device}, {} runs each",
        args.model.name.model, args.reps
    ))?;
    if let Some(copied) = limits {
        out.line(format_args!(
            "copying {}: {:.1} GB/s read and written",
            ByteSize(copied.bytes),
            copied.bandwidth / 1e9
        ))?;
    }
    let of_copy = if limits.is_some() { "of copy" } else { "" };
    let title = format!(
        "{:<8}{:>12}{:>12}{:>12}{:>12}{:>12}{of_copy:>12}",
        "test", "tok/s", "min", "max", "GB/s", "TFLOP/s"
    );
    out.line(style(title.trim_end()).dim())?;
    for line in lines {
        let median = style(format!("{:>12.1}", line.median)).bold();
        let percent = line.percent_of_copy.map(|p| format!("{p:>11.1}%"));
        out.line(format_args!(
            "{:<8}{median}{:>12.1}{:>12.1}{:>12.2}{:>12.4}{}",
            line.test,
            line.min,
            line.max,
            line.gb_per_second,
            line.tflops_per_second,
            percent.unwrap_or_default()
        ))?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_middle_of_two() {
        let line = |runs| Line::new("x".into(), 1, Needs::default(), runs);
        let even = line(vec![4.0, 1.0, 3.0, 100.0]);
        assert_eq!((even.median, even.min, even.max), (3.5, 1.0, 100.0));
        assert_eq!(line(vec![9.0, 1.0, 2.0]).median, 2.0);
    }

    #[test]
    fn what_is_reached_is_what_a_token_needs_times_tokens() {
        let needs = Needs {
            weights: 30_000_000,
            cache: 10_000_000,
            flops: 80_000_000_000,
        };
        let line = Line::new("tg4".into(), 4, needs, vec![200.0]);
        assert_eq!(line.weight_bytes_per_token, 7.5e6);
        assert_eq!((line.gb_per_second, line.tflops_per_second), (2.0, 4.0));
    }
}
