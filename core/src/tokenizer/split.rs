//! Splits text by a regular expression: matches and what lies between them.

use std::ops::Range;

use regex_automata::{Anchored, Input, meta};

use crate::{Error, Result};

/// Longest pattern taken from a file.
const MAX_PATTERN: usize = 16 * 1024;
/// Most memory a compiled pattern may take.
const MAX_COMPILED: usize = 16 << 20;
/// Steps of backtracking allowed for one match.
const MAX_BACKTRACK: usize = 1_000_000;

/// A compiled pattern that cuts text into pieces.
///
/// The usual tail of a pre-tokeniser, `\s+(?!\S)|\s+`, is the only reason such
/// patterns need lookahead. It means "white space, but leave its last character
/// to the word that follows", so it is done by hand, and the rest runs in linear
/// time. Other lookaround falls back to a backtracking engine with a limit.
#[derive(Debug)]
pub(super) enum Splitter {
    /// Linear time; a match of pattern 1 is white space that gives back its last character.
    Linear(Box<meta::Regex>),
    /// Backtracking with a limit.
    Backtracking(Box<fancy_regex::Regex>),
}

impl Splitter {
    /// Compiles `pattern`; `place` names it in errors.
    pub(super) fn new(place: &str, pattern: &str) -> Result<Self> {
        if pattern.len() > MAX_PATTERN {
            return Err(Error::format(
                place,
                format!("pattern has {} bytes, limit {MAX_PATTERN}", pattern.len()),
            ));
        }
        let head = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"]
            .iter()
            .find_map(|tail| pattern.strip_suffix(tail));
        let compiled = match head {
            Some(head) => builder().build_many(&[head, r"\s+"]),
            None => builder().build(pattern),
        };
        if let Ok(regex) = compiled {
            return Ok(Splitter::Linear(Box::new(regex)));
        }
        fancy_regex::RegexBuilder::new(pattern)
            .backtrack_limit(MAX_BACKTRACK)
            .delegate_size_limit(MAX_COMPILED)
            .delegate_dfa_size_limit(MAX_COMPILED)
            .build()
            .map(|regex| Splitter::Backtracking(Box::new(regex)))
            .map_err(|e| Error::format(place, format!("bad pattern: {e}")))
    }

    /// The matches in `text`, in order, none empty.
    fn matches(&self, text: &str, mut found: impl FnMut(Range<usize>)) -> Result<()> {
        match self {
            Splitter::Linear(regex) => {
                let mut at = 0;
                while at < text.len() {
                    let input = Input::new(text).range(at..).anchored(Anchored::No);
                    let Some(hit) = regex.search(&input) else {
                        break;
                    };
                    let mut range = hit.range();
                    if range.is_empty() {
                        at = next_char(text, range.end);
                        continue;
                    }
                    if hit.pattern().as_usize() == 1 && range.end < text.len() {
                        // The next character is not white space: the match was as long as it could be.
                        let last = text[range.clone()].chars().next_back();
                        let kept = range.end - last.map_or(0, char::len_utf8);
                        if kept > range.start {
                            range.end = kept;
                        }
                    }
                    at = range.end;
                    found(range);
                }
                Ok(())
            }
            Splitter::Backtracking(regex) => {
                for hit in regex.find_iter(text) {
                    let hit = hit.map_err(|e| {
                        Error::Invalid(format!(
                            "splitting {} bytes of text took too long ({e}); shorten the text",
                            text.len()
                        ))
                    })?;
                    if hit.end() > hit.start() {
                        found(hit.range());
                    }
                }
                Ok(())
            }
        }
    }

    /// Cuts `text` into matches (`true`) and gaps (`false`), none empty.
    pub(super) fn split(
        &self,
        text: &str,
        mut piece: impl FnMut(Range<usize>, bool),
    ) -> Result<()> {
        let mut end = 0;
        self.matches(text, |range| {
            if range.start > end {
                piece(end..range.start, false);
            }
            end = range.end;
            piece(range, true);
        })?;
        if end < text.len() {
            piece(end..text.len(), false);
        }
        Ok(())
    }
}

fn builder() -> meta::Builder {
    let mut builder = meta::Regex::builder();
    builder.configure(meta::Config::new().nfa_size_limit(Some(MAX_COMPILED)));
    builder
}

/// Start of the character after the one at `at`.
fn next_char(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

impl tokenizers::tokenizer::pattern::Pattern for &Splitter {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(tokenizers::Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut pieces = Vec::new();
        self.split(inside, |r, hit| pieces.push(((r.start, r.end), hit)))?;
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pattern: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        Splitter::new("test", pattern)
            .unwrap()
            .split(text, |r, _| out.push(text[r].to_owned()))
            .unwrap();
        out
    }

    #[test]
    fn the_linear_engine_cuts_as_the_backtracking_one() {
        let texts = [
            "",
            " ",
            "  a",
            "a  ",
            " \n \n b",
            "x\u{3000}\u{3000}y",
            "\t\t\n1 2",
            "é  ü!",
        ];
        for head in [
            r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+",
            r"\p{L}+|\s*[\r\n]+",
            r"\p{L}+|[\r\n]",
        ] {
            let pattern = format!(r"{head}|\s+(?!\S)|\s+");
            let fancy = fancy_regex::Regex::new(&pattern).unwrap();
            let linear = Splitter::new("test", &pattern).unwrap();
            assert!(matches!(linear, Splitter::Linear(_)));
            for text in texts {
                let mut want = Vec::new();
                Splitter::Backtracking(Box::new(fancy.clone()))
                    .split(text, |r, _| want.push(text[r].to_owned()))
                    .unwrap();
                assert_eq!(pieces(&pattern, text), want, "{pattern} on {text:?}");
            }
        }
    }

    #[test]
    fn a_catastrophic_pattern_is_an_error() {
        let splitter = Splitter::new("test", r"(?:(a|a)*)*\1b").unwrap();
        let error = splitter.split(&"a".repeat(4000), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("took too long"), "{error}");
    }

    #[test]
    fn a_huge_pattern_is_an_error() {
        assert!(Splitter::new("test", &"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Splitter::new("test", r"((\w{1000}){1000}){1000}").is_err());
        assert!(Splitter::new("test", "(").is_err());
    }
}
