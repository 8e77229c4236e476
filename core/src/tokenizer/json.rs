//! Tokenizers described by a `tokenizer.json`.
//!
//! The file is checked and taken apart here; its models and simple steps run in
//! the `tokenizers` crate, which trusts what it is given.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab as Vocabulary};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizer::{Range, SplitDelimiterBehavior};
use tokenizers::tokenizer::pattern::Invert;
use tokenizers::{Model as _, NormalizedString, Normalizer as _, NormalizerWrapper};
use tokenizers::{PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

use super::added::{Added, AddedTokens, Fragment};
use super::split::Splitter;
use super::vocab::{END_OF_TURN, Kind, Spelling, Vocab, byte_name};
use super::{Engine, Tokenizer, check_id};
use crate::{Error, Result};

const PLACE: &str = "tokenizer.json";

/// Largest file read.
const MAX_FILE: usize = 128 << 20;
/// Most steps in the normaliser, and in the pre-tokeniser.
const MAX_STEPS: usize = 32;
/// Most bytes a normaliser may make of a text.
const MAX_NORMALIZED: usize = 256 << 20;

#[derive(Deserialize)]
struct Outline {
    model: Typed,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    merges: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedJson>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelJson,
}

#[derive(Deserialize)]
struct AddedJson {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelJson {
    vocab: Pairs,
    #[serde(default)]
    merges: Vec<Merge>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    max_input_chars_per_word: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

/// A JSON object as it stands, so that a key that comes twice is seen.
struct Pairs(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token texts and ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

fn bad(reason: impl fmt::Display) -> Error {
    Error::format(PLACE, reason)
}

fn unsupported(what: &str, name: &str, supported: &str) -> Error {
    Error::Unsupported {
        what: format!("{PLACE}: {what} {name:?}"),
        supported: supported.to_owned(),
    }
}

impl Tokenizer {
    /// A tokenizer from the bytes of `tokenizer.json` and, if there is one, of
    /// `tokenizer_config.json`, which names the begin and end tokens.
    ///
    /// # Errors
    ///
    /// A file that is no such JSON, contradicts itself, or needs a model or step
    /// that is not supported (models: BPE, WordPiece).
    pub fn from_json(file: &[u8], config: Option<&[u8]>) -> Result<Self> {
        if file.len() > MAX_FILE {
            return Err(bad(format!(
                "file has {} bytes, limit {MAX_FILE}",
                file.len()
            )));
        }
        let outline: Outline = serde_json::from_slice(file).map_err(bad)?;
        let kind = match (outline.model.kind, outline.model.merges) {
            (Some(kind), _) => kind,
            (None, Some(_)) => "BPE".to_owned(),
            (None, None) => "WordPiece".to_owned(),
        };
        if !["BPE", "WordPiece"].contains(&kind.as_str()) {
            return Err(unsupported("model", &kind, "BPE, WordPiece"));
        }
        let file: File = serde_json::from_slice(file).map_err(bad)?;
        let config: Value = match config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|e| Error::format("tokenizer_config.json", e))?,
            None => Value::Null,
        };

        let mut spelling = Spelling::Metaspace;
        let mut strip_first_space = false;
        for step in steps(file.decoder.as_ref(), "decoders")? {
            match kind_of(step) {
                "ByteLevel" => spelling = Spelling::ByteLevel,
                "Strip" => strip_first_space |= step["start"].as_u64() > Some(0),
                "Metaspace" => strip_first_space |= step["prepend_scheme"] != "never",
                _ => {}
            }
        }
        if kind == "WordPiece" {
            (spelling, strip_first_space) = (Spelling::WordPiece, true);
        }

        let (tokens, kinds) = tokens(&file)?;
        let added = file.added_tokens.iter().map(|t| Added {
            id: t.id,
            text: t.content.clone(),
            control: t.special,
            lstrip: t.lstrip,
            rstrip: t.rstrip,
            single_word: t.single_word,
        });
        let added = AddedTokens::new(PLACE, added.collect())?;
        let vocab = Vocab::new(PLACE, &tokens, kinds, spelling)?;

        let named = |key: &str| {
            let value = &config[key];
            let text = value.as_str().or_else(|| value["content"].as_str());
            text.and_then(|text| vocab.id(text))
        };
        let (mut prefix, mut suffix) = affixes(file.post_processor.as_ref(), vocab.len())?;
        let mut bos = named("bos_token");
        let eos = named("eos_token");
        if config["add_bos_token"] == true && prefix.is_empty() {
            prefix.extend(bos);
        }
        if config["add_bos_token"] == false && bos.is_some() {
            prefix.retain(|&id| Some(id) != bos);
        }
        if config["add_eos_token"] == true && suffix.is_empty() {
            suffix.extend(eos);
        }
        if bos.is_none() && config["bos_token"].is_null() && kind == "BPE" {
            bos = prefix.first().copied();
        }
        let known = END_OF_TURN.iter().filter_map(|text| vocab.id(text));
        let end_ids: BTreeSet<u32> = known.filter(|&id| vocab.is_signal(id)).chain(eos).collect();

        let encoder = Encoder {
            normalizer: normalizer(file.normalizer.as_ref())?,
            pre_tokenizer: pre_tokenizer(file.pre_tokenizer.as_ref())?,
            model: model(&kind, file.model, &vocab)?,
        };
        Ok(Tokenizer {
            vocab,
            added,
            engine: Engine::Json(Box::new(encoder)),
            bos,
            end_ids,
            prefix,
            suffix,
            strip_first_space,
            warnings: Vec::new(),
        })
    }
}

/// Texts and kinds in id order; a gap in the numbering is an unused empty token.
fn tokens(file: &File) -> Result<(Vec<String>, Vec<Kind>)> {
    let pairs = &file.model.vocab.0;
    let added = file.added_tokens.iter().map(|t| t.id);
    let last = pairs.iter().map(|p| p.1).chain(added).max().unwrap_or(0) as usize;
    let count = pairs.len() + file.added_tokens.len();
    let limit = 2 * count + 65_536;
    if pairs.is_empty() || last >= limit {
        return Err(bad(format!(
            "vocabulary has {count} tokens, and its largest id is {last}"
        )));
    }
    let mut tokens = vec![String::new(); last + 1];
    let mut kinds = vec![Kind::Unused; last + 1];
    let mut taken = vec![false; last + 1];
    for (text, id) in pairs {
        let i = *id as usize;
        if taken[i] {
            return Err(bad(format!(
                "tokens {:?} and {text:?} share id {id}",
                tokens[i]
            )));
        }
        taken[i] = true;
        kinds[i] = if file.model.byte_fallback && byte_name(text).is_some() {
            Kind::Byte
        } else {
            Kind::Normal
        };
        tokens[i].clone_from(text);
    }
    for token in &file.added_tokens {
        let i = token.id as usize;
        if taken[i] && tokens[i] != token.content {
            return Err(bad(format!(
                "token {:?} and added token {:?} share id {}",
                tokens[i], token.content, token.id
            )));
        }
        taken[i] = true;
        tokens[i].clone_from(&token.content);
        kinds[i] = if token.special {
            Kind::Control
        } else {
            Kind::UserDefined
        };
    }
    Ok((tokens, kinds))
}

fn kind_of(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("")
}

/// The steps of a normaliser, pre-tokeniser, decoder or post-processor, sequences unfolded.
fn steps<'a>(value: Option<&'a Value>, list: &str) -> Result<Vec<&'a Value>> {
    let mut out = Vec::new();
    let mut todo: Vec<&Value> = value.into_iter().filter(|v| !v.is_null()).collect();
    while let Some(step) = todo.pop() {
        if kind_of(step) == "Sequence" {
            let inner = step[list]
                .as_array()
                .ok_or_else(|| bad(format!("a Sequence lacks {list}")))?;
            todo.extend(inner.iter().rev());
        } else {
            out.push(step);
        }
        if out.len() > MAX_STEPS {
            return Err(bad(format!("more than {MAX_STEPS} {list}")));
        }
    }
    Ok(out)
}

