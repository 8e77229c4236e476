//! `shardlight logits`: the raw output of the model for given tokens.

use serde_json::json;

use crate::cli::Logits;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints one number a line, positions apart by an empty line; with `--json` an object
/// `{tokens, vocab, logits, device}`, where `logits` is one list, or with `--all` one list for each position.
pub fn run(args: &Logits, ui: Ui) -> anyhow::Result<()> {
    let mut loaded = load::load(&args.model, ui)?;
    let logits = pollster::block_on(loaded.session.logits(&args.tokens, args.all))?;
    let positions = if args.all { args.tokens.len() } else { 1 };
    let vocab = logits.len() / positions;
    let rows: Vec<&[f32]> = logits.chunks(vocab.max(1)).collect();
    let mut out = Out::new();
    if args.format.json {
        let logits = if args.all {
            json!(rows)
        } else {
            json!(rows.first())
        };
        out.json(&json!({
            "tokens": args.tokens,
            "vocab": vocab,
            "logits": logits,
            "device": loaded.device(),
        }))?;
    } else {
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                out.line("")?;
            }
            for logit in *row {
                out.line(logit)?;
            }
        }
    }
    out.finish()
}
