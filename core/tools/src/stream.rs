//! Takes calls out of an answer while it is written.

use serde_json::Value;

use super::scan::{self, Found, Prefix, prefix, white};
use super::{Format, Tools, in_object};

/// Bytes of a call from which on it is looked at less often.
const LONG: usize = 1024;

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Different for each call of a conversation.
    pub id: String,
    /// The function's.
    pub name: String,
    /// An object, as JSON.
    pub arguments: String,
}

impl ToolCall {
    /// In the shape of OpenAI's API.
    pub fn to_json(&self) -> Value {
        in_object([
            ("id", self.id.as_str().into()),
            ("type", "function".into()),
            (
                "function",
                in_object([
                    ("name", self.name.as_str().into()),
                    ("arguments", self.arguments.as_str().into()),
                ]),
            ),
        ])
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is said.
    Text(String),
    /// A function to call.
    Call(ToolCall),
}

/// Takes calls out of an answer that comes in pieces.
///
/// Text that may become a call is held back until that is known. A call that is malformed, or of a
/// function that was not offered, is text. White space around calls is not.
///
/// ```
/// # use shardlight::chat::{ChatTemplate, Message, Options};
/// # use shardlight_tools::{Part, Request, ToolCalls, Tools};
/// let template = ChatTemplate::fallback()?;
/// let tools = Tools::new(&serde_json::json!([{"type": "function", "function": {"name": "now"}}]))?;
/// let asked = [Message::new("user", "What time is it?")];
/// let request = Request::new(&template, &asked, Some(&tools), &Options::default())?;
/// let mut calls = ToolCalls::new(request.format.unwrap(), &tools, &[1, 2]);
/// assert_eq!(calls.push("{\"name\": \"now\", "), []);
/// let parts = calls.push("\"arguments\": {}}");
/// assert!(matches!(&parts[..], [Part::Call(call)] if call.name == "now" && call.arguments == "{}"));
/// # Ok::<(), shardlight::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ToolCalls<'a> {
    format: &'static Format,
    tools: &'a Tools,
    /// Text that was not told yet.
    held: String,
    state: State,
    /// A call may come without a text that begins it.
    bare: bool,
    /// Nothing but white space has come.
    fresh: bool,
    /// Distinguishes the ids of this answer's calls from those of others.
    salt: u64,
    made: u64,
    most: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Text,
    /// `held` begins with white space and a text that begins calls, of these lengths.
    Call {
        white: usize,
        mark: usize,
    },
    /// A call has ended.
    After,
}

impl<'a> ToolCalls<'a> {
    /// For the answer to the prompt `tokens`, on which the calls' ids depend.
    pub fn new(format: &'static Format, tools: &'a Tools, tokens: &[u32]) -> Self {
        // FNV-1a.
        let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
        let salt = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        ToolCalls {
            format,
            tools,
            held: String::new(),
            state: State::Text,
            bare: format.bare,
            fresh: true,
            salt,
            made: 0,
            most: u64::MAX,
        }
    }

    /// The answer is a call and nothing else, as when [`Tools::schema`] shapes it.
    pub fn only_calls(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Takes the first call only: then the answer [is done](ToolCalls::is_done).
    pub fn first_call(mut self) -> Self {
        self.most = 1;
        self
    }

    /// Whether there was a call.
    pub fn called(&self) -> bool {
        self.made > 0
    }

    /// Nothing that may come is of interest.
    pub fn is_done(&self) -> bool {
        self.made >= self.most
    }

    /// Adds text; gives what is now certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        // A long call is read again only where it may end.
        let open = matches!(self.state, State::Call { .. }) && self.held.len() > LONG;
        if open && !text.contains(['}', ']', '>']) {
            return parts;
        }
        while !self.is_done() && self.step(false, &mut parts) {}
        parts
    }

    /// The rest, when no more comes.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while !self.is_done() && self.step(true, &mut parts) {}
        parts
    }

    /// One step; `false` when more text is needed, or at the `end` when none is left.
    fn step(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Text => self.text(end, parts),
            State::Call { white, mark } => self.call(white, mark, end, parts),
            State::After => self.after(end),
        }
    }

    fn text(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        let lead = white(&self.held);
        if self.bare && self.fresh && self.held[lead..].starts_with(['{', '[']) {
            self.state = State::Call {
                white: lead,
                mark: 0,
            };
            return true;
        }
        let marks = self.format.open.iter();
        let found = marks.filter_map(|mark| Some((self.held.find(mark)?, mark.len())));
        if let Some((at, mark)) = found.min() {
            let said = self.held[..at].trim_end().len();
            self.say(said, parts);
            self.state = State::Call {
                white: at - said,
                mark,
            };
            return true;
        }
        let said = if end {
            self.held.len()
        } else {
            self.held.len() - self.open_end()
        };
        self.say(said, parts);
        false
    }

    /// Bytes at the end that may be the beginning of calls, with the white space before them.
    fn open_end(&self) -> usize {
        let held = self.held.as_str();
        let may = |at: &usize| {
            self.format
                .open
                .iter()
                .any(|mark| mark.starts_with(&held[*at..]))
        };
        let longest = self
            .format
            .open
            .iter()
            .map(|mark| mark.len())
            .max()
            .unwrap_or(0);
        let ends = held.char_indices().map(|(at, _)| at);
        let at = ends.filter(|at| held.len() - at < longest).find(may);
        held.len() - held[..at.unwrap_or(held.len())].trim_end().len()
    }

    fn call(&mut self, white: usize, mark: usize, end: bool, parts: &mut Vec<Part>) -> bool {
        let begin = white + mark;
        match scan::calls(self.format, self.tools, &self.held[begin..], mark == 0) {
            Found::More if !end => return false,
            Found::Calls(calls, length) => {
                for (name, arguments) in calls {
                    if !self.is_done() {
                        let id = self.id();
                        let arguments = Value::Object(arguments).to_string();
                        parts.push(Part::Call(ToolCall {
                            id,
                            name,
                            arguments,
                        }));
                    }
                }
                self.held.drain(..begin + length);
                self.fresh = false;
                self.state = State::After;
            }
            Found::More | Found::Nothing => {
                self.fresh = false;
                self.state = State::Text;
                self.say(begin, parts);
            }
        }
        true
    }

    fn after(&mut self, end: bool) -> bool {
        let lead = white(&self.held);
        let rest = &self.held[lead..];
        match prefix(rest, self.format.close) {
            Prefix::Whole(length) => {
                self.held.drain(..lead + length);
            }
            _ if rest.is_empty() => {
                if end {
                    self.held.clear();
                }
                return false;
            }
            Prefix::Part if !end => return false,
            _ if self.bare && rest.starts_with(['{', '[']) => {
                self.state = State::Call {
                    white: lead,
                    mark: 0,
                };
            }
            _ => self.state = State::Text,
        }
        true
    }

    /// Moves so much of what is held to the answer's text.
    fn say(&mut self, length: usize, parts: &mut Vec<Part>) {
        if length == 0 {
            return;
        }
        self.fresh &= self.held[..length].trim().is_empty();
        let rest = self.held.split_off(length);
        let said = std::mem::replace(&mut self.held, rest);
        match parts.last_mut() {
            Some(Part::Text(text)) => text.push_str(&said),
            _ => parts.push(Part::Text(said)),
        }
    }

    /// `call_` and 24 hexadecimal digits.
    fn id(&mut self) -> String {
        let high = mix(self.salt.wrapping_add(self.made));
        self.made += 1;
        format!("call_{high:016x}{:08x}", mix(high) >> 32)
    }
}

/// Scatters a number over all bits. Source: splitmix64, Vigna.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
