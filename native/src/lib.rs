//! The `shardlight` command: runs language models on the GPU or CPU of this machine, and
//! `shardlight-mpi`, which runs one over the processes that `mpirun` starts.
//!
//! Text goes to standard output, everything else to standard error.

mod answer;
mod cli;
mod commands;
pub mod cuda;
mod exit;
mod experts;
mod form;
mod interrupt;
mod job;
mod load;
mod models;
#[cfg(feature = "mpi")]
pub mod mpi;
mod out;
mod profile;
mod prompt;
mod source;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use shardlight::device;

/// The command `shardlight`.
pub fn main() -> ExitCode {
    exit::install_panic_hook();
    device::register(&cuda::BACKEND);
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let ui = ui::Ui::new(cli.quiet || !job::is_first());
    interrupt::install()?;
    match cli.command {
        Command::Run(args) => commands::run::run(&args, ui),
        Command::Chat(args) => commands::chat::run(&args, ui),
        Command::Info(args) => commands::info::run(&args, ui),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args, ui),
        Command::Logits(args) => commands::logits::run(&args, ui),
        Command::Perplexity(args) => commands::perplexity::run(&args, ui),
        Command::Bench(args) => commands::bench::run(&args, ui),
        Command::Plan(args) => commands::plan::run(&args, ui),
        Command::Op(args) => commands::op::run(&args, ui),
        Command::Synth(args) => commands::synth::run(&args, ui),
        Command::Pull(args) => commands::pull::run(&args, ui),
        Command::List(args) => commands::list::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
