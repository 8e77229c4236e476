//! Functions that a model may call, in the shape of OpenAI's API.
//!
//! What is offered is checked here; [`Request`] brings it into a conversation, [`Format`] knows how
//! models write calls, and [`ToolCalls`] takes calls out of an answer.
//!
//! A crate of its own, since it is compiled for size where it goes to browsers.

#![forbid(unsafe_code)]

mod format;
mod prompt;
mod scan;
mod stream;

use serde_json::{Map, Value, json};

use shardlight::{Error, Result};

pub use format::Format;
pub use prompt::Request;
pub use stream::{Part, ToolCall, ToolCalls};

/// Most functions that one request may offer, as with OpenAI.
const MAX_TOOLS: usize = 128;

/// Longest name of a function.
const MAX_NAME: usize = 64;

/// Functions that are offered to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools(Vec<Tool>);

#[derive(Clone, Debug, PartialEq)]
struct Tool {
    name: String,
    description: String,
    /// A JSON schema of an object.
    parameters: Value,
}

/// Whether a model is to call functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// None: it is told of no function.
    None,
    /// As it likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

impl Tools {
    /// Reads a list `[{type: "function", function: {name, description, parameters}}, …]`.
    ///
    /// ```
    /// use shardlight_tools::Tools;
    ///
    /// let tools = Tools::new(&serde_json::json!([{"type": "function", "function": {"name": "now"}}]))?;
    /// assert_eq!(tools.names().collect::<Vec<_>>(), ["now"]);
    /// # Ok::<(), shardlight::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], with the place: `tools[0].function.name: …`.
    pub fn new(list: &Value) -> Result<Tools> {
        let Value::Array(items) = list else {
            return Err(wrong(
                "tools",
                format_args!("expected a list, found {}", kind(list)),
            ));
        };
        if items.is_empty() {
            return Err(wrong(
                "tools",
                "is empty; leave it out to offer no function",
            ));
        }
        if items.len() > MAX_TOOLS {
            return Err(wrong(
                "tools",
                format_args!(
                    "{} functions; at most {MAX_TOOLS} can be offered",
                    items.len()
                ),
            ));
        }
        let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let tool = Tool::new(&format!("tools[{i}]"), item)?;
            if tools.iter().any(|other| other.name == tool.name) {
                let reason = format_args!("{:?} is there twice", tool.name);
                return Err(wrong(&format!("tools[{i}].function.name"), reason));
            }
            tools.push(tool);
        }
        Ok(Tools(tools))
    }

    /// Names of the functions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|tool| tool.name.as_str())
    }

    /// A JSON schema of the calls that `choice` demands, written `{name, KEY}` where `arguments` is the
    /// KEY of a [`Format`]; `None` where nothing is demanded.
    ///
    /// References (`$ref`) in the functions' own schemas go to where these lie in this one. `x-guidance` is llguidance's.
    pub fn schema(&self, choice: &ToolChoice, arguments: &str) -> Option<Value> {
        let wanted = |tool: &&Tool| match choice {
            ToolChoice::None | ToolChoice::Auto => false,
            ToolChoice::Required => true,
            ToolChoice::Function(name) => tool.name == *name,
        };
        let found: Vec<&Tool> = self.0.iter().filter(wanted).collect();
        let call = |tool: &Tool, place: &str| {
            let mut parameters = tool.parameters.clone();
            move_references(&mut parameters, &format!("{place}/properties/{arguments}"));
            json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, arguments: parameters},
                "required": ["name", arguments],
                "additionalProperties": false,
            })
        };
        let mut schema = match found[..] {
            [] => return None,
            [tool] => call(tool, "#"),
            _ => {
                let calls = found.iter().enumerate();
                let calls: Vec<Value> = calls
                    .map(|(i, tool)| call(tool, &format!("#/anyOf/{i}")))
                    .collect();
                json!({"anyOf": calls})
            }
        };
        // As Python's json.dumps: what models have seen most, and no room for white space without end.
        schema["x-guidance"] =
            json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        Some(schema)
    }

    /// What templates are given.
    fn list(&self) -> Value {
        let tool =
            |tool: &Tool| in_object([("type", "function".into()), ("function", tool.function())]);
        self.0.iter().map(tool).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|tool| tool.name == name)
    }

    /// The schema of a function's parameter, if it says anything about it.
    fn parameter(&self, name: &str, key: &str) -> Option<&Value> {
        let tool = self.0.iter().find(|tool| tool.name == name)?;
        tool.parameters.get("properties")?.get(key)
    }
}

