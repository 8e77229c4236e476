//! What each token is: its bytes, and whether it is text or a signal.

use std::collections::HashMap;

use crate::{Error, Result};

/// Most tokens a vocabulary may have.
const MAX_TOKENS: usize = 1 << 22;

/// The kind of a token, in GGUF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ordinary text.
    Normal,
    /// What stands for text that has no token.
    Unknown,
    /// A signal, never text: begin, end, roles.
    Control,
    /// Text found before anything else.
    UserDefined,
    /// A place without meaning.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl Kind {
    /// Kind number `n` of `tokenizer.ggml.token_type`.
    pub(super) fn from_gguf(n: i32) -> Option<Kind> {
        Some(match n {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// How token texts spell bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet: one printable character a byte.
    ByteLevel,
    /// UTF-8 with `▁` for a space.
    Metaspace,
    /// Words, and `##` before what continues one.
    WordPiece,
}

/// All tokens.
#[derive(Debug)]
pub(super) struct Vocab {
    bytes: Vec<u8>,
    /// Where each token's bytes start, and the end of the last.
    starts: Vec<u32>,
    kinds: Vec<Kind>,
    ids: HashMap<Box<str>, u32>,
    longest: usize,
}

impl Vocab {
    /// A vocabulary of `tokens` in id order.
    pub(super) fn new(
        place: &str,
        tokens: &[String],
        mut kinds: Vec<Kind>,
        spelling: Spelling,
    ) -> Result<Self> {
        if tokens.is_empty() || tokens.len() > MAX_TOKENS {
            return Err(Error::format(
                place,
                format!(
                    "vocabulary has {} tokens, expected 1 to {MAX_TOKENS}",
                    tokens.len()
                ),
            ));
        }
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        let mut ids = HashMap::with_capacity(tokens.len());
        let decode = byte_level_decode();
        for (id, (token, kind)) in tokens.iter().zip(&mut kinds).enumerate() {
            // An empty text can be no token; some files pad with them.
            if !token.is_empty()
                && let Some(other) = ids.insert(token.as_str().into(), id as u32)
            {
                return Err(Error::format(
                    place,
                    format!("token {token:?} has two ids, {other} and {id}"),
                ));
            }
            match (*kind, spelling) {
                (Kind::Byte, _) => match byte_name(token) {
                    Some(byte) => bytes.push(byte),
                    None => {
                        return Err(Error::format(
                            place,
                            format!("byte token {id} is {token:?}, expected <0x00> to <0xFF>"),
                        ));
                    }
                },
                (Kind::Normal | Kind::Unused, Spelling::ByteLevel) => {
                    for c in token.chars() {
                        match decode.get(&c) {
                            Some(&byte) => bytes.push(byte),
                            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                        }
                    }
                }
                (Kind::Normal | Kind::Unused | Kind::UserDefined, Spelling::Metaspace) => {
                    bytes.extend_from_slice(token.replace('▁', " ").as_bytes());
                }
                (Kind::Normal, Spelling::WordPiece) => match token.strip_prefix("##") {
                    Some(rest) => bytes.extend_from_slice(rest.as_bytes()),
                    None => {
                        bytes.push(b' ');
                        bytes.extend_from_slice(token.as_bytes());
                    }
                },
                _ => bytes.extend_from_slice(token.as_bytes()),
            }
            let end = u32::try_from(bytes.len())
                .map_err(|_| Error::format(place, "token texts have more than 4 GiB together"))?;
            starts.push(end);
        }
        let longest = tokens.iter().map(String::len).max().unwrap_or(0);
        Ok(Vocab {
            bytes,
            starts,
            kinds,
            ids,
            longest,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of the longest token's text.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let i = id as usize;
        match (self.starts.get(i), self.starts.get(i + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn is_signal(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(Kind::Control | Kind::Unknown))
    }

    /// The id of the token whose text is `text`.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The same, for text that came from a user: never a signal.
    pub(super) fn text_id(&self, text: &str) -> Option<u32> {
        self.id(text).filter(|&id| !self.is_signal(id))
    }

    /// The token `<0x0A>` of each byte.
    pub(super) fn byte_tokens(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|b| self.id(&format!("<0x{b:02X}>")))
    }
}

/// The byte that `<0x0A>` names.
pub(super) fn byte_name(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// GPT-2's alphabet: the character that stands for each byte. Printable Latin-1
/// characters stand for themselves, the others for U+0100 and on, in order.
pub(super) fn byte_level() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|b| {
        let printable = matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable {
            b as u32
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

fn byte_level_decode() -> HashMap<char, u8> {
    byte_level().into_iter().zip(0..=255).collect()
}

/// Texts that end a model's turn whatever the file says about them.
/// Source: llama.cpp, `llama-vocab.cpp`, `special_eog_ids`.
pub(super) const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "</s>",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_one_to_one() {
        let table = byte_level();
        assert_eq!(byte_level_decode().len(), 256);
        assert_eq!(
            (table[b' ' as usize], table[b'\n' as usize], table[0xad]),
            ('Ġ', 'Ċ', 'Ń')
        );
    }

    #[test]
    fn byte_names_are_exactly_two_hex_digits() {
        assert_eq!(byte_name("<0x0A>"), Some(10));
        for bad in ["<0x-1>", "<0x+1>", "<0x1>", "<0x100>", "0x0A", "<0xé>", ""] {
            assert_eq!(byte_name(bad), None, "{bad}");
        }
    }
}
