//! The sandbox that the harness runs in: bubblewrap with namespaces of its own, no network but a loopback, and no
//! view of the host beyond what is listed here.
//!
//! This module owns bubblewrap's command line; the probe uses the same one, so that what was tried is what runs. It
//! must never let through a path that the repository named, the home of a user, or a writable path that another
//! worker sees. Nothing secret goes into arguments, environment or files.
//!
//! Failure story: whatever ends the sidecar ends the sandbox (a parent-death signal to bubblewrap, whose PID namespace
//! dies with it, and the closed channel). The signal fires when the *thread* that spawned ends, so `start` must run on
//! a thread that lives as long as the sidecar: a current-thread runtime, as the agent has.

mod bubblewrap;
mod host;
mod limits;
mod mounts;
mod reach;
mod running;

use std::path::{Path, PathBuf};

pub(crate) use bubblewrap::CLAUDE;
pub use bubblewrap::HARNESS_PORT;
pub use host::HostError;
pub(crate) use limits::size;
pub use limits::{Enter, EnterError, Held, Limits, Strain, enter};
pub(crate) use mounts::check_variables;
pub use mounts::{Mount, MountError, Toolchains};
pub use reach::Unreachable;
pub use running::{Running, StartError, Worker};

/// Where a worker's user ids begin when the sidecar is root and nothing else is configured: far above those of people,
/// services, containers and systemd's dynamic users.
pub const UID_BASE: u32 = 1_905_000_000;
/// How many ids [`Ids::for_worker`] spreads workers over.
const UID_RANGE: u32 = 1 << 20;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The wall, or none.
    pub isolation: Isolation,
    /// The agent's own binary; the harness is a subcommand of it.
    pub agent: PathBuf,
    /// The Claude Code binary. The probe does without where there is none.
    pub claude: Option<PathBuf>,
    /// The worker's folder, the only thing that the harness can write. Made if missing, and handed to the harness's
    /// uid; the sidecar never opens a path in it again.
    pub work: PathBuf,
    /// The sidecar's own folder for this worker: sockets and made-up files of `/etc`. Made if missing. Its mode is what
    /// guards the sockets, which themselves are open: the proxies' listener must be of mode 0666.
    pub run: PathBuf,
    /// The user's toolchains.
    pub toolchains: Toolchains,
    /// Who the harness is on the host. `None`: who the sidecar is, which must not be root.
    pub ids: Option<Ids>,
    /// Names the worker among those of this host, in its control groups.
    pub name: String,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// Whether the harness is walled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Under bubblewrap.
    Bubblewrap {
        /// Its binary, see [`find_bubblewrap`].
        program: PathBuf,
        /// The bound on `/tmp`, which is memory, and on `/dev/shm`; each.
        tmp_bytes: u64,
    },
    /// No wall at all: Claude Code runs as this user, with this user's files and network. Only where the user said so,
    /// and the task shows it.
    None,
}

impl Isolation {
    /// The bound on `/tmp` where nothing else is configured.
    pub const TMP_BYTES: u64 = 2 << 30;
}

/// A user and group id of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group, the only one.
    pub gid: u32,
}

impl Ids {
    /// Ids for one worker, derived from its name and spread so widely that two workers hardly ever share them: so they
    /// cannot signal or read each other even where a wall fails. Nothing but that second line hangs on it.
    pub fn for_worker(name: &str) -> Self {
        // FNV-1a; it has to be stable, not strong.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let id = UID_BASE + hash % UID_RANGE;
        Self { uid: id, gid: id }
    }

    /// Every folder above the path lets these ids pass, and the path itself lets them read.
    pub fn can_reach(self, path: &Path) -> bool {
        reach::check(path, self).is_ok()
    }
}

impl Sandbox {
    /// The socket that the sidecar's proxies are to listen on, open to the harness's uid. The folder is made by
    /// `prepare`.
    pub fn proxy_socket(&self) -> PathBuf {
        self.sockets().join("proxy.sock")
    }

    /// The Claude Code binary as the harness sees it.
    pub fn claude_program(&self) -> Option<String> {
        let claude = self.claude.as_ref()?;
        Some(match self.isolation {
            Isolation::Bubblewrap { .. } => bubblewrap::CLAUDE.to_owned(),
            Isolation::None => claude.to_string_lossy().into_owned(),
        })
    }

    /// The control groups that the worker may have, one in a line: whoever finds the sidecar gone removes them.
    pub(crate) fn groups(&self) -> PathBuf {
        self.run.join("cgroups")
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.run.join("sock")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.sockets().join("control.sock")
    }
}

/// bubblewrap's binary: the configured one, else in the usual places.
pub fn find_bubblewrap(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return path.is_file().then(|| path.to_owned());
    }
    let places = [
        "/usr/bin/bwrap",
        "/usr/local/bin/bwrap",
        "/bin/bwrap",
        "/run/current-system/sw/bin/bwrap",
    ];
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_ids_of_their_own() {
        assert_eq!(Ids::for_worker("a"), Ids::for_worker("a"));
        assert_ne!(Ids::for_worker("a"), Ids::for_worker("b"));
        assert!(Ids::for_worker("a").uid >= UID_BASE);
    }
}
