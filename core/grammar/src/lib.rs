//! Answers of a given form: which tokens a JSON schema, a regular expression or a grammar allows
//! next. llguidance does the parsing; this is its vocabulary, its limits, and one line for each error.
//!
//! A crate of its own, since a browser loads it only when an answer has a form: it is a module
//! beside the runtime's.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{ParserFactory, earley::SlicedBiasComputer};
use serde_json::{Value, json};

/// Longest token in bytes; longer ones are in no answer of a given form (llguidance's trie).
const MOST_BYTES: usize = 1000;

/// Most bytes of all tokens together (llguidance's trie has 22 bits for its nodes).
const MOST_BYTES_IN_ALL: usize = 4_000_000;

/// Most characters of a schema, an expression or a grammar.
const MOST_TEXT: usize = 1 << 20;

/// White space between the parts of JSON: as llama.cpp, at most one line's end and an indent, so
/// that no model fills an answer with it.
const JSON_SPACE: &str = r" |\n[ \t]{0,20}";

/// What is wrong, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON that a JSON Schema (2020-12 and older drafts) accepts; its text.
    JsonSchema(String),
    /// Text that a regular expression (Rust's syntax) matches whole.
    Regex(String),
    /// A context-free grammar in Lark's syntax, with llguidance's extensions.
    Lark(String),
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Form::JsonSchema(_) => "schema",
            Form::Regex(_) => "regex",
            Form::Lark(_) => "grammar",
        }
    }

    fn compile(&self) -> Result<TopLevelGrammar, String> {
        let (Form::JsonSchema(text) | Form::Regex(text) | Form::Lark(text)) = self;
        if text.len() > MOST_TEXT {
            return Err(format!(
                "it has {} bytes, at most {MOST_TEXT} are taken",
                text.len()
            ));
        }
        Ok(match self {
            Form::JsonSchema(text) => {
                let mut schema: Value =
                    serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?;
                if !schema.is_object() && !schema.is_boolean() {
                    return Err("a JSON schema is an object, true or false".into());
                }
                if let Value::Object(map) = &mut schema {
                    map.entry("x-guidance")
                        .or_insert_with(|| json!({ "whitespace_pattern": JSON_SPACE }));
                }
                TopLevelGrammar::from_json_schema(schema)
            }
            Form::Regex(text) => TopLevelGrammar::from_regex(text),
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        })
    }
}

/// A tokenizer's tokens, as grammars see them.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Tokens that end an answer.
    eos: Vec<u32>,
    tokens: usize,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vocabulary of {} tokens", self.tokens)
    }
}

struct Tokens(TokTrie);

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    /// Text that only one way goes on is not cut into tokens here: that is left to the model.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }
}

impl Vocabulary {
    /// Token `i` is `bytes[ends[i - 1]..ends[i]]`; none for tokens that are no text. `eos` end an answer.
    ///
    /// # Errors
    ///
    /// `ends` that do not rise or go beyond `bytes`, more than 4 MB of tokens.
    pub fn new(bytes: &[u8], ends: &[u32], eos: &[u32]) -> Result<Self, Error> {
        let wrong = |what: String| Err(Error(format!("vocabulary: {what}")));
        if bytes.len() > MOST_BYTES_IN_ALL {
            return wrong(format!(
                "its tokens have {} bytes together, at most {MOST_BYTES_IN_ALL} are taken",
                bytes.len()
            ));
        }
        let mut begin = 0;
        let mut words = Vec::with_capacity(ends.len() + 1);
        for (id, &end) in ends.iter().enumerate() {
            let Some(word) = bytes.get(begin..end as usize) else {
                return wrong(format!(
                    "token {id} is bytes {begin} to {end} of {}",
                    bytes.len()
                ));
            };
            // 255 is llguidance's mark of tokens that are no text, and in no UTF-8.
            let usable =
                word.len() <= MOST_BYTES && word.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
            words.push(if usable { word.to_vec() } else { Vec::new() });
            begin = end as usize;
        }
        // One end that stands for all of the model's, wherever they are.
        let end = words.len() as u32;
        words.push(b"\xffend".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let env: TokEnv = Arc::new(Tokens(trie));
        let no_forcing = InferenceCapabilities::default();
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, no_forcing, &slices)
            .map_err(|e| Error(format!("vocabulary: {}", line(&e))))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Vocabulary {
            factory: Arc::new(factory),
            eos: eos.to_vec(),
            tokens: ends.len(),
        })
    }
}

