//! Brings functions, calls and their results into a conversation in the way that a template takes.

use serde_json::Value;

use super::format::GENERIC;
use super::{Format, Tools, check_name, in_object, kind, object, short, text, wrong};
use shardlight::chat::{ChatTemplate, Message, Options};
use shardlight::{Error, Result};

/// A conversation as a template takes it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was said.
    pub messages: Vec<Message>,
    /// What the template is given besides.
    pub options: Options,
    /// How calls in the answer are written, where functions are offered.
    pub format: Option<&'static Format>,
}

impl Request {
    /// `messages` with calls and results in them, and `tools` offered, for [`ChatTemplate::render`].
    ///
    /// Templates take a call's arguments as an object, OpenAI's API has them as JSON text. A template that
    /// knows nothing of functions gets them in words, and asks for calls in JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for calls and results of a wrong shape, with the place, and
    /// [`Error::Unsupported`] for a template that writes calls in an unknown form.
    pub fn new(
        template: &ChatTemplate,
        messages: &[Message],
        tools: Option<&Tools>,
        options: &Options,
    ) -> Result<Request> {
        let mut messages = checked(messages)?;
        let mut options = options.clone();
        let used = messages
            .iter()
            .any(|m| m.role() == "tool" || m.0.contains_key("tool_calls"));
        if tools.is_none() && !used {
            return Ok(Request {
                messages,
                options,
                format: None,
            });
        }
        let known = Format::of(template.source());
        let format = match tools {
            None => None,
            Some(tools) => Some(form(template, known, tools, &options)?),
        };
        // Without functions to show, it is not known whether the template would.
        let generic = format.map_or(known.is_none(), |format| *format == GENERIC);
        if generic && used {
            messages = in_words(messages);
        }
        if let Some(tools) = tools {
            match format {
                Some(format) if *format == GENERIC => {
                    describe(template, &mut messages, tools, &options)
                }
                Some(format) if format.in_system_message() => attach(&mut messages, tools),
                _ => options.tools = Some(tools.list()),
            }
        }
        if known.is_some_and(Format::short_ids) {
            shorten_ids(&mut messages);
        }
        if known.is_some_and(Format::one_call) {
            messages = one_by_one(&messages);
        }
        if used && !generic && template.render(&messages, &options).is_err() {
            // A few want arguments as text.
            let texts: Vec<Message> = messages.iter().map(arguments_as_text).collect();
            if template.render(&texts, &options).is_ok() {
                messages = texts;
            }
        }
        Ok(Request {
            messages,
            options,
            format,
        })
    }
}

/// How the model writes calls of `tools`: as its template says, where that shows functions.
fn form(
    template: &ChatTemplate,
    known: Option<&'static Format>,
    tools: &Tools,
    options: &Options,
) -> Result<&'static Format> {
    if let Some(format) = known
        && format.in_system_message()
    {
        return Ok(format);
    }
    let options = Options {
        tools: Some(tools.list()),
        ..options.clone()
    };
    let probe = template.render(&[Message::new("user", "?")], &options);
    let shown = probe.is_ok_and(|text| tools.names().all(|name| text.contains(name)));
    match (shown, known) {
        (false, _) => Ok(&GENERIC),
        (true, Some(format)) => Ok(format),
        (true, None) => Err(Error::Unsupported {
            what: "tools: this model's chat template writes calls in an unknown form".into(),
            supported: format!("{}, and templates without functions", Format::names()),
        }),
    }
}

/// Tells of `tools` in words: in the system message, or where a template has none, before the first message.
fn describe(
    template: &ChatTemplate,
    messages: &mut Vec<Message>,
    tools: &Tools,
    options: &Options,
) {
    const PROBE: &str = "a system message";
    let probe = [Message::new("system", PROBE), Message::new("user", "?")];
    let system = template
        .render(&probe, options)
        .is_ok_and(|text| text.contains(PROBE));
    let words = description(tools);
    match messages.first_mut() {
        Some(first) if first.role() == "system" || !system => {
            let said = first.0.get("content").and_then(Value::as_str).unwrap_or("");
            let said = if system {
                format!("{said}\n\n{words}")
            } else {
                format!("{words}\n\n{said}")
            };
            first.0.insert("content".into(), said.into());
        }
        _ => messages.insert(0, Message::new("system", &words)),
    }
}

