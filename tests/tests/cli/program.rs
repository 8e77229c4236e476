//! Runs the binary, built once per test run, with a cache folder of its own.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

/// Cargo gives an integration test the path of its own package's binaries only, so this asks Cargo to
/// build the other package's; after the first time that is a look at time stamps.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, narrowed to one target: another selection of packages would unite other
    // features and build every dependency again.
    cargo.args(["build", "--workspace", "--bin", "shardlight"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    // `cargo test` describes this package to us, and the build script of `ring` would see it change.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "shardlight-cli does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "shardlight")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .expect("cargo names the binary it built")
});

/// One call of the binary.
pub struct Program {
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    cache: TempDir,
    stdin: String,
    stdout: Option<Stdio>,
    runner: Option<OsString>,
}

/// How a call ended.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new(args: &[&str]) -> Self {
        Program {
            args: args.iter().map(OsString::from).collect(),
            env: Vec::new(),
            cache: tempfile::tempdir().unwrap(),
            stdin: String::new(),
            stdout: None,
            runner: env::var_os("SHARDLIGHT_RUNNER").filter(|runner| !runner.is_empty()),
        }
    }

    /// Starts the binary itself, not through the runner (a script, which needs a `PATH`).
    pub fn bare(mut self) -> Self {
        self.runner = None;
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the program reads; without this an empty file.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = text.to_owned();
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// The folder the program caches in.
    pub fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// Starts it. `SHARDLIGHT_RUNNER` names a program that starts others so that they see a Vulkan
    /// driver which is not installed in the system.
    ///
    /// The folder goes with `self`: keep it until the child has ended.
    pub fn spawn(&mut self) -> Child {
        let mut command = match &self.runner {
            Some(runner) => {
                let mut command = Command::new(runner);
                command.arg(&*BINARY);
                command
            }
            None => Command::new(&*BINARY),
        };
        for name in [
            "SHARDLIGHT_MODEL",
            "SHARDLIGHT_DEVICE",
            "NO_COLOR",
            "CLICOLOR_FORCE",
        ] {
            command.env_remove(name);
        }
        let stdin = self.cache().join("stdin");
        std::fs::write(&stdin, &self.stdin).unwrap();
        command
            .args(&self.args)
            .env("SHARDLIGHT_CACHE", self.cache())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(std::fs::File::open(stdin).unwrap())
            .stdout(self.stdout.take().unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    pub fn run(&mut self) -> End {
        self.spawn().wait_with_output().unwrap().into()
    }
}

impl From<Output> for End {
    fn from(output: Output) -> Self {
        End {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl End {
    /// This, if the exit code is 0.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// A pipe that nobody reads any more.
pub fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}
