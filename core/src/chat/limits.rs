//! Bounds on a template's source, checked before it is parsed.
//!
//! The parser and the compiler recurse, and a stack overflow cannot be caught.

use std::ops::Range;

use minijinja::value::{Value as Jinja, ValueKind};
use minijinja::{Environment, ErrorKind};

use crate::{Error, Result};

/// Longest template.
const MAX_SOURCE: usize = 64 << 10;
/// Deepest nesting of blocks, and of brackets in one tag.
const MAX_NESTING: usize = 40;
/// Most operators, dots, pipes and words in one tag: each may be a level of its syntax tree.
const MAX_OPERATORS: usize = 1500;

/// Deepest recursion while rendering.
pub(super) const MAX_RECURSION: usize = 200;

/// Name of the filter that [`prepare`] puts behind every assigned value.
const BOUNDED: &str = "shardlight_bounded";

/// Deepest nesting of a value that is assigned to a variable.
const MAX_DEPTH: usize = 32;

/// Adds the filter that [`prepare`] relies on.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(BOUNDED, |value: Jinja, inner: Option<bool>| {
        if too_deep(&value, MAX_DEPTH) || (inner == Some(true) && is_namespace(&value)) {
            let why = format!("a value nests deeper than {MAX_DEPTH}, or holds a namespace");
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, why));
        }
        Ok(value)
    });
}

/// Whether `value` nests deeper than `depth`. A namespace must not lie in a value: it can hold itself.
fn too_deep(value: &Jinja, depth: usize) -> bool {
    let map = value.kind() == ValueKind::Map;
    if !map && value.kind() != ValueKind::Seq {
        return false;
    }
    if depth == 0 {
        return true;
    }
    let Ok(items) = value.try_iter() else {
        return false;
    };
    for item in items {
        let item = if map {
            value.get_item(&item).ok()
        } else {
            Some(item)
        };
        if item.is_some_and(|item| is_namespace(&item) || too_deep(&item, depth - 1)) {
            return true;
        }
    }
    false
}

fn is_namespace(value: &Jinja) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().contains("Namespace"))
}

/// Refuses what is too long or too deep, and lets every `set` check its value:
/// one that a loop nests ever deeper would overflow the stack when dropped.
pub(super) fn prepare(source: &str) -> Result<String> {
    let bad = |reason: String| Err(Error::format(super::PLACE, reason));
    if source.len() > MAX_SOURCE {
        return bad(format!("has {} bytes, limit {MAX_SOURCE}", source.len()));
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut blocks = 0_usize;
    while let Some(at) = rest
        .find("{{")
        .into_iter()
        .chain(rest.find("{%"))
        .chain(rest.find("{#"))
        .min()
    {
        let tag = &rest[at + 2..];
        let (end, block) = match rest.as_bytes()[at + 1] {
            b'{' => ("}}", false),
            b'%' => ("%}", true),
            _ => ("#}", false),
        };
        if end == "#}" {
            let next = tag.find(end).map_or("", |i| &tag[i + 2..]);
            out.push_str(&rest[..rest.len() - next.len()]);
            rest = next;
            continue;
        }
        let (length, brackets, operators) = measure(tag, end);
        if brackets > MAX_NESTING {
            return bad(format!("nests {brackets} brackets, limit {MAX_NESTING}"));
        }
        if operators > MAX_OPERATORS {
            return bad(format!(
                "has {operators} operators in one tag, limit {MAX_OPERATORS}"
            ));
        }
        if block {
            let word = tag.trim_start_matches(['-', '+']).trim_start();
            let word = word
                .split(|c: char| !c.is_ascii_alphabetic())
                .next()
                .unwrap_or("");
            match word {
                "if" | "for" | "macro" | "call" | "filter" | "with" | "block" | "autoescape" => {
                    blocks += 1
                }
                "endif" | "endfor" | "endmacro" | "endcall" | "endfilter" | "endwith"
                | "endblock" | "endautoescape" => blocks = blocks.saturating_sub(1),
                _ => {}
            }
            if blocks > MAX_NESTING {
                return bad(format!("nests {blocks} blocks, limit {MAX_NESTING}"));
            }
        }
        let (tag, next) = tag.split_at(length.min(tag.len()));
        out.push_str(&rest[..at + 2]);
        match assignment(tag).filter(|_| block) {
            Some(value) => {
                out.push_str(&tag[..value.start]);
                // A namespace may be a variable, not an attribute of another.
                let inner = tag[..value.start].contains('.');
                out.push_str(&format!("({})|{BOUNDED}({inner})", &tag[value.clone()]));
                out.push_str(&tag[value.end..]);
            }
            None => out.push_str(tag),
        }
        rest = next;
    }
    out.push_str(rest);
    elif_runs(source)?;
    Ok(out)
}

/// Where the value stands in ` set name = value %}`. The other form of `set`
/// opens a block, whose value is text.
fn assignment(tag: &str) -> Option<Range<usize>> {
    let body = tag.strip_suffix("%}")?;
    let body = body.strip_suffix(['-', '+']).unwrap_or(body);
    let head = body.trim_start_matches(['-', '+']).trim_start();
    let target = head.strip_prefix("set")?;
    if !target.starts_with(char::is_whitespace) {
        return None;
    }
    let target = &target[..target.find('=')?];
    let name = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.,()".contains(c);
    let start = body.find('=')? + 1;
    (target.chars().all(name) && !body[start..].trim().is_empty()).then_some(start..body.len())
}

/// Bytes up to and with the end of a tag, its deepest brackets and its operators.
fn measure(tag: &str, end: &str) -> (usize, usize, usize) {
    let bytes = tag.as_bytes();
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, 0);
    let mut quote = None;
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        if let Some(q) = quote {
            match b {
                b'\\' => i += 1,
                _ if b == q => quote = None,
                _ => {}
            }
        } else if depth == 0 && bytes[i..].starts_with(end.as_bytes()) {
            return (i + 2, deepest, operators);
        } else {
            match b {
                b'"' | b'\'' => quote = Some(b),
                b'(' | b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                    operators += 1;
                }
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                b'+' | b'-' | b'*' | b'/' | b'~' | b'|' | b'.' | b'%' | b'<' | b'>' | b'=' => {
                    operators += 1
                }
                b' ' | b'\n' | b'\t' | b'\r'
                    if bytes.get(i + 1).is_some_and(u8::is_ascii_alphabetic) =>
                {
                    operators += 1;
                }
                _ => {}
            }
        }
        i += 1;
    }
    (bytes.len(), deepest, operators)
}

/// Refuses a template with very many `elif`: each nests in the one before it.
fn elif_runs(source: &str) -> Result<()> {
    let count = source.matches("elif").count();
    if count > 400 {
        return Err(Error::format(
            super::PLACE,
            format!("has {count} elif, limit 400"),
        ));
    }
    Ok(())
}
