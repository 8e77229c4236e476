//! `cargo xtest`: every check of Shardlight behind one command.
//!
//! Runs the steps of [`steps::STEPS`] in order, stops at the first that fails, and ends with the line
//! `N passed, N failed`: the tests of all runners, and one for each step that is a single check.

mod counts;
mod cuda;
mod exec;
mod lavapipe;
mod mpi;
mod steps;
mod tools;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use counts::Counts;
use steps::{STEPS, Step};
use tools::Tools;

const USAGE: &str = "\
usage: cargo xtest [--keep-going] [STEP...]
       cargo xtest --list

Without a STEP every step of the list runs. It stops at the first that fails unless --keep-going is given.";

struct Options {
    keep_going: bool,
    steps: Vec<Step>,
}

fn main() -> ExitCode {
    let options = match parse(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let tools = match Tools::new() {
        Ok(tools) => tools,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if run_steps(&tools, &options).failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The options, or none when the list or the usage was asked for and printed.
fn parse(args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        keep_going: false,
        steps: Vec::new(),
    };
    let mut named = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--keep-going" => options.keep_going = true,
            "--list" => {
                for step in STEPS {
                    let note = if step.by_default {
                        ""
                    } else {
                        " [only when named]"
                    };
                    println!("{:<12} {}{note}", step.name, step.about);
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            name if STEPS.iter().any(|step| step.name == name) => named.push(arg),
            other => return Err(format!("{other}: no such step or option")),
        }
    }
    let chosen = |step: &&Step| {
        if named.is_empty() {
            step.by_default
        } else {
            named.iter().any(|n| n == step.name)
        }
    };
    options.steps = STEPS.iter().filter(chosen).copied().collect();
    Ok(Some(options))
}

fn run_steps(tools: &Tools, options: &Options) -> Counts {
    let mut total = Counts::default();
    let mut lines = Vec::new();
    for step in &options.steps {
        if total.failed > 0 && !options.keep_going {
            lines.push(format!("{:<12} not run", step.name));
            continue;
        }
        println!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let counts = (step.run)(tools).unwrap_or_else(|error| {
            println!("error: {}: {error:#}", step.name);
            Counts {
                failed: 1,
                ..Counts::default()
            }
        });
        let line = summary(step.name, counts, start.elapsed());
        println!("== {line}");
        lines.push(line);
        total.add(counts);
    }
    println!("\n{}\n", lines.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    total
}

fn summary(name: &str, counts: Counts, elapsed: Duration) -> String {
    let verdict = if counts.failed == 0 { "ok" } else { "FAILED" };
    let ignored = if counts.ignored == 0 {
        String::new()
    } else {
        format!(", {} ignored", counts.ignored)
    };
    let Counts { passed, failed, .. } = counts;
    format!(
        "{name:<12} {verdict:<6} {:>7.1} s  {passed} passed, {failed} failed{ignored}",
        elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn steps(args: &[&str]) -> Vec<&'static str> {
        let options = parse(args.iter().map(|arg| (*arg).to_owned()))
            .expect("valid arguments")
            .expect("no list");
        options.steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn no_step_means_every_default_step() {
        let all = steps(&["--keep-going"]);
        assert_eq!((all[0], all[all.len() - 1]), ("tools", "browser"));
        assert!(!all.contains(&"tidy"));
    }

    #[test]
    fn named_steps_run_in_the_lists_order() {
        assert_eq!(steps(&["tidy", "fmt"]), ["fmt", "tidy"]);
    }

    #[test]
    fn unknown_step_is_an_error_that_names_it() {
        let error = parse(["tify".to_owned()].into_iter()).err();
        assert_eq!(error.as_deref(), Some("tify: no such step or option"));
    }
}
