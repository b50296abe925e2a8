//! The real control plane as a child process, with its private PostgreSQL.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mainloop_proto::v1::GetStatusRequest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use super::{
    client::Client,
    terminal::Terminal,
    wait::{PATIENCE, until},
};

/// What a plane is given of this process's environment.
const PASSED_ON: &[&str] = &[
    "PATH",
    "LANG",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "MAINLOOP_POSTGRES_BIN",
];

/// How to run a plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub binary: PathBuf,
    /// Its data folder.
    pub data: PathBuf,
    /// Where its log goes; starts are appended.
    pub log: PathBuf,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Arguments after `serve`.
    pub args: Vec<OsString>,
}

/// Where a plane is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A process group of its own, without a terminal.
    Service,
    /// A terminal of its own.
    Terminal,
    /// `nohup`.
    Nohup,
}

/// The part of this process's environment that says what the machine is like, and nothing of its secrets.
pub fn passed_on() -> Vec<(OsString, OsString)> {
    PASSED_ON
        .iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

impl Options {
    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.data.join("mainloop.sock")
    }
}

/// A plane that runs. Dropping it kills nothing: whoever made it ends it.
#[derive(Debug)]
pub struct Plane {
    child: Child,
    log: PathBuf,
    terminal: Option<Terminal>,
}

impl Plane {
    /// Starts it and waits until it answers.
    pub async fn start(options: &Options, from: From) -> Result<Self> {
        let mut plane = Self::spawn(options, from)?;
        let client = Client::at(&options.socket())?;
        until("the plane to answer", PATIENCE, async || {
            if let Ok(Some(status)) = plane.child.try_wait() {
                return Ok(Err(status));
            }
            match client.access().get_status(GetStatusRequest {}).await {
                Ok(_) => Ok(Ok(())),
                Err(status) => Err(format!("{status}; its log:\n{}", tail(&options.log, 30))),
            }
        })
        .await?
        .map_err(|status| {
            anyhow::anyhow!(
                "the plane ended with {status}; its log:\n{}",
                tail(&options.log, 30)
            )
        })?;
        Ok(plane)
    }

    fn spawn(options: &Options, from: From) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)
            .with_context(|| format!("open the plane's log {}", options.log.display()))?;
        let (mut command, terminal) = match from {
            From::Service => {
                let mut command = Command::new(&options.binary);
                command
                    .process_group(0)
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log);
                (command, None)
            }
            From::Terminal => {
                let (terminal, line) = Terminal::open(log)?;
                // Whoever runs the tests may have this process ignore what the end of a terminal sends.
                let mut command = Command::new("env");
                command
                    .args(["--default-signal=HUP", "setsid", "--ctty"])
                    .arg(&options.binary)
                    .stdin(line.try_clone()?)
                    .stdout(line.try_clone()?)
                    .stderr(line);
                (command, Some(terminal))
            }
            From::Nohup => {
                let mut command = Command::new("nohup");
                command
                    .arg(&options.binary)
                    .process_group(0)
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log);
                (command, None)
            }
        };
        let child = command
            .arg("serve")
            .arg("--data-dir")
            .arg(&options.data)
            .args(&options.args)
            .env_clear()
            .envs(options.env.iter().cloned())
            .spawn()
            .with_context(|| format!("start {}", options.binary.display()))?;
        Ok(Self {
            child,
            log: options.log.clone(),
            terminal,
        })
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Ends it with SIGKILL, as a crash would; workers and PostgreSQL go on.
    pub async fn kill(mut self) -> Result<()> {
        self.child.start_kill().context("kill the plane")?;
        self.child.wait().await.context("wait for the plane")?;
        Ok(())
    }

    /// Ends it and all that it runs by SIGINT, as Ctrl-C does. Fails where it takes longer than `limit`, and where it had
    /// ended before or ends as a failure.
    pub async fn interrupt(self, limit: Duration) -> Result<()> {
        self.end(Signal::SIGINT, limit).await
    }

    /// Ends it by SIGTERM, as an upgrade does; workers and PostgreSQL go on. Fails as [`Plane::interrupt`] does.
    pub async fn terminate(self, limit: Duration) -> Result<()> {
        self.end(Signal::SIGTERM, limit).await
    }

    /// Takes its terminal away, as a window that is closed does. Fails as [`Plane::interrupt`] does.
    pub async fn lose_terminal(mut self, limit: Duration) -> Result<()> {
        let terminal = self.terminal.take().context("the plane has no terminal")?;
        terminal.close().await;
        self.has_ended("its terminal was closed", limit).await
    }

    async fn end(self, signal: Signal, limit: Duration) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill(Pid::from_raw(pid), signal)
                .with_context(|| format!("send {signal} to the plane"))?;
        }
        self.has_ended(signal.as_ref(), limit).await
    }

    async fn has_ended(mut self, after: &str, limit: Duration) -> Result<()> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => {
                let status = status.context("wait for the plane")?;
                if !status.success() {
                    bail!(
                        "the plane ended with {status}; its log:\n{}",
                        tail(&self.log, 30)
                    );
                }
                Ok(())
            }
            Err(_) => bail!(
                "the plane did not end within {limit:?} after {after}; its log:\n{}",
                tail(&self.log, 30)
            ),
        }
    }

    /// Returns when it has ended by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.context("wait for the plane")
    }
}

/// The last `lines` lines of a file; empty where there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
