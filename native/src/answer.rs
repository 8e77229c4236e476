//! One answer: generate, measure, and hand out the text as it comes.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use shardlight::constraint::Constraint;
use shardlight::profile::Profile;
use shardlight::sampler::Sampling;
use shardlight::session::{Event, GenerateOptions, Logprobs, Session, StopReason};

use crate::cli::Talk;
use crate::interrupt;
use crate::job;
use crate::ui::Ui;

/// The options of the command line; the seed is the time if none was asked for.
pub fn options(talk: &Talk, constraint: Option<Rc<dyn Constraint>>) -> GenerateOptions {
    GenerateOptions {
        max_tokens: talk.max_tokens as usize,
        sampling: Sampling {
            temperature: talk.temp,
            top_k: talk.top_k as usize,
            top_p: talk.top_p,
            min_p: talk.min_p,
            repeat_penalty: talk.repeat_penalty,
            seed: job::broadcast_u64(talk.seed.unwrap_or_else(now)),
            ..Sampling::default()
        },
        stop: talk.stop.clone(),
        constraint,
        ..GenerateOptions::default()
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// What came of it.
pub struct Answer {
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<Logprobs>,
    pub stop: StopReason,
    pub profile: Option<Profile>,
    pub times: Times,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Tokens of the prompt that were not in the cache.
    pub prefill_tokens: usize,
    pub prefill: Duration,
    pub first_token: Duration,
    /// Tokens written after the first, and the time they took: the first comes out of the prefill.
    pub decode_tokens: usize,
    pub decode: Duration,
}

/// Milliseconds with three decimals.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Times {
    /// Tokens per second of reading the prompt.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefill_tokens, self.prefill)
    }

    /// Tokens per second of writing.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_tokens, self.decode)
    }
}

/// `count` per second; 0 when no time has passed.
pub fn rate(count: usize, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// Continues `tokens`; `on_text` gets each piece of text and may fail, which ends it.
pub fn generate(
    session: &mut Session,
    tokens: &[u32],
    options: &GenerateOptions,
    ui: Ui,
    on_text: &mut dyn FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Answer> {
    let interrupt = interrupt::Answer::begin();
    let bar = ui.steps("reading", 1);
    let mut times = Times::default();
    let mut failed = None;
    let begin = Instant::now();
    let mut first = None;
    let (mut last, mut lost) = (begin, begin);
    let generated = pollster::block_on(session.generate(tokens, options, &mut |event| {
        match event {
            Event::Prefill {
                done,
                total,
                reused,
            } => {
                times.prefill_tokens = total - reused;
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            }
            Event::Experts(_) | Event::Reload(_) | Event::Replay { .. } => {}
            Event::DeviceLost { reason } => {
                lost = Instant::now();
                ui.aside(format!("{reason}; opening it again"));
            }
            Event::Recovered => ui.aside(format!("it works again after {:.0?}", lost.elapsed())),
            Event::Token { text, .. } => {
                last = Instant::now();
                if first.is_none() {
                    first = Some(last);
                    bar.finish_and_clear();
                }
                if !text.is_empty()
                    && let Err(error) = on_text(text)
                {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        if interrupt.interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }));
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let generated = generated?;
    if let Some(first) = first {
        // The first token comes out of the last step of the prefill, and waiting for it is the only way
        // to know that a GPU has done that step.
        times.prefill = first - begin;
        times.first_token = first - begin;
        times.decode_tokens = generated.tokens.len().saturating_sub(1);
        times.decode = last - first;
    }
    Ok(Answer {
        text: generated.text,
        tokens: generated.tokens,
        logprobs: generated.logprobs,
        stop: generated.stop,
        profile: generated.profile,
        times,
    })
}
