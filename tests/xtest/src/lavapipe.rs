//! Vulkan on a machine without a GPU: Mesa's lavapipe, the system's own or a newer one unpacked beside it.
//!
//! Debian 12's Mesa 22.3 silently ends loops after 65,535 iterations, so anything older than Mesa 24 is refused.
//! On such a Debian the driver and its libraries are fetched from a later suite of the same mirror with a
//! private apt configuration (apt checks the signatures as always) and unpacked into the tools folder; nothing
//! is installed. They need their own, newer C library, so programs are started through its dynamic loader.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::exec::{apt_install, command, find_program, output, run};

/// The oldest Mesa whose results we trust.
const OLDEST_MESA: u32 = 24;
/// Where a newer lavapipe comes from on Debian: the last suite wins, the one before it has the rest.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const PACKAGES: [&str; 3] = ["mesa-vulkan-drivers", "libvulkan1", "vulkan-tools"];

/// A lavapipe that works.
#[derive(Debug)]
pub enum Lavapipe {
    /// The system's: its driver file for `VK_DRIVER_FILES`.
    System(PathBuf),
    /// An unpacked one: the script that starts a program on it.
    Unpacked(PathBuf),
}

/// The lavapipe there is, the system's first.
pub fn find(tools: &Path) -> Option<Lavapipe> {
    let icd = Path::new("/usr/share/vulkan/icd.d")
        .read_dir()
        .ok()
        .and_then(|entries| {
            let mut paths = entries.flatten().map(|entry| entry.path());
            paths.find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"))
            })
        });
    if let Some(icd) = icd
        && installed_mesa().is_some_and(|version| version >= OLDEST_MESA)
    {
        return Some(Lavapipe::System(icd));
    }
    let script = tools.join("lavapipe/run-vulkan");
    script.is_file().then_some(Lavapipe::Unpacked(script))
}

/// Installs or unpacks lavapipe.
///
/// # Errors
///
/// If this machine offers no way to have it; the message says what to install.
pub fn install(tools: &Path) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!(
            "please install lavapipe (Mesa {OLDEST_MESA} or newer): mesa-vulkan-drivers on Debian, Ubuntu and Fedora, vulkan-swrast on Arch"
        );
    }
    if candidate_mesa().is_none() {
        // Images come without package lists; this also says where the mirror is.
        run(&mut crate::exec::as_root(&["apt-get", "update", "-q"])?)?;
    }
    if candidate_mesa().is_some_and(|version| version >= OLDEST_MESA) {
        return apt_install(&["mesa-vulkan-drivers", "libvulkan1"]);
    }
    unpack(tools)
}

/// Mesa's major version as installed, from dpkg or else from the driver itself.
fn installed_mesa() -> Option<u32> {
    let from_dpkg = output(&mut command(&[
        "dpkg-query",
        "-W",
        "-f",
        "${Version}",
        "mesa-vulkan-drivers",
    ]));
    if let Ok(version) = from_dpkg {
        return major(&version);
    }
    let summary = output(&mut command(&["vulkaninfo", "--summary"])).ok()?;
    major(summary.split_once("Mesa ")?.1)
}

/// Mesa's major version that apt would install.
fn candidate_mesa() -> Option<u32> {
    let policy = output(&mut command(&[
        "apt-cache",
        "policy",
        "mesa-vulkan-drivers",
    ]))
    .ok()?;
    major(policy.split_once("Candidate: ")?.1)
}