/// Ids that the post-processor puts before and behind one text.
fn affixes(value: Option<&Value>, tokens: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        check_id("a post-processor's", id.unwrap_or(u32::MAX), tokens)
    };
    for step in steps(value, "processors")? {
        match kind_of(step) {
            "TemplateProcessing" => {
                let mut behind = false;
                for item in step["single"].as_array().map_or(&[][..], Vec::as_slice) {
                    if item.get("Sequence").is_some() {
                        behind = true;
                        continue;
                    }
                    let name = item["SpecialToken"]["id"].as_str().unwrap_or("");
                    let ids = step["special_tokens"][name]["ids"]
                        .as_array()
                        .ok_or_else(|| {
                            bad(format!("post-processor names the unknown token {name:?}"))
                        })?;
                    for value in ids {
                        if behind { &mut suffix } else { &mut prefix }.push(id(value)?);
                    }
                }
            }
            "BertProcessing" | "RobertaProcessing" => {
                prefix.push(id(&step["cls"][1])?);
                suffix.push(id(&step["sep"][1])?);
            }
            "ByteLevel" => {}
            other => {
                let known =
                    "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence";
                return Err(unsupported("post-processor", other, known));
            }
        }
    }
    Ok((prefix, suffix))
}

/// A step that changes the text.
#[derive(Debug)]
enum Normalize {
    Replace(Splitter, String),
    Simple(Box<NormalizerWrapper>),
}

