//! Tokens that are found in the text before anything else: control tokens
//! (`<|im_end|>`) and those a model's makers added.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

use crate::{Error, Result};

/// Most bytes all added tokens may have together.
const MAX_BYTES: usize = 8 << 20;

/// One added token.
#[derive(Clone, Debug)]
pub(super) struct Added {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Never found in text that comes from a user.
    pub control: bool,
    /// Swallows white space before it.
    pub lstrip: bool,
    /// Swallows white space behind it.
    pub rstrip: bool,
    /// Only between characters that are not letters, digits or `_`.
    pub single_word: bool,
}

/// A part of a text: a token found in it, or what lies between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// An added token.
    Token(u32),
    /// Text to encode.
    Text(Range<usize>),
}

/// Finds added tokens.
#[derive(Debug)]
pub(super) struct AddedTokens {
    tokens: Vec<Added>,
    all: AhoCorasick,
    plain: AhoCorasick,
    /// Index in `tokens` of each pattern of `plain`.
    plain_index: Vec<usize>,
}

impl AddedTokens {
    pub(super) fn new(place: &str, mut tokens: Vec<Added>) -> Result<Self> {
        tokens.retain(|t| !t.text.is_empty());
        let bytes: usize = tokens.iter().map(|t| t.text.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Error::format(
                place,
                format!("added tokens have {bytes} bytes together, limit {MAX_BYTES}"),
            ));
        }
        let mut seen = HashMap::new();
        for token in &tokens {
            if let Some(id) = seen.insert(token.text.as_str(), token.id) {
                return Err(Error::format(
                    place,
                    format!(
                        "added token {:?} has two ids, {id} and {}",
                        token.text, token.id
                    ),
                ));
            }
        }
        let build = |texts: &mut dyn Iterator<Item = &str>| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .start_kind(StartKind::Both)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(texts)
                .map_err(|e| Error::format(place, e))
        };
        let all = build(&mut tokens.iter().map(|t| t.text.as_str()))?;
        let plain_index: Vec<_> = (0..tokens.len()).filter(|&i| !tokens[i].control).collect();
        let plain = build(&mut plain_index.iter().map(|&i| tokens[i].text.as_str()))?;
        Ok(AddedTokens {
            tokens,
            all,
            plain,
            plain_index,
        })
    }

    /// Texts of control tokens.
    pub(super) fn control(&self) -> impl Iterator<Item = &str> {
        let control = self.tokens.iter().filter(|t| t.control);
        control.map(|t| t.text.as_str())
    }

    /// Cuts `text`. A control token is found only where it touches none of the
    /// `user` ranges, which are sorted and apart.
    pub(super) fn split(&self, text: &str, user: &[Range<usize>]) -> Vec<Fragment> {
        let mut out = Vec::new();
        let (mut done, mut from) = (0, 0);
        while let Some((token, range)) = self.find(text, from, user) {
            from = range.end;
            if token.single_word && !stands_alone(text, &range) {
                continue;
            }
            let (mut start, mut end) = (range.start, range.end);
            if token.lstrip {
                start = done.max(text[..start].trim_end().len());
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if start > done {
                out.push(Fragment::Text(done..start));
            }
            out.push(Fragment::Token(token.id));
            done = end;
            from = end;
        }
        if done < text.len() {
            out.push(Fragment::Text(done..text.len()));
        }
        out
    }

    fn find(
        &self,
        text: &str,
        mut from: usize,
        user: &[Range<usize>],
    ) -> Option<(&Added, Range<usize>)> {
        // User text alone, the usual case: no need to look at control tokens.
        if let [only] = user
            && *only == (0..text.len())
        {
            let hit = self.plain.find(Input::new(text).range(from..))?;
            let token = &self.tokens[self.plain_index[hit.pattern().as_usize()]];
            return Some((token, hit.range()));
        }
        loop {
            let hit = self.all.find(Input::new(text).range(from..))?;
            let token = &self.tokens[hit.pattern().as_usize()];
            let range = hit.range();
            if !token.control || !touches(user, &range) {
                return Some((token, range));
            }
            let here = Input::new(text)
                .range(range.start..)
                .anchored(Anchored::Yes);
            if let Some(hit) = self.plain.find(here) {
                let token = &self.tokens[self.plain_index[hit.pattern().as_usize()]];
                return Some((token, hit.range()));
            }
            from = range.start + text[range.start..].chars().next().map_or(1, char::len_utf8);
        }
    }
}

/// Whether any of the sorted `ranges` shares a byte with `range`.
fn touches(ranges: &[Range<usize>], range: &Range<usize>) -> bool {
    let i = ranges.partition_point(|r| r.end <= range.start);
    ranges.get(i).is_some_and(|r| r.start < range.end)
}

/// Whether the characters on both sides of `range` are no word characters.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..range.start].chars().next_back().is_some_and(word)
        && !text[range.end..].chars().next().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(id: u32, text: &str, control: bool) -> Added {
        Added {
            id,
            text: text.to_owned(),
            control,
            lstrip: false,
            rstrip: false,
            single_word: false,
        }
    }

    /// One user range.
    fn user(start: usize, end: usize) -> Vec<Range<usize>> {
        std::iter::once(start..end).collect()
    }

    fn tokens() -> AddedTokens {
        let mut mask = added(4, "<mask>", true);
        mask.lstrip = true;
        mask.rstrip = true;
        let list = vec![
            added(1, "<s>", true),
            added(2, "<<", false),
            added(3, "<s>x", false),
            mask,
        ];
        AddedTokens::new("test", list).unwrap()
    }

    #[test]
    fn control_tokens_are_not_found_in_user_text() {
        let t = tokens();
        assert_eq!(
            t.split("a<s>b<s>", &user(0, 4)),
            [Fragment::Text(0..5), Fragment::Token(1)]
        );
        assert_eq!(t.split("<s>", &user(0, 3)), [Fragment::Text(0..3)]);
        // A token that the template begins and the user ends.
        assert_eq!(t.split("<s>", &user(2, 3)), [Fragment::Text(0..3)]);
        assert_eq!(t.split("<s", &[]), [Fragment::Text(0..2)]);
    }

    #[test]
    fn other_added_tokens_are_found_everywhere() {
        let t = tokens();
        for user in [Vec::new(), user(0, 5), user(1, 4)] {
            assert_eq!(
                t.split("a<<bc", &user),
                [
                    Fragment::Text(0..1),
                    Fragment::Token(2),
                    Fragment::Text(3..5)
                ]
            );
            assert_eq!(
                t.split("<s>x", &user),
                [Fragment::Token(3)],
                "the longest wins"
            );
        }
    }

    #[test]
    fn stripping_tokens_swallow_white_space() {
        assert_eq!(
            tokens().split("a <mask>  b", &[]),
            [
                Fragment::Text(0..1),
                Fragment::Token(4),
                Fragment::Text(10..11)
            ]
        );
    }

    #[test]
    fn one_text_with_two_ids_is_an_error() {
        assert!(AddedTokens::new("test", vec![added(1, "x", true), added(2, "x", true)]).is_err());
    }
}
