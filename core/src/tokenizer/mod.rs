//! Text to token ids and back, from GGUF metadata or from `tokenizer.json`.
//!
//! A text is cut in three steps: [added tokens](added) such as `<|im_end|>` are
//! found first, what lies between is cut into words by a [pattern](split), and
//! each word is [merged](merge) from single bytes or characters.

mod added;
mod decode;
mod gguf;
mod json;
mod merge;
mod metadata;
mod pre;
mod split;
mod vocab;

use std::collections::BTreeSet;
use std::ops::Range;

pub use decode::Decoder;
pub use gguf::TokenizerData;

use crate::chat::Piece;
use crate::{Error, Result};
use added::{AddedTokens, Fragment};
use vocab::Vocab;

/// Longest text that is encoded at once, in bytes.
const MAX_TEXT: usize = 64 << 20;

/// A tokenizer.
///
/// ```
/// use shardlight::tokenizer::{Tokenizer, TokenizerData};
///
/// let tokens = ["a", "b", "ab", "<|end|>"].map(String::from).to_vec();
/// let tokenizer = Tokenizer::new(TokenizerData {
///     model: "gpt2".into(),
///     pre: Some("gpt-2".into()),
///     tokens,
///     token_types: vec![1, 1, 1, 3],
///     merges: vec!["a b".into()],
///     ..TokenizerData::default()
/// })?;
/// assert_eq!(tokenizer.encode("abb<|end|>", false, true)?, [2, 1, 3]);
/// assert_eq!(tokenizer.decode(&[2, 1, 3], true), "abb");
/// # Ok::<(), shardlight::Error>(())
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    added: AddedTokens,
    engine: Engine,
    bos: Option<u32>,
    end_ids: BTreeSet<u32>,
    /// Ids that `add_special` puts before and behind.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    strip_first_space: bool,
    warnings: Vec<String>,
}

/// What encodes the text between added tokens.
#[derive(Debug)]
enum Engine {
    Gguf(gguf::Encoder),
    Json(Box<json::Encoder>),
}

impl Tokenizer {
    /// Ids of `text`.
    ///
    /// `add_special` adds what the model wants around a text, such as a
    /// begin-of-sequence token. With `parse_special` the texts of control tokens
    /// become those tokens; without it, as for text from a user, they stay text.
    ///
    /// # Errors
    ///
    /// A text over 64 MiB, or one that the model's own pattern cannot cut in bounded time.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let whole = 0..text.len();
        let user = if parse_special {
            &[][..]
        } else {
            std::slice::from_ref(&whole)
        };
        self.encode_ranges(text, user, add_special)
    }

    /// Ids of the joined text of `pieces`, where control tokens are found only
    /// in pieces that are [special](Piece::special), and never across a border
    /// to one that is not.
    ///
    /// Borders leave no trace: where no text of a control token is concerned,
    /// the ids are those of the joined text.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_pieces(&self, pieces: &[Piece], add_special: bool) -> Result<Vec<u32>> {
        let mut text = String::with_capacity(pieces.iter().map(|p| p.text.len()).sum());
        let mut user: Vec<Range<usize>> = Vec::new();
        for piece in pieces {
            let start = text.len();
            text.push_str(&piece.text);
            if !piece.special && text.len() > start {
                user.push(start..text.len());
            }
        }
        self.encode_ranges(&text, &user, add_special)
    }

    fn encode_ranges(
        &self,
        text: &str,
        user: &[Range<usize>],
        add_special: bool,
    ) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::Invalid(format!(
                "text has {} bytes, limit {MAX_TEXT}; encode it in parts",
                text.len()
            )));
        }
        let mut out = Vec::with_capacity(text.len() / 4 + 2);
        if add_special {
            out.extend_from_slice(&self.prefix);
        }
        let fragments = self.added.split(text, user);
        match &self.engine {
            Engine::Gguf(engine) => {
                let mut after_token = true;
                for fragment in fragments {
                    match fragment {
                        Fragment::Token(id) => out.push(id),
                        Fragment::Text(range) => {
                            engine.encode(&self.vocab, &text[range], after_token, &mut out)?;
                            after_token = false;
                            continue;
                        }
                    }
                    after_token = true;
                }
            }
            Engine::Json(engine) => engine.encode(text, &fragments, &mut out)?,
        }
        if add_special {
            out.extend_from_slice(&self.suffix);
        }
        Ok(out)
    }

    /// Text of `ids`; with `skip_special`, without that of control tokens.
    ///
    /// Bytes that are no UTF-8 become U+FFFD, except an unfinished character at
    /// the end, which is left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut decoder = self.decoder(skip_special);
        let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// Decodes token by token.
    pub fn decoder(&self, skip_special: bool) -> Decoder<&Tokenizer> {
        Decoder::new(self, skip_special)
    }

    /// The exact bytes of a token, which need not be UTF-8; none for an unknown id.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocab.bytes(id)
    }

    /// The id of the token that a model file spells `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.id(text)
    }

    /// Texts that become control tokens where control tokens are looked for.
    pub fn control_texts(&self) -> Vec<&str> {
        self.added.control().collect()
    }

    /// Number of tokens, gaps in the numbering included.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// Whether `id` is a control token (or the one for unknown text), which is not shown.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocab.is_signal(id)
    }

    /// Tokens that end an answer: the file's own, and those known to end a turn.
    pub fn eos_ids(&self) -> Vec<u32> {
        self.end_ids.iter().copied().collect()
    }

    /// Whether `id` ends an answer.
    pub fn is_eos(&self, id: u32) -> bool {
        self.end_ids.contains(&id)
    }

    /// The begin-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether `add_special` puts the begin-of-sequence token first.
    pub fn adds_bos(&self) -> bool {
        self.bos.is_some() && self.prefix.first() == self.bos.as_ref()
    }

    /// Adds tokens that end an answer, such as those of `generation_config.json`.
    ///
    /// # Errors
    ///
    /// An id outside the vocabulary.
    pub fn with_eos(mut self, ids: &[u32]) -> Result<Self> {
        for &id in ids {
            check_id("eos", id, self.vocab_size())?;
            self.end_ids.insert(id);
        }
        Ok(self)
    }

    /// What is unusual about the model's file, to be shown to the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn strip_first_space(&self) -> bool {
        self.strip_first_space
    }
}

/// `id` if the vocabulary has it.
fn check_id(what: &str, id: u32, tokens: usize) -> Result<u32> {
    if (id as usize) < tokens {
        Ok(id)
    } else {
        Err(Error::format(
            "tokenizer",
            format!("{what} token is {id}, vocabulary has {tokens} tokens"),
        ))
    }
}

#[cfg(test)]
mod tests;
