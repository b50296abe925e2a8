//! Child processes: the one place of the harness that starts, reaps and kills.
//!
//! The harness is PID 1 of its namespace (or a subreaper where there is no sandbox), so it inherits every orphan and
//! reaps with `waitpid(-1)`. That would steal the exits of children that somebody else waits for, so nobody else
//! does: an exit is handed to whoever started the child.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How often children are reaped where the signal got lost.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// How long a kill of everything may take; a process in an uninterruptible call can outlive it.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at what is left after a kill.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long output may go on after its process ended: a daemon that inherited the pipe would hold it for ever.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// How much of a command's stdout is kept.
const KEEP_STDOUT: usize = 1024 * 1024;
/// How much of the end of a command's stderr is kept.
const KEEP_STDERR: usize = 8 * 1024;

/// The table of children that are waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Children {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<Exit>>>>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// A started child with its pipes.
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
    pub(super) exit: oneshot::Receiver<Exit>,
}

/// What a command that ran to its end printed.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) exit: Exit,
    pub(super) stdout: Vec<u8>,
    /// The end of it.
    pub(super) stderr: String,
}

impl Exit {
    pub(super) fn ok(self) -> bool {
        self.code == Some(0)
    }
}

impl Children {
    /// Starts a command with pipes, in a process group of its own.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Started> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // Locked from before the start until the entry is there, so that no exit is reaped in between.
        let mut waiting = self.waiting();
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, exit) = oneshot::channel();
        waiting.insert(pid, sender);
        drop(waiting);
        let gone = || io::Error::other("the child has no pipe");
        Ok(Started {
            pid,
            stdin: ChildStdin::from_std(child.stdin.take().ok_or_else(gone)?)?,
            stdout: ChildStdout::from_std(child.stdout.take().ok_or_else(gone)?)?,
            stderr: ChildStderr::from_std(child.stderr.take().ok_or_else(gone)?)?,
            exit,
        })
    }

    /// Runs a command to its end with `input` on its stdin. At the time limit its process group is killed and the
    /// error says so.
    pub(super) async fn run(
        &self,
        command: &mut Command,
        input: &[u8],
        limit: Duration,
    ) -> io::Result<Finished> {
        use tokio::io::AsyncWriteExt;

        let mut child = self.start(command)?;
        let group = KillGroup(Some(child.pid));
        let mut stdin = child.stdin;
        let feed = async move {
            // A command that does not read its input says so by its exit code.
            let _ = stdin.write_all(input).await;
        };
        let work = async {
            let output =
                async { tokio::join!(feed, head(&mut child.stdout), tail(&mut child.stderr)) };
            tokio::pin!(output);
            tokio::select! {
                ((), stdout, stderr) = &mut output => (wait(&mut child.exit).await, stdout, stderr),
                exit = wait(&mut child.exit) => {
                    let drained = timeout(DRAIN_WITHIN, &mut output).await;
                    let ((), stdout, stderr) = drained.unwrap_or_default();
                    (exit, stdout, stderr)
                }
            }
        };
        let done = timeout(limit, work).await;
        let (exit, stdout, stderr) = done.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("did not end within {limit:?}"),
            )
        })?;
        group.disarm();
        Ok(Finished {
            exit,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Reaps until the end of the process.
    pub(super) async fn reap_always(self) -> io::Result<()> {
        let mut child = signal(SignalKind::child())?;
        loop {
            self.reap();
            let _ = timeout(REAP_EVERY, child.recv()).await;
        }
    }

    /// Kills every process but this one, and returns how many there were. In a PID namespace of its own that is all
    /// of them; otherwise this process's descendants, orphans included.
    pub(super) async fn kill_all(&self) -> io::Result<usize> {
        let until = Instant::now() + KILL_WITHIN;
        self.reap();
        let mut seen = std::collections::HashSet::new();
        loop {
            let left = others()?;
            if left.is_empty() {
                return Ok(seen.len());
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("processes {left:?} do not die")));
            }
            if std::process::id() == 1 {
                // All at once: nothing can fork away between a look and a kill.
                let _ = signal::kill(Pid::from_raw(-1), Signal::SIGKILL);
            } else {
                for pid in &left {
                    let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
                }
            }
            seen.extend(left);
            tokio::time::sleep(LOOK_EVERY).await;
            self.reap();
        }
    }

    fn reap(&self) {
        let mut waiting = self.waiting();
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (
                    pid,
                    Exit {
                        code: Some(code),
                        signal: None,
                    },
                ),
                Ok(WaitStatus::Signaled(pid, by, _)) => (
                    pid,
                    Exit {
                        code: None,
                        signal: Some(by as i32),
                    },
                ),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "reaping children failed");
                    return;
                }
            };
            if let Some(caller) = waiting.remove(&pid.as_raw()) {
                let _ = caller.send(exit);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a child's exit; one whose entry is gone counts as killed.
pub(super) async fn wait(exit: &mut oneshot::Receiver<Exit>) -> Exit {
    exit.await.unwrap_or(Exit {
        code: None,
        signal: Some(Signal::SIGKILL as i32),
    })
}

/// Kills a process group when it is dropped, unless disarmed.
struct KillGroup(Option<i32>);

impl KillGroup {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The first bytes of a stream, read to its end.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        let room = KEEP_STDOUT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    kept
}

/// The last bytes of a stream, read to its end.
async fn tail(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        if kept.len() > 2 * KEEP_STDERR {
            kept.drain(..kept.len() - KEEP_STDERR);
        }
    }
    kept
}

/// The processes that are to die with a step.
fn others() -> io::Result<Vec<i32>> {
    let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // One that ended since is not there any more.
        if let Some(parent) = parent(pid) {
            parents.insert(pid, parent);
        }
    }
    let mine = |mut pid: i32| {
        // A chain is as long as the table at most, whatever changed while it was read.
        for _ in 0..=parents.len() {
            match parents.get(&pid) {
                Some(&above) if above == me => return true,
                Some(&above) => pid = above,
                None => return false,
            }
        }
        false
    };
    let all = parents.keys().copied().filter(|pid| *pid != me);
    Ok(all.filter(|pid| me == 1 || mine(*pid)).collect())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, parentheses included; state and parent follow the last one.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
