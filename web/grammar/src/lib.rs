//! wasm-bindgen surface of `shardlight-grammar`: a wasm of its own, loaded when an answer has a form.

#![deny(unsafe_code)]

use shardlight_grammar::{Error, Form, Grammar, Matcher, Vocabulary};
use wasm_bindgen::prelude::*;

fn failed(error: &Error) -> JsValue {
    with_code(&error.to_string(), "invalid")
}

fn with_code(text: &str, code: &str) -> JsValue {
    let error = js_sys::Error::new(text);
    // Of an object that was made just now.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// Makes a panic (a bug) an error that says what; without this it is a trap, `unreachable`.
#[wasm_bindgen(start)]
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("a panic without a message");
        let text = format!(
            "internal: the grammar: {what}; this is a bug, please report it, and load the model again"
        );
        wasm_bindgen::throw_val(with_code(&text, "internal"));
    }));
}

/// A model's tokens.
#[wasm_bindgen]
pub struct Tokens(Vocabulary);

#[wasm_bindgen]
impl Tokens {
    /// Token `i` is `bytes[ends[i - 1]..ends[i]]`; `eos` end an answer.
    ///
    /// # Errors
    ///
    /// As [`Vocabulary::new`].
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8], ends: &[u32], eos: &[u32]) -> Result<Tokens, JsValue> {
        Vocabulary::new(bytes, ends, eos)
            .map(Tokens)
            .map_err(|e| failed(&e))
    }

    /// A form for answers in these tokens: `kind` is `schema`, `regex` or `grammar`.
    ///
    /// # Errors
    ///
    /// As [`Grammar::new`].
    pub fn compile(&self, kind: &str, text: String) -> Result<Constraint, JsValue> {
        let form = match kind {
            "schema" => Form::JsonSchema(text),
            "regex" => Form::Regex(text),
            _ => Form::Lark(text),
        };
        Grammar::new(&self.0, &form)
            .map(Constraint)
            .map_err(|e| failed(&e))
    }
}

/// What an answer must look like.
#[wasm_bindgen]
pub struct Constraint(Grammar);

#[wasm_bindgen]
impl Constraint {
    /// At the begin of an answer.
    pub fn start(&self) -> Progress {
        Progress(self.0.start())
    }
}

/// How far an answer is.
#[wasm_bindgen]
pub struct Progress(Matcher);

#[wasm_bindgen]
impl Progress {
    /// Which tokens may come next, as bits.
    ///
    /// # Errors
    ///
    /// As [`Matcher::mask`].
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), JsValue> {
        self.0.mask(words).map_err(|e| failed(&e))
    }

    /// `token` comes next; gives whether nothing can come after it.
    ///
    /// # Errors
    ///
    /// As [`Matcher::accept`].
    pub fn accept(&mut self, token: u32) -> Result<bool, JsValue> {
        self.0.accept(token).map_err(|e| failed(&e))
    }
}