fn major(version: &str) -> Option<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn unpack(tools: &Path) -> Result<()> {
    let (triple, loader) = match env::consts::ARCH {
        "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        other => bail!(
            "please install lavapipe (Mesa {OLDEST_MESA} or newer); no unpacked one is known for {other}"
        ),
    };
    let home = tools.join("lavapipe");
    let (apt, root) = (home.join("apt"), home.join("root"));
    // Whatever an interrupted run left is not trusted: the script is written last.
    for folder in [&apt, &root] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    fs::create_dir_all(&root)?;
    fs::write(apt.join("status"), "")?;
    fs::write(apt.join("suites.sources"), sources()?)?;
    let config = apt.join("apt.conf");
    fs::write(&config, apt_config(&apt))?;

    run(command(&["apt-get", "update", "-q"]).env("APT_CONFIG", &config))?;
    let target = SUITES[SUITES.len() - 1];
    let download = [
        "apt-get",
        "install",
        "-qq",
        "-y",
        "--no-install-recommends",
        "--download-only",
        "-t",
        target,
    ];
    run(command(&[&download[..], &PACKAGES].concat()).env("APT_CONFIG", &config))?;
    let packages = crate::exec::files_with_ending(&apt.join("cache/archives"), ".deb");
    ensure!(
        !packages.is_empty(),
        "apt downloaded no package of {target}"
    );
    for package in &packages {
        output(command(&["dpkg-deb", "-x"]).arg(package).arg(&root))?;
    }
    fs::remove_dir_all(&apt)?;

    let script = home.join("run-vulkan");
    let partial = home.join("run-vulkan.partial");
    fs::write(&partial, script_text(triple, loader))?;
    run(command(&["chmod", "+x"]).arg(&partial))?;
    let summary = output(
        command(&[&partial])
            .arg(root.join("usr/bin/vulkaninfo"))
            .arg("--summary"),
    )?;
    ensure!(
        summary.contains("llvmpipe"),
        "the unpacked lavapipe shows no device:\n{summary}"
    );
    fs::rename(&partial, &script).with_context(|| format!("{}: cannot write", script.display()))
}

/// The machine's own Debian mirror, with other suites. Its address is asked of apt, so that none is written here.
fn sources() -> Result<String> {
    let format = "$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(SIGNED_BY)";
    let targets = output(&mut command(&[
        "apt-get",
        "indextargets",
        "--format",
        format,
    ]))?;
    let line = targets
        .lines()
        .find_map(|line| line.strip_prefix("Packages|Debian|Debian|"))
        .context("please install lavapipe (Mesa 24 or newer); this machine's apt has no Debian mirror to take it from")?;
    let (mirror, key) = line
        .split_once('|')
        .context("apt-get indextargets: unexpected output")?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    // An unset variable comes back as it was written; old apt versions do not know this one.
    let key = if key.is_empty() || key.starts_with('$') {
        keyring
    } else {
        key
    };
    Ok(format!(
        "Types: deb\nURIs: {mirror}\nSuites: {}\nComponents: main\nSigned-By: {key}\n",
        SUITES.join(" ")
    ))
}

/// An apt of its own: other lists, cache and status, and none of the system's hooks.
fn apt_config(apt: &Path) -> String {
    let apt = apt.display();
    format!(
        "Dir::Etc::sourcelist \"{apt}/suites.sources\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{apt}/lists\";\n\
         Dir::State::status \"{apt}/status\";\n\
         Dir::Cache \"{apt}/cache\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear DPkg::Post-Invoke;\n"
    )
}

fn script_text(triple: &str, loader: &str) -> String {
    format!(
        r#"#!/bin/sh
# Runs a program on the unpacked lavapipe: with its driver, its libraries and its dynamic loader.
here=$(dirname "$(readlink -f "$0")")
libs=$here/root/usr/lib/{triple}
program=$(command -v "$1") || {{ echo "run-vulkan: $1: not found" >&2; exit 127; }}
shift
export VK_DRIVER_FILES="$here/root/usr/share/vulkan/icd.d/lvp_icd.json"
export SHARDLIGHT_RUNNER="$here/run-vulkan"
exec "$libs/{loader}" --library-path "$libs" --argv0 "$program" "$program" "$@"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn major_version_is_the_first_number() {
        assert_eq!(major("26.1.6-1~bpo13+1"), Some(26));
        assert_eq!(major("24.2.8-1ubuntu1~24.04.1"), Some(24));
        assert_eq!(major("(none)"), None);
    }
}
