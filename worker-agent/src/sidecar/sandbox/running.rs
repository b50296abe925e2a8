//! A started sandbox: from the first fork to the last process gone.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::limits::{Held, Strain};
use super::{Isolation, Sandbox, bubblewrap, host, mounts};
use crate::channel::{AcceptError, Harness, Listener, Notice};

/// How long the harness may take to say hello. It takes milliseconds; a machine that is overloaded takes seconds.
const HELLO_WITHIN: Duration = Duration::from_secs(20);
/// How long the harness may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How much of the end of its stderr is kept, to say why it did not start.
const KEEP_STDERR: usize = 4 * 1024;

/// A harness in its sandbox, ready for orders.
#[derive(Debug)]
pub struct Worker {
    /// To give orders with.
    pub harness: Harness,
    /// What the harness says unasked.
    pub notices: mpsc::Receiver<Notice>,
    /// The process.
    pub running: Running,
}

/// The sandbox's process on the host. Dropping it kills the sandbox.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The harness itself, as the host sees it: PID 1 of the sandbox.
    inner: Option<Pid>,
    /// It leads a session of its own, as there is no PID namespace to end.
    unwalled: bool,
    held: Held,
    stderr: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

/// Why there is no harness.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host's side cannot be made.
    #[error("prepare the sandbox")]
    Host(#[from] host::HostError),
    /// The channel's socket.
    #[error("open the channel to the harness")]
    Channel(#[from] AcceptError),
    /// bubblewrap (or the agent) does not run at all.
    #[error("start {program}")]
    Spawn { program: String, source: io::Error },
    /// It ended before it said hello.
    #[error("the sandbox ended with {status}: {stderr}")]
    Ended { status: ExitStatus, stderr: String },
    /// It said nothing.
    #[error("the harness did not say hello within {} s: {stderr}", HELLO_WITHIN.as_secs())]
    Silent { stderr: String },
}

impl Sandbox {
    /// Starts the sandbox and waits for the harness's hello. The proxies' socket need not be there yet.
    pub async fn start(&self) -> Result<Worker, StartError> {
        self.prepare()?;
        let listener = Listener::bind(&self.control_socket())?;
        let held = Held::make(&self.limits, &self.name, &self.groups(), self.counts());
        let mut running = self.spawn(held)?;
        let uid = self
            .ids
            .map_or_else(|| nix::unistd::geteuid().as_raw(), |ids| ids.uid);
        let accepted = tokio::select! {
            accepted = timeout(HELLO_WITHIN, listener.accept(uid)) => accepted,
            status = running.child.wait() => {
                let status = status.map_err(|source| self.not_spawned(source))?;
                let _ = timeout(END_WITHIN, &mut running.reading).await;
                return Err(StartError::Ended { status, stderr: running.stderr() });
            }
        };
        let accepted = match accepted {
            Ok(Ok(accepted)) => accepted,
            other => {
                let error = match other {
                    Ok(Err(error)) => error.into(),
                    _ => StartError::Silent {
                        stderr: running.stderr(),
                    },
                };
                // So that its groups go with it.
                let _ = running.kill().await;
                return Err(error);
            }
        };
        running.inner = accepted.pid.map(Pid::from_raw);
        if let Some(inner) = running.inner {
            running.held.verify(inner);
        }
        Ok(Worker {
            harness: accepted.harness,
            notices: accepted.notices,
            running,
        })
    }

    fn spawn(&self, held: Held) -> Result<Running, StartError> {
        let mut command = self.command(&held);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.current_dir("/").kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| self.not_spawned(source))?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        // Ends when the last process that holds the pipe does.
        let reading = tokio::spawn(keep_tail(child.stderr.take(), Arc::clone(&stderr)));
        Ok(Running {
            child,
            inner: None,
            unwalled: self.isolation == Isolation::None,
            held,
            stderr,
            reading,
        })
    }

    /// The command that becomes the harness. Its environment is made up; nothing of the sidecar's own is in it.
    fn command(&self, held: &Held) -> Command {
        let mut command = Command::new(&self.agent);
        command.arg("enter");
        for entrance in held.entrances() {
            command.arg("--group").arg(entrance);
        }
        command.args(["--file-bytes", &self.limits.disk().to_string()]);
        if let Some(ids) = self.ids {
            command.args(["--uid", &ids.uid.to_string(), "--gid", &ids.gid.to_string()]);
        }
        command.arg("--").env_clear();
        match &self.isolation {
            Isolation::Bubblewrap { program, tmp_bytes } => {
                command
                    .arg(program)
                    .args(bubblewrap::arguments(self, *tmp_bytes));
                // Out of the terminal's reach at once; inside there is a session of its own.
                command.process_group(0);
            }
            Isolation::None => {
                command
                    .arg(&self.agent)
                    .args(["harness", "--own-session", "--port", "0", "--control"])
                    .arg(self.control_socket())
                    .arg("--proxy")
                    .arg(self.proxy_socket())
                    .arg("--work")
                    .arg(&self.work)
                    .envs(mounts::environment(&self.toolchains));
            }
        }
        if let Some(processes) = held.processes() {
            command.args([OsString::from("--processes"), processes.to_string().into()]);
        }
        command
    }

    /// A limit on processes counts those of the user namespace that sets it since Linux 5.14, and all of the user's before.
    fn counts(&self) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let is_own = self.isolation != Isolation::None && counts_by_namespace(&release);
        self.ids.is_some() || is_own
    }

    fn not_spawned(&self, source: io::Error) -> StartError {
        StartError::Spawn {
            program: self.agent.display().to_string(),
            source,
        }
    }
}

