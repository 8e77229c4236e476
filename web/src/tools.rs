//! An answer's text and the calls of functions in it.

use serde_json::Value;
use shardlight_tools::{Format, Part, ToolCalls, Tools};

use crate::options::Generate;

/// What is said, and the calls that are taken out of it where functions are offered.
pub struct Calls<'a> {
    parser: Option<ToolCalls<'a>>,
    /// All that was said.
    pub said: String,
    /// All calls, in the shape of OpenAI's API.
    pub made: Vec<Value>,
    /// The last token.
    pub last: u32,
}

impl<'a> Calls<'a> {
    /// For the answer to the prompt `tokens`, which is a call and nothing else if that is `demanded`.
    pub fn new(
        offered: Option<(&'static Format, &'a Tools)>,
        options: &Generate,
        demanded: bool,
        tokens: &[u32],
    ) -> Self {
        let parser = offered.map(|(form, tools)| ToolCalls::new(form, tools, tokens));
        let parser = match demanded {
            true => parser.map(ToolCalls::only_calls),
            false => parser,
        };
        let parser = match options.parallel_tool_calls {
            Some(false) => parser.map(ToolCalls::first_call),
            _ => parser,
        };
        Calls {
            parser,
            said: String::new(),
            made: Vec::new(),
            last: 0,
        }
    }

    /// The answer has all calls that were asked for.
    pub fn is_done(&self) -> bool {
        self.parser.as_ref().is_some_and(ToolCalls::is_done)
    }

    /// Adds text; gives what of it is said, and calls that are complete.
    pub fn push(&mut self, text: &str) -> (String, Vec<Value>) {
        let parts = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => vec![Part::Text(text.to_owned())],
        };
        self.take(parts)
    }

    /// The rest.
    pub fn finish(&mut self) -> (String, Vec<Value>) {
        let parts = self.parser.as_mut().map(ToolCalls::finish);
        self.take(parts.unwrap_or_default())
    }

    fn take(&mut self, parts: Vec<Part>) -> (String, Vec<Value>) {
        let (mut said, mut made) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(text) => said.push_str(&text),
                Part::Call(call) => made.push(call.to_json()),
            }
        }
        self.said.push_str(&said);
        self.made.extend_from_slice(&made);
        (said, made)
    }
}
