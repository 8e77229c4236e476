//! `shardlight completions`: a script for the user's shell.

use clap::CommandFactory as _;

use crate::cli::{Cli, Completions};
use crate::out::Out;

/// Prints the script.
pub fn run(args: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shardlight", &mut script);
    let mut out = Out::new();
    out.stream(&String::from_utf8_lossy(&script))?;
    out.finish()
}
