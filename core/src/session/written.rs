//! The text of an answer, token by token.

use std::rc::Rc;

use super::stop::StopText;
use super::{GenerateOptions, Generated, Logprobs, StopReason};
use crate::tokenizer::{Decoder, Tokenizer};

/// What has been said so far; without a tokenizer there is no text.
pub(super) struct Written {
    tokenizer: Option<Rc<Tokenizer>>,
    decoder: Option<Decoder<Rc<Tokenizer>>>,
    text: StopText,
    tokens: Vec<u32>,
    logprobs: Vec<Logprobs>,
    /// The token that ended it.
    end: Option<u32>,
}

impl Written {
    pub(super) fn new(tokenizer: Option<Rc<Tokenizer>>, options: &GenerateOptions) -> Self {
        let decoder = tokenizer.clone().map(|t| Decoder::new(t, true));
        Written {
            tokenizer,
            decoder: decoder.map(|d| d.showing(&options.show)),
            text: StopText::new(&options.stop),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            end: None,
        }
    }

    /// The tokens, the one that ended it left out.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Of the last token.
    pub(super) fn last_logprobs(&self) -> Option<&Logprobs> {
        self.logprobs.last()
    }

    /// Is `id` a token that ends answers? It is then kept as the one that did.
    pub(super) fn ends_with(&mut self, id: u32) -> bool {
        let ends = self.tokenizer.as_ref().is_some_and(|t| t.is_eos(id));
        if ends {
            self.end = Some(id);
        }
        ends
    }

    /// Adds a token; gives the text that has become certain.
    pub(super) fn push(&mut self, id: u32, logprobs: Option<Logprobs>) -> String {
        self.tokens.push(id);
        self.logprobs.extend(logprobs);
        let piece = self.decoder.as_mut().map(|d| d.push(id));
        self.text.push(&piece.unwrap_or_default())
    }

    /// Did a stop text come?
    pub(super) fn is_stopped(&self) -> bool {
        self.text.is_stopped()
    }

    /// Text that was held back for a stop text that did not come.
    pub(super) fn rest(&mut self) -> String {
        self.text.finish()
    }

    /// The answer.
    pub(super) fn into_generated(self, stop: StopReason) -> Generated {
        Generated {
            tokens: self.tokens,
            end: self.end,
            logprobs: self.logprobs,
            text: self.text.into_text(),
            stop,
            profile: None,
        }
    }
}
