//! Jobs of `mpirun`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A job that has not ended by then never will.
const FOREVER: Duration = Duration::from_secs(120);

/// What `mpirun` is to start.
pub struct Job {
    command: Command,
}

/// One that runs; it does not outlive this.
pub struct Running {
    pub child: Child,
    begin: Instant,
}

/// How one ended.
#[derive(Debug)]
pub struct End {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Whatever the machine: tests may be root in a container, and there may be fewer cores than ranks.
pub const ANYWHERE: [&str; 2] = ["--allow-run-as-root", "--oversubscribe"];

impl Job {
    /// So many ranks of a program.
    pub fn new(ranks: usize, program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("mpirun");
        command.args(ANYWHERE);
        // `mpirun` gives its processes a terminal for their output.
        command.env("NO_COLOR", "1");
        Job { command }.ranks(ranks, program, args)
    }

    /// What `command` starts: `mpirun` with all its arguments.
    pub fn of(command: Command) -> Self {
        Job { command }
    }

    fn ranks(mut self, ranks: usize, program: &Path, args: &[&str]) -> Self {
        self.command.arg("-n").arg(ranks.to_string());
        self.command.arg(program).args(args);
        self
    }

    /// More ranks, of another program or with other arguments.
    pub fn and(mut self, ranks: usize, program: &Path, args: &[&str]) -> Self {
        self.command.arg(":");
        self.ranks(ranks, program, args)
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args.iter().map(OsString::from));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn spawn(mut self) -> Running {
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{:?}: {e}; run cargo xtest mpi, which has it", self.command)
            });
        Running {
            child,
            begin: Instant::now(),
        }
    }

    pub fn run(self) -> End {
        self.spawn().wait()
    }
}

impl Running {
    /// Waits for its end; one that hangs is ended, and is no success.
    pub fn wait(mut self) -> End {
        let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    // Whatever came until it broke.
                    let _ = pipe.read_to_end(&mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = read(self.child.stdout.take().map(|p| Box::new(p) as _));
        let stderr = read(self.child.stderr.take().map(|p| Box::new(p) as _));
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("mpirun is our child") {
                break Some(status);
            }
            if self.begin.elapsed() > FOREVER {
                self.child.kill().expect("mpirun is our child");
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        End {
            success: status.is_some_and(|status| status.success()),
            stdout: stdout.join().expect("no panic in a reader"),
            stderr: stderr.join().expect("no panic in a reader"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that it has ended already. `mpirun` takes its processes along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    /// Itself, if the job was a success.
    pub fn ok(self) -> Self {
        assert!(self.success, "{self:?}");
        self
    }

    /// Number of lines that our programs begin with `error:`.
    pub fn errors(&self) -> usize {
        let lines = self.stderr.lines();
        lines.filter(|line| line.starts_with("error: ")).count()
    }
}
