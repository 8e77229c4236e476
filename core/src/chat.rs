//! Chat templates: from messages to the text a model was trained on.
//!
//! Templates are Jinja programs that come with a model, so they are untrusted:
//! their size, nesting, steps and output are bounded, and they reach nothing but
//! the messages.

mod limits;
mod pieces;
mod python;

use std::collections::{BTreeMap, BTreeSet};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

pub use pieces::Piece;
pub use python::DateTime;

const PLACE: &str = "chat template";

/// Instructions one rendering may take: over a hundred times what a conversation of 1000 messages needs.
const FUEL: u64 = 2_000_000;

/// Most bytes one rendering may write.
const MAX_OUTPUT: usize = 4 << 20;

/// Models without a template are given this one, ChatML.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// One message, in the shape of OpenAI's API.
///
/// All fields are kept as they came, in their order: templates look for `role`,
/// `content` (text or a list of parts), `tool_calls`, `name`, `tool_call_id`,
/// `reasoning_content` and others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Map<String, Value>);

impl Message {
    /// A message of this role (`system`, `user`, `assistant`, `tool`) and text.
    pub fn new(role: &str, content: &str) -> Self {
        Message(Map::from_iter([
            ("role".to_owned(), role.into()),
            ("content".to_owned(), content.into()),
        ]))
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or("")
    }
}

/// What a template is given besides the messages.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// End with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Functions the model may call, as JSON schemas.
    pub tools: Option<Value>,
    /// Text of the begin-of-sequence token.
    pub bos_token: String,
    /// Text of the end-of-sequence token.
    pub eos_token: String,
    /// Other variables, such as `enable_thinking`.
    pub extra: Map<String, Value>,
    /// The time, for templates that write the date; the core has no clock.
    pub now: Option<DateTime>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts that the source names, for [`ChatTemplate::render_pieces`].
    literals: BTreeSet<String>,
    source: String,
    fallback: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    ///
    /// A template over 64 KiB, nested too deeply, or with wrong syntax.
    pub fn new(source: &str) -> Result<Self> {
        let literals = pieces::literals(source);
        let prepared = limits::prepare(&python::drop_generation_tags(source))?;
        let mut environment = Environment::new();
        python::add_to(&mut environment);
        limits::add_to(&mut environment);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(render_error)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(limits::MAX_RECURSION);
        environment
            .add_template_owned("chat", prepared)
            .map_err(render_error)?;
        Ok(ChatTemplate {
            environment,
            literals,
            source: source.to_owned(),
            fallback: false,
        })
    }

    /// The template for models that have none, ChatML.
    ///
    /// # Errors
    ///
    /// None in practice: the template is fixed.
    pub fn fallback() -> Result<Self> {
        Ok(ChatTemplate {
            fallback: true,
            ..ChatTemplate::new(CHATML)?
        })
    }

    /// Whether this is [`ChatTemplate::fallback`]: the caller should say so.
    pub fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// The template's program.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages`.
    ///
    /// # Errors
    ///
    /// No messages, what the template itself raises (with its text), or a
    /// template that takes too many steps or writes too much.
    pub fn render(&self, messages: &[Message], options: &Options) -> Result<String> {
        self.render_within(messages, options, MAX_OUTPUT)
    }

    fn render_within(
        &self,
        messages: &[Message],
        options: &Options,
        limit: usize,
    ) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::Invalid("no messages; give at least one".into()));
        }
        let mut variables: BTreeMap<&str, Jinja> = BTreeMap::new();
        for (name, value) in &options.extra {
            variables.insert(name, Jinja::from(Serde(value)));
        }
        variables.insert("messages", Jinja::from(Serde(messages)));
        variables.insert("tools", Jinja::from(Serde(&options.tools)));
        variables.insert("documents", Jinja::from(()));
        variables.insert(
            "add_generation_prompt",
            options.add_generation_prompt.into(),
        );
        variables.insert("bos_token", options.bos_token.as_str().into());
        variables.insert("eos_token", options.eos_token.as_str().into());
        if let Some(now) = options.now {
            variables.insert("strftime_now", python::strftime_now(now));
        }
        let template = self
            .environment
            .get_template("chat")
            .map_err(render_error)?;
        let mut output = Bounded {
            bytes: Vec::new(),
            limit,
        };
        let context = Jinja::from_pairs(variables);
        template
            .render_captured_to(context, &mut output)
            .map_err(render_error)?;
        String::from_utf8(output.bytes).map_err(|e| Error::format(PLACE, e))
    }
}

/// A writer that refuses more than so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(std::io::Error::other(format!(
                "output exceeds {} bytes",
                self.limit
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The template's own words when it raised the error, else where and what.
fn render_error(error: minijinja::Error) -> Error {
    let mut cause: &dyn std::error::Error = &error;
    loop {
        if let Some(raised) = cause.downcast_ref::<python::Raised>() {
            return Error::Invalid(format!("{PLACE}: {}", raised.0));
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    let line = error
        .line()
        .map_or(String::new(), |line| format!(", line {line}"));
    let place = format!("{PLACE}{line}");
    match error.kind() {
        ErrorKind::OutOfFuel => Error::format(place, format!("takes more than {FUEL} steps")),
        ErrorKind::WriteFailure => {
            Error::format(place, format!("writes more than {MAX_OUTPUT} bytes"))
        }
        kind => match error.detail() {
            Some(detail) => Error::format(place, format!("{kind}: {detail}")),
            None => Error::format(place, kind),
        },
    }
}

#[cfg(test)]
mod tests;