fn description(tools: &Tools) -> String {
    let lines: Vec<String> = tools
        .0
        .iter()
        .map(|tool| tool.function().to_string())
        .collect();
    format!(
        "You can call these functions:\n{}\n\nTo call a function, answer with nothing but a JSON object \
         {{\"name\": FUNCTION, \"arguments\": {{PARAMETER: VALUE}}}}, or with a list of such objects to call several. \
         When no function helps, answer in words.",
        lines.join("\n")
    )
}

/// Messages with calls and results of the right shape: arguments are objects, contents text, results have names.
fn checked(messages: &[Message]) -> Result<Vec<Message>> {
    // Ids of calls, and the functions' names.
    let mut called: Vec<(String, String)> = Vec::new();
    let mut out = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let mut message = message.clone();
        let place = format!("messages[{i}]");
        if message.0.get("tool_calls").is_some_and(Value::is_null) {
            message.0.remove("tool_calls");
        }
        match message.role() {
            "assistant" if message.0.contains_key("tool_calls") => {
                let calls = calls(&format!("{place}.tool_calls"), &message.0["tool_calls"])?;
                for call in &calls {
                    if let (Some(id), Some(name)) =
                        (call["id"].as_str(), call["function"]["name"].as_str())
                    {
                        called.push((id.to_owned(), name.to_owned()));
                    }
                }
                if message.0.get("content").is_none_or(Value::is_null) {
                    message.0.insert("content".into(), "".into());
                }
                match calls.is_empty() {
                    true => message.0.remove("tool_calls"),
                    false => message.0.insert("tool_calls".into(), calls.into()),
                };
            }
            "tool" => {
                let id = text(
                    &format!("{place}.tool_call_id"),
                    message.0.get("tool_call_id"),
                )?;
                let Some((_, name)) = called.iter().rfind(|(known, _)| known == id) else {
                    let id = short(&id.into());
                    return Err(wrong(
                        &place,
                        format_args!("tool_call_id {id} is of no call before it"),
                    ));
                };
                let name = Value::from(name.as_str());
                message.0.entry("name").or_insert(name);
            }
            role if message.0.contains_key("tool_calls") => {
                return Err(wrong(
                    &place,
                    format_args!("tool_calls of role {role:?}; only the assistant calls"),
                ));
            }
            _ => {}
        }
        out.push(message);
    }
    Ok(out)
}

fn calls(place: &str, value: &Value) -> Result<Vec<Value>> {
    let Value::Array(items) = value else {
        return Err(wrong(
            place,
            format_args!("expected a list, found {}", kind(value)),
        ));
    };
    let mut calls = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let place = format!("{place}[{i}]");
        let call = object(&place, item)?;
        let id = text(&format!("{place}.id"), call.get("id"))?;
        let place = format!("{place}.function");
        let function = object(&place, call.get("function").unwrap_or(&Value::Null))?;
        let name = text(&format!("{place}.name"), function.get("name"))?;
        check_name(&format!("{place}.name"), name)?;
        let place = format!("{place}.arguments");
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => in_object([]),
            Some(Value::String(text)) if text.trim().is_empty() => in_object([]),
            // A model may have written no JSON; what it wrote is what it shall see.
            Some(Value::String(text)) => {
                serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
            }
            Some(Value::Object(map)) => map.clone().into(),
            Some(other) => {
                return Err(wrong(
                    &place,
                    format_args!("expected JSON as text, found {}", kind(other)),
                ));
            }
        };
        calls.push(in_object([
            ("id", id.into()),
            ("type", "function".into()),
            (
                "function",
                in_object([("name", name.into()), ("arguments", arguments)]),
            ),
        ]));
    }
    Ok(calls)
}

