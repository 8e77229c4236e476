//! Starting other programs.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::counts::{Counts, Runner};

/// A command whose program and first arguments are given as words.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command with its output on ours.
///
/// # Errors
///
/// If it cannot start or does not exit with 0.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("{}: cannot start", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output.
///
/// # Errors
///
/// If it cannot start or does not exit with 0; the message holds what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{}: cannot start", shown(command)))?;
    if !out.status.success() {
        bail!(
            "{}: {}: {}",
            shown(command),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a test runner, shows its output as it comes and counts its tests.
///
/// A run that fails without a failed test (it did not build, or a test took the whole process down)
/// counts as one failure, and so does a run without any test.
///
/// # Errors
///
/// If it cannot start or its output cannot be read.
pub fn count_tests(command: &mut Command, runner: Runner) -> Result<Counts> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}: cannot start", shown(command)))?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe to the test runner")?);
    let mut counts = Counts::default();
    let mut line = Vec::new();
    // Bytes, not `lines()`: a test may print anything.
    while lines.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        counts.read_line(runner, String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        println!(
            "{}: {status}, though no test was counted as failed",
            shown(command)
        );
        counts.failed = 1;
    } else if counts.passed + counts.failed == 0 {
        println!("{}: no test ran", shown(command));
        counts.failed = 1;
    }
    Ok(counts)
}

/// The program's full path, if it is in one of `PATH`'s folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(&name))
        .find(|path| path.is_file())
}

/// How a command is run as root: as it is, or behind `sudo` where that asks for no password.
///
/// # Errors
///
/// If neither is possible; the message names `what` the user should run.
pub fn as_root(words: &[&str]) -> Result<Command> {
    let is_root = output(&mut command(&["id", "-u"])).is_ok_and(|uid| uid.trim() == "0");
    if is_root {
        return Ok(command(words));
    }
    if output(&mut command(&["sudo", "-n", "true"])).is_ok() {
        return Ok(command(&[&["sudo", "-n"], words].concat()));
    }
    bail!("this needs root; please run: sudo {}", words.join(" "))
}

/// Installs packages of the system's own package manager (apt only).
///
/// # Errors
///
/// If there is no apt, no way to be root, or apt fails; the message says what to install.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!(
            "please install {} with your system's package manager",
            packages.join(" and ")
        );
    }
    let install = [
        &["apt-get", "install", "-y", "--no-install-recommends"],
        packages,
    ]
    .concat();
    let mut install = as_root(&install)?;
    run(&mut as_root(&["apt-get", "update", "-q"])?)?;
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The newest and the largest are both asked for: every file under `folder` with this ending.
pub fn files_with_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files_with_ending(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}
