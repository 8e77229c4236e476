//! Processes of one or several hosts as ranks, by MPI: `mpirun -n 3 shardlight-mpi run …`.
//!
//! Every process is one rank and reads its own part of the model file. Nothing is sent in another way
//! than by MPI.

mod comm;

use std::process::ExitCode;
use std::rc::Rc;

use anyhow::anyhow;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use mpi::Threading;
use mpi::topology::{Communicator as _, SimpleCommunicator};
use shardlight::comm::Communicator;

use crate::cli::{Cli, Command};
use crate::exit;
use crate::job::{self, Agreed, Job};

pub use comm::MpiComm;

/// Arguments in which ranks may differ.
const LOCAL: [&str; 4] = ["model", "device", "devices", "quiet"];

/// Joins the processes that `mpirun` has started, does something, and leaves them; that waits for the
/// others to do the same. An error or a panic, on whatever thread, ends the whole job.
pub fn join(run: impl FnOnce(Rc<MpiComm>) -> anyhow::Result<()>) -> ExitCode {
    exit::install_panic_hook();
    // Panics and Ctrl-C end the job from other threads than the one that communicates.
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Multiple) else {
        return exit::report(Err(anyhow!("MPI was begun twice")));
    };
    let comm = Rc::new(MpiComm::new(universe.world()));
    job::enter(comm.rank(), abort, Rc::new(Rc::clone(&comm)));
    // An error of this rank alone ends the job here; others are everybody's.
    let code = exit::report(run(comm));
    job::leave();
    drop(universe);
    code
}

fn abort(code: i32) -> ! {
    SimpleCommunicator::world().abort(code)
}

impl Job for Rc<MpiComm> {
    fn size(&self) -> usize {
        MpiComm::size(self)
    }

    fn communicator(&self) -> Rc<dyn Communicator> {
        Rc::clone(self) as Rc<dyn Communicator>
    }

    fn all_gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.all_gather_any(bytes)
    }
}

/// The command `shardlight-mpi`: as `shardlight`, on every rank.
pub fn main() -> ExitCode {
    join(|_| run())
}

fn run() -> anyhow::Result<()> {
    // Before the arguments: `--device cuda` is known then.
    shardlight::device::register(&crate::cuda::BACKEND);
    let name = "shardlight-mpi";
    let parsed = Cli::command().name(name).bin_name(name).try_get_matches();
    let matches = job::agree(parsed.map_err(|error| {
        let code = error.exit_code() as u8;
        // Help and its likes, told once and as clap does.
        let message = if job::is_first() {
            let _ = error.print();
            String::new()
        } else {
            let text = error.to_string();
            text.strip_prefix("error: ").unwrap_or(&text).to_owned()
        };
        Agreed { message, code }.into()
    }))?;
    let version = env!("CARGO_PKG_VERSION");
    job::same("version of shardlight", version.as_bytes(), version)?;
    job::same("command line", key(&matches).as_bytes(), &shown())?;
    let cli = Cli::from_arg_matches(&matches)?;
    job::agree(match &cli.command {
        Command::Run(args) if args.prompts.is_some() => Err(exit::usage(
            "run --prompts: replicas are threads of one process; use shardlight, or one prompt",
        )),
        Command::Run(_) | Command::Logits(_) | Command::Bench(_) => Ok(()),
        _ => Err(exit::usage(
            "several processes can `run`, `logits` and `bench`; use shardlight for the rest",
        )),
    })?;
    crate::run(cli)
}

/// The arguments that must be the same on every rank: all but those about its own machine.
fn key(matches: &ArgMatches) -> String {
    let cli = Cli::command();
    let Some((name, matches)) = matches.subcommand() else {
        return String::new();
    };
    let mut key = name.to_owned();
    let arguments = cli.find_subcommand(name).into_iter();
    for argument in arguments.flat_map(clap::Command::get_arguments) {
        let id = argument.get_id().as_str();
        if !LOCAL.contains(&id)
            && let Some(values) = matches.get_raw(id)
        {
            key += &format!(" {id}={:?}", values.collect::<Vec<_>>());
        }
    }
    key
}

fn shown() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("`{}`", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(args: &[&str]) -> String {
        let args = ["shardlight-mpi"].iter().chain(args);
        key(&Cli::command().try_get_matches_from(args).unwrap())
    }

    #[test]
    fn ranks_may_differ_in_device_and_path_only() {
        let one = key_of(&[
            "run",
            "-m",
            "/a/x.gguf",
            "--device",
            "cpu",
            "-n",
            "8",
            "hello",
        ]);
        assert_eq!(
            one,
            key_of(&["run", "-m", "/b/y.gguf", "-q", "--max-tokens=8", "hello"])
        );
        for other in [
            &["run", "-n", "9", "hello"][..],
            &["run", "-n", "8", "bye"],
            &["run", "-n", "8", "--kv", "f32", "hello"],
            &["logits", "--tokens", "8"],
        ] {
            assert_ne!(one, key_of(other), "{other:?}");
        }
    }
}
