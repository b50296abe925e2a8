//! The real agent: from its start to the answer to its hello, and what its trusted half then holds in memory.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::{
    figure::{Round, Row, median, milliseconds},
    ground::Ground,
    memory::{self, Memory},
    played::Given,
    relay::Relay,
};

/// Starts in a round, each for a new task.
const STARTS: usize = 4;
/// Commits on the way: the stream, and that the attempt is live.
const COMMITS: f64 = 2.0;
/// How long an agent may take to end when it is told to.
const END: Duration = Duration::from_secs(20);

/// Starts agents one after another, with the limit's parts in between.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    let mut commits = ground.commits().await?;
    let mut relay = Relay::start(&ground.folder("hello")?, &ground.socket()).await?;
    let mut seen = Vec::new();
    let mut rest = Vec::new();
    for round in 0..=rounds {
        let (mut ours, mut limit) = (Vec::new(), Vec::new());
        for start in 0..STARTS {
            let (task, played) = ground.worker().await?;
            let bare = nothing(&ground.agent).await?;
            let commit = commits.once().await?;
            let began = Instant::now();
            let agent = Agent::start(&ground.agent, &played.given, &relay.socket).await?;
            let welcomed = relay.welcomed().await.with_context(|| ground.report())?;
            ours.push(milliseconds(welcomed.duration_since(began)));
            limit.push(milliseconds(bare) + COMMITS * milliseconds(commit));
            if round > 0 && start == 0 {
                rest.push(Memory::at_rest(agent.pid()?).await?);
            }
            ground.cancel(&task).await?;
            agent.end().await?;
        }
        // The first one fills caches.
        if round > 0 {
            seen.push(Round {
                ours: median(&ours),
                limit: Some(median(&limit)),
            });
        }
    }
    let mut rows = vec![
        Row::beside(
            "agent's start to hello acknowledged",
            "limit: the same program printing its version, and 2 commits; the target is for the whole",
            seen,
        )
        .at_most(100.0),
    ];
    rows.extend(memory::rows("idle sidecar, connected", &rest, 10.0));
    Ok(rows)
}

/// Starts the program so that it only says its version: what any start of it takes.
async fn nothing(agent: &Path) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new(agent)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await
        .with_context(|| format!("start {}", agent.display()))?;
    if !status.success() {
        bail!("{} --version ended with {status}", agent.display());
    }
    Ok(began.elapsed())
}

/// A real sidecar in the place of one that the launcher started.
pub(super) struct Agent {
    child: Child,
}

impl Agent {
    /// Starts it with what the launcher gave, but for the plane's socket.
    pub(super) async fn start(agent: &Path, given: &Given, socket: &Path) -> Result<Self> {
        let text = std::fs::read(&given.config).context("read the launcher's file")?;
        let mut config: serde_json::Value =
            serde_json::from_slice(&text).context("understand the launcher's file")?;
        config["link_socket"] = socket.to_string_lossy().into_owned().into();
        let file = given.config.with_file_name("bench.json");
        std::fs::write(&file, config.to_string()).context("write the agent's file")?;
        let log = std::fs::File::create(given.config.with_file_name("bench.log"))
            .context("make the agent's log")?;
        let mut child = Command::new(agent)
            .arg("sidecar")
            .arg(&file)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", agent.display()))?;
        let mut pipe = child.stdin.take().context("the agent has no pipe")?;
        pipe.write_all(given.token.as_bytes())
            .await
            .context("hand the token over")?;
        Ok(Self { child })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Result<i32> {
        let pid = self.child.id().context("the agent ended")?;
        i32::try_from(pid).context("a process id is small")
    }

    /// Waits until it has ended, which the plane told it to.
    pub(super) async fn end(mut self) -> Result<()> {
        let ended = tokio::time::timeout(END, self.child.wait()).await;
        ended
            .with_context(|| format!("the agent did not end within {END:?} of its task"))?
            .context("wait for the agent")?;
        Ok(())
    }
}
