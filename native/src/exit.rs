//! How the program ends: errors that choose an exit code, and the one line they print.

use std::process::ExitCode;

use console::style;

use crate::job::{self, Agreed};

/// Ways to end early that are not a failed job.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The command line asks for something that makes no sense: exit code 2, as clap's own errors.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C: exit code 130 (128 + SIGINT), what a shell expects.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read standard output has gone, as in `shardlight run … | head`: nothing is left to do.
    #[error("standard output was closed")]
    StdoutClosed,
}

/// A [`Stop::Usage`] as an [`anyhow::Error`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Stop::Usage(message.into()).into()
}

/// Exit code of an error: 1 (failed job), 2 (wrong usage), 130 (Ctrl-C) or 0.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Stop>() {
        Some(Stop::StdoutClosed) => 0,
        Some(Stop::Interrupted) => 130,
        Some(Stop::Usage(_)) => 2,
        None => error.downcast_ref::<Agreed>().map_or(1, |all| all.code),
    }
}

/// Prints what there is to print about `result` and returns the [exit code](exit_code). An error of one
/// rank of a job ends the job.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let code = exit_code(&error);
    if let Some(all) = error.downcast_ref::<Agreed>() {
        if job::is_first() && !all.message.is_empty() {
            print_error(&all.message);
        }
        return ExitCode::from(code);
    }
    if !matches!(
        error.downcast_ref(),
        Some(Stop::StdoutClosed | Stop::Interrupted)
    ) {
        print_error(&of_rank(&format!("{error:#}")));
    }
    job::abort(code.into());
    ExitCode::from(code)
}

/// In a job, says whose message it is, once.
fn of_rank(message: &str) -> String {
    let whose = job::rank().map_or_else(String::new, |rank| format!("rank {rank}: "));
    match message.starts_with(&whose) {
        true => message.to_owned(),
        false => whose + message,
    }
}

/// One line `error: …` on standard error, whatever `message` holds.
pub fn print_error(message: &str) {
    use std::io::Write as _;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // Standard error may be closed too; then there is nobody to tell.
    let _ = writeln!(
        std::io::stderr(),
        "{} {line}",
        style("error:").red().bold().for_stderr()
    );
}

/// Makes a panic (a bug of ours) one line and exit code 1 instead of a backtrace.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("a panic without a message");
        let place = info
            .location()
            .map(|at| format!(" at {}:{}", at.file(), at.line()))
            .unwrap_or_default();
        print_error(&of_rank(&format!(
            "internal: {what}{place}; this is a bug, please report it"
        )));
        job::abort(1);
        std::process::exit(1);
    }));
}
