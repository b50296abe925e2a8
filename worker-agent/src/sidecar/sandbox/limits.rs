//! What a worker may take of the machine: memory, processes, disk.
//!
//! Memory and processes are bounded by control groups of the worker's own, where the host lets this user make some.
//! Elsewhere resource limits bound processes and files, and nothing bounds memory. A worker never fails for what the
//! host does not offer: it is left out, and said.
//!
//! Failure story: the groups are named in a file beside the sockets before they are made, so that whoever finds the
//! sidecar gone can remove them. A harness that could not be put into its groups runs without them, which is seen
//! by looking for it there.

mod cgroup;
mod enter;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::cgroup::{Controller, Group, Version};

pub use enter::{Enter, EnterError, enter};

/// What the harness may use of memory where nothing is configured, unless the machine is small.
const MEMORY_MIB: u64 = 8 << 10;
/// How long the kernel may take to empty a group whose processes were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
/// Time between two tries to remove a group.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// What a worker may take, by the user's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// MiB of memory, `/tmp` and `/dev/shm` included. Absent: 8 GiB, or three quarters of a machine that has less.
    pub memory_mib: Option<u64>,
    /// Processes and threads.
    pub processes: u64,
    /// MiB that the worker's folder may grow to.
    pub disk_mib: u64,
    /// MiB that must stay free where workers live.
    pub free_disk_mib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: None,
            processes: 2048,
            disk_mib: 20 << 10,
            free_disk_mib: 1 << 10,
        }
    }
}

impl Limits {
    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        let mib = self.memory_mib.unwrap_or_else(|| {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            default_memory_mib(&text)
        });
        mib.saturating_mul(1 << 20)
    }

    /// Bytes of the worker's folder.
    pub fn disk(&self) -> u64 {
        self.disk_mib.saturating_mul(1 << 20)
    }

    /// Bytes that must stay free.
    pub fn free_disk(&self) -> u64 {
        self.free_disk_mib.saturating_mul(1 << 20)
    }

    /// The bound on `/tmp`, and on `/dev/shm`: both count as memory, and full ones must leave room to work.
    pub fn tmp(&self) -> u64 {
        super::Isolation::TMP_BYTES.min(self.memory() / 4)
    }
}

/// By `/proc/meminfo`.
fn default_memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let total: u64 = total.unwrap_or(u64::MAX);
    MEMORY_MIB.min(total / 1024 / 4 * 3)
}

/// What the kernel did to a worker at its limits, counted since its groups were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// Processes that were killed for want of memory. Where the worker has no group, those of the whole machine.
    pub killed: u64,
    /// The worker's own limit was reached, and not only the machine's.
    pub at_own_limit: bool,
    /// Processes that could not be started.
    pub not_started: u64,
}

