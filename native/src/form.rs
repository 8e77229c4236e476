//! Answers of a given form: options of the command line.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use clap::Args;
use shardlight::constraint::{Constraint, Form, Grammar, Words};
use shardlight::session::Session;

use crate::exit::usage;

/// Largest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// What answers look like.
#[derive(Args, Debug, Clone, Default)]
#[group(multiple = false)]
pub struct FormArgs {
    /// Answer with JSON that this JSON schema accepts; '{}' for any JSON.
    #[arg(short = 'j', long, value_name = "SCHEMA")]
    json_schema: Option<String>,
    /// The same, from a file.
    #[arg(long, value_name = "FILE")]
    json_schema_file: Option<PathBuf>,
    /// Answer with text that this regular expression matches whole.
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// Answer with text of this grammar, in Lark's syntax.
    #[arg(long, value_name = "FILE")]
    grammar_file: Option<PathBuf>,
}

impl FormArgs {
    /// The form, for a model's tokens; `None` when none was asked for.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a form that is wrong, a model without a tokenizer.
    pub fn compile(&self, session: &Session) -> anyhow::Result<Option<Rc<dyn Constraint>>> {
        let form = if let Some(text) = &self.json_schema {
            Form::JsonSchema(text.clone())
        } else if let Some(file) = &self.json_schema_file {
            Form::JsonSchema(read(file)?)
        } else if let Some(text) = &self.regex {
            Form::Regex(text.clone())
        } else if let Some(file) = &self.grammar_file {
            Form::Lark(read(file)?)
        } else {
            return Ok(None);
        };
        constraint(session, &form).map(Some)
    }
}

/// Holds answers to `form`.
///
/// # Errors
///
/// A form that is wrong, a model without a tokenizer.
pub fn constraint(session: &Session, form: &Form) -> anyhow::Result<Rc<dyn Constraint>> {
    let Some(tokenizer) = session.tokenizer() else {
        return Err(usage("the model has no tokenizer, so answers have no form"));
    };
    let vocabulary = Words::from(tokenizer).vocabulary()?;
    let grammar = Grammar::new(&vocabulary, form).map_err(|e| usage(e.to_string()))?;
    Ok(Rc::new(grammar))
}

fn read(file: &Path) -> anyhow::Result<String> {
    let place = || file.display().to_string();
    let bytes = std::fs::metadata(file).with_context(place)?.len();
    if bytes > MOST_BYTES {
        let file = place();
        return Err(usage(format!(
            "{file}: {bytes} bytes, at most {MOST_BYTES} are taken"
        )));
    }
    std::fs::read_to_string(file).with_context(place)
}
