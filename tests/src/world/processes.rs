//! Which processes belong to a folder: how a test finds what was left behind.
//!
//! A process belongs to it when the folder's name is in its arguments, its working directory, or the mounts that it
//! sees: what runs inside a sandbox has none of the host's paths in its arguments, but its mounts tell. They tell nothing
//! where we see such a mount ourselves, for then everybody does.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::until;

/// How long what was told to end may take.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A process that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub pid: i32,
    /// Its arguments.
    pub command: String,
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.pid, self.command)
    }
}

/// All processes of `folder`, whose name must be unique on this machine. Never this process itself.
pub fn of(folder: &Path) -> Vec<Found> {
    let Some(mark) = folder.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let by_mounts = !mounts_have(own, mark);
    all()
        .filter(|pid| *pid != own && belongs(*pid, mark, by_mounts))
        .map(|pid| Found {
            pid,
            command: command(pid),
        })
        .collect()
}

/// Kills all of them, again until none is left or it was tried often enough.
pub fn kill_all(folder: &Path) {
    for _ in 0..50 {
        let left = of(folder);
        if left.is_empty() {
            return;
        }
        for process in left {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Waits until the folder has no process. What is left then is killed, and named in the error.
pub async fn expect_none(folder: &Path) -> Result<()> {
    let ended = until("no process to be left", END_WITHIN, async || {
        let left = of(folder);
        if left.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = left.iter().map(ToString::to_string).collect();
        Err(lines.join("\n"))
    })
    .await;
    if ended.is_err() {
        kill_all(folder);
    }
    ended
}

/// Every process id of this machine.
pub fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Arguments of a process, separated by blanks; empty where it has ended.
pub fn command(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

fn belongs(pid: i32, mark: &str, by_mounts: bool) -> bool {
    let arguments = command(pid);
    if arguments.is_empty() {
        // A kernel thread, or a zombie: nothing runs.
        return false;
    }
    arguments.contains(mark)
        || fs::read_link(format!("/proc/{pid}/cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().contains(mark))
        || by_mounts && mounts_have(pid, mark)
}

fn mounts_have(pid: i32, mark: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|mounts| mounts.contains(mark))
}
