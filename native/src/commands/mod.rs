//! One file per subcommand.

pub mod batch;
pub mod bench;
pub mod chat;
pub mod completions;
pub mod devices;
pub mod info;
pub mod list;
pub mod logits;
pub mod op;
pub mod perplexity;
pub mod plan;
mod plan_check;
pub mod pull;
pub mod run;
pub mod synth;
pub mod tokenize;
