//! The process launcher: a worker is a process tree and a folder on this host.
//!
//! A level-triggered loop compares the attempts that the database wants here with the processes that are there, and
//! makes, ends and removes until they match. Workers outlive the plane: each folder holds its process's id and start
//! time, by which the next plane knows it again. It never trusts a process id alone.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use mainloop_core::Event;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command, sync::Notify};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{
        self, Occurrence, Store,
        attempts::{Open, State},
    },
    errors, ids,
    supervisor::{OnExit, Supervisor},
};

/// The net under the nudges.
const POLL: Duration = Duration::from_secs(2);
/// How soon an ending worker is looked at again.
const ENDING_POLL: Duration = Duration::from_millis(50);
/// How long a sidecar may take to end by itself.
const GRACE: Duration = Duration::from_secs(4);
/// How much of the end of a sidecar's log is looked at, in bytes.
const LAST_WORDS: u64 = 512;
/// The process's mark in a worker's folder.
const MARK: &str = "process.json";
/// The sidecar's list of the control groups that it made, in the worker's folder.
const GROUPS: &str = "run/cgroups";
/// What the name of a folder begins with that is only left to be removed.
const GONE: &str = ".gone-";

/// What the launcher needs to make workers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `mainloop-worker-agent` binary.
    pub agent: PathBuf,
    /// Folder of the workers' folders.
    pub workers: PathBuf,
    /// This host's id.
    pub host: String,
    /// What every worker is told, but for its own folder and attempt.
    pub worker: WorkerConfig,
}

/// What a sidecar reads from the file that its argument names. Holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerConfig {
    /// The attempt.
    pub attempt_id: Uuid,
    /// This host's id.
    pub host_id: String,
    /// The plane's socket for links.
    pub link_socket: PathBuf,
    /// The worker's own folder.
    pub dir: PathBuf,
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// Runs the harness under bubblewrap.
    pub sandbox: bool,
    /// Unprivileged user that the harness runs as; unset to stay who the plane is.
    pub uid: Option<u32>,
    /// Read-only toolchain mounts, from the user's own configuration.
    pub mounts: serde_json::Value,
    /// What the harness may take of the machine, from the user's own configuration.
    pub limits: serde_json::Value,
}

/// Why a worker could not be made.
#[derive(Debug, Error)]
enum Error {
    #[error("could not make the worker's folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not start {path}")]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A process as its folder remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Field 22 of `/proc/PID/stat`: ticks since boot. With it a reused id is not mistaken for the worker.
    start: u64,
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold blanks and parentheses; fields are counted behind its end.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        let ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start: ticks })
    }

    fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Asks the sidecar to end its harness and itself.
    fn terminate(self) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
    }

    /// Ends it and its group, which the sandbox's launcher is in; the sandbox dies with its parent.
    fn kill(self) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(-self.pid), Signal::SIGKILL);
        }
    }
}

/// The loop.
#[derive(Debug)]
pub struct Launcher {
    store: Store,
    options: Options,
    supervisor: Supervisor,
    exited: Arc<Notify>,
    /// Wakes whoever removes the folders of workers that are gone.
    gone: Arc<Notify>,
    ending: HashMap<Uuid, Instant>,
}

impl Launcher {
    /// A launcher that has looked at nothing yet.
    pub fn new(store: Store, options: Options, supervisor: Supervisor) -> Self {
        Self {
            store,
            options,
            supervisor,
            exited: Arc::new(Notify::new()),
            gone: Arc::new(Notify::new()),
            ending: HashMap::new(),
        }
    }

