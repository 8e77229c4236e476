//! Network namespaces that stand for hosts: each has its own network interface, host name and shared
//! memory, and they reach each other through a bridge only.

use std::path::Path;
use std::process::Command;

use shardlight_tests::program;

use crate::job::{ANYWHERE, End, Job};
use crate::model;

/// Three hosts on a network of their own. They go with this.
struct Hosts {
    names: Vec<String>,
    /// Starts a program on the host whose address it is given, as ssh does.
    agent: tempfile::TempPath,
}

const HOSTS: usize = 3;

/// Runs a shell's text on a host, as ssh does. Only root may enter a namespace, and `sudo` keeps no
/// environment.
const SCRIPT: &str = r#"#!/bin/sh
host=PREFIX${1##*.}
shift
[ "$(id -u)" = 0 ] || sudo="sudo -n"
exec $sudo env "PATH=$PATH" "LD_LIBRARY_PATH=$LD_LIBRARY_PATH" \
    ip netns exec "$host" unshare --uts sh -c 'hostname "$0"; eval "$1"' "$host" "$*"
"#;

impl Hosts {
    /// # Errors
    ///
    /// What cannot be had, and what said so.
    fn new() -> Result<Self, String> {
        // Other tests and other users may have theirs.
        let id = std::process::id();
        let agent = tempfile::Builder::new()
            .suffix(".sh")
            .make(|path| {
                use std::os::unix::fs::OpenOptionsExt as _;
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create_new(true).mode(0o755).open(path)
            })
            .map_err(|e| format!("a script for the hosts: {e}"))?;
        let script = SCRIPT.replace("PREFIX", &format!("sl{id}-"));
        std::fs::write(agent.path(), script).map_err(|e| format!("a script for the hosts: {e}"))?;
        let mut hosts = Hosts {
            names: Vec::new(),
            agent: agent.into_temp_path(),
        };
        let switch = format!("sl{id}-0");
        hosts.add(&switch)?;
        ip(&format!("-n {switch} link add bridge type bridge"))?;
        ip(&format!("-n {switch} link set bridge up"))?;
        for i in 1..=HOSTS {
            let host = format!("sl{id}-{i}");
            hosts.add(&host)?;
            ip(&format!(
                "-n {host} link add eth0 type veth peer name port{i} netns {switch}"
            ))?;
            ip(&format!("-n {switch} link set port{i} master bridge up"))?;
            ip(&format!("-n {host} addr add 10.201.7.{i}/24 dev eth0"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
            ip(&format!("-n {host} link set lo up"))?;
        }
        Ok(hosts)
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        ip(&format!("netns add {name}"))?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// One rank a host, started from the first.
    fn run(&self, program: &Path, args: &[&str]) -> End {
        let agent = self.agent.to_string_lossy().into_owned();
        let hosts: Vec<String> = (1..=HOSTS).map(|i| format!("10.201.7.{i}:1")).collect();
        let (hosts, ranks) = (hosts.join(","), HOSTS.to_string());
        let program = program.to_string_lossy();
        let mut words = vec!["mpirun"];
        words.extend(ANYWHERE);
        words.extend(["--prtemca", "plm_ssh_agent", &agent, "--host", &hosts]);
        // Only TCP, and a rank that waits leaves its core to the other hosts.
        words.extend(["--mca", "pml", "ob1", "--mca", "btl", "self,tcp"]);
        words.extend(["--mca", "mpi_yield_when_idle", "1", "-n", &ranks, &program]);
        words.extend(args);
        let quoted = words
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', "'\\''")));
        let mut command = Command::new(&agent);
        command.arg("10.201.7.1");
        command.arg(quoted.collect::<Vec<_>>().join(" "));
        Job::of(command).run()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            if let Err(error) = ip(&format!("netns del {name}")) {
                eprintln!("{error}");
            }
        }
    }
}

fn ip(args: &str) -> Result<(), String> {
    let script = r#"[ "$(id -u)" = 0 ] || sudo="sudo -n"; exec $sudo ip "$@""#;
    let mut command = Command::new("sh");
    let output = command
        .args(["-c", script, "sh"])
        .args(args.split(' '))
        .output();
    let output = output.map_err(|e| format!("ip {args}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {args}: {}", said.trim()))
}

/// The hosts, or none where namespaces cannot be had and need not be.
fn hosts() -> Option<Hosts> {
    match Hosts::new() {
        Ok(hosts) => Some(hosts),
        Err(error) if std::env::var_os("SHARDLIGHT_REQUIRE_ALL").is_some() => {
            panic!("network namespaces are required: {error}")
        }
        Err(error) => {
            eprintln!("not tested between hosts: {error}");
            None
        }
    }
}

#[test]
fn collectives_between_hosts_give_the_same_bits() {
    let Some(hosts) = hosts() else { return };
    let end = hosts.run(&program("examples/mpi-collectives"), &[]).ok();
    assert!(end.stdout.trim().ends_with("among 3 ranks"), "{end:?}");
}

#[test]
fn three_hosts_write_what_one_does() {
    let Some(hosts) = hosts() else { return };
    let end = hosts.run(&program("shardlight-mpi"), &model::run(&[])).ok();
    assert_eq!(model::answer(&end.stdout), model::alone());
}
