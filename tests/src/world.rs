//! A whole small world for end-to-end tests: emulated code host, scripted model, and the real plane with its private
//! PostgreSQL, which starts real workers with the real Claude Code CLI.
//!
//! A test talks with it: `world.submit(..)`, `task.approve()`, `task.expect_state(..)`. Every wait is on a condition and
//! fails with what was seen. A world that is dropped without [`World::end`], as by a failed test, kills what it
//! started; `end` stops it as a user would and fails where anything is left.

pub mod binaries;
pub mod cli;
pub mod client;
pub mod clock;
pub mod database;
pub mod disk;
pub mod item;
pub mod plane;
pub mod processes;
pub mod scene;
pub mod script;
mod search;
pub mod task;
mod terminal;
pub mod wait;

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mainloop_proto::v1::{CreateTaskRequest, Task as Wire};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

pub use self::{item::Item, plane::Plane, scene::Scene, task::Task};
use crate::{
    anthropic::{self, Anthropic, Credential, Script},
    claude::claude_path,
    github::{self, GitHub, Options as GitHubOptions, Role, Seed},
};

/// Worlds that run at the same time. Each has a PostgreSQL, a plane and a CLI of 200 MB.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(4)));

/// How long a plane may take to end all its workers and its PostgreSQL.
const END_WITHIN: Duration = Duration::from_mins(1);
/// The person who owns the repositories.
pub const PERSON: &str = "ada";
/// The identity that the plane's token belongs to.
pub const BOT: &str = "mainloop-bot";

/// Limits short enough for tests. What a story needs differently it adds.
const POLICY: &str = "\
default_budget_usd = 5.0
no_ci_after_seconds = 3
lost_after_seconds = 3
watch_seconds = 1
[limits]
max_attempts = 5
backoff_millis = 100
backoff_max_seconds = 1
";

/// How a world differs from the usual one.
pub struct Settings {
    script: Script,
    /// Lines for the top of the policy file, above `[limits]`.
    policy: String,
    /// Lines for its `[limits]`.
    limits: String,
    /// The plane acts as a GitHub App whose tokens live so long.
    app: Option<Duration>,
    /// The data folder is a disk of its own, of so many MiB.
    disk_mib: Option<u32>,
    /// What the plane's environment has beside the usual, or in its place.
    env: Vec<(OsString, OsString)>,
}

impl Settings {
    /// The usual world with this model.
    pub fn script(script: Script) -> Self {
        Self {
            script,
            policy: String::new(),
            limits: String::new(),
            app: None,
            disk_mib: None,
            env: Vec::new(),
        }
    }

    /// Adds top-level lines to the policy file; they replace the usual ones of the same names.
    #[must_use]
    pub fn policy(mut self, lines: &str) -> Self {
        self.policy = format!("{lines}\n");
        self
    }

    /// The plane has no token but acts as a GitHub App, whose tokens live so long.
    #[must_use]
    pub fn app(mut self, lifetime: Duration) -> Self {
        self.app = Some(lifetime);
        self
    }

    /// The data folder is a disk of its own, of so many MiB. Only root can make one.
    #[must_use]
    pub fn disk(mut self, mib: u32) -> Self {
        self.disk_mib = Some(mib);
        self
    }

    /// A variable of the plane's environment that names a path.
    #[must_use]
    pub fn env(mut self, name: &str, path: &Path) -> Self {
        self.env.push((name.into(), path.into()));
        self
    }

    /// Adds lines to the `[limits]` of the policy file; they replace the usual ones of the same names.
    #[must_use]
    pub fn limits(mut self, lines: &str) -> Self {
        self.limits = format!("{lines}\n");
        self
    }
}

