//! Token ids back to text, one at a time.

use std::ops::Deref;

use super::Tokenizer;

/// Turns a stream of token ids into text.
///
/// Bytes of an unfinished character wait for the next token, so a character cut
/// in two is never shown as U+FFFD. All that [`Decoder::push`] and
/// [`Decoder::finish`] return, joined, is what [`Tokenizer::decode`] returns.
#[derive(Debug)]
pub struct Decoder<T> {
    tokenizer: T,
    skip_special: bool,
    /// Special tokens that are not skipped.
    shown: Vec<u32>,
    /// Bytes of a character that is not complete.
    held: Vec<u8>,
    /// No text has come out yet: the space a SentencePiece vocabulary puts first is dropped.
    at_start: bool,
}

impl<T: Deref<Target = Tokenizer>> Decoder<T> {
    /// Of tokens one by one; special ones leave no text with `skip_special`.
    pub fn new(tokenizer: T, skip_special: bool) -> Self {
        Decoder {
            tokenizer,
            skip_special,
            shown: Vec::new(),
            held: Vec::new(),
            at_start: true,
        }
    }

    /// Shows the control tokens that are spelled like this, as those around calls of functions.
    pub fn showing(mut self, texts: &[String]) -> Self {
        let ids = texts
            .iter()
            .filter_map(|text| self.tokenizer.token_id(text));
        self.shown = ids.collect();
        self
    }

    /// The text that `id` completes; empty for a special token that is skipped,
    /// an id outside the vocabulary, or a character still incomplete.
    pub fn push(&mut self, id: u32) -> String {
        let special = self.tokenizer.is_special(id);
        if special && self.skip_special && !self.shown.contains(&id) {
            return String::new();
        }
        let mut bytes = self.tokenizer.token_bytes(id);
        if bytes.is_empty() {
            return String::new();
        }
        if self.at_start && self.tokenizer.strip_first_space() {
            bytes = match bytes {
                [b' ', rest @ ..] if !special => rest,
                _ => bytes,
            };
        }
        // A shown special token does not count as text: the space comes after it.
        self.at_start &= special;
        self.held.extend_from_slice(bytes);
        take_complete(&mut self.held)
    }

    /// Ends the stream. A character that never became complete is dropped.
    pub fn finish(self) -> String {
        String::new()
    }
}

/// Takes the complete characters off the front of `held`. Bytes that no further
/// byte can make valid become U+FFFD.
fn take_complete(held: &mut Vec<u8>) -> String {
    let mut out = String::new();
    let mut at = 0;
    for chunk in held.utf8_chunks() {
        out.push_str(chunk.valid());
        at += chunk.valid().len();
        let bad = chunk.invalid();
        if bad.is_empty() {
            break;
        }
        if at + bad.len() == held.len() && incomplete(bad) {
            break;
        }
        out.push(char::REPLACEMENT_CHARACTER);
        at += bad.len();
    }
    held.drain(..at);
    out
}

/// Whether `bytes` can still become a character.
fn incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_characters_leave() {
        let mut held = "a😀".as_bytes()[..3].to_vec();
        assert_eq!(take_complete(&mut held), "a");
        assert_eq!(held.len(), 2);
        held.extend_from_slice(&"😀".as_bytes()[2..]);
        assert_eq!(take_complete(&mut held), "😀");
        held.extend_from_slice(&[0xff, b'x', 0xe2, 0x82]);
        assert_eq!(take_complete(&mut held), "\u{fffd}x");
        held.push(b'y');
        assert_eq!(take_complete(&mut held), "\u{fffd}y");
        assert!(held.is_empty());
    }
}
