//! Reads the calls at the beginning of a text that may not be complete yet.
//!
//! What is found depends on no more of the text than it takes up, so that a text that comes in
//! pieces gives the same calls however it is cut.

use serde_json::{Map, Value};

use super::Tools;
use super::format::{Body, Elements, Format};

/// Longest text between a mark and JSON: a name, an id and marks.
const MAX_HEAD: usize = 256;

/// What a text begins with.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// It depends on what comes.
    More,
    /// No call.
    Nothing,
    /// Names and arguments of calls, in so many bytes.
    Calls(Vec<Call>, usize),
}

/// A name and arguments.
pub(super) type Call = (String, Map<String, Value>);

/// Calls at the beginning of `text`, which comes after a text that begins calls. With `bare` there was none.
pub(super) fn calls(format: &Format, tools: &Tools, text: &str, bare: bool) -> Found {
    let mut at = 0;
    loop {
        at += white(&text[at..]);
        match prefix(&text[at..], format.open) {
            _ if bare => break,
            Prefix::Whole(length) => at += length,
            Prefix::Part => return Found::More,
            Prefix::No => break,
        }
    }
    let rest = &text[at..];
    let found = match (rest.chars().next(), &format.body) {
        (None, _) => Found::More,
        (Some('{' | '['), _) => json(tools, rest),
        (_, Body::Json) => Found::Nothing,
        (_, Body::Named { marks, last }) => named(tools, rest, marks, *last),
        (_, Body::Elements(elements)) => in_elements(tools, rest, elements),
    };
    match found {
        Found::Calls(calls, length) => Found::Calls(calls, at + length),
        other => other,
    }
}

/// Whether a text begins with one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// It does, with so many bytes.
    Whole(usize),
    /// It is the beginning of one.
    Part,
    No,
}

pub(super) fn prefix(text: &str, words: &[&str]) -> Prefix {
    let whole = words.iter().filter(|word| text.starts_with(**word));
    match whole.map(|word| word.len()).max() {
        Some(length) => Prefix::Whole(length),
        None if words.iter().any(|word| word.starts_with(text)) => Prefix::Part,
        None => Prefix::No,
    }
}

/// Bytes of white space at the beginning.
pub(super) fn white(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// A call or a list of calls.
fn json(tools: &Tools, text: &str) -> Found {
    let end = match json_end(text) {
        Ok(Some(end)) => end,
        Ok(None) => return Found::More,
        Err(()) => return Found::Nothing,
    };
    let value = serde_json::from_str(&text[..end]).ok();
    match value.and_then(|value| listed(tools, value)) {
        Some(calls) if !calls.is_empty() => Found::Calls(calls, end),
        _ => Found::Nothing,
    }
}

/// Where the object or list at the beginning ends, if it does; an error where it is no JSON.
fn json_end(text: &str) -> Result<Option<usize>, ()> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '\0'..='\x1f' if quoted => return Err(()),
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(i + 1));
                }
            }
            ' '
            | '\t'
            | '\n'
            | '\r'
            | ','
            | ':'
            | '+'
            | '-'
            | '.'
            | '0'..='9'
            | 'a'..='z'
            | 'E' => {}
            _ => return Err(()),
        }
    }
    Ok(None)
}

fn listed(tools: &Tools, value: Value) -> Option<Vec<Call>> {
    match value {
        Value::Array(items) => items.into_iter().map(|item| call(tools, item)).collect(),
        Value::Object(mut map) => match map.remove("tool_calls") {
            Some(calls @ Value::Array(_)) => listed(tools, calls),
            Some(_) => None,
            None => Some(vec![call(tools, Value::Object(map))?]),
        },
        _ => None,
    }
}

