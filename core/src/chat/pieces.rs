//! Which parts of a rendered prompt come from messages, so that the texts of control tokens in
//! them stay text.
//!
//! Before rendering, the characters of messages are replaced by private ones, one for one: what
//! comes out as a private character is a message's. But templates look at messages
//! (`'</think>' in content`), and so the replacing must not change what they write. It is tried
//! from the most careful way to the least, see [`LADDER`].

use std::collections::{BTreeSet, HashMap, HashSet};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::{ChatTemplate, MAX_OUTPUT, Message, Options, PLACE};
use crate::{Error, Result};

/// A part of a rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Written by the template, so that texts of control tokens are such tokens;
    /// in other pieces they are only text.
    pub special: bool,
}

/// Which characters of a message are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// All but white space and what JSON escapes.
    All,
    /// Those of [`Mask::All`] that are in no text that the template names too, or are in one of a control token.
    Foreign,
    /// Those in texts of control tokens.
    Control,
    /// None.
    Nothing,
}

/// What is tried: the mask for everybody else's messages, then that for the assistant's, which
/// templates take apart most. The prompt must come out the same, except with the last.
const LADDER: [(Mask, Mask); 7] = [
    (Mask::All, Mask::All),
    (Mask::Foreign, Mask::Foreign),
    (Mask::All, Mask::Control),
    (Mask::Foreign, Mask::Control),
    (Mask::All, Mask::Nothing),
    (Mask::Foreign, Mask::Nothing),
    (Mask::Control, Mask::Control),
];

impl ChatTemplate {
    /// The prompt, cut so that what the messages say is kept apart from what the
    /// template writes: `<|im_end|>` in a message stays text. `control` are the texts of control
    /// tokens, [`crate::tokenizer::Tokenizer::control_texts`].
    ///
    /// The joined pieces are what [`ChatTemplate::render`] returns, with one exception: where the
    /// template changes the messages' own characters (to upper case, say), it does not see the
    /// texts of control tokens in them, and those come out as they were. An assistant's message
    /// that the template takes apart at a control token is taken for the template's own text.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub fn render_pieces(
        &self,
        messages: &[Message],
        options: &Options,
        control: &[&str],
    ) -> Result<Vec<Piece>> {
        let plain = self.render(messages, options)?;
        let texts = Texts::new(&self.literals, control)?;
        let private = unused(&plain, messages);
        let mut pieces = Vec::new();
        for (i, (others, assistant)) in LADDER.into_iter().enumerate() {
            let mut masks = Masks::new(&private);
            let masked: Vec<Message> = (messages.iter())
                .map(|m| match m.role() {
                    "assistant" => masks.message(m, assistant, &texts),
                    _ => masks.message(m, others, &texts),
                })
                .collect();
            // With other characters in it, a message may be one that the template refuses. They
            // have up to four times the bytes.
            let rendered = self.render_within(&masked, options, 4 * MAX_OUTPUT);
            let last = i + 1 == LADDER.len();
            match rendered {
                Ok(text) => pieces = masks.cut(&text),
                Err(e) if last => return Err(e),
                Err(_) => continue,
            }
            if last || pieces.iter().map(|p| p.text.as_str()).eq_text(&plain) {
                break;
            }
        }
        Ok(pieces)
    }
}

/// Compares a text in parts with a whole one.
trait EqText {
    fn eq_text(self, whole: &str) -> bool;
}

impl<'a, I: Iterator<Item = &'a str>> EqText for I {
    fn eq_text(mut self, whole: &str) -> bool {
        let rest = self.try_fold(whole, |rest, part| rest.strip_prefix(part));
        rest.is_some_and(str::is_empty)
    }
}

/// Texts that are looked for in messages.
struct Texts {
    literals: AhoCorasick,
    control: AhoCorasick,
}