    /// Makes the world match until told to stop. Workers go on without it.
    pub async fn run(mut self, stop: CancellationToken) {
        self.supervisor.spawn(
            "removal of workers' folders",
            OnExit::Fatal,
            clear(
                self.options.workers.clone(),
                Arc::clone(&self.gone),
                stop.clone(),
            ),
        );
        loop {
            if let Err(error) = self.reconcile().await {
                tracing::warn!(
                    error = errors::chain(&error),
                    "could not look after workers"
                );
            }
            let poll = if self.ending.is_empty() {
                POLL
            } else {
                ENDING_POLL
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.store.nudge().launcher().notified() => {}
                () = self.exited.notified() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    async fn reconcile(&mut self) -> Result<(), db::Error> {
        let attempts = self.store.open_attempts(&self.options.host).await?;
        for attempt in &attempts {
            // One that cannot be looked after leaves the others alone.
            if let Err(error) = self.look_after(attempt).await {
                tracing::warn!(
                    task.id = %attempt.task_id,
                    attempt.n = attempt.n,
                    error = errors::chain(&error),
                    "could not look after a worker"
                );
            }
        }
        let wanted: HashSet<Uuid> = attempts.iter().map(|attempt| attempt.id).collect();
        for id in self.folders() {
            if !wanted.contains(&id) {
                self.end(id);
            }
        }
        Ok(())
    }

    async fn look_after(&mut self, attempt: &Open) -> Result<(), db::Error> {
        match attempt.state {
            State::Wanted => self.start(attempt).await,
            State::Started | State::Live => {
                if self.process(attempt.id).is_some_and(Process::is_alive) {
                    return Ok(());
                }
                let why = match self.last_words(attempt.id) {
                    Some(words) => format!("its process ended; its last words: {words}"),
                    None => "its process ended".to_owned(),
                };
                self.lost(attempt, &why).await
            }
            State::Ending => {
                if self.end(attempt.id) {
                    self.store
                        .attempt_ended(attempt.id, &attempt.end_reason)
                        .await?;
                }
                Ok(())
            }
        }
    }

    async fn start(&self, attempt: &Open) -> Result<(), db::Error> {
        let token = ids::secret("mla_");
        if !self
            .store
            .attempt_started(attempt.id, &ids::hash(&token))
            .await?
        {
            return Ok(());
        }
        match self.spawn(attempt, &token).await {
            Ok(()) => {
                tracing::info!(
                    task.id = %attempt.task_id,
                    attempt.n = attempt.n,
                    "worker process started"
                );
                Ok(())
            }
            Err(error) => self.lost(attempt, &errors::chain(&error)).await,
        }
    }

    async fn lost(&self, attempt: &Open, why: &str) -> Result<(), db::Error> {
        let mut lost = Occurrence::new(
            Event::AttemptLost {
                why: why.to_owned(),
            },
            "plane",
        );
        lost.attempt = attempt.n;
        if let db::Applied::Ignored { .. } = self.store.apply(attempt.task_id, &lost).await? {
            // The task has moved on without it; only the row is left to close.
            self.end_row(attempt).await?;
        }
        Ok(())
    }

    async fn end_row(&self, attempt: &Open) -> Result<(), db::Error> {
        self.store
            .attempt_ended(attempt.id, "its process ended")
            .await
    }

    async fn spawn(&self, attempt: &Open, token: &str) -> Result<(), Error> {
        let dir = self.folder(attempt.id);
        let folder = |source| Error::Folder {
            path: dir.clone(),
            source,
        };
        std::fs::create_dir_all(&dir).map_err(folder)?;
        let config = WorkerConfig {
            attempt_id: attempt.id,
            dir: dir.clone(),
            sandbox: self.options.worker.sandbox && !attempt.unsandboxed,
            ..self.options.worker.clone()
        };
        let config_file = dir.join("worker.json");
        let text = serde_json::to_vec(&config).expect("the configuration is plain data");
        std::fs::write(&config_file, text).map_err(folder)?;
        let log = std::fs::File::create(dir.join("agent.log")).map_err(folder)?;
        let spawn = |source| Error::Spawn {
            path: self.options.agent.clone(),
            source,
        };
        let mut child = Command::new(&self.options.agent)
            .arg("sidecar")
            .arg(&config_file)
            .env_clear()
            .envs(environment())
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(spawn)?;
        if let Some(process) = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Process::of)
        {
            let mark = serde_json::to_vec(&process).expect("the mark is plain data");
            std::fs::write(dir.join(MARK), mark).map_err(folder)?;
        }
        // The token's only way: a pipe that nobody else can read.
        let mut pipe = child.stdin.take().expect("its standard input is a pipe");
        pipe.write_all(token.as_bytes()).await.map_err(spawn)?;
        drop(pipe);
        let exited = Arc::clone(&self.exited);
        let attempt_id = attempt.id;
        let stop = self.supervisor.stop_token();
        self.supervisor
            .spawn("worker process", OnExit::Log, async move {
                let ended = tokio::select! {
                    // It outlives the plane, whose stop does not wait for it.
                    () = stop.cancelled() => return,
                    ended = child.wait() => ended,
                };
                match ended {
                    Ok(status) => tracing::info!(attempt.id = %attempt_id, %status, "worker process ended"),
                    Err(error) => tracing::warn!(attempt.id = %attempt_id, %error, "could not wait for a worker process"),
                }
                exited.notify_one();
            });
        Ok(())
    }

    /// Ends a worker's process and puts its folder away, step by step. True when nothing is left but to remove it.
    fn end(&mut self, id: Uuid) -> bool {
        if let Some(process) = self.process(id)
            && process.is_alive()
        {
            let since = *self.ending.entry(id).or_insert_with(|| {
                process.terminate();
                Instant::now()
            });
            if since.elapsed() > GRACE {
                process.kill();
            }
            return false;
        }
        let dir = self.folder(id);
        if !clear_groups(&dir, id) {
            let since = *self.ending.entry(id).or_insert_with(Instant::now);
            if since.elapsed() <= 2 * GRACE {
                return false;
            }
            tracing::warn!(dir = %dir.display(), "a worker's control group cannot be emptied");
        }
        self.ending.remove(&id);
        // Removing may take long, and nobody waits for it.
        match std::fs::rename(&dir, self.options.workers.join(format!("{GONE}{id}"))) {
            Ok(()) => self.gone.notify_one(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "could not put a worker's folder away");
            }
        }
        true
    }

    /// The last line of a sidecar's log, which goes with its folder.
    fn last_words(&self, id: Uuid) -> Option<String> {
        use std::io::{Read, Seek, SeekFrom};

        let mut file = std::fs::File::open(self.folder(id).join("agent.log")).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))
            .ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().replace('\0', ""))
    }

    /// Ends every attempt in the database, as nobody's failure.
    async fn suspend_all(&self) -> Result<(), db::Error> {
        for attempt in self.store.open_attempts(&self.options.host).await? {
            if attempt.state == State::Ending {
                continue;
            }
            let mut suspended = Occurrence::new(Event::Suspended, "plane");
            suspended.attempt = attempt.n;
            // One that cannot be stored is found gone at the next start; the others are not to suffer for it.
            if let Err(error) = self.store.apply(attempt.task_id, &suspended).await {
                tracing::warn!(
                    task.id = %attempt.task_id,
                    error = errors::chain(&error),
                    "could not suspend a task"
                );
            }
        }
        Ok(())
    }

    fn folder(&self, id: Uuid) -> PathBuf {
        self.options.workers.join(id.to_string())
    }

    fn process(&self, id: Uuid) -> Option<Process> {
        let mark = std::fs::read(self.folder(id).join(MARK)).ok()?;
        serde_json::from_slice(&mark).ok()
    }

    fn folders(&self) -> Vec<Uuid> {
        std::fs::read_dir(&self.options.workers)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Ends all workers of this host, for a stop that ends everything. Their tasks go on at the next start.
    pub async fn end_all(mut self) {
        if let Err(error) = self.suspend_all().await {
            // The next start finds the processes gone, and counts that as a crash of each.
            tracing::warn!(error = errors::chain(&error), "could not suspend the tasks");
        }
        let deadline = Instant::now() + GRACE + Duration::from_secs(2);
        loop {
            let mut left = false;
            for id in self.folders() {
                left |= !self.end(id);
            }
            if !left || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(ENDING_POLL).await;
        }
        remove_gone(self.options.workers).await;
    }
}

