//! Answers of a given form: only tokens that it allows are chosen.
//!
//! What the form is, something else knows: `shardlight-grammar` (with feature `grammar`, its
//! `Grammar` is a [`Constraint`]), in a browser a module of its own.

use std::fmt;

use crate::Result;
use crate::tokenizer::Tokenizer;

/// The form of answers.
pub trait Constraint: fmt::Debug {
    /// At the begin of an answer.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when there is no such answer.
    fn start(&self) -> Result<Box<dyn Matcher>>;
}

/// How far an answer is.
pub trait Matcher {
    /// Which tokens may come next: bit `t % 32` of word `t / 32` of `mask` for token `t`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when that is too much work to find out.
    fn mask(&mut self, mask: &mut [u32]) -> Result<()>;

    /// Token `id` comes next. Gives whether nothing can come after it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] for a token that is not allowed.
    fn accept(&mut self, id: u32) -> Result<bool>;
}

/// Tokens as grammars need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The text of one token after the other; none for control tokens.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<u32>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

impl From<&Tokenizer> for Words {
    fn from(tokenizer: &Tokenizer) -> Self {
        let mut words = Words {
            eos: tokenizer.eos_ids(),
            ..Words::default()
        };
        for id in 0..tokenizer.vocab_size() as u32 {
            if !tokenizer.is_special(id) {
                words.bytes.extend_from_slice(tokenizer.token_bytes(id));
            }
            words.ends.push(words.bytes.len() as u32);
        }
        words
    }
}

#[cfg(feature = "grammar")]
pub use shardlight_grammar::{Form, Grammar, Vocabulary};

#[cfg(feature = "grammar")]
mod grammar {
    use shardlight_grammar::{Error, Grammar, Vocabulary};

    use super::{Constraint, Matcher, Result, Words};

    fn invalid(error: Error) -> crate::Error {
        crate::Error::Invalid(error.to_string())
    }

    impl Words {
        /// What [`Grammar`]s are compiled for; once a model is enough.
        ///
        /// # Errors
        ///
        /// [`crate::Error::Invalid`] for a vocabulary that is too large.
        pub fn vocabulary(&self) -> Result<Vocabulary> {
            Vocabulary::new(&self.bytes, &self.ends, &self.eos).map_err(invalid)
        }
    }

    impl Constraint for Grammar {
        fn start(&self) -> Result<Box<dyn Matcher>> {
            Ok(Box::new(Grammar::start(self)))
        }
    }

    impl Matcher for shardlight_grammar::Matcher {
        fn mask(&mut self, mask: &mut [u32]) -> Result<()> {
            shardlight_grammar::Matcher::mask(self, mask).map_err(invalid)
        }

        fn accept(&mut self, id: u32) -> Result<bool> {
            shardlight_grammar::Matcher::accept(self, id).map_err(invalid)
        }
    }
}
