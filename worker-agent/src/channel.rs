//! The channel between the sidecar and the harness: what may be ordered, what is reported, and how it is framed.
//!
//! One Unix socket, on which the sidecar accepts exactly one connection before Claude Code starts; the listener is
//! then closed and unlinked, so that nothing which runs in the sandbox later can speak on it. No order carries a
//! credential: whoever reads the harness's memory learns nothing. Reports come from a process that is not trusted:
//! their size is bounded by the frame, and text in them is text to show.
//!
//! Failure story: a broken frame, a report that breaks the flow control, or the end of the connection closes the
//! channel for good; every request that waits then fails with [`Error::Closed`], and Claude's output ends. The
//! harness ends itself, and with it the sandbox, when its side of the channel closes.

mod client;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod listener;
pub(crate) mod socket;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use client::{Error, Harness, Notice, Output, Pipes};
pub(crate) use frame::{Frame, reader, writer};
pub use listener::{AcceptError, Accepted, Listener};

/// The longest line of Claude's input or output, in bytes. A longer one is dropped, with a note on stderr.
pub const MAX_LINE: usize = 4 * 1024 * 1024;
/// The largest frame: a longest line, or a message of that size, and its head.
pub(crate) const MAX_FRAME: usize = MAX_LINE + 1024;
/// How many bytes of Claude's output may be under way to the consumer. Twice the longest line, so that one always fits.
pub(crate) const WINDOW: usize = 2 * MAX_LINE;
/// What each line costs of the window on top of its bytes, so that empty lines are bounded as well.
pub(crate) const LINE_COST: usize = 256;
/// Free text in a report is cut to this many bytes by the side that receives it.
pub(crate) const MAX_TEXT: usize = 64 * 1024;

/// What the sidecar tells the harness.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Wants one [`Report::Reply`] with the same id.
    Request { id: u64, request: Request },
    /// Closes Claude's stdin, after the lines before it.
    ClaudeEof,
    /// Sends a signal to Claude's own process.
    ClaudeSignal(Signal),
    /// Gives back so many bytes of the output window.
    Credit { bytes: usize },
    /// From now on push (or not) whenever the task's branch moved.
    AutoPush { on: bool },
    /// End everything, the harness too.
    Shutdown,
}

/// An order that is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Prepare(Prepare),
    Setup(Setup),
    StartClaude(StartClaude),
    Publish { message: String },
    Diffstat,
    MergeBase,
    MergeState,
    EndStep,
    Inspect(Inspect),
}

/// What the harness tells the sidecar.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Hello(Hello),
    Reply {
        id: u64,
        outcome: Result<Reply, Failure>,
    },
    ClaudeExited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    SetupOutput(String),
    Pushed {
        head_sha: String,
    },
    PushFailed(Failure),
}

/// The answer to one [`Request`], of the same kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Prepared(Prepared),
    SetupDone,
    ClaudeStarted { pid: i32 },
    Published(Published),
    Diffstat(Diffstat),
    Merged { conflicts: Vec<String> },
    MergeState(MergeState),
    StepEnded { killed: usize },
    Inspection(Inspection),
}

/// Signals that Claude's process may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// Interrupts the turn and ends the process with its transcript written.
    Interrupt,
    /// Ends the process quickly.
    Terminate,
    /// Ends the process now; its children are left to `end_step`.
    Kill,
}

/// The harness's first report: where things are, as seen from inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's version; both halves come from one binary, so that another one means a mixed installation.
    pub version: String,
    /// The port on the harness's own loopback that leads to the sidecar's proxies.
    pub port: u16,
    /// The folder of the repository's work tree.
    pub repository: String,
    /// The home folder of what runs in the sandbox.
    pub home: String,
    /// Claude Code's configuration folder.
    pub claude_config: String,
}

