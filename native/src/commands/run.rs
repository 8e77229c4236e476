//! `shardlight run`: one prompt, one answer.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use bytesize::ByteSize;
use serde_json::json;
use shardlight::chat::Message;
use shardlight::session::{GenerateOptions, Logprobs, Session, StopReason};

use crate::answer::{self, Answer, ms};
use crate::cli::Run;
use crate::commands::batch;
use crate::exit::{Stop, usage};
use crate::experts;
use crate::job;
use crate::load::{self, Loaded};
use crate::out::Out;
use crate::prompt;
use crate::ui::Ui;

/// Streams the answer to standard output, or prints one object with `--json`.
pub fn run(args: &Run, ui: Ui) -> anyhow::Result<()> {
    if let Some(file) = &args.prompts {
        return batch::run(args, file, ui);
    }
    let words = args.prompt.join(" ");
    let text = text_or_stdin(
        (!args.prompt.is_empty()).then_some(words.as_str()),
        "PROMPT",
    )?;
    if text.trim().is_empty() {
        return Err(usage(
            "the prompt is empty; give one as an argument or on standard input",
        ));
    }
    let mut loaded = load::load(&args.model, ui)?;
    let tokens = if args.raw {
        prompt::raw(&loaded.session, &text)?
    } else {
        let messages = prompt::begin(args.talk.system.as_deref())
            .into_iter()
            .chain([Message::new("user", &text)])
            .collect::<Vec<_>>();
        prompt::render(&loaded.session, &messages)?
    };
    let options = GenerateOptions {
        logprobs: args.logprobs.map(usize::from),
        ..answer::options(&args.talk, args.talk.form.compile(&loaded.session)?)
    };
    let mut out = Out::new();
    let json = args.format.json;
    let answer = answer::generate(&mut loaded.session, &tokens, &options, ui, &mut |text| {
        if json { Ok(()) } else { out.stream(text) }
    })?;
    if json {
        out.json(&object(&answer, &loaded))?;
    } else if !answer.text.ends_with('\n') {
        out.line("")?;
    }
    out.finish()?;
    if !json {
        summary(&answer, &loaded, ui);
    }
    match answer.stop {
        StopReason::Cancelled => Err(Stop::Interrupted.into()),
        _ => Ok(()),
    }
}

/// The argument, or standard input for `-` and where nothing was given and it is not a terminal.
pub fn text_or_stdin(argument: Option<&str>, name: &str) -> anyhow::Result<String> {
    let mut stdin = std::io::stdin();
    match argument {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if stdin.is_terminal() => Err(usage(format!(
            "{name} is missing; give it as an argument or on standard input"
        ))),
        _ => {
            // `mpirun` gives its standard input to rank 0 only.
            let mut text = String::new();
            if job::is_first() {
                stdin.read_to_string(&mut text).context("standard input")?;
            }
            let text = String::from_utf8(job::broadcast(text.into_bytes()))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

fn object(answer: &Answer, loaded: &Loaded) -> serde_json::Value {
    let times = &answer.times;
    let mut object = json!({
        "text": answer.text,
        "tokens": answer.tokens,
        "stop": answer.stop.name(),
        "timings": {
            "load_ms": ms(loaded.load),
            "prefill_tokens": times.prefill_tokens,
            "prefill_ms": ms(times.prefill),
            "first_token_ms": ms(times.first_token),
            "decode_tokens": times.decode_tokens,
            "decode_ms": ms(times.decode),
        },
        "device": loaded.device(),
        "memory": memory(&loaded.session),
    });
    if !answer.logprobs.is_empty() {
        let each = answer.tokens.iter().zip(&answer.logprobs);
        let token = |id: u32, logprob: f32| {
            let tokenizer = loaded.session.tokenizer();
            let text = tokenizer.map(|t| String::from_utf8_lossy(t.token_bytes(id)));
            json!({ "id": id, "text": text, "logprob": logprob })
        };
        let one = |(id, logprobs): (&u32, &Logprobs)| {
            let mut object = token(*id, logprobs.logprob);
            let top = logprobs.top.iter().map(|(id, log)| token(*id, *log));
            object["top"] = top.collect();
            object
        };
        object["logprobs"] = each.map(one).collect();
    }
    if let Some(used) = loaded.session.expert_cache() {
        object["expert_cache"] = json!({
            "bytes": used.bytes,
            "slots": used.slots,
            "experts": used.experts,
            "hits": used.hits,
            "misses": used.misses,
            "hit_rate": used.hit_rate(),
            "bytes_read": used.bytes_read,
            "prefetched": used.prefetched,
            "prefetch_hits": used.prefetch_hits,
        });
    }
    if let Some(statistics) = loaded.session.expert_statistics() {
        object["experts"] = experts::object(statistics);
    }
    object
}

/// Bytes of each device by purpose.
fn memory(session: &Session) -> serde_json::Value {
    let each = session.memory().into_iter().map(|memory| {
        let mut object = json!(memory.used);
        object["device"] = json!(memory.device.to_string());
        object
    });
    each.collect()
}

/// One dim line about speed, and why it stopped if that is news.
pub fn summary(answer: &Answer, loaded: &Loaded, ui: Ui) {
    let times = &answer.times;
    ui.aside(format_args!(
        "{} tokens, {:.1} tok/s; read {} at {:.0} tok/s, first after {:.0} ms; {}",
        answer.tokens.len(),
        times.decode_rate(),
        times.prefill_tokens,
        times.prefill_rate(),
        ms(times.first_token),
        loaded.device(),
    ));
    if let Some(used) = loaded.session.expert_cache() {
        ui.aside(format_args!(
            "experts: {} of {} in {}, found {:.0} % of the time; {} read",
            used.slots,
            used.experts,
            ByteSize(used.bytes),
            100.0 * used.hit_rate(),
            ByteSize(used.bytes_read),
        ));
    }
    if let Some(statistics) = loaded.session.expert_statistics() {
        experts::table(statistics, ui);
    }
    match answer.stop {
        StopReason::Length => ui.aside("stopped at --max-tokens"),
        StopReason::Context => ui.aside("stopped because the context is full; raise --ctx"),
        _ => {}
    }
}
