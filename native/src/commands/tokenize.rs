//! `shardlight tokenize`: text to ids.

use anyhow::anyhow;
use serde_json::json;

use crate::cli::Tokenize;
use crate::commands::run::text_or_stdin;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints a line `id<TAB>text` for each token; with `--json` an object `{text, tokens, pieces}`.
pub fn run(args: &Tokenize, ui: Ui) -> anyhow::Result<()> {
    let text = text_or_stdin(args.text.as_deref(), "TEXT")?;
    let files = load::open(&args.name.model, ui)?;
    let tokenizer = files
        .tokenizer
        .as_ref()
        .ok_or_else(|| anyhow!("{}: has no tokenizer", files.name()))?;
    let tokens = tokenizer.encode(&text, false, args.special)?;
    // A token may be a part of a character; those bytes are shown as U+FFFD.
    let pieces = tokens
        .iter()
        .map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)));
    let mut out = Out::new();
    if args.format.json {
        let pieces: Vec<_> = pieces.collect();
        out.json(&json!({ "text": text, "tokens": tokens, "pieces": pieces }))?;
    } else {
        for (id, piece) in tokens.iter().zip(pieces) {
            out.line(format_args!("{id}\t{piece:?}"))?;
        }
    }
    out.finish()
}