/// A step that cuts the text.
#[derive(Debug)]
enum PreTokenize {
    Split(Splitter, SplitDelimiterBehavior, bool),
    PrefixSpace,
    Simple(Box<PreTokenizerWrapper>),
}

/// The pattern of a step: literal text or a regular expression.
fn pattern(step: &Value) -> Result<Splitter> {
    let pattern = &step["pattern"];
    if let Some(text) = pattern["String"].as_str() {
        return Splitter::new(PLACE, &fancy_regex::escape(text));
    }
    let regex = pattern["Regex"]
        .as_str()
        .ok_or_else(|| bad(format!("{} lacks a pattern", kind_of(step))))?;
    Splitter::new(PLACE, regex)
}

fn normalizer(value: Option<&Value>) -> Result<Vec<Normalize>> {
    const SIMPLE: &[&str] = &[
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "Strip",
        "StripAccents",
        "Prepend",
        "BertNormalizer",
        "Nmt",
    ];
    let mut out = Vec::new();
    for step in steps(value, "normalizers")? {
        out.push(match kind_of(step) {
            "Replace" => {
                let content = step["content"]
                    .as_str()
                    .ok_or_else(|| bad("Replace lacks content"))?;
                Normalize::Replace(pattern(step)?, content.to_owned())
            }
            kind if SIMPLE.contains(&kind) => {
                Normalize::Simple(Box::new(serde_json::from_value(step.clone()).map_err(bad)?))
            }
            other => {
                return Err(unsupported(
                    "normaliser",
                    other,
                    &format!("Replace, {}, Sequence", SIMPLE.join(", ")),
                ));
            }
        });
    }
    Ok(out)
}

fn pre_tokenizer(value: Option<&Value>) -> Result<Vec<PreTokenize>> {
    const SIMPLE: &[&str] = &[
        "Metaspace",
        "Digits",
        "Punctuation",
        "Whitespace",
        "WhitespaceSplit",
        "BertPreTokenizer",
        "CharDelimiterSplit",
    ];
    const GPT2: &str =
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let simple = |step: &Value| {
        Ok(PreTokenize::Simple(Box::new(
            serde_json::from_value(step.clone()).map_err(bad)?,
        )))
    };
    let mut out = Vec::new();
    for step in steps(value, "pretokenizers")? {
        match kind_of(step) {
            "Split" => {
                let behavior = serde_json::from_value(step["behavior"].clone()).map_err(bad)?;
                let invert = step["invert"].as_bool().unwrap_or(false);
                out.push(PreTokenize::Split(pattern(step)?, behavior, invert));
            }
            "ByteLevel" => {
                if step["add_prefix_space"].as_bool().unwrap_or(true) {
                    out.push(PreTokenize::PrefixSpace);
                }
                if step["use_regex"].as_bool().unwrap_or(true) {
                    let splitter = Splitter::new(PLACE, GPT2)?;
                    out.push(PreTokenize::Split(
                        splitter,
                        SplitDelimiterBehavior::Isolated,
                        false,
                    ));
                }
                let bytes = serde_json::json!({
                    "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
                });
                out.push(simple(&bytes)?);
            }
            kind if SIMPLE.contains(&kind) => out.push(simple(step)?),
            other => {
                return Err(unsupported(
                    "pre-tokeniser",
                    other,
                    &format!("Split, ByteLevel, {}, Sequence", SIMPLE.join(", ")),
                ));
            }
        }
    }
    Ok(out)
}