fn counts_by_namespace(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    (next(), next()) >= (Some(5), Some(14))
}

impl Running {
    /// Returns when the sandbox is gone. Cancel-safe.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The process id of the sandbox's outermost process on the host.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The end of what the harness printed on stderr. Text from the untrusted half.
    pub fn stderr(&self) -> String {
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let start = stderr.len().saturating_sub(KEEP_STDERR);
        String::from_utf8_lossy(&stderr[start..]).trim().to_owned()
    }

    /// What holds for it.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// What the kernel did to it at its limits.
    pub fn strain(&self) -> Strain {
        self.held.strain()
    }

    /// Ends the sandbox: asks the harness, waits a little, then kills. When this returns no process of it is left:
    /// bubblewrap ends only after the kernel has emptied the PID namespace.
    pub async fn end(mut self, harness: &Harness) -> io::Result<ExitStatus> {
        let _ = timeout(END_WITHIN, harness.shutdown()).await;
        if let Ok(status) = timeout(END_WITHIN, self.child.wait()).await {
            self.held.remove().await;
            return status;
        }
        self.kill().await
    }

    /// Kills the sandbox and waits until it is empty. Without a wall and without control groups, what left the session
    /// stays.
    pub async fn kill(mut self) -> io::Result<ExitStatus> {
        let status = self.kill_all().await;
        self.held.remove().await;
        status
    }

    async fn kill_all(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.kill_inner();
        if let Ok(status) = timeout(END_WITHIN, self.child.wait()).await {
            return status;
        }
        self.child.kill().await?;
        self.child.wait().await
    }

    fn kill_inner(&self) {
        // Not reaped yet, so neither id can be another process's: bubblewrap ends with the inner one.
        if let Some(inner) = self.inner {
            if self.unwalled {
                let _ = signal::killpg(inner, Signal::SIGKILL);
            } else {
                let _ = signal::kill(inner, Signal::SIGKILL);
            }
        }
    }
}

async fn keep_tail(stream: Option<ChildStderr>, kept: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&chunk[..read]);
        if kept.len() > 2 * KEEP_STDERR {
            let surplus = kept.len() - KEEP_STDERR;
            kept.drain(..surplus);
        }
    }
}
