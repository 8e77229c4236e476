//! Pre-tokeniser rules: how each model family cuts text into words before BPE.
//!
//! The patterns are those of the models' own `tokenizer.json` files, under the
//! names that llama.cpp gives them (`llama-vocab.cpp`, `tokenizer.ggml.pre`).
//! Each pattern of a rule cuts the pieces that the one before it left.

/// One family's rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Patterns, applied one after the other.
    pub patterns: &'static [&'static str],
    /// A word that is a token stays whole, whatever the merges say.
    pub ignore_merges: bool,
    /// A begin-of-sequence token comes first unless the file says otherwise.
    pub add_bos: bool,
    /// Symbols are bytes in GPT-2's alphabet; else characters, with `▁` for a space.
    pub byte_level: bool,
}

const fn rule(patterns: &'static [&'static str]) -> Rule {
    Rule {
        patterns,
        ignore_merges: false,
        add_bos: false,
        byte_level: true,
    }
}

/// The names in [`find`].
pub(super) const NAMES: &str = "default, gpt-2, phi-2, gigachat, mellum, modern-bert, exaone4, mpt, olmo, jais, trillion, \
    granite-docling, starcoder, refact, command-r, smollm, codeshell, exaone, minerva-7b, mellum2, llama3, llama-v3, \
    llama-bpe, falcon3, falcon-h1, pixtral, midm-2.0, lfm2, dbrx, smaug-bpe, chatglm-bpe, glm4, glm5, qwen2, \
    deepseek-r1-qwen, kormo, megrez, hunyuan, solar-open, grok-2, stablelm2, qwen35, deepseek-llm, deepseek-coder, \
    deepseek-v3, hunyuan-dense, hy_v4, joyai-llm, falcon, bloom, poro-chat, gpt3-finnish, viking, tekken, gpt-4o, \
    llama4, kanana2, minimax-m2, bailingmoe, bailingmoe2, llada-moe, seed-coder, kimi-k2, laguna, minicpm5, gemma4, \
    sarvam-moe";

/// The rule named `pre`.
pub(super) fn find(pre: &str) -> Option<Rule> {
    Some(match pre {
        "default" => rule(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        "gpt-2" | "phi-2" | "gigachat" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo"
        | "jais" | "trillion" | "granite-docling" => rule(&[GPT2]),
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => rule(&[r"\p{N}", GPT2]),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
        | "lfm2" => Rule {
            ignore_merges: true,
            add_bos: true,
            ..rule(&[LLAMA3])
        },
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => rule(&[LLAMA3]),
        "glm4" | "glm5" => Rule {
            ignore_merges: true,
            ..rule(&[LLAMA3])
        },
        "minicpm5" => Rule {
            ignore_merges: true,
            ..rule(&[r"\p{N}{1,3}", LLAMA3])
        },
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "megrez" | "hunyuan" | "solar-open" | "grok-2"
        | "stablelm2" => rule(&[QWEN2]),
        "qwen35" => rule(&[QWEN35]),
        "laguna" => rule(&[LINES, QWEN2]),
        "deepseek-llm" => rule(&[
            r"[\r\n]",
            CASED_LETTERS,
            r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            r"\s+$",
            HAN_AND_HANGUL,
            r"\p{N}+",
        ]),
        "deepseek-coder" => rule(&[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            HAN_AND_HANGUL,
            r"\p{N}",
        ]),
        "deepseek-v3" | "hunyuan-dense" | "hy_v4" | "joyai-llm" => rule(&[
            r"\p{N}{1,3}",
            r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            DEEPSEEK3,
        ]),
        "falcon" => rule(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
        "bloom" | "poro-chat" | "gpt3-finnish" => rule(&[BLOOM]),
        "viking" => rule(&[BLOOM, r"\p{N}"]),
        "tekken" => Rule {
            ignore_merges: true,
            add_bos: true,
            ..rule(&[TEKKEN])
        },
        "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => rule(&[GPT4O]),
        "kimi-k2" => rule(&[KIMI]),
        "bailingmoe" | "bailingmoe2" | "llada-moe" => rule(&[BAILING]),
        "seed-coder" => rule(&[SEED]),
        "gemma4" | "sarvam-moe" => Rule {
            byte_level: false,
            ..rule(&[LINES])
        },
        _ => return None,
    })
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const KIMI: &str = concat!(
    r"\p{Han}+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

const SEED: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";

const LINES: &str = r"[^\n]+|[\n]+";

const HAN_AND_HANGUL: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";

/// Letters that have case, as the model's file lists them, after an optional space.
const CASED_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}",
    r"\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}",
    r"\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-",
    r"\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-",
    r"\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-",
    r"\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-",
    r"\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}",
    r"-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-",
    r"\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}",
    r"\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-",
    r"\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}",
    r"\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}",
    r"\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}",
    r"\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::split::Splitter;

    #[test]
    fn every_listed_rule_compiles_and_runs_in_linear_time() {
        for name in NAMES.split(", ") {
            let rule = find(name).unwrap_or_else(|| panic!("{name} is listed and has no rule"));
            for pattern in rule.patterns {
                let splitter = Splitter::new(name, pattern).unwrap();
                assert!(matches!(splitter, Splitter::Linear(_)), "{name}: {pattern}");
            }
        }
    }
}
