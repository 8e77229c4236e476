//! Tokenizers described by GGUF metadata.

use super::added::{Added, AddedTokens};
use super::merge::{Merges, bpe, spm};
use super::split::Splitter;
use super::vocab::{END_OF_TURN, Kind, Spelling, Vocab, byte_level};
use super::{Engine, Tokenizer, check_id, pre};
use crate::{Error, Result};

/// The metadata `tokenizer.ggml.*` of a GGUF file.
#[derive(Clone, Debug, Default)]
pub struct TokenizerData {
    /// `general.name`: some families need a rule of their own.
    pub name: Option<String>,
    /// `model`: `gpt2` (byte-level BPE), `llama` (SentencePiece) or `gemma4`.
    pub model: String,
    /// `pre`: name of the rule that cuts text into words.
    pub pre: Option<String>,
    /// `tokens`, in id order.
    pub tokens: Vec<String>,
    /// `scores`, one a token; needed by `llama` only.
    pub scores: Vec<f32>,
    /// `token_type`, one a token; empty means all are ordinary text.
    pub token_types: Vec<i32>,
    /// `merges`, best first: two tokens with a space between.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `eot_token_id`.
    pub eot: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

const PLACE: &str = "tokenizer.ggml";

impl Tokenizer {
    /// A tokenizer from GGUF metadata.
    ///
    /// An unknown `pre` is a [warning](Tokenizer::warnings), and the default rule is used.
    ///
    /// # Errors
    ///
    /// An unsupported model, or metadata that contradicts itself: lists of
    /// different lengths, ids out of range, merges of unknown tokens.
    pub fn new(data: TokenizerData) -> Result<Self> {
        let mut warnings = Vec::new();
        let n = data.tokens.len();
        let mut kinds = kinds(&data)?;
        let spm = data.model == "llama";
        if !spm && !["gpt2", "gemma4"].contains(&data.model.as_str()) {
            return Err(Error::Unsupported {
                what: format!("{PLACE}.model: {:?}", data.model),
                supported: "gpt2, llama, gemma4".into(),
            });
        }
        let rule = if spm {
            None
        } else {
            Some(find_rule(&data, &mut warnings))
        };
        let spelling = match rule {
            Some(rule) if rule.byte_level => Spelling::ByteLevel,
            _ => Spelling::Metaspace,
        };
        let mut end_ids = std::collections::BTreeSet::new();
        for (id, (token, kind)) in data.tokens.iter().zip(&mut kinds).enumerate() {
            if END_OF_TURN.contains(&token.as_str()) && *kind != Kind::Byte {
                *kind = Kind::Control;
                end_ids.insert(id as u32);
            }
        }
        for (what, id) in [("unknown", data.unk), ("padding", data.pad)] {
            id.map_or(Ok(0), |id| check_id(what, id, n))?;
        }
        for (what, id) in [("eos", data.eos), ("eot", data.eot)] {
            if let Some(id) = id {
                end_ids.insert(check_id(what, id, n)?);
            }
        }
        let vocab = Vocab::new(PLACE, &data.tokens, kinds, spelling)?;
        let bos = data.bos.map(|id| check_id("bos", id, n)).transpose()?;
        let default_bos = rule.map_or(bos.is_some(), |rule| rule.add_bos && bos.is_some());
        let ends = |what: &str, add: Option<bool>, default: bool, id: Option<u32>| match (
            add.unwrap_or(default),
            id,
        ) {
            (false, _) => Ok(Vec::new()),
            (true, Some(id)) => Ok(vec![id]),
            (true, None) => Err(Error::format(
                PLACE,
                format!("add_{what}_token is true, {what}_token_id is missing"),
            )),
        };
        let prefix = ends("bos", data.add_bos, default_bos, bos)?;
        let suffix = ends("eos", data.add_eos, false, data.eos)?;
        let added = AddedTokens::new(PLACE, added(&data, &vocab))?;
        let space_prefix = data.add_space_prefix.unwrap_or(spm);
        let encoder = match rule {
            Some(rule) => Encoder::Bpe(Box::new(Bpe::new(&data, rule, &vocab)?)),
            None => {
                if data.scores.len() != n {
                    return Err(lengths("scores", data.scores.len(), n));
                }
                if let Some(i) = data.scores.iter().position(|s| s.is_nan()) {
                    return Err(Error::format(PLACE, format!("score {i} is not a number")));
                }
                Encoder::Spm(Box::new(Spm {
                    byte_tokens: vocab.byte_tokens(),
                    scores: data.scores,
                    unk: data.unk.or_else(|| vocab.id("<unk>")),
                    space_prefix,
                    cut_at_spaces: !data.tokens.iter().any(|t| word_starts(t).next().is_some()),
                }))
            }
        };
        Ok(Tokenizer {
            vocab,
            added,
            engine: Engine::Gguf(encoder),
            bos,
            end_ids,
            prefix,
            suffix,
            strip_first_space: spm && space_prefix,
            warnings,
        })
    }
}

fn lengths(what: &str, have: usize, tokens: usize) -> Error {
    Error::format(
        PLACE,
        format!("{what} has {have} entries, vocabulary has {tokens} tokens"),
    )
}

fn kinds(data: &TokenizerData) -> Result<Vec<Kind>> {
    let n = data.tokens.len();
    if data.token_types.is_empty() {
        return Ok(vec![Kind::Normal; n]);
    }
    if data.token_types.len() != n {
        return Err(lengths("token_type", data.token_types.len(), n));
    }
    let kind = |(i, &t): (usize, &i32)| {
        Kind::from_gguf(t).ok_or_else(|| {
            Error::format(PLACE, format!("type of token {i} is {t}, expected 1 to 6"))
        })
    };
    data.token_types.iter().enumerate().map(kind).collect()
}

fn find_rule(data: &TokenizerData, warnings: &mut Vec<String>) -> pre::Rule {
    let named = match data.pre.as_deref() {
        None if data.model == "gemma4" => pre::find("gemma4"),
        None => {
            warnings.push(
                "the file names no pre-tokeniser; using default, so answers may be worse".into(),
            );
            None
        }
        Some(name) => {
            let found = pre::find(name);
            if found.is_none() {
                warnings.push(format!(
                    "unknown pre-tokeniser {name:?}; using default, so answers may be worse; known: {}",
                    pre::NAMES
                ));
            }
            found
        }
    };
    named.or_else(|| pre::find("default")).unwrap_or(pre::Rule {
        patterns: &[],
        ignore_merges: false,
        add_bos: false,
        byte_level: true,
    })
}

fn added(data: &TokenizerData, vocab: &Vocab) -> Vec<Added> {
    // Phi-3's makers gave their tokens a flag that GGUF has no place for.
    let phi3 = data.name.as_deref().is_some_and(|name| {
        let name = name.to_lowercase();
        name.contains("phi-3") || name.contains("phi3")
    });
    let tokens = data.tokens.iter().enumerate();
    tokens
        .filter_map(|(id, text)| {
            let kind = vocab.kind(id as u32)?;
            let control = vocab.is_signal(id as u32);
            (control || kind == Kind::UserDefined).then(|| Added {
                id: id as u32,
                text: text.clone(),
                control,
                lstrip: false,
                rstrip: phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str()),
                single_word: false,
            })
        })
        .collect()
}