/// `{name, arguments}` in one of its spellings, or `{NAME: arguments}`.
fn call(tools: &Tools, value: Value) -> Option<Call> {
    let Value::Object(mut map) = value else {
        return None;
    };
    for wrapper in ["tool_call", "function"] {
        if let Some(Value::Object(inner)) = map.get_mut(wrapper) {
            map = std::mem::take(inner);
        }
    }
    let name = ["name", "tool_name", "function"]
        .iter()
        .find_map(|key| map.get(*key)?.as_str());
    if let Some(name) = name.map(str::to_owned) {
        let given = ["arguments", "parameters"]
            .iter()
            .find_map(|key| map.remove(*key));
        let known = tools.has(&name);
        return known.then_some((name, object(given)?));
    }
    if map.len() > 1 {
        return None;
    }
    let (name, given) = map.into_iter().next()?;
    let known = tools.has(&name);
    known.then_some((name, object(Some(given))?))
}

/// An object, or a text that is one.
fn object(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(map)) => Some(map),
        Some(Value::String(text)) => serde_json::from_str(&text).ok(),
        Some(_) => None,
    }
}

/// `NAME [MARK …] {…}`.
fn named(tools: &Tools, text: &str, marks: &[&str], last: bool) -> Found {
    let Some(at) = text.find('{') else {
        return if text.len() > MAX_HEAD {
            Found::Nothing
        } else {
            Found::More
        };
    };
    if at > MAX_HEAD {
        return Found::Nothing;
    }
    let mut head = text[..at].to_owned();
    for mark in marks {
        head = head.replace(mark, "\n");
    }
    let mut parts = head
        .split('\n')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let Some(name) = (if last {
        parts.next_back()
    } else {
        parts.next()
    }) else {
        return Found::Nothing;
    };
    // Kimi writes `functions.NAME:INDEX`.
    let name = name.strip_prefix("functions.").unwrap_or(name);
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    if !tools.has(name) {
        return Found::Nothing;
    }
    let end = match json_end(&text[at..]) {
        Ok(Some(end)) => at + end,
        Ok(None) => return Found::More,
        Err(()) => return Found::Nothing,
    };
    match serde_json::from_str(&text[at..end]) {
        Ok(arguments) => Found::Calls(vec![(name.to_owned(), arguments)], end),
        Err(_) => Found::Nothing,
    }
}

fn in_elements(tools: &Tools, text: &str, marks: &Elements) -> Found {
    match prefix(text, &[marks.name]) {
        Prefix::Whole(_) => {}
        Prefix::Part => return Found::More,
        Prefix::No => return Found::Nothing,
    }
    let Some(end) = text.find(marks.end) else {
        return Found::More;
    };
    match element(tools, &text[marks.name.len()..end], marks) {
        Some(call) => Found::Calls(vec![call], end + marks.end.len()),
        None => Found::Nothing,
    }
}

fn element(tools: &Tools, text: &str, marks: &Elements) -> Option<Call> {
    let (name, mut rest) = match marks.name_end {
        "" => text.split_at(text.find(marks.key).unwrap_or(text.len())),
        end => text.split_once(end)?,
    };
    let name = name.trim();
    if !tools.has(name) {
        return None;
    }
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some((name.to_owned(), arguments));
        }
        let (key, after) = rest.strip_prefix(marks.key)?.split_once(marks.key_end)?;
        let after = match marks.value {
            "" => after,
            value => after.trim_start().strip_prefix(value)?,
        };
        let (value, after) = after.split_once(marks.value_end)?;
        let key = key.trim();
        arguments.insert(key.to_owned(), typed(tools.parameter(name, key), value));
        rest = after;
    }
}

/// A value that is written without quotes: text where the schema says so, and what is no JSON.
fn typed(schema: Option<&Value>, text: &str) -> Value {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let is_text = schema
        .and_then(|schema| schema.get("type"))
        .is_some_and(|kind| kind == "string");
    let json = if is_text {
        None
    } else {
        serde_json::from_str(text.trim()).ok()
    };
    json.unwrap_or_else(|| text.into())
}