/// Clone the repository and check the task's branch out. A second time it fetches and resets to what a fresh clone
/// would give; files that git ignores stay, so that a setup need not run again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// Path of the repository under the proxy, `/git/<owner>/<repo>.git`.
    pub remote_path: String,
    /// The branch that the work starts from and is compared with.
    pub base_branch: String,
    /// The commit of the base branch to start from; its head where absent.
    pub base_sha: Option<String>,
    /// The task's own branch, made where it is not there.
    pub branch: String,
    /// Start from the task's branch as it was pushed, where it was, instead of from the base.
    pub resume_pushed: bool,
    /// Name and address in commits.
    pub committer_name: String,
    /// See `committer_name`.
    pub committer_email: String,
}

/// The state of the work tree after [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The commit of the base branch.
    pub base_sha: String,
    /// The commit that is checked out.
    pub head_sha: String,
    /// The task's branch was on the remote, and the work goes on from there.
    pub resumed: bool,
}

/// Commands that make the work tree ready, each run by the shell in its root; the first that fails ends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Run in this order.
    pub commands: Vec<String>,
    /// Added to the environment of these commands.
    pub env: BTreeMap<String, String>,
    /// For all commands together, in seconds.
    pub timeout_seconds: u64,
}

/// Start Claude Code with pipes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartClaude {
    /// The binary, as seen from inside (see `Sandbox::claude_program`).
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the harness's own environment; never a credential.
    pub env: BTreeMap<String, String>,
    /// Files to write before, by path under Claude's configuration folder.
    pub files: BTreeMap<String, String>,
}

/// What was committed and pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The head of the task's branch.
    pub head_sha: String,
    /// Something was left uncommitted, and is in a commit now.
    pub committed: bool,
    /// The remote did not have the head before.
    pub pushed: bool,
}

/// How the task's branch differs from where it left the base branch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diffstat {
    /// Changed files.
    pub files: u64,
    /// Lines added, binary files not counted.
    pub added: u64,
    /// Lines removed, binary files not counted.
    pub removed: u64,
    /// The first of the changed files, at most [`Diffstat::MAX_PATHS`].
    pub paths: Vec<FileChange>,
}

impl Diffstat {
    /// How many files are listed by name.
    pub const MAX_PATHS: usize = 200;
}

/// How far the merge of the base is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeState {
    /// Files that are not resolved, at most [`MergeState::MAX_PATHS`].
    pub unresolved: Vec<String>,
    /// The task's branch contains the base.
    pub contains_base: bool,
}

impl MergeState {
    /// How many files are listed by name.
    pub const MAX_PATHS: usize = 200;
}

/// One changed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Path in the repository.
    pub path: String,
    /// Lines added; `None` for a binary file.
    pub added: Option<u64>,
    /// Lines removed; `None` for a binary file.
    pub removed: Option<u64>,
}

/// An order that could not be carried out, in the harness's words. They are text to show, never to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct Failure {
    /// What was attempted: a command, or an operation and its object.
    pub what: String,
    /// The exit code where a command ended by itself.
    pub code: Option<i32>,
    /// The end of its output, or the reason.
    pub detail: String,
}

impl Failure {
    /// A failure without an exit code.
    pub fn new(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            code: None,
            detail: detail.into(),
        }
    }
}

/// What the probe asks the harness to look at, from inside.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inspect {
    /// Paths that should not be there.
    pub paths: Vec<String>,
    /// Addresses (`ip:port`, or `@name` of an abstract Unix socket) that should not answer.
    pub connect: Vec<String>,
    /// Programs that should run, with their arguments.
    pub programs: Vec<Vec<String>>,
}

/// What the harness saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Names of the network interfaces.
    pub interfaces: Vec<String>,
    /// Processes in `/proc`, as `pid name`.
    pub processes: Vec<String>,
    /// The paths that are there.
    pub visible: Vec<String>,
    /// The addresses that answered.
    pub reached: Vec<String>,
    /// For each program: whether it ended well, and the first line of its output.
    pub programs: Vec<(bool, String)>,
    /// The effective user id inside.
    pub uid: u32,
    /// The process id inside; 1 where it owns its PID namespace.
    pub pid: u32,
    /// `Seccomp`, `NoNewPrivs` and `CapEff` of `/proc/self/status`.
    pub confinement: Vec<String>,
}
