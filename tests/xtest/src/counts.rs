//! How many tests passed: read from what the test runners print.

/// Which runner's summary lines to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// Rust's libtest, one summary a test binary.
    Cargo,
    /// `node --test --test-reporter=tap`, one summary a run.
    Node,
}

/// Totals of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed or were cancelled.
    pub failed: u64,
    /// Tests that were not run: ignored, skipped or still to be written.
    pub ignored: u64,
}

impl Counts {
    /// What a step that is one check counts for when it passes.
    pub const ONE_PASSED: Self = Self {
        passed: 1,
        failed: 0,
        ignored: 0,
    };

    /// Adds another total to this one.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Adds what one line of a runner's output says; a line that is no summary adds nothing.
    pub fn read_line(&mut self, runner: Runner, line: &str) {
        match runner {
            Runner::Cargo => {
                // test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.31s
                let Some((_, counts)) = line
                    .strip_prefix("test result: ")
                    .and_then(|rest| rest.split_once(". "))
                else {
                    return;
                };
                for part in counts.split("; ") {
                    self.read_pair(part.split_once(' ').map(|(number, word)| (word, number)));
                }
            }
            // # pass 3
            Runner::Node => self.read_pair(
                line.strip_prefix("# ")
                    .and_then(|rest| rest.split_once(' ')),
            ),
        }
    }

    fn read_pair(&mut self, pair: Option<(&str, &str)>) {
        let Some((word, Ok(number))) =
            pair.map(|(word, number)| (word, number.trim().parse::<u64>()))
        else {
            return;
        };
        match word {
            "passed" | "pass" => self.passed += number,
            "failed" | "fail" | "cancelled" => self.failed += number,
            "ignored" | "skipped" | "todo" => self.ignored += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Runner};

    fn read(runner: Runner, text: &str) -> Counts {
        let mut counts = Counts::default();
        text.lines().for_each(|line| counts.read_line(runner, line));
        counts
    }

    #[test]
    fn cargo_summaries_of_several_binaries_add_up() {
        let text = "\
running 2 tests
test a ... ok
test 7 passed; 9 failed ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 4 tests
test result: FAILED. 1 passed; 2 failed; 1 ignored; 5 measured; 6 filtered out; finished in 12.31s
";
        assert_eq!(
            read(Runner::Cargo, text),
            Counts {
                passed: 3,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn node_summary_counts_cancelled_as_failed() {
        let text = "\
TAP version 13
# page says # pass 40
ok 1 - compiles every shader
# tests 9
# suites 0
# pass 4
# fail 1
# cancelled 2
# skipped 1
# todo 1
# duration_ms 48.2
";
        assert_eq!(
            read(Runner::Node, text),
            Counts {
                passed: 4,
                failed: 3,
                ignored: 2
            }
        );
    }

    #[test]
    fn other_text_counts_nothing() {
        let text = "test result: \ntest result: ok.\npass 3\n# pass\n# pass x\n   Compiling passed v1.0.0\n";
        assert_eq!(read(Runner::Cargo, text), Counts::default());
        assert_eq!(read(Runner::Node, text), Counts::default());
    }
}