/// Encodes text between added tokens.
#[derive(Debug)]
pub(super) enum Encoder {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

impl Encoder {
    /// Appends the ids of `text`; `after_token`: it begins the whole text or follows an added token.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        after_token: bool,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        match self {
            Encoder::Bpe(bpe) => bpe.encode(vocab, text, out),
            Encoder::Spm(spm) => spm.encode(vocab, text, after_token, out),
        }
    }
}

/// BPE by ranked merges.
#[derive(Debug)]
pub(super) struct Bpe {
    splitters: Vec<Splitter>,
    merges: Merges,
    ignore_merges: bool,
    /// Characters of GPT-2's alphabet; `None`: symbols are characters.
    alphabet: Option<[char; 256]>,
    /// Token of each byte, alone or as `<0x0A>`.
    byte_tokens: [Option<u32>; 256],
    unk: Option<u32>,
}

impl Bpe {
    fn new(data: &TokenizerData, rule: pre::Rule, vocab: &Vocab) -> Result<Self> {
        let alphabet = rule.byte_level.then(byte_level);
        let byte_tokens = match &alphabet {
            Some(table) => table.map(|c| vocab.text_id(c.encode_utf8(&mut [0; 4]))),
            None => vocab.byte_tokens(),
        };
        let mut merges = Merges::with_capacity(data.merges.len());
        let mut joined = String::new();
        for (rank, line) in data.merges.iter().enumerate() {
            let bad = |why: &str| Error::format(PLACE, format!("merge {rank} {line:?} {why}"));
            // The left part has at least one character, and that may be a space.
            let from = line.chars().next().map_or(0, char::len_utf8);
            let gap = line[from..]
                .find(' ')
                .ok_or_else(|| bad("is not two tokens"))?;
            let (left, right) = (&line[..from + gap], &line[from + gap + 1..]);
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |text: &str| {
                vocab
                    .id(text)
                    .ok_or_else(|| bad(&format!("needs the unknown token {text:?}")))
            };
            let (left, right, whole) = (id(left)?, id(right)?, id(&joined)?);
            // Text from a user must not turn into a signal.
            if !vocab.is_signal(whole) {
                merges.entry((left, right)).or_insert((rank as u32, whole));
            }
        }
        let splitters = rule.patterns.iter().map(|p| Splitter::new(PLACE, p));
        Ok(Bpe {
            splitters: splitters.collect::<Result<_>>()?,
            merges,
            ignore_merges: rule.ignore_merges,
            alphabet,
            byte_tokens,
            unk: data.unk,
        })
    }

    fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let escaped;
        let text = match self.alphabet {
            Some(_) => text,
            None => {
                escaped = text.replace(' ', "▁");
                &escaped
            }
        };
        let whole = 0..text.len();
        let mut pieces = vec![whole];
        for splitter in &self.splitters {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                splitter.split(&text[piece.clone()], |r, _| {
                    finer.push(piece.start + r.start..piece.start + r.end);
                })?;
            }
            pieces = finer;
        }
        let mut ids = Vec::new();
        let mut word = String::new();
        for piece in pieces {
            self.encode_word(vocab, &text[piece], &mut ids, &mut word, out);
        }
        Ok(())
    }

    fn encode_word(
        &self,
        vocab: &Vocab,
        text: &str,
        ids: &mut Vec<Option<u32>>,
        word: &mut String,
        out: &mut Vec<u32>,
    ) {
        ids.clear();
        let whole = match &self.alphabet {
            Some(table) => {
                ids.extend(text.bytes().map(|b| self.byte_tokens[b as usize]));
                if self.ignore_merges && text.len() <= vocab.longest() {
                    word.clear();
                    word.extend(text.bytes().map(|b| table[b as usize]));
                    vocab.text_id(word)
                } else {
                    None
                }
            }
            None => {
                ids.extend(
                    text.char_indices()
                        .map(|(i, c)| vocab.text_id(&text[i..i + c.len_utf8()])),
                );
                // Gemma 4 has tokens for runs of line ends, and no merges that make them.
                let lines = text.bytes().all(|b| b == b'\n');
                (self.ignore_merges || lines)
                    .then(|| vocab.text_id(text))
                    .flatten()
            }
        };
        if let Some(id) = whole {
            out.push(id);
            return;
        }
        let mut chars = text.chars();
        let mut at = 0;
        for symbol in bpe(ids, &self.merges) {
            match symbol.id {
                Some(id) => out.push(id),
                // Bytes have one token each, or none at all.
                None if self.alphabet.is_some() => out.extend(self.unk),
                None => {
                    let c = chars.nth(symbol.first - at).unwrap_or_default();
                    at = symbol.first + 1;
                    byte_fallback(c, &self.byte_tokens, self.unk, out);
                }
            }
        }
    }
}

/// SentencePiece's BPE by scores.
#[derive(Debug)]
pub(super) struct Spm {
    scores: Vec<f32>,
    byte_tokens: [Option<u32>; 256],
    unk: Option<u32>,
    space_prefix: bool,
    /// No token crosses from a word to the space behind it, so each word can be merged alone.
    cut_at_spaces: bool,
}

/// Where a `▁` follows another character.
fn word_starts(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices('▁')
        .map(|(i, _)| i)
        .filter(|&i| i > 0 && !text[..i].ends_with('▁'))
}

impl Spm {
    fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        after_token: bool,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let prefix = if self.space_prefix && after_token {
            "▁"
        } else {
            ""
        };
        let text = format!("{prefix}{}", text.replace(' ', "▁"));
        let mut from = 0;
        let cuts = word_starts(&text).filter(|_| self.cut_at_spaces);
        for to in cuts.chain([text.len()]) {
            self.encode_part(vocab, &text[from..to], out);
            from = to;
        }
        Ok(())
    }

    fn encode_part(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut starts: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
        starts.push(text.len());
        let symbols = spm(
            text,
            &starts,
            vocab.longest(),
            |t| vocab.text_id(t),
            &self.scores,
        );
        for symbol in symbols {
            match symbol.id {
                Some(id) => out.push(id),
                None => {
                    let c = text[starts[symbol.first]..].chars().next();
                    byte_fallback(c.unwrap_or_default(), &self.byte_tokens, self.unk, out);
                }
            }
        }
    }
}

/// A character without a token: its bytes, or the token for unknown text.
fn byte_fallback(c: char, byte_tokens: &[Option<u32>; 256], unk: Option<u32>, out: &mut Vec<u32>) {
    let mut buffer = [0; 4];
    let bytes = c
        .encode_utf8(&mut buffer)
        .bytes()
        .map(|b| byte_tokens[b as usize]);
    match bytes.collect::<Option<Vec<_>>>() {
        Some(ids) => out.extend(ids),
        None => out.extend(unk),
    }
}