/// A form, compiled for a vocabulary.
#[derive(Clone)]
pub struct Grammar {
    start: llguidance::Matcher,
    vocabulary: Vocabulary,
    name: &'static str,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for a {:?}", self.name, self.vocabulary)
    }
}

impl Grammar {
    /// Compiles `form`.
    ///
    /// # Errors
    ///
    /// What `form` has that is wrong, unknown or too large.
    pub fn new(vocabulary: &Vocabulary, form: &Form) -> Result<Self, Error> {
        let name = form.name();
        let wrong = |what: String| Error(format!("{name}: {what}"));
        let grammar = form.compile().map_err(wrong)?;
        let parser = vocabulary.factory.create_parser(grammar);
        let start = llguidance::Matcher::new(parser);
        match start.get_error() {
            Some(error) => Err(wrong(line(&error))),
            None => Ok(Grammar {
                start,
                vocabulary: vocabulary.clone(),
                name,
            }),
        }
    }

    /// At the begin of an answer.
    pub fn start(&self) -> Matcher {
        Matcher {
            inner: self.start.deep_clone(),
            eos: self.vocabulary.eos.clone(),
            tokens: self.vocabulary.tokens,
            name: self.name,
        }
    }
}

/// How far an answer is.
pub struct Matcher {
    inner: llguidance::Matcher,
    eos: Vec<u32>,
    tokens: usize,
    name: &'static str,
}

impl Matcher {
    /// Which tokens may come next: bit `t % 32` of word `t / 32` of `mask` for token `t`.
    ///
    /// # Errors
    ///
    /// Too much work for one token, or a mask of fewer words than the vocabulary needs.
    pub fn mask(&mut self, mask: &mut [u32]) -> Result<(), Error> {
        if mask.len() < self.tokens.div_ceil(32) {
            let (words, tokens) = (mask.len(), self.tokens);
            return Err(self.error(&format!("a mask of {words} words for {tokens} tokens")));
        }
        let allowed = self
            .inner
            .compute_mask_or_eos()
            .map_err(|e| self.error(&line(&e)))?;
        let ends = allowed.is_allowed(self.tokens as u32);
        mask.fill(0);
        for (word, bits) in mask.iter_mut().zip(allowed.as_slice()) {
            *word = *bits;
        }
        // The end that stands for all of the model's.
        let mut set = |token: u32, to: bool| {
            if let Some(word) = mask.get_mut(token as usize / 32) {
                *word = *word & !(1 << (token % 32)) | u32::from(to) << (token % 32);
            }
        };
        set(self.tokens as u32, false);
        self.eos.iter().for_each(|&token| set(token, ends));
        Ok(())
    }

    /// `token` comes next. Gives whether nothing can come after it.
    ///
    /// # Errors
    ///
    /// A token that the last mask does not allow.
    pub fn accept(&mut self, token: u32) -> Result<bool, Error> {
        self.inner
            .consume_token(token)
            .map_err(|e| self.error(&line(&e)))?;
        Ok(self.inner.is_stopped())
    }

    /// Whether the answer may end here.
    pub fn may_end(&mut self) -> bool {
        self.inner.is_accepting().unwrap_or(false)
    }

    fn error(&self, what: &str) -> Error {
        Error(format!("{}: {what}", self.name))
    }
}

/// llguidance's errors may have several lines: with a mark below an expression, or where it panicked.
fn line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let lines = (text.lines().map(str::trim))
        .take_while(|line| !line.starts_with('<'))
        .filter(|line| !line.is_empty() && !line.chars().all(|c| c == '^'));
    let joined = lines.collect::<Vec<_>>().join(" ");
    match joined.chars().take(400).collect::<String>() {
        none if none.is_empty() => "it is refused".into(),
        some => some,
    }
}

#[cfg(test)]
mod tests;