impl Tool {
    fn new(place: &str, item: &Value) -> Result<Tool> {
        let item = object(place, item)?;
        let kind_place = format!("{place}.type");
        match text(&kind_place, item.get("type"))? {
            "function" => {}
            other => {
                return Err(Error::Unsupported {
                    what: format!("{kind_place}: {other:?}"),
                    supported: "function".into(),
                });
            }
        }
        let place = format!("{place}.function");
        let function = object(&place, item.get("function").unwrap_or(&Value::Null))?;
        let name_place = format!("{place}.name");
        let name = text(&name_place, function.get("name"))?;
        check_name(&name_place, name)?;
        let description = match function.get("description") {
            None | Some(Value::Null) => "",
            some => text(&format!("{place}.description"), some)?,
        };
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => {
                in_object([("type", "object".into()), ("properties", in_object([]))])
            }
            Some(schema) => {
                let place = format!("{place}.parameters");
                let found = object(&place, schema)?.get("type");
                if let Some(other) = found.filter(|found| *found != "object") {
                    return Err(wrong(
                        &place,
                        format_args!("expected a JSON schema of type \"object\", found {other}"),
                    ));
                }
                schema.clone()
            }
        };
        Ok(Tool {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters,
        })
    }

    fn function(&self) -> Value {
        in_object([
            ("name", self.name.as_str().into()),
            ("description", self.description.as_str().into()),
            ("parameters", self.parameters.clone()),
        ])
    }
}

impl ToolChoice {
    /// Reads `"none"`, `"auto"`, `"required"` or `{type: "function", function: {name}}`; `null` is `auto`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another shape and for a function that is not among `tools`.
    pub fn new(choice: &Value, tools: &Tools) -> Result<ToolChoice> {
        const PLACE: &str = "tool_choice";
        let supported = "none, auto, required, {type: \"function\", function: {name}}";
        match choice {
            Value::Null => Ok(ToolChoice::Auto),
            Value::String(name) => match name.as_str() {
                "none" => Ok(ToolChoice::None),
                "auto" => Ok(ToolChoice::Auto),
                "required" => Ok(ToolChoice::Required),
                _ => Err(Error::Unsupported {
                    what: format!("{PLACE}: {name:?}"),
                    supported: supported.into(),
                }),
            },
            Value::Object(map) if map.get("type") == Some(&"function".into()) => {
                let place = "tool_choice.function";
                let function = object(place, map.get("function").unwrap_or(&Value::Null))?;
                let name = text("tool_choice.function.name", function.get("name"))?;
                if !tools.has(name) {
                    let names: Vec<&str> = tools.names().collect();
                    return Err(wrong(
                        place,
                        format_args!("{name:?} is not among the tools: {}", names.join(", ")),
                    ));
                }
                Ok(ToolChoice::Function(name.to_owned()))
            }
            other => Err(Error::Unsupported {
                what: format!("{PLACE}: {}", short(other)),
                supported: supported.into(),
            }),
        }
    }
}

/// As `json!`, with less code.
fn in_object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let mut map = Map::new();
    for (key, value) in entries {
        map.insert(key.to_owned(), value);
    }
    Value::Object(map)
}

/// `#/…` inside `schema` becomes `PLACE/…`.
fn move_references(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" => {
                        if let Some(rest) = reference.strip_prefix('#') {
                            *reference = format!("{place}{rest}");
                        }
                    }
                    value => move_references(value, place),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| move_references(item, place)),
        _ => {}
    }
}

fn check_name(place: &str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let name = short(&name.into());
    Err(wrong(
        place,
        format_args!("{name} is not 1 to {MAX_NAME} letters, digits, _ and -"),
    ))
}

fn object<'a>(place: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    let found = || {
        wrong(
            place,
            format_args!("expected an object, found {}", kind(value)),
        )
    };
    value.as_object().ok_or_else(found)
}

fn text<'a>(place: &str, value: Option<&'a Value>) -> Result<&'a str> {
    match value {
        Some(Value::String(text)) => Ok(text),
        None => Err(wrong(place, "is missing")),
        Some(other) => Err(wrong(
            place,
            format_args!("expected text, found {}", kind(other)),
        )),
    }
}

fn wrong(place: &str, reason: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{place}: {reason}"))
}

/// What a value is, for errors.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value's JSON, at most so much that an error stays one line.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
