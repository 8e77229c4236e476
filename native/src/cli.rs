//! The command line: every flag, its default and its help.

use clap::{Args, Parser, Subcommand};

use crate::models::catalogue::DEFAULT;

/// Run language models on the GPU or CPU of this machine.
#[derive(Parser, Debug)]
#[command(name = "shardlight", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print nothing on standard error but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List the devices of this machine and which one `--device auto` takes.
    Devices(Devices),
    /// Download a model of the catalogue, or check it again.
    Pull(Pull),
    /// List the models of the catalogue and the files in the cache.
    List(List),
    /// Print a completion script for a shell.
    Completions(Completions),
}

/// Arguments of `devices`.
#[derive(Args, Debug)]
pub struct Devices {
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `pull`.
#[derive(Args, Debug)]
pub struct Pull {
    /// A name of the catalogue (see `shardlight list`).
    #[arg(default_value = DEFAULT)]
    pub name: String,
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// How results are printed.
#[derive(Args, Debug, Clone, Copy)]
pub struct Format {
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
