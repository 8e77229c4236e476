//! `shardlight run`: one prompt, one answer.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::Context as _;
use bytesize::ByteSize;
use serde_json::json;
use shardlight::chat::Message;
use shardlight::constraint::Form;
use shardlight::session::{GenerateOptions, Logprobs, Session, StopReason};
use shardlight_tools::{Part, ToolCall, ToolCalls, ToolChoice, Tools};

use crate::answer::{self, Answer, ms};
use crate::cli::Run;
use crate::commands::batch;
use crate::exit::{Stop, usage};
use crate::experts;
use crate::form;
use crate::job;
use crate::load::{self, Loaded};
use crate::out::Out;
use crate::profile;
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
    let (tools, choice) = offered(args)?;
    let mut profile = (args.profile.as_deref().map(profile::Output::create)).transpose()?;
    let mut loaded = load::load(&args.model, ui)?;
    let (tokens, format) = if args.raw {
        (prompt::raw(&loaded.session, &text)?, None)
    } else {
        let messages = prompt::begin(args.talk.system.as_deref())
            .into_iter()
            .chain([Message::new("user", &text)])
            .collect::<Vec<_>>();
        prompt::with_tools(&loaded.session, &messages, tools.as_ref())?
    };
    // A call that must come is JSON and nothing else.
    let call = format
        .zip(tools.as_ref())
        .and_then(|(format, tools)| tools.schema(&choice, format.arguments));
    let parser = format
        .zip(tools.as_ref())
        .map(|(format, tools)| ToolCalls::new(format, tools, &tokens));
    let mut calls = Calls {
        parser: match call {
            Some(_) => parser.map(ToolCalls::only_calls),
            None => parser,
        },
        said: String::new(),
        made: Vec::new(),
    };
    let options = GenerateOptions {
        show: format
            .into_iter()
            .flat_map(|format| format.marks().map(str::to_owned))
            .collect(),
        logprobs: args.logprobs.map(usize::from),
        profile: profile.as_ref().map(profile::Output::profiling),
        ..answer::options(
            &args.talk,
            match call {
                Some(call) => Some(form::constraint(
                    &loaded.session,
                    &Form::JsonSchema(call.to_string()),
                )?),
                None => args.talk.form.compile(&loaded.session)?,
            },
        )
    };
    let mut out = Out::new();
    let json = args.format.json;
    let at = profile.as_ref().map_or(0.0, profile::Output::now);
    let mut answer = answer::generate(&mut loaded.session, &tokens, &options, ui, &mut |text| {
        let said = calls.push(text);
        if json { Ok(()) } else { out.stream(&said) }
    })?;
    let said = calls.finish();
    if !json {
        out.stream(&said)?;
    }
    answer.text = calls.said;
    if let Some(profile) = &mut profile {
        profile.add(answer.profile.take(), at);
    }
    let made: Vec<_> = calls.made.iter().map(ToolCall::to_json).collect();
    if json {
        let mut object = object(&answer, &loaded);
        if tools.is_some() {
            object["tool_calls"] = made.into();
        }
        if let Some(profile) = &profile {
            object["profile"] = profile.summary();
        }
        out.json(&object)?;
    } else {
        if !answer.text.ends_with('\n') && (made.is_empty() || !answer.text.is_empty()) {
            out.line("")?;
        }
        for call in made {
            out.json(&call)?;
        }
    }
    out.finish()?;
    if !json {
        summary(&answer, &loaded, ui);
    }
    if let Some(profile) = profile {
        profile.finish(ui)?;
    }
    match answer.stop {
        StopReason::Cancelled => Err(Stop::Interrupted.into()),
        _ => Ok(()),
    }
}

/// What is said, and the calls that are taken out of it where functions are offered.
struct Calls<'a> {
    parser: Option<ToolCalls<'a>>,
    said: String,
    made: Vec<ToolCall>,
}

impl Calls<'_> {
    /// Adds text; gives what of it is said.
    fn push(&mut self, text: &str) -> String {
        let parts = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => vec![Part::Text(text.to_owned())],
        };
        self.take(parts)
    }

    fn finish(&mut self) -> String {
        let parts = self.parser.as_mut().map(ToolCalls::finish);
        self.take(parts.unwrap_or_default())
    }

    fn take(&mut self, parts: Vec<Part>) -> String {
        let mut said = String::new();
        for part in parts {
            match part {
                Part::Text(text) => said.push_str(&text),
                Part::Call(call) => self.made.push(call),
            }
        }
        self.said.push_str(&said);
        said
    }
}

/// The functions that are offered, and whether they are to be called.
fn offered(args: &Run) -> anyhow::Result<(Option<Tools>, ToolChoice)> {
    let Some(file) = &args.tools else {
        return Ok((None, ToolChoice::None));
    };
    let tools = read_tools(file)?;
    let choice = match args.tool_choice.as_deref() {
        None => serde_json::Value::Null,
        Some(word @ ("auto" | "none" | "required")) => word.into(),
        Some(name) => json!({ "type": "function", "function": { "name": name } }),
    };
    let choice =
        ToolChoice::new(&choice, &tools).map_err(|e| usage(format!("--tool-choice: {e}")))?;
    Ok(((choice != ToolChoice::None).then_some(tools), choice))
}

/// The functions of `--tools`.
fn read_tools(file: &Path) -> anyhow::Result<Tools> {
    let place = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(place)?;
    let list = serde_json::from_str(&text).with_context(place)?;
    Tools::new(&list).with_context(place)
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
