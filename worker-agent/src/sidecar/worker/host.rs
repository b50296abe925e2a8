//! What a worker has on its host: the sandbox with the harness, and the proxies that are its only way out.

use std::{iter, path::PathBuf, time::Duration};

use futures_util::FutureExt;
use ipnet::IpNet;
use mainloop_github::{Client, Repo};
use mainloop_proto::v1::{Credentials, ModelCredentialKind, Task, WorkerPolicy, WorkflowFiles};
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::disk::Disk;
use crate::{
    channel::{Harness, Notice},
    probe,
    sidecar::{
        config::Config,
        proxy::{self, Credential, Events, Proxy, PushGate, forward, git, model},
        sandbox::{Ids, Isolation, Running, Sandbox, StartError, Strain, find_bubblewrap},
    },
};

/// How long a harness may take to end what is left of a step.
const END_STEP: Duration = Duration::from_secs(10);
/// How much of a wrong URL is shown.
const MAX_CREDENTIAL_URL: usize = 2048;

/// Why a worker's parts could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL that the plane sent is none.
    #[error("the plane sent {what} that is no URL: {url}")]
    Url {
        /// Which.
        what: &'static str,
        /// What it sent.
        url: String,
    },
    /// A host or network of policy is none.
    #[error("policy has {0:?}, which is no host or network")]
    Policy(String),
    /// No bubblewrap.
    #[error(
        "bubblewrap is not installed; install it (apt-get install bubblewrap), or start the plane with --no-sandbox"
    )]
    NoBubblewrap,
    /// The agent does not know its own binary.
    #[error("could not find the agent's own binary")]
    Agent(#[source] std::io::Error),
    /// The sandbox's folders.
    #[error("could not make the sandbox's folders")]
    Sandbox(#[source] crate::sidecar::sandbox::HostError),
    /// A mount or variable of the user's configuration.
    #[error("policy's toolchains cannot be used")]
    Toolchains(#[source] crate::sidecar::sandbox::MountError),
    /// The proxies.
    #[error("could not start the proxies")]
    Proxy(#[from] proxy::Error),
    /// The GitHub client.
    #[error("could not make a GitHub client")]
    Github(#[from] mainloop_github::Error),
}

/// The parts, made at the start; the harness is started by the first step that needs it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) gate: PushGate,
    pub(super) proxy_events: Events,
    /// What the harness says unasked.
    pub(super) notices: Option<mpsc::Receiver<Notice>>,
    pub(super) disk: Disk,
    /// The worker's own folder.
    dir: PathBuf,
    sandbox: Sandbox,
    proxy: Proxy,
    started: Option<Started>,
    /// Follows the link's leave to write while pushes are allowed.
    gatekeeper: Option<AbortOnDropHandle<()>>,
    /// Gives the proxies each later credential.
    _renewing: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Started {
    harness: Harness,
    running: Running,
    /// What the kernel had done to it when that was told last.
    told: Strain,
    /// How many of its processes had been killed for want of memory when the step began.
    killed_before: u64,
}

fn url(what: &'static str, text: &str) -> Result<Url, Error> {
    let failed = || Error::Url {
        what,
        url: text.chars().take(MAX_CREDENTIAL_URL).collect(),
    };
    text.parse().map_err(|_| failed())
}

/// A client for the task's repository.
pub(super) fn github(credentials: &Credentials, task: &Task) -> Result<Client, Error> {
    let repository = task.repository.clone().unwrap_or_default();
    let repo = Repo {
        owner: repository.owner,
        name: repository.name,
    };
    let token = SecretString::from(credentials.github_token.clone());
    let api = url("the GitHub API", &credentials.github_api_url)?;
    let client = Client::new(&api, repo, &token)?;
    Ok(if credentials.github_login.is_empty() {
        client
    } else {
        client.known_as(&credentials.github_login)
    })
}

impl Host {
    pub(super) async fn new(
        config: Config,
        renewals: watch::Receiver<Credentials>,
        github: Client,
        policy: &WorkerPolicy,
        task: &Task,
        branch: &str,
        spent_micros: u64,
    ) -> Result<Self, Error> {
        let credentials = &renewals.borrow().clone();
        let sandbox = sandbox(&config)?;
        let dir = config.dir;
        let disk = Disk::watch(dir.clone(), sandbox.work.clone(), sandbox.limits.clone());
        sandbox.prepare().map_err(Error::Sandbox)?;
        let screening = git::Screening {
            options: git::screen::Options {
                github: github.clone(),
                workflow_files: workflow_files(policy),
            },
            dir: dir.clone(),
        };
        let options = proxy::Options {
            socket: sandbox.proxy_socket(),
            socket_mode: if sandbox.ids.is_some() { 0o666 } else { 0o600 },
            model: model_options(credentials, policy, task, spent_micros)?,
            git: git_options(credentials, task, branch, screening)?,
            forward: forward_options(credentials, policy)?,
            timeouts: proxy::Timeouts::default(),
        };
        let (proxy, proxy_events) = Proxy::start(options).await?;
        let renewing = tokio::spawn(renew(proxy.keys(), github, renewals));
        Ok(Self {
            gate: proxy.gate(),
            proxy_events,
            notices: None,
            disk,
            dir,
            sandbox,
            proxy,
            started: None,
            gatekeeper: None,
            _renewing: AbortOnDropHandle::new(renewing),
        })
    }

    /// The harness, started if it is not.
    pub(super) async fn harness(&mut self) -> Result<Harness, StartError> {
        if let Some(started) = &self.started {
            return Ok(started.harness.clone());
        }
        let worker = self.sandbox.start().await?;
        let harness = worker.harness.clone();
        self.notices = Some(worker.notices);
        self.started = Some(Started {
            harness: worker.harness,
            running: worker.running,
            told: Strain::default(),
            killed_before: 0,
        });
        Ok(harness)
    }

    /// What holds the harness, where there is one.
    pub(super) fn held(&self) -> Option<String> {
        Some(self.started.as_ref()?.running.held().to_string())
    }

    /// A step begins: what happened to the harness before is not its doing.
    pub(super) fn begin_step(&mut self) {
        if let Some(started) = &mut self.started {
            started.killed_before = started.running.strain().killed;
        }
    }

    /// What the kernel did to the harness at its limits since this was asked last, in words.
    pub(super) fn strained(&mut self) -> Option<String> {
        let started = self.started.as_mut()?;
        let now = started.running.strain();
        let before = std::mem::replace(&mut started.told, now);
        now.since(before, started.running.held())
    }

    /// Why memory was short in this step, where processes were killed for that.
    pub(super) fn short_of_memory(&self) -> Option<String> {
        let started = self.started.as_ref()?;
        let before = Strain {
            killed: started.killed_before,
            ..started.told
        };
        let now = started.running.strain();
        Strain {
            not_started: 0,
            ..now
        }
        .since(before, started.running.held())
    }

    /// The harness was started and has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.started
            .as_ref()
            .is_some_and(|started| started.harness.closed().now_or_never().is_some())
    }

    /// Why a sandbox does not start here and how to mend it, as the probe says; empty when it finds nothing, or where
    /// there is no sandbox.
    pub(super) async fn diagnose(&self) -> String {
        use std::fmt::Write;

        if self.sandbox.isolation == Isolation::None {
            return String::new();
        }
        let outcome = probe::run(&probe::Options {
            agent: self.sandbox.agent.clone(),
            claude: self.sandbox.claude.clone(),
            bubblewrap: None,
            // Not in `run`: it is closed to the ids that the probe has.
            data: self.dir.clone(),
            toolchains: self.sandbox.toolchains.clone(),
            limits: self.sandbox.limits.clone(),
        })
        .await;
        let mut text = String::new();
        for check in outcome.checks.iter().filter(|check| !check.ok) {
            write!(text, "; {}: {} ({})", check.name, check.detail, check.fix)
                .expect("a String takes any text");
        }
        text
    }

    /// What looks at pushes.
    pub(super) fn screen(&self) -> Option<proxy::Screen> {
        self.proxy.screen()
    }

    /// What the code host answered git last, where that was a no.
    pub(super) fn denied(&self) -> Option<proxy::Denied> {
        self.proxy.denied().get()
    }

    /// What the task has cost so far, in millionths of a US dollar.
    pub(super) fn spent_micros(&self) -> u64 {
        self.proxy.meter().spent_micros()
    }

    /// How the model proxy saw the last request of this turn turned away, if it was.
    pub(super) fn turned_away(&self) -> Option<proxy::TurnedAway> {
        self.proxy.turned_away()
    }

    /// A turn begins.
    pub(super) fn begin_turn(&self) {
        self.proxy.forget_turned_away();
    }

    /// Lets the model cost so much more than the budget says.
    pub(super) fn allow_micros(&self, micros: u64) {
        self.proxy.meter().allow(micros);
    }

    /// The Claude Code CLI as the harness sees it.
    pub(super) fn claude_program(&self) -> Option<String> {
        self.sandbox.claude_program()
    }

    /// Ends every process of the sandbox but the harness. A harness that does not answer is ended itself.
    pub(super) async fn end_step(&mut self) -> Option<usize> {
        let started = self.started.as_ref()?;
        let ended = tokio::time::timeout(END_STEP, started.harness.end_step()).await;
        if let Ok(Ok(killed)) = ended {
            return Some(killed);
        }
        if let Some(started) = self.started.take()
            && let Err(error) = started.running.kill().await
        {
            tracing::warn!(%error, "could not end a harness that does not answer");
        }
        None
    }

    /// Opens the gate whenever the link gives leave, until it is closed.
    pub(super) fn allow_pushes(&mut self, mut may_write: watch::Receiver<bool>) {
        let gate = self.gate.clone();
        let keeper = tokio::spawn(async move {
            loop {
                if *may_write.borrow_and_update() {
                    gate.open();
                } else {
                    gate.suspend();
                }
                if may_write.changed().await.is_err() {
                    gate.close();
                    return;
                }
            }
        });
        self.gatekeeper = Some(AbortOnDropHandle::new(keeper));
    }

    /// Closes the gate for good, until it is allowed again.
    pub(super) fn refuse_pushes(&mut self) {
        self.gatekeeper = None;
        self.gate.close();
    }

    /// Ends the harness, everything in its sandbox, and the proxies; gives what these saw and nobody
    /// read.
    pub(super) async fn end(mut self) -> Vec<proxy::Event> {
        self.refuse_pushes();
        if let Some(started) = self.started
            && let Err(error) = started.running.end(&started.harness).await
        {
            tracing::warn!(%error, "could not end the harness");
        }
        self.proxy.shutdown().await;
        iter::from_fn(|| self.proxy_events.try_recv()).collect()
    }
}

/// What no worker may see through a mount: the plane's folder, and people's homes.
fn hidden(config: &Config) -> Vec<PathBuf> {
    let own_home = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map(|user| user.dir);
    // <data folder>/workers/<attempt>
    let data = config.dir.ancestors().nth(2).map(PathBuf::from);
    [PathBuf::from("/home"), PathBuf::from("/root")]
        .into_iter()
        .chain(own_home)
        .chain(data)
        .filter(|path| path.parent().is_some())
        .collect()
}

fn sandbox(config: &Config) -> Result<Sandbox, Error> {
    config
        .toolchains
        .validate(&hidden(config))
        .map_err(Error::Toolchains)?;
    let isolation = if config.sandbox {
        Isolation::Bubblewrap {
            program: find_bubblewrap(None).ok_or(Error::NoBubblewrap)?,
            tmp_bytes: config.limits.tmp(),
        }
    } else {
        Isolation::None
    };
    let agent: PathBuf = std::env::current_exe().map_err(Error::Agent)?;
    let ids = config.uid.map(|_| Ids::for_worker(&config.attempt_id));
    Ok(Sandbox {
        isolation,
        agent,
        claude: Some(config.claude.clone()),
        work: config.dir.join("work"),
        run: config.dir.join("run"),
        toolchains: config.toolchains.clone(),
        ids,
        name: config.attempt_id.clone(),
        limits: config.limits.clone(),
    })
}

fn model_options(
    credentials: &Credentials,
    policy: &WorkerPolicy,
    task: &Task,
    spent_micros: u64,
) -> Result<model::Options, Error> {
    let price = |price: i64| u64::try_from(price).unwrap_or(0);
    Ok(model::Options {
        upstream: url("the model's host", &credentials.model_url)?,
        credential: model_credential(credentials),
        models: policy.models.clone(),
        prices: policy
            .prices
            .iter()
            .map(|entry| model::Price {
                model_prefix: entry.prefix.clone(),
                input: price(entry.input),
                output: price(entry.output),
                cache_read: price(entry.cache_read),
                cache_write_5m: price(entry.cache_write_5m),
                cache_write_1h: price(entry.cache_write_1h),
            })
            .collect(),
        budget_micros: u64::try_from(task.budget_micros).unwrap_or(0),
        spent_micros,
    })
}

fn git_options(
    credentials: &Credentials,
    task: &Task,
    branch: &str,
    screening: git::Screening,
) -> Result<git::Options, Error> {
    let repository = task.repository.clone().unwrap_or_default();
    Ok(git::Options {
        upstream: url("the code host", &credentials.git_url)?,
        owner: repository.owner,
        repository: repository.name,
        branch: branch.to_owned(),
        token: git_token(credentials),
        screen: Some(screening),
    })
}

/// What policy does about pushes that change CI definitions; a person is asked where it says nothing.
fn workflow_files(policy: &WorkerPolicy) -> git::WorkflowFiles {
    match policy.workflow_files() {
        WorkflowFiles::Unspecified | WorkflowFiles::Ask => git::WorkflowFiles::Ask,
        WorkflowFiles::Allow => git::WorkflowFiles::Allow,
        WorkflowFiles::Refuse => git::WorkflowFiles::Refuse,
    }
}

fn git_token(credentials: &Credentials) -> Option<SecretString> {
    (!credentials.github_token.is_empty())
        .then(|| SecretString::from(credentials.github_token.clone()))
}

fn model_credential(credentials: &Credentials) -> Option<Credential> {
    let secret = SecretString::from(credentials.model_secret.clone());
    match credentials.model_kind() {
        ModelCredentialKind::Unspecified => None,
        ModelCredentialKind::ApiKey => Some(Credential::ApiKey(secret)),
        ModelCredentialKind::OauthToken => Some(Credential::OAuth(secret)),
        ModelCredentialKind::Gateway => Some(Credential::Gateway(secret)),
    }
}

/// Gives the proxies and the GitHub client each credential that comes after the first. Their hosts stay.
async fn renew(keys: proxy::Keys, github: Client, mut renewals: watch::Receiver<Credentials>) {
    while renewals.changed().await.is_ok() {
        let credentials = renewals.borrow_and_update().clone();
        keys.set_model(model_credential(&credentials));
        if let Some(token) = git_token(&credentials) {
            if let Err(error) = github.renew(&token) {
                let error = crate::sidecar::chain(&error);
                tracing::warn!(error, "the code host's new token cannot be used");
            }
            keys.set_git(Some(token));
        }
    }
}

fn forward_options(
    credentials: &Credentials,
    policy: &WorkerPolicy,
) -> Result<forward::Options, Error> {
    let allow = policy
        .hosts
        .iter()
        .map(|host| host.parse().map_err(|_| Error::Policy(host.clone())))
        .collect::<Result<_, _>>()?;
    let allow_addresses = policy
        .allow_networks
        .iter()
        .map(|network| {
            network
                .parse::<IpNet>()
                .map_err(|_| Error::Policy(network.clone()))
        })
        .collect::<Result<_, _>>()?;
    let api = url("the GitHub API", &credentials.github_api_url)?;
    Ok(forward::Options {
        allow,
        allow_addresses,
        never: api.host_str().map(str::to_owned).into_iter().collect(),
    })
}
