//! The last steps of the host's side before the sandbox: a process that enters its groups, takes its limits, lets go of
//! its user's keys, becomes the worker's user, and then becomes bubblewrap.
//!
//! It is a program of its own as all of that has to happen between fork and exec, where Rust lets safe code do nothing.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use keyutils::Keyring;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Files that one process may have open; builds need thousands.
const FILES: u64 = 1 << 16;
/// How much sooner than others the kernel ends it when the machine's memory runs out: before the plane and its database.
const OOM_SCORE: &str = "500";

/// What to become, and how.
#[derive(Clone, Debug)]
pub struct Enter {
    /// The groups, each by the file that it is entered by.
    pub groups: Vec<PathBuf>,
    /// Bytes that one file may have.
    pub file_bytes: u64,
    /// User and group; who one is where absent.
    pub ids: Option<(u32, u32)>,
    /// The program with its arguments.
    pub command: Vec<OsString>,
}

/// Why it did not become that.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel refused.
    #[error("{what}")]
    Refused {
        what: &'static str,
        source: io::Error,
    },
    /// Nothing to become.
    #[error("no command was given")]
    NoCommand,
    /// The program does not run.
    #[error("run {program}")]
    Exec { program: String, source: io::Error },
}

/// Does not return where all went well.
pub fn enter(options: &Enter) -> Result<std::convert::Infallible, EnterError> {
    let refused = |what| {
        move |errno: Errno| EnterError::Refused {
            what,
            source: errno.into(),
        }
    };
    for group in &options.groups {
        // Seen from outside, where it is looked for in the group.
        if let Err(error) = std::fs::write(group, "0") {
            tracing::warn!(group = %group.display(), %error, "could not enter a control group");
        }
    }
    for (limit, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_FSIZE, options.file_bytes),
    ] {
        let (soft, hard) = getrlimit(limit).map_err(refused("read a resource limit"))?;
        setrlimit(limit, soft.min(most), hard.min(most))
            .map_err(refused("set a resource limit"))?;
    }
    // Some containers do not let it be written; then the kernel chooses by size.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    if let Some((uid, gid)) = options.ids {
        setgroups(&[]).map_err(refused("leave the groups of the sidecar's user"))?;
        setgid(Gid::from_raw(gid)).map_err(refused("take the worker's group"))?;
        setuid(Uid::from_raw(uid)).map_err(refused("take the worker's user"))?;
    }
    leave_keys()?;
    // As early as it can be: bubblewrap asks for it again.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(refused("ask for an end with the sidecar"))?;
    let Some((program, arguments)) = options.command.split_first() else {
        return Err(EnterError::NoCommand);
    };
    let source = Command::new(program).args(arguments).exec();
    Err(EnterError::Exec {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

/// A session keyring that is new and empty, for no namespace keeps the one of whoever started the plane away.
fn leave_keys() -> Result<(), EnterError> {
    match Keyring::join_anonymous_session() {
        Ok(_) => Ok(()),
        // A kernel without keys, or a container that forbids them to whatever runs in it.
        Err(errno) if [Errno::ENOSYS as i32, Errno::EPERM as i32].contains(&errno.0) => Ok(()),
        Err(errno) => Err(EnterError::Refused {
            what: "make a session keyring",
            source: io::Error::from_raw_os_error(errno.0),
        }),
    }
}