/// Removes the control groups that a sidecar left, and ends what is still in them. False while there is something.
fn clear_groups(dir: &Path, id: Uuid) -> bool {
    let list = std::fs::read_to_string(dir.join(GROUPS)).unwrap_or_default();
    let name = format!("mainloop-{id}");
    let mut is_clear = true;
    for group in list.lines().map(Path::new) {
        if group.file_name().is_none_or(|last| last != name.as_str()) || !group.is_dir() {
            continue;
        }
        let left = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // What has no number here is of another namespace, and nobody's to end.
        for pid in left.lines().filter_map(|line| line.parse().ok()) {
            if pid > 0 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        is_clear &= std::fs::remove_dir(group).is_ok();
    }
    is_clear
}

/// Removes the folders of workers that are gone, until `stop`. What is left then, the next start removes.
async fn clear(workers: PathBuf, gone: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = remove_gone(workers.clone()) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = gone.notified() => {}
        }
    }
}

async fn remove_gone(workers: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || {
        for entry in std::fs::read_dir(&workers).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(GONE)
                && let Err(error) = remove(&entry.path())
            {
                tracing::warn!(dir = %entry.path().display(), %error, "could not remove a worker's folder");
            }
        }
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "could not remove workers' folders");
    }
}

/// What a sidecar's environment holds: where tools are, which certificates to trust, how much to log. No secrets.
pub(super) fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "passes what is named here on, and reads nothing"
    )]
    [
        "PATH",
        "LANG",
        "TZ",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "MAINLOOP_LOG",
        "RUST_BACKTRACE",
    ]
    .into_iter()
    .filter_map(|name| Some((name, std::env::var_os(name)?)))
    .collect()
}

/// Removes a folder, also where its inhabitant took its own rights away.
fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir);
            std::fs::remove_dir_all(dir)
        }
        other => other,
    }
}

fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
