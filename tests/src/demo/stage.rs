//! Everything that runs during the demo: the stand-ins, the plane, and the folder that they live in.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::job;
use crate::{
    anthropic::{Anthropic, Credential},
    claude::claude_path,
    github::{self, GitHub},
    world::{
        binaries::{self, binary},
        client::Client,
        plane::{self, Plane},
        processes,
        scene::Scene,
    },
};

/// The first port that the emulated code host tries, so that its links look the same in each run.
const PORT: u16 = 8471;
/// How long the plane may take to end its workers and its PostgreSQL.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Prefix of the demo's folders in the data folder.
const PREFIX: &str = ".demo-";
/// The identity that the plane's token belongs to.
const BOT: &str = "mainloop-bot";

const POLICY: &str = "no_ci_after_seconds = 20\nwatch_seconds = 2\n";

/// Credentials of a real model, from the environment.
const REAL: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
];

/// What runs. Dropping it kills all of it; [`Stage::end`] ends it as a user would.
pub(super) struct Stage {
    pub(super) scene: Arc<Scene>,
    plane: Option<Plane>,
    folder: TempDir,
    _lock: Flock<File>,
}

impl Stage {
    /// Starts everything; `say` is told each step.
    pub(super) async fn start(data: &Path, real: bool, say: impl Fn(&str)) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
        remove_old(data);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(data)
            .context("make the demo's folder")?;
        let lock = lock(folder.path())?;
        // PostgreSQL and the harness run as other users where the demo runs as root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .context("open the demo's folder")?;

        let github = GitHub::start(github::Options {
            port: free_port().await,
            ..github::Options::default()
        })
        .await
        .context("start the emulated code host")?;
        let token = format!("ghp_{}", Uuid::new_v4().simple());
        github.add_token(&token, github::Token::classic(BOT));
        github.seed(job::seed(BOT))?;
        say(&format!(
            "code host (emulated): {}/{}",
            github.base_url(),
            job::REPOSITORY
        ));

        let mut env = vec![("GITHUB_TOKEN".into(), token.into())];
        let model = if real {
            env.extend(real_credentials()?);
            say("model: the real one, with your own credential");
            None
        } else {
            let key = format!("sk-ant-api03-{}", Uuid::new_v4().simple());
            let model =
                Anthropic::start(job::script().accepting(Credential::ApiKey(key.clone()))).await?;
            env.push(("ANTHROPIC_API_KEY".into(), key.into()));
            env.push(("ANTHROPIC_BASE_URL".into(), OsString::from(&model.base_url)));
            say(&format!(
                "model: SCRIPTED, it plays a part written in advance ({}); `MODEL=real` uses your own key",
                model.base_url
            ));
            Some(model)
        };

        let options = options(folder.path(), &github, env)?;
        fs::write(folder.path().join("policy.toml"), POLICY).context("write the policy file")?;
        // It is there before the plane is, so that a start that is given up kills what it began.
        let mut stage = Self {
            scene: Arc::new(Scene {
                client: Client::at(&options.socket())?,
                github,
                model,
                data: options.data.clone(),
                log: options.log.clone(),
            }),
            plane: None,
            folder,
            _lock: lock,
        };
        stage.plane = Some(Plane::start(&options, plane::From::Service).await?);
        say("plane: started, with a private PostgreSQL of its own");
        Ok(stage)
    }

    /// Ends everything and removes the folder. Fails where a process was left.
    pub(super) async fn end(mut self) -> Result<()> {
        let ended = match self.plane.take() {
            Some(plane) => plane.interrupt(END_WITHIN).await,
            None => Ok(()),
        };
        let left = processes::expect_none(self.folder.path()).await;
        ended.and(left)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        processes::kill_all(self.folder.path());
    }
}

fn options(
    folder: &Path,
    github: &GitHub,
    credentials: Vec<(OsString, OsString)>,
) -> Result<plane::Options> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), folder.into()),
        ("MAINLOOP_CLAUDE".into(), claude_path()?.into()),
        ("MAINLOOP_AGENT".into(), binary(binaries::AGENT)?.into()),
    ];
    env.extend(plane::passed_on());
    env.extend(std::env::var_os("MAINLOOP_LOG").map(|value| ("MAINLOOP_LOG".into(), value)));
    env.extend(credentials);
    Ok(plane::Options {
        binary: binary(binaries::PLANE)?,
        data: folder.join("d"),
        log: folder.join("plane.log"),
        env,
        args: vec![
            "--policy".into(),
            folder.join("policy.toml").into(),
            "--github-url".into(),
            github.base_url().into(),
            "--github-api-url".into(),
            github.api_url().into(),
        ],
    })
}

fn real_credentials() -> Result<Vec<(OsString, OsString)>> {
    let found: Vec<(OsString, OsString)> = REAL
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect();
    if found.iter().all(|(name, _)| name == "ANTHROPIC_BASE_URL") {
        bail!(
            "MODEL=real needs a credential: set ANTHROPIC_API_KEY (from https://console.anthropic.com) or \
             CLAUDE_CODE_OAUTH_TOKEN (from `claude setup-token`)"
        );
    }
    Ok(found)
}

/// The usual port where it is free, else any.
async fn free_port() -> u16 {
    match TcpListener::bind(("127.0.0.1", PORT)).await {
        Ok(_) => PORT,
        Err(_) => 0,
    }
}

/// Removes what earlier demos left that were killed: their processes and their folders. One that still runs holds the
/// lock of its folder.
fn remove_old(data: &Path) {
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && lock(&path).is_ok() {
            processes::kill_all(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The lock of a demo's folder; the kernel gives it back when the process ends, however that happens.
fn lock(folder: &Path) -> Result<Flock<File>> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::Error::from(error).context(format!("lock {}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::wait::{PATIENCE, until};

    #[tokio::test]
    async fn start_that_is_given_up_leaves_no_process() -> Result<()> {
        let data = tempfile::tempdir()?;
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755))?;
        let planes = async || {
            let found = processes::of(data.path());
            let there = found
                .iter()
                .any(|process| process.command.contains(binaries::PLANE));
            if there { Ok(()) } else { Err("no plane") }
        };
        tokio::select! {
            started = Stage::start(data.path(), false, |_| ()) => drop(started?),
            begun = until("the plane's process", PATIENCE, planes) => begun?,
        }
        assert_eq!(processes::of(data.path()), []);
        Ok(())
    }
}
