//! The untrusted half: a pipe and a pair of hands inside the sandbox.
//!
//! It clones, runs setup commands and Claude Code, commits and pushes, and forwards bytes from its loopback to the
//! sidecar's proxies. It holds no credential and decides nothing. It must never open a path or a socket for the
//! sidecar's sake beyond those it was started with.
//!
//! Failure story: it keeps nothing that the remote or the sidecar does not have, so it can die at any time. When the
//! channel to the sidecar closes it kills everything it started and ends.

mod children;
mod claude;
mod environment;
mod forward;
mod git;
mod inspect;
mod jobs;
mod serve;
mod setup;
mod workspace;

use std::path::PathBuf;

pub use serve::{Error, run};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use workspace::fuzzing;

/// How a harness is started, by the sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket that the sidecar listens on, once.
    pub control: PathBuf,
    /// The socket of the sidecar's proxies.
    pub proxy: PathBuf,
    /// The folder that is the harness's own: work tree, home and configuration are made in it.
    pub work: PathBuf,
    /// The loopback port to listen on; 0 takes a free one.
    pub port: u16,
    /// Become the leader of a session of its own: without a sandbox nothing else has made one.
    pub own_session: bool,
    /// How many processes and threads there may be, where no control group bounds them.
    pub processes: Option<u64>,
}
