//! How models write calls: one row for each form, found by what a template's source says.

/// The form in which a model writes calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    /// After a model or family that has it.
    pub name: &'static str,
    /// Texts that the source of a template of this form has, all of them.
    signs: &'static [&'static str],
    /// Texts that begin calls, and may come in a row.
    pub(super) open: &'static [&'static str],
    /// Texts that may come after a call.
    pub(super) close: &'static [&'static str],
    /// An answer may be a call without any text that begins it.
    pub(super) bare: bool,
    /// What a call is, where it is no JSON.
    pub(super) body: Body,
    /// The key of arguments in JSON, `arguments` or `parameters`.
    pub arguments: &'static str,
}

/// What a call is, where it does not begin with `{` or `[`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// No call.
    Json,
    /// A name and JSON, with some of these texts between and around; the name is the first or `last` of its parts.
    Named {
        marks: &'static [&'static str],
        last: bool,
    },
    /// Elements in the manner of XML.
    Elements(Elements),
}

/// Texts around what a call consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elements {
    /// Before the name.
    pub name: &'static str,
    /// After it; empty where the first key is.
    pub name_end: &'static str,
    pub key: &'static str,
    pub key_end: &'static str,
    pub value: &'static str,
    pub value_end: &'static str,
    /// After the last value.
    pub end: &'static str,
}

const JSON: Format = Format {
    name: "",
    signs: &[],
    open: &[],
    close: &[],
    bare: false,
    body: Body::Json,
    arguments: "arguments",
};

/// In this order: some signs are part of others' templates.
///
/// Sources: the models' own templates; what models really write, llama.cpp's `common/chat.cpp` and vLLM's
/// `tool_parsers`.
pub(super) static FORMATS: &[Format] = &[
    Format {
        name: "Qwen3-Coder",
        signs: &["<tool_call>", "<function=", "<parameter="],
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        body: Body::Elements(Elements {
            name: "<function=",
            name_end: ">",
            key: "<parameter=",
            key_end: ">",
            value: "",
            value_end: "</parameter>",
            end: "</function>",
        }),
        ..JSON
    },
    Format {
        name: "GLM",
        signs: &["<tool_call>", "<arg_key>", "<arg_value>"],
        open: &["<tool_call>"],
        body: Body::Elements(Elements {
            name: "",
            name_end: "",
            key: "<arg_key>",
            key_end: "</arg_key>",
            value: "<arg_value>",
            value_end: "</arg_value>",
            end: "</tool_call>",
        }),
        ..JSON
    },
    Format {
        name: "Hermes",
        signs: &["<tool_call>"],
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        ..JSON
    },
    Format {
        name: "Mistral",
        signs: &["[TOOL_CALLS]"],
        open: &["[TOOL_CALLS]"],
        body: Body::Named {
            marks: &["[CALL_ID]", "[ARGS]"],
            last: false,
        },
        ..JSON
    },
    Format {
        name: "DeepSeek",
        signs: &["<｜tool▁calls▁begin｜>"],
        open: &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"],
        close: &["```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
        body: Body::Named {
            marks: &["<｜tool▁sep｜>", "```json"],
            last: true,
        },
        ..JSON
    },
    Format {
        name: "Kimi-K2",
        signs: &["<|tool_calls_section_begin|>"],
        open: &["<|tool_calls_section_begin|>", "<|tool_call_begin|>"],
        close: &["<|tool_call_end|>", "<|tool_calls_section_end|>"],
        body: Body::Named {
            marks: &["<|tool_call_argument_begin|>"],
            last: false,
        },
        ..JSON
    },
    Format {
        name: "Granite",
        signs: &["<|tool_call|>"],
        open: &["<|tool_call|>"],
        close: &["<|/tool_call|>"],
        ..JSON
    },
    Format {
        // Its template does not say how calls are written.
        name: "Phi-4-mini",
        signs: &["<|tool|>", "<|/tool|>"],
        open: &["<|tool_call|>", "functools"],
        close: &["<|/tool_call|>"],
        ..JSON
    },
    Format {
        name: "Nemotron",
        signs: &["<TOOLCALL>"],
        open: &["<TOOLCALL>"],
        close: &["</TOOLCALL>"],
        ..JSON
    },
    Format {
        name: "Command-R",
        signs: &["<|START_ACTION|>"],
        open: &["<|START_ACTION|>"],
        close: &["<|END_ACTION|>"],
        arguments: "parameters",
        ..JSON
    },
    Format {
        name: "Apertus",
        signs: &["<|tools_prefix|>"],
        open: &["<|tools_prefix|>"],
        close: &["<|tools_suffix|>"],
        ..JSON
    },
    Format {
        name: "GigaChat",
        signs: &["<|function_call|>"],
        open: &["<|function_call|>"],
        ..JSON
    },
    Format {
        name: "Llama 3",
        signs: &["<|start_header_id|>", "\"parameters\": "],
        open: &["<|python_tag|>"],
        close: &[";"],
        bare: true,
        arguments: "parameters",
        ..JSON
    },
];

/// For templates that know nothing of functions: they are described in words, and calls asked for in JSON.
pub(super) static GENERIC: Format = Format {
    name: "generic",
    open: &["```json", "<tool_call>"],
    close: &["```", "</tool_call>"],
    bare: true,
    ..JSON
};

impl Format {
    /// The form of a template with this source, if it is known.
    pub(super) fn of(source: &str) -> Option<&'static Format> {
        let has = |format: &&Format| format.signs.iter().all(|sign| source.contains(sign));
        FORMATS.iter().find(has)
    }

    /// Names of all forms.
    pub(super) fn names() -> String {
        FORMATS
            .iter()
            .map(|format| format.name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Texts around calls. Where they are control tokens, an answer must show them.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let marks = match &self.body {
            Body::Named { marks, .. } => *marks,
            _ => &[],
        };
        self.open.iter().chain(self.close).chain(marks).copied()
    }

    /// The template reads functions from a system message, as JSON.
    pub(super) fn in_system_message(&self) -> bool {
        self.name == "Phi-4-mini"
    }

    /// The template shows one call of a message only, or refuses several.
    pub(super) fn one_call(&self) -> bool {
        matches!(self.name, "Llama 3" | "GigaChat")
    }

    /// The template takes ids of nine letters and digits only.
    pub(super) fn short_ids(&self) -> bool {
        self.name == "Mistral"
    }
}