/// The model, made of parts that were checked: the crate panics on some that do not fit.
fn model(kind: &str, json: ModelJson, vocab: &Vocab) -> Result<Model> {
    let ids: HashMap<String, u32> = json.vocab.0.into_iter().collect();
    if let Some(unk) = &json.unk_token
        && !ids.contains_key(unk)
    {
        return Err(bad(format!("unk_token {unk:?} is not in the vocabulary")));
    }
    if kind == "WordPiece" {
        let unk = json.unk_token.unwrap_or_else(|| "[UNK]".to_owned());
        if !ids.contains_key(&unk) {
            return Err(bad(format!("unk_token {unk:?} is not in the vocabulary")));
        }
        if json
            .continuing_subword_prefix
            .as_deref()
            .is_some_and(|p| p != "##")
        {
            return Err(unsupported("continuing_subword_prefix", "other", "##"));
        }
        let model = WordPiece::builder()
            .vocab(ids.into_iter().collect::<Vocabulary>())
            .unk_token(unk)
            .continuing_subword_prefix("##".to_owned())
            .max_input_chars_per_word(json.max_input_chars_per_word.unwrap_or(100).min(1000))
            .build()
            .map_err(bad)?;
        return Ok(Model::WordPiece(model));
    }
    if json.dropout.is_some_and(|p| p != 0.0) {
        return Err(bad("dropout is set, so ids would be random; remove it"));
    }
    for (name, value) in [
        ("continuing_subword_prefix", &json.continuing_subword_prefix),
        ("end_of_word_suffix", &json.end_of_word_suffix),
    ] {
        if let Some(text) = value
            && !text.is_empty()
        {
            return Err(unsupported(name, text, "none"));
        }
    }
    let mut merges = Vec::with_capacity(json.merges.len());
    for (rank, merge) in json.merges.into_iter().enumerate() {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left, right),
            Merge::Line(line) => match line.split_once(' ') {
                Some((left, right)) => (left.to_owned(), right.to_owned()),
                None => return Err(bad(format!("merge {rank} {line:?} is not two tokens"))),
            },
        };
        let whole = format!("{left}{right}");
        for text in [&left, &right, &whole] {
            if !ids.contains_key(text) {
                return Err(bad(format!(
                    "merge {rank} needs the unknown token {text:?}"
                )));
            }
        }
        // Text from a user must not turn into a signal.
        if vocab.text_id(&whole).is_some() {
            merges.push((left, right));
        }
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<Vocabulary>(), merges)
        // The crate's cache is never freed.
        .cache_capacity(0)
        .fuse_unk(json.fuse_unk)
        .byte_fallback(json.byte_fallback)
        .ignore_merges(json.ignore_merges);
    if let Some(unk) = json.unk_token {
        builder = builder.unk_token(unk);
    }
    Ok(Model::Bpe(Box::new(builder.build().map_err(bad)?)))
}

#[derive(Debug)]
enum Model {
    Bpe(Box<BPE>),
    WordPiece(WordPiece),
}

/// Encodes text between added tokens.
#[derive(Debug)]
pub(super) struct Encoder {
    normalizer: Vec<Normalize>,
    pre_tokenizer: Vec<PreTokenize>,
    model: Model,
}

impl Encoder {
    /// Appends the ids of `fragments`, which are parts of `text`.
    pub(super) fn encode(
        &self,
        text: &str,
        fragments: &[Fragment],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let mut whole = None;
        for fragment in fragments {
            match fragment {
                Fragment::Token(id) => out.push(*id),
                Fragment::Text(range) => {
                    // A part knows where in the whole it stands: some steps treat the first part apart.
                    let whole = whole.get_or_insert_with(|| NormalizedString::from(text));
                    let part = whole
                        .slice(Range::Original(range.clone()))
                        .ok_or_else(|| Error::Invalid(format!("no text at {range:?}")))?;
                    self.encode_part(part, out)
                        .map_err(|e| Error::Invalid(e.to_string()))?;
                }
            }
        }
        Ok(())
    }

    fn encode_part(
        &self,
        mut text: NormalizedString,
        out: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        for step in &self.normalizer {
            match step {
                Normalize::Replace(pattern, content) => {
                    let most = text.len().saturating_mul(content.len().max(1));
                    if most > MAX_NORMALIZED {
                        return Err(format!(
                            "text of {} bytes is too long to normalise",
                            text.len()
                        )
                        .into());
                    }
                    text.replace(pattern, content)?;
                }
                Normalize::Simple(step) => step.normalize(&mut text)?,
            }
        }
        let mut parts = PreTokenizedString::from(text);
        for step in &self.pre_tokenizer {
            match step {
                PreTokenize::Split(pattern, behavior, false) => {
                    parts.split(|_, s| s.split(pattern, *behavior))?
                }
                PreTokenize::Split(pattern, behavior, true) => {
                    parts.split(|_, s| s.split(Invert(pattern), *behavior))?
                }
                PreTokenize::PrefixSpace => parts.normalize(|s| {
                    if !s.get().starts_with(char::is_whitespace) {
                        s.prepend(" ");
                    }
                    Ok(())
                })?,
                PreTokenize::Simple(step) => step.pre_tokenize(&mut parts)?,
            }
        }
        parts.split(|_, s| {
            if !s.is_empty() {
                let tokens = match &self.model {
                    Model::Bpe(model) => model.tokenize(s.get())?,
                    Model::WordPiece(model) => model.tokenize(s.get())?,
                };
                out.extend(tokens.into_iter().map(|t| t.id));
            }
            Ok(Vec::<NormalizedString>::new())
        })
    }
}