impl Strain {
    /// What has happened since `before`, in words for people and for Claude; nothing where nothing has.
    pub fn since(self, before: Self, held: &Held) -> Option<String> {
        let mut words = Vec::new();
        let killed = self.killed.saturating_sub(before.killed);
        if killed > 0 {
            let ended = match killed {
                1 => "one process".to_owned(),
                count => format!("{count} processes"),
            };
            let memory = size(held.limits.memory());
            words.push(match (held.bounds_memory(), self.at_own_limit) {
                (true, true) => format!(
                    "the worker reached its memory limit of {memory}, and the kernel ended {ended} of it \
                     (`worker.memory_mib` of the policy)"
                ),
                (true, false) => format!(
                    "this machine ran out of memory, and the kernel ended {ended} of the worker"
                ),
                (false, _) => {
                    format!("this machine ran out of memory, and the kernel ended {ended} on it")
                }
            });
        }
        // Whatever starts them in a loop is told once.
        if self.not_started > 0 && before.not_started == 0 {
            words.push(format!(
                "the worker has as many processes as it may have, {}, and no more are started \
                 (`worker.processes` of the policy)",
                held.limits.processes
            ));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// The limits that hold for one harness, and its groups. Dropping it tries to remove them; [`Held::remove`] waits.
#[derive(Debug)]
pub struct Held {
    limits: Limits,
    groups: Vec<Group>,
    /// Why there is no group for memory.
    why_not: String,
    /// Resource limits bound the processes.
    counts: bool,
    /// Kills on the machine before the harness was started, where it has no group for memory.
    killed_before: u64,
}

impl Held {
    /// Makes what groups the host lets be made for the worker `name`, and names them in `list` before.
    pub(super) fn make(limits: &Limits, name: &str, list: &Path, counts: bool) -> Self {
        let host = cgroup::Host::read();
        let name = format!("mainloop-{name}");
        let (groups, why_not) = host.make(&name, limits, &|folders| {
            let lines: Vec<String> = folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            std::fs::write(list, lines.join("\n"))
        });
        Self {
            limits: limits.clone(),
            groups,
            why_not,
            counts,
            killed_before: machine_kills(),
        }
    }

    /// The files that a process enters the groups by.
    pub(super) fn entrances(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.groups.iter().map(Group::entrance)
    }

    /// The bound on processes that only a resource limit can hold here.
    pub(super) fn processes(&self) -> Option<u64> {
        (self.counts && !self.has(Controller::Pids)).then_some(self.limits.processes)
    }

    /// Forgets the groups that a started process is not in.
    pub(super) fn verify(&mut self, pid: Pid) {
        let by_group = self.has(Controller::Pids);
        self.groups.retain(|group| {
            let holds = group.holds(pid);
            if !holds {
                self.why_not = format!("{} does not take it", group.folder.display());
                let _ = group.remove();
            }
            holds
        });
        if by_group && !self.has(Controller::Pids) {
            // It was started without the resource limit, which the group was to stand for.
            self.counts = false;
        }
    }

    fn has(&self, controller: Controller) -> bool {
        self.groups
            .iter()
            .any(|group| group.controllers.contains(&controller))
    }

    /// Whether memory is bounded.
    pub fn bounds_memory(&self) -> bool {
        self.has(Controller::Memory)
    }

    /// What holds, in a line for people.
    pub fn words(&self) -> String {
        self.to_string()
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the kernel did so far.
    pub fn strain(&self) -> Strain {
        let mut strain = Strain::default();
        for group in &self.groups {
            group.add_strain(&mut strain, self.limits.memory());
        }
        if !self.bounds_memory() {
            strain.killed = machine_kills().saturating_sub(self.killed_before);
        }
        strain
    }

    /// Removes the groups. What is still in them is killed: the sandbox has ended.
    pub async fn remove(mut self) {
        let end = tokio::time::Instant::now() + EMPTY_WITHIN;
        while !self.try_remove() {
            if tokio::time::Instant::now() > end {
                tracing::warn!(limits = %self, "a worker's control group is not empty");
                return;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn try_remove(&mut self) -> bool {
        self.groups.retain(|group| {
            if group.remove().is_ok() {
                return false;
            }
            for pid in group.processes() {
                let _ = signal::kill(pid, Signal::SIGKILL);
            }
            true
        });
        self.groups.is_empty()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.try_remove();
    }
}

impl fmt::Display for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.groups.iter().map(|group| group.version).max() {
            Some(Version::V2) => "cgroup v2",
            Some(Version::V1) => "cgroup v1",
            None => "resource limits only",
        };
        write!(out, "{version}: ")?;
        if self.bounds_memory() {
            write!(out, "memory {}, ", size(self.limits.memory()))?;
        }
        if self.counts || self.has(Controller::Pids) {
            write!(out, "{} processes, ", self.limits.processes)?;
        }
        write!(
            out,
            "{} of disk, {} left free",
            size(self.limits.disk()),
            size(self.limits.free_disk())
        )?;
        if !self.counts && !self.has(Controller::Pids) {
            write!(out, "; processes are not limited")?;
        }
        if !self.bounds_memory() {
            write!(out, "; memory is not limited ({})", self.why_not)?;
        }
        Ok(())
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB")] {
        if bytes >= unit {
            let tenths = bytes / (unit / 10);
            return if tenths.is_multiple_of(10) {
                format!("{} {name}", tenths / 10)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} bytes")
}

/// How many processes of this machine the kernel has killed for want of memory since it started.
fn machine_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    cgroup::value(&text, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_keeps_a_quarter_of_its_memory() {
        for (kib, mib) in [
            ("MemTotal:       24683000 kB\nMemFree: 1 kB", 8192),
            ("MemTotal:        4194304 kB", 3072),
            ("", 8192),
        ] {
            assert_eq!(default_memory_mib(kib), mib, "{kib}");
        }
    }

    #[test]
    fn full_tmp_folders_leave_room_to_work() {
        let tmp = |memory_mib| {
            Limits {
                memory_mib: Some(memory_mib),
                ..Limits::default()
            }
            .tmp()
        };
        assert_eq!(tmp(16 << 10), 2 << 30);
        assert_eq!(tmp(1 << 10), 256 << 20);
    }

    #[test]
    fn a_bound_on_processes_is_claimed_only_where_one_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = |folder: &Path| Held {
            limits: Limits::default(),
            groups: vec![Group {
                version: Version::V2,
                controllers: vec![Controller::Pids],
                folder: folder.to_owned(),
            }],
            why_not: String::new(),
            counts: true,
            killed_before: 0,
        };
        let claims = |held: &Held| held.words().contains("2048 processes");
        let pid = Pid::this();
        let list = folder.path().join("cgroup.procs");
        std::fs::write(&list, format!("{pid}\n")).expect("a list");
        let mut taken = held(folder.path());
        taken.verify(pid);
        // Who is in a group that is left is killed.
        std::fs::remove_file(&list).expect("the list is there");
        assert_eq!(taken.processes(), None, "the group bounds them");
        assert!(claims(&taken), "{taken}");
        let mut refused = held(&folder.path().join("absent"));
        refused.verify(pid);
        assert!(!claims(&refused), "{refused}");
        assert!(
            refused.words().contains("processes are not limited"),
            "{refused}"
        );
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, words) in [
            (8 << 30, "8 GiB"),
            (1536 << 20, "1.5 GiB"),
            (700 << 20, "700 MiB"),
            (12, "12 bytes"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