/// A world. See the module.
pub struct World {
    scene: Arc<Scene>,
    plane: Option<Plane>,
    options: plane::Options,
    secrets: Secrets,
    /// The GitHub App that the plane acts as.
    app: Option<u64>,
    ended: bool,
    /// The data folder, where it is a disk of its own.
    disk: Option<disk::Disk>,
    // Removed after everything that lives in it.
    folder: TempDir,
    _place: OwnedSemaphorePermit,
}

/// Credentials that exist in a world: what must never be found where Claude can read.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The code host's token, or the App's private key.
    pub github: String,
    /// The model's API key.
    pub model: String,
}

impl Secrets {
    /// What to search for: the secrets, the form that git sends, and how attempts' tokens begin.
    pub fn needles(&self) -> Vec<String> {
        let basic = STANDARD.encode(format!("x-access-token:{}", self.github));
        vec![
            self.github.clone(),
            self.model.clone(),
            basic,
            "mla_".to_owned(),
        ]
    }
}

impl World {
    /// The usual world, on a good day.
    pub async fn new() -> Result<Self> {
        Self::with(Settings::script(script::good_day())).await
    }

    /// The usual world with this model.
    pub async fn scripted(script: Script) -> Result<Self> {
        Self::with(Settings::script(script)).await
    }

    /// A world of its own kind.
    pub async fn with(settings: Settings) -> Result<Self> {
        let place = Arc::clone(&PLACES)
            .acquire_owned()
            .await
            .context("wait for a place")?;
        let folder = tempfile::Builder::new()
            .prefix("mainloop-world-")
            .tempdir()
            .context("make the world's folder")?;
        // PostgreSQL and the harness run as other users where the tests run as root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .context("open the world's folder")?;
        let policy = policy(&settings);
        let mut secrets = Secrets {
            github: format!("ghp_{}", Uuid::new_v4().simple()),
            model: format!("sk-ant-api03-{}", Uuid::new_v4().simple()),
        };
        let github = GitHub::start(GitHubOptions::default())
            .await
            .context("start the emulated code host")?;
        let app = if let Some(lifetime) = settings.app {
            let key = github.add_app(BOT, PERSON, lifetime)?;
            secrets.github = key.pem;
            Some(key.id)
        } else {
            github.add_token(&secrets.github, github::Token::classic(BOT));
            None
        };
        let script = settings
            .script
            .accepting(Credential::ApiKey(secrets.model.clone()));
        let model = Anthropic::start(script).await?;
        let mut options = options(folder.path(), &github, &model, &secrets, app)?;
        options.env.extend(settings.env);
        fs::create_dir(&options.data).context("make the data folder")?;
        let disk = match settings.disk_mib {
            Some(mib) => Some(disk::Disk::mount(&options.data, mib)?),
            None => None,
        };
        fs::set_permissions(&options.data, fs::Permissions::from_mode(0o755))
            .context("open the data folder")?;
        fs::write(folder.path().join("policy.toml"), policy).context("write the policy file")?;
        let scene = Arc::new(Scene {
            client: client::Client::at(&options.socket())?,
            github,
            model: Some(model),
            data: options.data.clone(),
            log: options.log.clone(),
        });
        let mut world = Self {
            scene,
            plane: None,
            options,
            secrets,
            app,
            ended: false,
            disk,
            folder,
            _place: place,
        };
        world.start_plane().await?;
        Ok(world)
    }

    /// The emulated code host.
    pub fn github(&self) -> &GitHub {
        &self.scene.github
    }

    /// The scripted model.
    pub fn model(&self) -> &anthropic::Running {
        self.scene
            .model
            .as_ref()
            .expect("a world has a scripted model")
    }

    /// The plane's gRPC clients.
    pub fn client(&self) -> &client::Client {
        &self.scene.client
    }

    /// The credentials of this world.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Where everything of this world is kept.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The plane's data folder.
    pub fn data(&self) -> &Path {
        &self.scene.data
    }

    /// The disk that the data folder is.
    pub fn disk(&self) -> Result<&disk::Disk> {
        self.disk
            .as_ref()
            .context("the data folder is no disk of its own")
    }

