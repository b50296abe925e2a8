//! A plane with a private PostgreSQL whose agents the bench plays, and what it takes to run one.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use mainloop_proto::v1::{CancelTaskRequest, CreateTaskRequest};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    commits::Commits,
    model::Upstream,
    open_folder,
    played::{Played, Stage},
};
use crate::{
    github::{self, GitHub},
    world::{
        BOT, PERSON,
        binaries::{self, binary},
        client::Client,
        plane::{self, Plane, tail},
        processes,
        wait::{PATIENCE, until},
    },
};

/// How long the plane may take to end its workers and its PostgreSQL.
const END_WITHIN: Duration = Duration::from_mins(1);

/// What runs. Dropping it kills all of it.
pub(super) struct Ground {
    /// The plane's client.
    pub(super) client: Client,
    /// The processes that the plane starts as agents.
    pub(super) stage: Stage,
    /// The real agent.
    pub(super) agent: PathBuf,
    /// The model host that the plane names to its workers.
    pub(super) upstream: Upstream,
    /// The plane's data folder.
    pub(super) data: PathBuf,
    plane: Option<Plane>,
    github: GitHub,
    log: PathBuf,
    // Removed after everything that lives in it.
    folder: TempDir,
}

impl Ground {
    /// Starts a plane whose agents the bench plays; `agent` is the real one.
    pub(super) async fn start(agent: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("mainloop-bench-")
            .tempdir()
            .context("make the bench's folder")?;
        open_folder(folder.path())?;
        let data = open_folder(&folder.path().join("data"))?;
        let github = GitHub::start(github::Options::default())
            .await
            .context("start the emulated code host")?;
        let token = format!("ghp_{}", Uuid::new_v4().simple());
        github.add_token(&token, github::Token::classic(BOT));
        let upstream = Upstream::start().await?;
        let stage = Stage::new(folder.path())?;
        let options = plane::Options {
            binary: binary(binaries::PLANE)?,
            log: folder.path().join("plane.log"),
            env: environment(folder.path(), &token, &upstream)?,
            args: vec![
                // Nothing that is played here runs in one, and there is nothing to try.
                "--no-sandbox".into(),
                "--github-url".into(),
                github.base_url().into(),
                "--github-api-url".into(),
                github.api_url().into(),
            ],
            data: data.clone(),
        };
        let client = Client::at(&options.socket())?;
        let log = options.log.clone();
        let mut ground = Self {
            client,
            stage,
            agent: agent.to_owned(),
            upstream,
            data,
            plane: None,
            github,
            log,
            folder,
        };
        ground.plane = Some(Plane::start(&options, plane::From::Service).await?);
        Ok(ground)
    }

    /// The plane's process.
    pub(super) fn plane_pid(&self) -> Option<i32> {
        self.plane.as_ref().and_then(Plane::pid)
    }

    /// The socket that agents dial.
    pub(super) fn socket(&self) -> PathBuf {
        self.data.join("mainloop.sock")
    }

    /// A folder that everybody may enter.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        open_folder(&self.folder.path().join(name))
    }

    /// A connection that measures commits.
    pub(super) async fn commits(&self) -> Result<Commits> {
        Commits::on(&self.data).await
    }

    /// Creates a task that starts at once, and returns its id.
    pub(super) async fn create(&self) -> Result<String> {
        let request = CreateTaskRequest {
            repository_url: format!("{}/{PERSON}/bench", self.github.base_url()),
            description: "Measure.".to_owned(),
            confirm: true,
            ..CreateTaskRequest::default()
        };
        let reply = self.client.tasks().create_task(request).await;
        let reply = reply.with_context(|| format!("create a task; the log:\n{}", self.report()))?;
        let task = reply.into_inner().task.context("the plane sent no task")?;
        Ok(task.id)
    }

    /// A task with the process that the plane started for it.
    pub(super) async fn worker(&self) -> Result<(String, Played)> {
        let task = self.create().await?;
        let played = self.stage.next().await.with_context(|| self.report())?;
        Ok((task, played))
    }

    /// Ends a task, and waits until its worker is gone.
    pub(super) async fn cancel(&self, task: &str) -> Result<()> {
        let request = CancelTaskRequest {
            task_id: task.to_owned(),
            reason: "it was measured".to_owned(),
        };
        self.client
            .tasks()
            .cancel_task(request)
            .await
            .context("cancel a task")?;
        until("all workers to be gone", PATIENCE, async || {
            let left = fs::read_dir(self.data.join("workers"))
                .into_iter()
                .flatten()
                .count();
            if left == 0 {
                return Ok(());
            }
            Err(format!(
                "{left} workers' folders; the log:\n{}",
                self.report()
            ))
        })
        .await
    }

    /// The end of the plane's log.
    pub(super) fn report(&self) -> String {
        tail(&self.log, 30)
    }

    /// Ends everything as a user would. Fails where a process was left.
    pub(super) async fn end(mut self) -> Result<()> {
        if let Some(plane) = self.plane.take() {
            plane.interrupt(END_WITHIN).await?;
        }
        processes::expect_none(self.folder.path()).await
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        processes::kill_all(self.folder.path());
    }
}

fn environment(
    folder: &Path,
    token: &str,
    upstream: &Upstream,
) -> Result<Vec<(OsString, OsString)>> {
    let own = std::env::current_exe().context("find the running program")?;
    let mut env: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), folder.into()),
        // Played agents run no Claude, but the plane wants to know where it is.
        ("MAINLOOP_CLAUDE".into(), own.clone().into()),
        ("MAINLOOP_AGENT".into(), own.into()),
        ("GITHUB_TOKEN".into(), token.into()),
        ("ANTHROPIC_API_KEY".into(), "sk-ant-api03-bench".into()),
        ("ANTHROPIC_BASE_URL".into(), upstream.url().into()),
    ];
    env.extend(plane::passed_on());
    Ok(env)
}
