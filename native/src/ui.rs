//! Everything said on standard error besides errors: notes and progress bars.

use std::io::Write as _;

use console::{Term, style};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str =
    "{msg} {bar:28.cyan/dim} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
const STEPS: &str = "{msg} {bar:28.cyan/dim} {pos}/{len}";
const PERCENT: &str = "{msg} {bar:28.cyan/dim} {percent:>3}%";

/// Speaks on standard error, or keeps silent under `--quiet`.
#[derive(Clone, Copy)]
pub struct Ui {
    quiet: bool,
    bars: bool,
}

impl Ui {
    /// `quiet` leaves only errors.
    pub fn new(quiet: bool) -> Self {
        Ui {
            quiet,
            bars: !quiet && Term::stderr().is_term(),
        }
    }

    /// One line for the reader.
    pub fn note(self, text: impl std::fmt::Display) {
        if !self.quiet {
            // A closed standard error must not stop the work.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// One line of lesser importance, dimmed on a terminal.
    pub fn aside(self, text: impl std::fmt::Display) {
        self.note(style(text).dim().for_stderr());
    }

    /// Starts following `total` bytes of `what`. On a terminal that is a bar; elsewhere a line when it
    /// starts and a line when it ends.
    pub fn bytes(self, what: &str, total: u64) -> Bar {
        let bar = self.bar(total, BYTES);
        bar.set_message(what.to_owned());
        if !self.bars {
            self.note(format_args!("{what}: {} …", HumanBytes(total)));
        }
        Bar {
            bar,
            ui: self,
            what: what.to_owned(),
        }
    }

    /// A bar over `total` steps of `what` that leaves nothing behind and is no news outside a terminal.
    pub fn steps(self, what: &str, total: u64) -> ProgressBar {
        let bar = self.bar(total, STEPS);
        bar.set_message(what.to_owned());
        bar
    }

    /// A bar over parts of `what` whose number is not worth showing; it leaves nothing behind.
    pub fn percent(self, what: &str) -> ProgressBar {
        let bar = self.bar(1, PERCENT);
        bar.set_message(what.to_owned());
        bar
    }

    fn bar(self, total: u64, template: &str) -> ProgressBar {
        let target = if self.bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The templates are constants of this file; a test renders each.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar
    }
}

/// Progress over bytes.
pub struct Bar {
    bar: ProgressBar,
    ui: Ui,
    what: String,
}

impl Bar {
    /// Bytes done so far.
    pub fn set(&self, done: u64) {
        let total = self.bar.length().unwrap_or(done);
        self.bar.set_position(done.min(total));
    }

    /// Renames what is going on, and starts counting to `total` again.
    pub fn turn_to(&self, what: &str, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.set_message(what.to_owned());
    }

    /// A line above the bar.
    pub fn note(&self, text: impl std::fmt::Display) {
        self.bar.suspend(|| self.ui.note(text));
    }

    /// Ends it with success.
    pub fn done(self) {
        self.bar.finish_and_clear();
        self.ui.note(format_args!("{}: done", self.what));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_a_valid_template() {
        for template in [BYTES, STEPS, PERCENT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