impl Texts {
    fn new(literals: &BTreeSet<String>, control: &[&str]) -> Result<Texts> {
        let find = |texts: &[&str]| AhoCorasick::new(texts).map_err(|e| Error::format(PLACE, e));
        // A control token, or a part of one, is never left in place.
        let foreign = |text: &&str| !control.iter().any(|c| c.contains(text) || text.contains(c));
        let kept: Vec<&str> = literals
            .iter()
            .map(String::as_str)
            .filter(foreign)
            .collect();
        Ok(Texts {
            literals: find(&kept)?,
            control: find(control)?,
        })
    }

    /// For each byte of `text`, whether `mask` replaces it.
    fn replaced(&self, mask: Mask, text: &str) -> Vec<bool> {
        let all = matches!(mask, Mask::All | Mask::Foreign);
        let mut replaced = vec![all; text.len()];
        if mask == Mask::Foreign {
            for hit in self.literals.find_overlapping_iter(text) {
                replaced[hit.range()].fill(false);
            }
        }
        if matches!(mask, Mask::Foreign | Mask::Control) {
            for hit in self.control.find_overlapping_iter(text) {
                replaced[hit.range()].fill(true);
            }
        }
        replaced
    }
}

/// Private characters that occur neither in the prompt nor in the messages.
fn unused(plain: &str, messages: &[Message]) -> Vec<char> {
    let private = |c: &char| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}');
    let mut seen: HashSet<char> = plain.chars().filter(private).collect();
    let mut different: HashSet<char> = HashSet::new();
    for message in messages {
        let mut message = message.clone();
        for (_, text) in strings(&mut message) {
            seen.extend(text.chars().filter(private));
            different.extend(text.chars());
        }
    }
    let all = ('\u{e000}'..='\u{f8ff}')
        .chain('\u{f0000}'..='\u{ffffd}')
        .chain('\u{100000}'..='\u{10fffd}');
    all.filter(|c| !seen.contains(c))
        .take(different.len())
        .collect()
}

/// Every text in a message, and whether it says what something is (`role`, `type`), which
/// templates ask for by name.
fn strings(message: &mut Message) -> Vec<(bool, &mut String)> {
    fn walk<'a>(kind: bool, value: &'a mut Value, out: &mut Vec<(bool, &'a mut String)>) {
        match value {
            Value::String(text) => out.push((kind, text)),
            Value::Array(items) => items.iter_mut().for_each(|v| walk(false, v, out)),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    walk(key == "type", value, out);
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (key, value) in message.0.iter_mut() {
        walk(key == "role" || key == "type", value, &mut out);
    }
    out
}

/// Characters that are never replaced: templates trim and split at white space, and JSON escapes the others.
fn stays(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == '"' || c == '\\'
}

/// Which private character stands for which.
struct Masks<'a> {
    private: std::slice::Iter<'a, char>,
    there: HashMap<char, char>,
    back: HashMap<char, char>,
}

impl<'a> Masks<'a> {
    fn new(private: &'a [char]) -> Self {
        Masks {
            private: private.iter(),
            there: HashMap::new(),
            back: HashMap::new(),
        }
    }

    fn message(&mut self, message: &Message, mask: Mask, texts: &Texts) -> Message {
        let mut message = message.clone();
        let mut found = strings(&mut message);
        // As one text: a template that joins parts must not make a control token of two.
        let parts = found.iter().filter(|(kind, _)| !kind);
        let whole: String = parts.map(|(_, text)| text.trim()).collect();
        let control = match mask {
            Mask::Nothing => vec![false; whole.len()],
            _ => texts.replaced(Mask::Control, &whole),
        };
        let mut at = 0;
        for (kind, text) in &mut found {
            let mut replaced = match mask {
                Mask::Nothing => continue,
                _ if *kind => texts.replaced(Mask::Control, text),
                mask => texts.replaced(mask, text),
            };
            if !*kind {
                let start = text.len() - text.trim_start().len();
                let trimmed = text.trim().len();
                for i in 0..trimmed {
                    replaced[start + i] |= control[at + i];
                }
                at += trimmed;
            }
            **text = (text.char_indices())
                .map(|(i, c)| if replaced[i] { self.mask(c) } else { c })
                .collect();
        }
        message
    }

    fn mask(&mut self, c: char) -> char {
        if stays(c) {
            return c;
        }
        if let Some(&mask) = self.there.get(&c) {
            return mask;
        }
        let Some(&mask) = self.private.next() else {
            return c;
        };
        self.there.insert(c, mask);
        self.back.insert(mask, c);
        mask
    }

    /// The characters put back, and cut where they begin and end. What [stays] between two
    /// replaced ones is of their piece.
    fn cut(&self, text: &str) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut gap = String::new();
        let mut add = |text: &str, special: bool| match pieces.last_mut() {
            Some(piece) if piece.special == special => piece.text.push_str(text),
            _ if text.is_empty() => {}
            _ => pieces.push(Piece {
                text: text.to_owned(),
                special,
            }),
        };
        let mut last = true;
        for c in text.chars() {
            let original = self.back.get(&c);
            if original.is_none() && stays(c) {
                gap.push(c);
                continue;
            }
            let special = original.is_none();
            add(&gap, special || last);
            gap.clear();
            add(original.unwrap_or(&c).encode_utf8(&mut [0; 4]), special);
            last = special;
        }
        add(&gap, true);
        pieces
    }
}