/// Every call of a message.
fn each_call(message: &mut Message) -> impl Iterator<Item = &mut Value> {
    let calls = message
        .0
        .get_mut("tool_calls")
        .and_then(Value::as_array_mut);
    calls.into_iter().flatten()
}

fn arguments_as_text(message: &Message) -> Message {
    let mut message = message.clone();
    for call in each_call(&mut message) {
        let arguments = &mut call["function"]["arguments"];
        if !arguments.is_string() {
            *arguments = arguments.to_string().into();
        }
    }
    message
}

/// Several calls of one message as messages of one call, each with its result behind it.
fn one_by_one(messages: &[Message]) -> Vec<Message> {
    let mut placed = vec![false; messages.len()];
    let mut out = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        if placed[i] {
            continue;
        }
        let mut message = message.clone();
        let calls: Vec<Value> = each_call(&mut message).map(|call| call.clone()).collect();
        if calls.len() < 2 {
            out.push(message);
            continue;
        }
        for call in calls {
            let id = call["id"].clone();
            message.0.insert("tool_calls".into(), vec![call].into());
            out.push(message.clone());
            message.0.insert("content".into(), "".into());
            let rest = messages.iter().enumerate().skip(i + 1);
            let result = rest.filter(|(j, m)| !placed[*j] && m.0.get("tool_call_id") == Some(&id));
            let found = result.map(|(j, m)| (j, m.clone())).next();
            if let Some((j, result)) = found {
                placed[j] = true;
                out.push(result);
            }
        }
    }
    out
}

/// Calls and results as text, for templates that know neither.
fn in_words(messages: Vec<Message>) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for mut message in messages {
        let content = message
            .0
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        let calls: Vec<String> = each_call(&mut message)
            .map(|call| call["function"].to_string())
            .collect();
        let is_result = message.role() == "tool";
        if !calls.is_empty() {
            let calls = if calls.len() == 1 {
                calls.concat()
            } else {
                format!("[{}]", calls.join(", "))
            };
            let gap = if content.is_empty() { "" } else { "\n\n" };
            out.push(Message::new("assistant", &format!("{content}{gap}{calls}")));
        } else if is_result {
            let name = message.0.get("name").and_then(Value::as_str).unwrap_or("");
            let result = format!("Result of {name}: {content}");
            // Results of one message's calls are one message: many templates want roles to alternate.
            match out.last_mut().filter(|_| after_result) {
                Some(last) => {
                    let before = last.0["content"].as_str().unwrap_or("");
                    *last = Message::new("user", &format!("{before}\n\n{result}"));
                }
                None => out.push(Message::new("user", &result)),
            }
        } else {
            out.push(message);
        }
        after_result = is_result;
    }
    out
}

/// Puts the functions into the system message, as JSON text.
fn attach(messages: &mut Vec<Message>, tools: &Tools) {
    if messages
        .first()
        .is_none_or(|first| first.role() != "system")
    {
        messages.insert(0, Message::new("system", ""));
    }
    let functions: Value = tools.0.iter().map(super::Tool::function).collect();
    messages[0]
        .0
        .insert("tools".into(), functions.to_string().into());
}

/// Ids of nine letters and digits in place of others.
fn shorten_ids(messages: &mut [Message]) {
    let shorten = |id: &mut Value| {
        let Some(text) = id.as_str() else { return };
        if text.len() == 9 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return;
        }
        // FNV-1a; 36 bits are enough to tell a conversation's calls apart.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        *id = format!("{:09x}", hash >> 28).into();
    };
    for message in messages {
        each_call(message).for_each(|call| shorten(&mut call["id"]));
        if let Some(id) = message.0.get_mut("tool_call_id") {
            shorten(id);
        }
    }
}
