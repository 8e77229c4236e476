//! `--profile FILE`: what kernels take, as a timeline for programs and a table for people.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Context as _;
use shardlight::profile::{KernelTime, Profile, Profiling};

use crate::job;
use crate::ui::Ui;

/// Most calls in a file: about 100 MB of it.
const SPANS: usize = 400_000;

/// A file that a profile is written to at the end.
pub struct Output {
    path: PathBuf,
    file: Option<File>,
    profile: Profile,
    begin: f64,
}

fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

impl Output {
    /// Makes the file now, so that a bad path costs no answer. Of a job's processes the first one writes its own.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = match job::is_first() {
            true => Some(File::create(path).with_context(|| path.display().to_string())?),
            false => None,
        };
        Ok(Output {
            path: path.to_owned(),
            file,
            profile: Profile::default(),
            begin: clock(),
        })
    }

    /// What is asked of the session.
    pub fn profiling(&self) -> Profiling {
        Profiling {
            clock,
            spans: SPANS,
        }
    }

    /// The time at which an answer begins.
    pub fn now(&self) -> f64 {
        clock() - self.begin
    }

    /// Adds an answer that began at `at`.
    pub fn add(&mut self, answer: Option<Profile>, at: f64) {
        if let Some(answer) = answer {
            self.profile.append(answer, at, SPANS);
        }
    }

    /// For programs.
    pub fn summary(&self) -> serde_json::Value {
        self.profile.summary()
    }

    /// Writes the file, and tells what was measured.
    pub fn finish(self, ui: Ui) -> anyhow::Result<()> {
        let place = || self.path.display().to_string();
        if let Some(file) = self.file {
            let mut file = BufWriter::new(file);
            serde_json::to_writer(&mut file, &self.profile.trace()).with_context(place)?;
            file.flush().with_context(place)?;
        }
        for line in table(&self.profile) {
            ui.aside(line);
        }
        let more = match self.profile.left_out {
            0 => String::new(),
            n => format!(", the last {n} left out"),
        };
        ui.aside(format_args!(
            "{}: {} calls{more}; open it in ui.perfetto.dev",
            place(),
            self.profile.spans.len()
        ));
        Ok(())
    }
}

/// For each stage a line of its own and one for each kernel.
fn table(profile: &Profile) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in &profile.stages {
        let kernels = || profile.kernels.iter().filter(|k| k.stage == stage.stage);
        let sum: f64 = kernels().map(|k| k.seconds).sum();
        lines.push(format!(
            "{}: {} tokens in {} steps, {:.1} ms; kernels {:.1} ms",
            stage.stage.name(),
            stage.tokens,
            stage.steps,
            stage.seconds * 1e3,
            sum * 1e3
        ));
        lines.push(format!(
            "  {:<22}{:>8}{:>11}{:>8}{:>10}{:>9}{:>10}",
            "kernel", "calls", "ms", "share", "us/call", "GB/s", "GFLOP/s"
        ));
        lines.extend(kernels().map(|kernel| row(kernel, sum)));
    }
    lines
}

fn row(kernel: &KernelTime, sum: f64) -> String {
    let KernelTime {
        calls,
        seconds,
        cost,
        ..
    } = *kernel;
    let rate = |count: u64| match seconds > 0.0 {
        true => count as f64 / seconds / 1e9,
        false => 0.0,
    };
    format!(
        "  {:<22}{calls:>8}{:>11.2}{:>7.1}%{:>10.1}{:>9.2}{:>10.2}",
        kernel.kernel,
        seconds * 1e3,
        if sum > 0.0 {
            100.0 * seconds / sum
        } else {
            0.0
        },
        seconds * 1e6 / calls.max(1) as f64,
        rate(cost.bytes),
        rate(cost.flops),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardlight::plan::Cost;
    use shardlight::profile::{Stage, StageTime};

    #[test]
    fn a_line_for_each_kernel_of_each_stage() {
        let kernel = |stage, kernel, seconds| KernelTime {
            stage,
            kernel,
            calls: 4,
            seconds,
            cost: Cost {
                flops: 2_000_000,
                bytes: 1_000_000,
            },
        };
        let stage = |stage| StageTime {
            stage,
            steps: 2,
            tokens: 5,
            seconds: 0.01,
        };
        let profile = Profile {
            stages: vec![stage(Stage::Prefill), stage(Stage::Decode)],
            kernels: vec![
                kernel(Stage::Prefill, "matmul", 0.003),
                kernel(Stage::Prefill, "add", 0.001),
                kernel(Stage::Decode, "matvec", 0.0),
            ],
            ..Profile::default()
        };
        let lines = table(&profile);
        assert_eq!(lines.len(), 2 + 2 + 2 + 1);
        assert_eq!(
            lines[0],
            "prefill: 5 tokens in 2 steps, 10.0 ms; kernels 4.0 ms"
        );
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(
            words,
            ["matmul", "4", "3.00", "75.0%", "750.0", "0.33", "0.67"]
        );
        assert!(lines[6].contains("matvec") && lines[6].contains(" 0.0%"));
        let long = lines.iter().map(|line| line.chars().count()).max();
        assert!(long <= Some(80), "{long:?}");
    }
}