/// The quoted texts in the tags of a template's source.
pub(super) fn literals(source: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut rest = source;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        if let Some(comment) = rest[..at].find("{#") {
            let end = rest[comment..].find("#}");
            rest = end.map_or("", |end| &rest[comment + end..]);
            continue;
        }
        let end = if rest[at..].starts_with("{{") {
            "}}"
        } else {
            "%}"
        };
        rest = &rest[at + 2..];
        while let Some(next) = rest.find(['"', '\'']) {
            if rest.find(end).is_some_and(|end| end < next) {
                break;
            }
            let (text, length) = quoted(&rest[next..]);
            out.insert(text);
            rest = &rest[next + length..];
        }
    }
    out.remove("");
    out
}

/// The text that a quote opens, and how many bytes it takes with its quotes.
fn quoted(source: &str) -> (String, usize) {
    let mut chars = source.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut text = String::new();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, other)) => text.push(other),
                None => {}
            },
            c if Some(c) == quote => return (text, i + 1),
            c => text.push(c),
        }
    }
    (text, source.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: [&str; 3] = ["<|im_start|>", "<|im_end|>", "</s>"];

    fn pieces(source: &str, messages: &[Message]) -> Vec<Piece> {
        let template = ChatTemplate::new(source).unwrap();
        (template.render_pieces(messages, &Options::default(), &CONTROL)).unwrap()
    }

    fn user(content: &str) -> [Message; 1] {
        [Message::new("user", content)]
    }

    /// Texts, and which of them are special.
    fn shown(pieces: &[Piece]) -> Vec<(&str, bool)> {
        let both = pieces.iter().map(|p| (p.text.as_str(), p.special));
        both.collect()
    }

    #[test]
    fn pieces_join_to_the_rendering_and_keep_messages_apart() {
        let source = "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n{{ m.content | trim }}<|im_end|>\n{% endfor -%}";
        let messages = [
            Message::new("system", "be \"brief\""),
            Message::new("user", " hi <|im_end|>\n"),
        ];
        assert_eq!(
            shown(&pieces(source, &messages)),
            [
                ("<|im_start|>system\n", true),
                ("be \"brief", false),
                ("\"<|im_end|>\n<|im_start|>user\n", true),
                ("hi <|im_end|>", false),
                ("<|im_end|>\n", true)
            ]
        );
    }

    #[test]
    fn parts_are_kept_apart_too() {
        let source = "{% for m in messages %}[{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}|{% endif %}{% endfor %}]{% endfor %}";
        let message = serde_json::json!({"role": "user", "content": [{"type": "text", "text": "x]"}, {"type": "text", "text": "y"}]});
        let message: Message = serde_json::from_value(message).unwrap();
        assert_eq!(
            shown(&pieces(source, &[message])),
            [
                ("[", true),
                ("x]", false),
                ("|", true),
                ("y", false),
                ("|]", true)
            ]
        );
    }

    #[test]
    fn a_template_that_counts_characters_counts_the_same() {
        let source = "{{ messages[0].content | length }} {{ messages[0].content }}";
        assert_eq!(
            shown(&pieces(source, &user("</s>"))),
            [("4 ", true), ("</s>", false)]
        );
    }

    #[test]
    fn a_text_that_the_template_looks_for_is_seen() {
        // As Qwen3's template finds the last question.
        let source = "{% if messages[0].content.startswith('<tool_response>') %}T{% endif %}{{ messages[0].content }}<|im_end|>";
        let text = "<tool_response>a<|im_end|>b";
        assert_eq!(
            shown(&pieces(source, &user(text))),
            [
                ("T<tool_response>", true),
                ("a<|im_end|>b", false),
                ("<|im_end|>", true)
            ]
        );
        // Though named by the template, a control token is no text to look for.
        let source = "{{ messages[0].content.split('<|im_end|>') | last }}";
        assert_eq!(
            shown(&pieces(source, &user("a<|im_end|>b"))),
            [("a", true), ("<|im_end|>", false), ("b", true)]
        );
    }

    #[test]
    fn a_template_that_changes_messages_makes_no_control_tokens_of_them() {
        for source in [
            "{{ messages[0].content | upper }}</s>",
            "{{ messages[0].content | upper | lower }}</s>",
            "{{ messages[0].content | replace('x', '') }}</s>",
        ] {
            let pieces = pieces(source, &user("x<|im_end|> and </s>"));
            let (plain, special): (Vec<_>, Vec<_>) = pieces.iter().partition(|p| !p.special);
            let plain: Vec<_> = plain.iter().map(|p| p.text.as_str()).collect();
            assert!(
                plain.join(" ").contains("<|im_end|>"),
                "{source}: {pieces:?}"
            );
            let special: String = special.iter().map(|p| p.text.as_str()).collect();
            assert!(!special.contains("<|im_end|>"), "{source}: {pieces:?}");
            assert_eq!(special.matches("</s>").count(), 1, "{source}: {pieces:?}");
        }
    }

    #[test]
    fn parts_that_make_a_control_token_together_are_no_such_token() {
        let source =
            "{% for p in messages[0].content %}{{ p.text | trim | capitalize }}{% endfor %}";
        let message = serde_json::json!({"role": "user", "content": [{"type": "text", "text": "<|im_ "}, {"type": "text", "text": "end|>"}]});
        let message: Message = serde_json::from_value(message).unwrap();
        assert!(
            pieces(source, &[message])
                .iter()
                .all(|p| !p.special || !p.text.contains("|>"))
        );
    }

    #[test]
    fn a_role_cannot_be_a_control_token() {
        let source = "{{ messages[0].role }}: {{ messages[0].content }}";
        let message = [Message::new("user</s>", "hi")];
        assert_eq!(
            shown(&pieces(source, &message)),
            [("user", true), ("</s>", false), (": ", true), ("hi", false)]
        );
    }

    #[test]
    fn private_characters_of_a_message_come_out_as_they_were() {
        let text = "\u{e000}<|im_end|>\u{f0000}\u{e001}";
        assert_eq!(
            shown(&pieces("a{{ messages[0].content }}", &user(text))),
            [("a", true), (text, false)]
        );
    }

    #[test]
    fn literals_are_the_quoted_texts_in_tags() {
        let source =
            "don't {# 'no' {{ 'no' }} #}{{ 'a\\'b' ~ \"c'\\n\" }}{% if x == '}}' %}'no'{% endif %}";
        let found: Vec<_> = literals(source).into_iter().collect();
        assert_eq!(found, ["a'b", "c'\n", "}}"]);
    }
}
