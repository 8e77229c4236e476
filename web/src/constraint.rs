//! The form of answers, known by another wasm module (web/grammar): its objects, as the core's [`Constraint`].

use std::fmt;

use js_sys::{Array, Uint8Array, Uint32Array};
use serde::Serialize;
use shardlight::constraint::{Constraint, Matcher, Words};
use shardlight::session::Logprobs;
use shardlight::tokenizer::Tokenizer;
use shardlight::{Error, Result};
use wasm_bindgen::prelude::*;

use crate::browser;

#[wasm_bindgen]
extern "C" {
    /// `Constraint` of web/grammar.
    pub type Form;
    #[wasm_bindgen(method, catch)]
    fn start(this: &Form) -> std::result::Result<Position, JsValue>;

    /// `Progress` of web/grammar.
    type Position;
    #[wasm_bindgen(method, catch)]
    fn mask(this: &Position, words: &mut [u32]) -> std::result::Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn accept(this: &Position, token: u32) -> std::result::Result<bool, JsValue>;
    #[wasm_bindgen(method)]
    fn free(this: &Position);
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a form of JavaScript's")
    }
}

fn invalid(error: JsValue) -> Error {
    Error::Invalid(browser::reason(&error))
}

impl Constraint for Form {
    fn start(&self) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Open(Form::start(self).map_err(invalid)?)))
    }
}

/// Is freed: it lies in the other module's memory.
struct Open(Position);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.free();
    }
}

impl Matcher for Open {
    fn mask(&mut self, mask: &mut [u32]) -> Result<()> {
        self.0.mask(mask).map_err(invalid)
    }

    fn accept(&mut self, id: u32) -> Result<bool> {
        self.0.accept(id).map_err(invalid)
    }
}

/// `[bytes, ends, eos]` for `Tokens` of web/grammar.
pub fn words(tokenizer: &Tokenizer) -> Array {
    let words = Words::from(tokenizer);
    Array::of3(
        &Uint8Array::from(&words.bytes[..]),
        &Uint32Array::from(&words.ends[..]),
        &Uint32Array::from(&words.eos[..]),
    )
}

/// A token and how likely it was.
#[derive(Serialize)]
struct Likely {
    id: u32,
    /// U+FFFD for bytes that are no whole character.
    text: String,
    bytes: Vec<u8>,
    logprob: f32,
}

/// How likely a token was, and the most likely ones.
#[derive(Serialize)]
pub struct TokenLogprobs {
    #[serde(flatten)]
    token: Likely,
    top: Vec<Likely>,
}

impl TokenLogprobs {
    pub fn new(tokenizer: &Tokenizer, id: u32, of: &Logprobs) -> Self {
        let likely = |id: u32, logprob: f32| {
            let bytes = tokenizer.token_bytes(id).to_vec();
            Likely {
                id,
                text: String::from_utf8_lossy(&bytes).into_owned(),
                bytes,
                // JSON has no infinity.
                logprob: logprob.max(f32::MIN),
            }
        };
        TokenLogprobs {
            token: likely(id, of.logprob),
            top: of.top.iter().map(|(id, log)| likely(*id, *log)).collect(),
        }
    }
}
