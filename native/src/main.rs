//! The `shardlight` command: runs language models on the GPU or CPU of this machine.
//!
//! Text goes to standard output, everything else to standard error.

mod cli;
mod commands;
mod exit;
mod models;
mod out;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the commands that load a model come next")
)]
mod source;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    exit::install_panic_hook();
    let cli = Cli::parse();
    exit::report(run(cli))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let ui = ui::Ui::new(cli.quiet);
    match cli.command {
        Command::Devices(args) => commands::devices::run(&args),
        Command::Pull(args) => commands::pull::run(&args, ui),
        Command::List(args) => commands::list::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