    /// The plane's process id while it runs.
    pub fn plane_pid(&self) -> Option<i32> {
        self.plane.as_ref().and_then(Plane::pid)
    }

    /// Makes a repository `ada/<name>` that the plane may write to, and returns its URL.
    pub fn repo(&self, name: &str, files: &[(&str, &str)]) -> Result<String> {
        let full = format!("{PERSON}/{name}");
        let seed = files
            .iter()
            .fold(Seed::new(&full), |seed, (path, text)| seed.file(path, text));
        self.github().seed(seed)?;
        match self.app {
            Some(_) => self.install_app(&full)?,
            None => self.github().add_collaborator(&full, BOT, Role::Write)?,
        }
        Ok(format!("{}/{full}", self.github().base_url()))
    }

    /// A task that may cost so much, confirmed.
    pub async fn submit_within(&self, repository: &str, budget_micros: i64) -> Result<Task> {
        self.create(CreateTaskRequest {
            repository_url: repository.to_owned(),
            description: script::TASK.to_owned(),
            budget_micros,
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await
    }

    /// Installs the App that the plane acts as on `owner/name`.
    pub fn install_app(&self, repo: &str) -> Result<()> {
        let app = self.app.context("this world's plane has a token")?;
        self.github().install_app(app, repo)
    }

    /// Proposes a task.
    pub async fn propose(&self, repository: &str, description: &str) -> Result<Task> {
        self.create(CreateTaskRequest {
            repository_url: repository.to_owned(),
            description: description.to_owned(),
            ..CreateTaskRequest::default()
        })
        .await
    }

    /// Proposes a task and says yes in the same call.
    pub async fn submit(&self, repository: &str, description: &str) -> Result<Task> {
        self.create(CreateTaskRequest {
            repository_url: repository.to_owned(),
            description: description.to_owned(),
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await
    }

    /// The task of most stories on a repository `ada/calc` with these files.
    pub async fn begin(&self, files: &[(&str, &str)]) -> Result<Task> {
        let repo = self.repo("calc", files)?;
        self.submit(&repo, script::TASK).await
    }

    /// The same, with its plan approved.
    pub async fn approved(&self, files: &[(&str, &str)]) -> Result<Task> {
        let task = self.begin(files).await?;
        task.approve().await?;
        Ok(task)
    }

    /// Creates a task as asked.
    pub async fn create(&self, request: CreateTaskRequest) -> Result<Task> {
        let reply = self.client().tasks().create_task(request).await;
        let reply = reply.with_context(|| format!("create a task\n{}", self.scene.report()))?;
        let task = reply.into_inner().task.context("the plane sent no task")?;
        Ok(self.follow(task))
    }

    /// A handle on a task that is there.
    pub fn follow(&self, task: Wire) -> Task {
        Task::follow(Arc::clone(&self.scene), task)
    }

    /// Starts the plane, for the first time or again, as a service would.
    pub async fn start_plane(&mut self) -> Result<()> {
        self.start_plane_from(plane::From::Service).await
    }

    /// Starts the plane as somebody else would.
    pub async fn start_plane_from(&mut self, from: plane::From) -> Result<()> {
        if self.plane.is_some() {
            bail!("the plane runs already");
        }
        self.plane = Some(Plane::start(&self.options, from).await?);
        Ok(())
    }

    /// Starts the plane again, on a clock that a test can set.
    pub async fn take_clock(&mut self) -> Result<clock::Clock> {
        self.terminate_plane().await?;
        let clock = clock::Clock::take(self.data()).await?;
        self.start_plane().await?;
        Ok(clock)
    }

    /// Waits until the plane's log has these words so many times.
    pub async fn expect_logged(&self, words: &str, times: usize) -> Result<()> {
        let what = format!("{words:?} in the plane's log");
        wait::until(&what, wait::PATIENCE, async || {
            let log = fs::read_to_string(&self.options.log).unwrap_or_default();
            if log.matches(words).count() >= times {
                return Ok(());
            }
            Err(plane::tail(&self.options.log, 25))
        })
        .await
    }

    /// Waits until the plane itself has looked at a task's pull request, beginning after this was called.
    pub async fn expect_look(&self, task: &Task) -> Result<()> {
        // Each look begins by saying when the next is due.
        const DUE: &str = "SELECT due_at::text FROM pull_watch WHERE task_id = $1::text::uuid";
        let database = database::connect(self.data()).await?;
        let mut seen = std::collections::BTreeSet::new();
        wait::until(
            "the plane to look at the pull request",
            wait::PATIENCE,
            async || {
                let row = database
                    .query_opt(DUE, &[&task.id])
                    .await
                    .map_err(|error| error.to_string())?;
                seen.extend(row.map(|row| row.get::<_, String>(0)));
                // What it was, the look that begins next, and the one that begins after its end.
                if seen.len() > 2 {
                    return Ok(());
                }
                Err(format!("looks that are due: {seen:?}"))
            },
        )
        .await
    }

    /// Ends the plane with SIGKILL. Workers and PostgreSQL go on.
    pub async fn kill_plane(&mut self) -> Result<()> {
        let plane = self.plane.take().context("the plane does not run")?;
        plane.kill().await
    }

    /// Ends the plane with SIGTERM, as an upgrade does. Workers and PostgreSQL go on.
    pub async fn terminate_plane(&mut self) -> Result<()> {
        let plane = self.plane.take().context("the plane does not run")?;
        plane.terminate(END_WITHIN).await
    }

    /// Ends the plane with SIGINT, as Ctrl-C does. Workers and PostgreSQL end with it.
    pub async fn interrupt_plane(&mut self) -> Result<()> {
        let plane = self.plane.take().context("the plane does not run")?;
        plane.interrupt(END_WITHIN).await
    }

    /// Takes the plane's terminal away. Workers and PostgreSQL end with it.
    pub async fn close_terminal(&mut self) -> Result<()> {
        let plane = self.plane.take().context("the plane does not run")?;
        plane.lose_terminal(END_WITHIN).await
    }

    /// Ends every worker's sidecar with SIGKILL, and returns how many there were.
    pub fn kill_agents(&self) -> Result<usize> {
        self.signal_agents(Signal::SIGKILL)
    }

    /// Sends a signal to every worker's sidecar, and returns how many there were.
    pub fn signal_agents(&self, signal: Signal) -> Result<usize> {
        let mut reached = 0;
        for worker in self.scene.workers() {
            if let Some(pid) = agent_pid(&worker)
                && processes::command(pid).contains("sidecar")
            {
                kill(Pid::from_raw(pid), signal)
                    .with_context(|| format!("send {signal} to the agent {pid}"))?;
                reached += 1;
            }
        }
        Ok(reached)
    }

    /// Folders of the workers that are there now.
    pub fn workers(&self) -> Vec<std::path::PathBuf> {
        self.scene.workers()
    }

    /// The control groups that the workers which are there now may have.
    pub fn control_groups(&self) -> Vec<std::path::PathBuf> {
        let lists = self.scene.workers().into_iter();
        lists
            .filter_map(|worker| fs::read_to_string(worker.join("run/cgroups")).ok())
            .flat_map(|list| {
                list.lines()
                    .map(std::path::PathBuf::from)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Processes of workers: what belongs to a folder below `workers`.
    pub fn worker_processes(&self) -> Vec<processes::Found> {
        let mut found: Vec<_> = self
            .scene
            .workers()
            .iter()
            .flat_map(|worker| processes::of(worker))
            .collect();
        found.sort_by_key(|process| process.pid);
        found.dedup();
        found
    }

    /// Waits until no worker has a process, and none has a folder.
    pub async fn expect_no_worker(&self) -> Result<()> {
        wait::until("all workers to be gone", wait::PATIENCE, async || {
            let left = self.worker_processes();
            let folders = self.scene.workers();
            if left.is_empty() && folders.is_empty() {
                return Ok(());
            }
            let lines: Vec<String> = left.iter().map(ToString::to_string).collect();
            Err(format!(
                "{} folders, and these processes:\n{}\n{}",
                folders.len(),
                lines.join("\n"),
                self.scene.report()
            ))
        })
        .await
    }

    /// Stops everything as a user does, and checks: the plane ended well, no process is left, the code host was used as its
    /// description says and had every fault that was ordered, the model was never asked what its script does not have.
    pub async fn end(mut self) -> Result<()> {
        self.ended = true;
        if let Some(plane) = self.plane.take() {
            let stopped = plane.interrupt(END_WITHIN).await;
            if let Err(error) = stopped {
                processes::kill_all(self.folder.path());
                return Err(error);
            }
        }
        processes::expect_none(self.folder.path()).await?;
        self.model().check()?;
        self.scene.github.assert_contract();
        let unmet = self.scene.github.faults_left();
        if !unmet.is_empty() {
            bail!("faults that were ordered and met no request: {unmet:?}");
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.ended {
            let groups = self.control_groups();
            processes::kill_all(self.folder.path());
            for group in groups {
                // One that is still being emptied stays behind, empty.
                let _ = fs::remove_dir(group);
            }
        }
    }
}

/// The policy file's text.
fn policy(settings: &Settings) -> String {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let own = settings.policy.lines().chain(settings.limits.lines());
    let own: Vec<String> = own.map(name).collect();
    let usual: Vec<&str> = POLICY
        .lines()
        .filter(|line| !own.contains(&name(line)))
        .collect();
    format!(
        "{}{}\n{}",
        settings.policy,
        usual.join("\n"),
        settings.limits
    )
}

/// How the plane is run in this world.
fn options(
    folder: &Path,
    github: &GitHub,
    model: &anthropic::Running,
    secrets: &Secrets,
    app: Option<u64>,
) -> Result<plane::Options> {
    let text = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let mut env = vec![
        (OsString::from("HOME"), folder.as_os_str().to_owned()),
        (OsString::from("MAINLOOP_CLAUDE"), claude_path()?.into()),
        (
            OsString::from("MAINLOOP_AGENT"),
            binaries::binary(binaries::AGENT)?.into(),
        ),
        text(
            "MAINLOOP_LOG",
            "info,mainloop_control_plane=debug,mainloop_worker_agent=debug",
        ),
        text("RUST_BACKTRACE", "1"),
        text("NO_COLOR", "1"),
        text("ANTHROPIC_API_KEY", &secrets.model),
        text("ANTHROPIC_BASE_URL", &model.base_url),
    ];
    match app {
        Some(id) => env.extend([
            text("GITHUB_APP_ID", &id.to_string()),
            text("GITHUB_APP_PRIVATE_KEY", &secrets.github),
        ]),
        None => env.push(text("GITHUB_TOKEN", &secrets.github)),
    }
    env.extend(plane::passed_on());
    let args = [
        "--policy".into(),
        folder.join("policy.toml").into(),
        "--github-url".into(),
        OsString::from(github.base_url()),
        "--github-api-url".into(),
        OsString::from(github.api_url()),
    ];
    Ok(plane::Options {
        binary: binaries::binary(binaries::PLANE)?,
        data: folder.join("data"),
        log: folder.join("plane.log"),
        env,
        args: args.into(),
    })
}

/// The sidecar's process id, as its folder remembers it.
fn agent_pid(worker: &Path) -> Option<i32> {
    let mark = fs::read(worker.join("process.json")).ok()?;
    let mark: serde_json::Value = serde_json::from_slice(&mark).ok()?;
    i32::try_from(mark["pid"].as_i64()?).ok()
}
