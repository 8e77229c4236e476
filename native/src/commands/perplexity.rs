//! `shardlight perplexity`: how surprised a model is by a text.

use std::fs;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;

use crate::answer::{ms, rate};
use crate::cli::Perplexity;
use crate::exit::usage;
use crate::interrupt;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Tokens that are looked at together, and those of them that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    length: usize,
    /// From one to the next.
    step: usize,
    /// The first token that counts.
    first: usize,
}

impl Windows {
    /// As llama.cpp's `perplexity.cpp` has them: one after the other, of each the second half counts; or, with a stride, so
    /// many tokens further each, the last ones of which count.
    fn new(length: usize, stride: Option<usize>) -> Self {
        match stride {
            None => Windows {
                length,
                step: length,
                first: length / 2 + 1,
            },
            Some(step) => Windows {
                length,
                step,
                first: length - step,
            },
        }
    }

    /// How many there are in a text of `tokens`.
    fn count(self, tokens: usize) -> usize {
        match tokens.checked_sub(self.length) {
            Some(rest) => 1 + rest / self.step,
            None => 0,
        }
    }
}

/// Sums of what counts.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    /// Of negative logarithms, and of their squares.
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, log: f32) {
        let surprise = -f64::from(log);
        self.count += 1.0;
        self.sum += surprise;
        self.squares += surprise * surprise;
    }

    /// Perplexity, and its standard error by the delta method.
    fn perplexity(self) -> (f64, f64) {
        let mean = self.sum / self.count;
        let variance = (self.squares / self.count - mean * mean).max(0.0);
        let error = (variance / (self.count - 1.0).max(1.0)).sqrt();
        (mean.exp(), error * mean.exp())
    }
}

/// Prints one line, or with `--json` an object `{perplexity, error, tokens, counted, windows, ms, device}`.
pub fn run(args: &Perplexity, ui: Ui) -> anyhow::Result<()> {
    let place = args.file.display().to_string();
    let text = fs::read(&args.file).with_context(|| place.clone())?;
    let text = String::from_utf8(text).with_context(|| place.clone())?;
    let mut loaded = load::load(&args.model, ui)?;
    let length = loaded.session.context_length().min(args.window as usize);
    if args.stride.is_some_and(|stride| stride as usize >= length) || length < 4 {
        return Err(usage(format!(
            "windows of {length} tokens need a stride of less, and 4 tokens or more"
        )));
    }
    let windows = Windows::new(length, args.stride.map(|stride| stride as usize));
    let tokenizer = loaded.session.tokenizer();
    let tokenizer = tokenizer.ok_or_else(|| usage("the model has no tokenizer"))?;
    let begin = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let tokens = tokenizer.encode(&text, true, false)?;
    let count = windows
        .count(tokens.len())
        .min(args.chunks.unwrap_or(u32::MAX) as usize);
    if count == 0 {
        return Err(usage(format!(
            "{place}: has {} tokens, a window {length}; give a longer text, or a smaller --window",
            tokens.len()
        )));
    }
    let bar = ui.steps("reading", count as u64);
    let interrupt = interrupt::Answer::begin();
    let started = Instant::now();
    let mut sums = Sums::default();
    for i in 0..count {
        let mut window = tokens[i * windows.step..][..length].to_vec();
        // Each begins as a text does.
        if let Some(begin) = begin {
            window[0] = begin;
        }
        let logs = loaded.session.log_likelihoods(&window, windows.first);
        pollster::block_on(logs)?
            .into_iter()
            .for_each(|log| sums.add(log));
        bar.inc(1);
        if interrupt.interrupted() {
            return Err(crate::exit::Stop::Interrupted.into());
        }
    }
    bar.finish_and_clear();
    let took = started.elapsed();
    let (perplexity, error) = sums.perplexity();
    let mut out = Out::new();
    if args.format.json {
        out.json(&json!({
            "perplexity": perplexity,
            "error": error,
            "tokens": tokens.len(),
            "counted": sums.count as u64,
            "windows": count,
            "window": length,
            "ms": ms(took),
            "device": loaded.device(),
        }))?;
    } else {
        out.line(format_args!("perplexity {perplexity:.4} +/- {error:.4}"))?;
        ui.aside(format_args!(
            "{} of {} tokens in {count} windows of {length}, {:.0} tok/s; {}",
            sums.count,
            tokens.len(),
            rate(count * length, took),
            loaded.device()
        ));
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_llama_cpps() {
        let whole = Windows::new(512, None);
        assert_eq!((whole.step, whole.first), (512, 257));
        assert_eq!([511, 512, 1023, 1024].map(|n| whole.count(n)), [0, 1, 1, 2]);
        let strided = Windows::new(512, Some(128));
        assert_eq!((strided.step, strided.first), (128, 384));
        assert_eq!([512, 639, 640].map(|n| strided.count(n)), [1, 1, 2]);
    }

    #[test]
    fn a_fair_coin_has_a_perplexity_of_two_without_an_error() {
        let mut sums = Sums::default();
        (0..10).for_each(|_| sums.add(0.5_f32.ln()));
        let (perplexity, error) = sums.perplexity();
        assert!(
            (perplexity - 2.0).abs() < 1e-6 && error < 1e-6,
            "{perplexity} {error}"
        );
    }
}
