//! What the sandbox looks like from inside; for the probe.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::children::Children;
use super::environment::Places;
use crate::channel::{Inspect, Inspection};

/// A program that only prints its version is given this long; a cold disk makes the first start slow.
const PROGRAM_WITHIN: Duration = Duration::from_secs(20);
/// An address that drops packets counts as not reached after this.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Looks at everything that was asked for.
pub(super) async fn look(children: &Children, places: &Places, inspect: Inspect) -> Inspection {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let confined = |line: &&str| {
        ["Seccomp:", "NoNewPrivs:", "CapEff:"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let mut seen = Inspection {
        interfaces: interfaces(),
        processes: processes(),
        visible: inspect
            .paths
            .into_iter()
            .filter(|path| std::fs::symlink_metadata(path).is_ok())
            .collect(),
        uid: nix::unistd::geteuid().as_raw(),
        pid: std::process::id(),
        confinement: status
            .lines()
            .filter(confined)
            .map(|line| line.replace('\t', " "))
            .collect(),
        ..Inspection::default()
    };
    for address in inspect.connect {
        let reached = match address.strip_prefix('@') {
            Some(name) => abstract_socket(name),
            None => tcp(&address).await,
        };
        if reached {
            seen.reached.push(address);
        }
    }
    for program in inspect.programs {
        let Some((name, args)) = program.split_first() else {
            continue;
        };
        let mut command = places.command(name);
        let outcome = match children.run(command.args(args), b"", PROGRAM_WITHIN).await {
            Ok(done) => {
                let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
                let said = if stdout.trim().is_empty() {
                    done.stderr
                } else {
                    stdout
                };
                (
                    done.exit.ok(),
                    said.trim().lines().next().unwrap_or_default().to_owned(),
                )
            }
            Err(error) => (false, error.to_string()),
        };
        seen.programs.push(outcome);
    }
    seen
}

async fn tcp(address: &str) -> bool {
    let Ok(target) = address.parse::<SocketAddr>() else {
        return false;
    };
    matches!(
        timeout(CONNECT_WITHIN, TcpStream::connect(target)).await,
        Ok(Ok(_))
    )
}

fn abstract_socket(name: &str) -> bool {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name);
    address
        .and_then(|address| UnixStream::connect_addr(&address))
        .is_ok()
}

fn interfaces() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn processes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} {}", name.trim())
    })
    .collect()
}
