//! Pull requests of tasks: merged completes a task, closed cancels it, whether a worker is at work or not. What else
//! people change there is told.
//!
//! Polls by conditional requests, which cost nothing of the rate limit while nothing changes. A pull request that
//! cannot be read is asked for again later, ever more slowly; the task stays as it is.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use mainloop_core::{Credential, Event, Failure, Reason};
use mainloop_github::{Class, Client, Conditional, PullRef, PullState, Quota, Repo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    code_host::{Lent, Tokens},
    db::{
        self, Occurrence, Store,
        pulls::{Change, Watched},
    },
    errors,
};

/// How often the table is looked at; each pull request has its own pace.
const TICK: Duration = Duration::from_secs(1);

/// What the watch needs to ask the code host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base of the REST API.
    pub api: Url,
    /// Tokens that read pull requests.
    pub tokens: Tokens,
    /// Pause between two looks at the same pull request.
    pub interval: Duration,
}

/// The loop.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    options: Options,
    /// One client a repository, with its token: making one parses certificates.
    clients: HashMap<String, (Client, Lent)>,
    /// What is left of each rate limit.
    quotas: HashMap<String, Quota>,
}

impl Watch {
    /// A watch that has looked at nothing yet.
    pub fn new(store: Store, options: Options) -> Self {
        Self {
            store,
            options,
            clients: HashMap::new(),
            quotas: HashMap::new(),
        }
    }

    /// Looks at what is due until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            match self.store.due_pulls(self.options.interval).await {
                Ok(due) => {
                    for watched in due {
                        self.look(watched).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = errors::chain(&error),
                        "could not read watched pull requests"
                    );
                }
            }
        }
    }

    async fn look(&mut self, watched: Watched) {
        let result = match self.client(&watched).await {
            Ok(client) => {
                let etag = (!watched.etag.is_empty()).then_some(watched.etag.as_str());
                client.pull_if_changed(watched.number.into(), etag).await
            }
            Err(error) => Err(error),
        };
        let stored = match result {
            Ok(Conditional::NotModified) => {
                self.store
                    .pull_seen(watched.task, &watched.etag, None, &[])
                    .await
            }
            Ok(Conditional::Changed { pull, etag }) => {
                let event = match pull.state {
                    PullState::Merged { .. } => Some(Event::PullMerged),
                    PullState::Closed => Some(Event::PullClosed),
                    PullState::Open => None,
                };
                let (task, now) = (watched.task, Seen::of(&pull));
                let changes = match (&event, Seen::read(watched.seen.clone())) {
                    (None, Some(before)) => now.changes_since(&before, &pull),
                    _ => Vec::new(),
                };
                self.seen(task, event, etag.as_deref(), &now, &changes)
                    .await
            }
            Err(error) if matches!(error.class(), Class::RateLimited { .. }) => {
                self.limited(&watched, &error).await
            }
            Err(error) => {
                if error.class() == Class::Unauthorized {
                    // Revoked from outside, it may be: the next look gets another one.
                    self.clients.remove(&key(&watched));
                }
                tracing::warn!(task.id = %watched.task, error = errors::chain(&error), "could not look at a pull request");
                self.store.pull_failed(watched.task).await
            }
        };
        let pause = self.quota(&repo(&watched)).pause(1);
        let stored = match stored {
            Ok(()) if pause > self.options.interval => {
                self.store.pull_later(watched.task, pause).await
            }
            stored => stored,
        };
        if let Err(error) = stored {
            tracing::warn!(task.id = %watched.task, error = errors::chain(&error), "could not store a look at a pull request");
        }
    }

    async fn seen(
        &self,
        task: Uuid,
        event: Option<Event>,
        etag: Option<&str>,
        now: &Seen,
        changes: &[Change],
    ) -> Result<(), db::Error> {
        if let Some(event) = event {
            self.store
                .apply(task, &Occurrence::new(event, "github"))
                .await?;
        }
        let now = serde_json::to_value(now).ok();
        self.store
            .pull_seen(task, etag.unwrap_or_default(), now.as_ref(), changes)
            .await
    }

    /// A limit that the watch meets is everybody's: no worker is started into it.
    async fn limited(
        &self,
        watched: &Watched,
        error: &mainloop_github::Error,
    ) -> Result<(), db::Error> {
        let Class::RateLimited { until: Some(until) } = error.class() else {
            return self.store.pull_failed(watched.task).await;
        };
        let failure = Failure {
            reason: Reason::GithubLimit,
            message: errors::chain(error),
        };
        self.store
            .hold_until(Credential::CodeHost, watched.task, &failure, until)
            .await?;
        tracing::warn!(%until, error = failure.message, "the code host limits the token");
        let wait = until.duration_since(Timestamp::now());
        let wait = Duration::try_from(wait).unwrap_or_default();
        self.store
            .pull_later(watched.task, wait.max(self.options.interval))
            .await
    }

    fn quota(&mut self, repo: &Repo) -> Quota {
        let name = self.options.tokens.limit_of(repo);
        self.quotas.entry(name).or_default().clone()
    }

    async fn client(&mut self, watched: &Watched) -> Result<Client, mainloop_github::Error> {
        let key = key(watched);
        if let Some((client, lent)) = self.clients.get(&key)
            && !lent.is_due()
        {
            return Ok(client.clone());
        }
        let repo = repo(watched);
        let lent = self.options.tokens.for_watch(&repo).await?;
        let options = mainloop_github::Options {
            quota: self.quota(&repo),
            ..mainloop_github::Options::default()
        };
        let client = Client::with(&self.options.api, repo, &lent.secret, options)?;
        self.clients.insert(key, (client.clone(), lent));
        Ok(client)
    }
}

/// What people may change of a pull request that stays open.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    draft: bool,
    base: String,
    /// A digest of title and body: what they say is the code host's.
    text: String,
}

impl Seen {
    fn of(pull: &PullRef) -> Self {
        let text = format!("{}\n{}", pull.title, pull.body);
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        Self {
            draft: pull.draft,
            base: pull.base.clone(),
            text: STANDARD.encode(digest.as_ref()),
        }
    }

    fn read(stored: Option<Value>) -> Option<Self> {
        stored.and_then(|seen| serde_json::from_value(seen).ok())
    }

    fn changes_since(&self, before: &Self, pull: &PullRef) -> Vec<Change> {
        let number = pull.number;
        let mut changes = Vec::new();
        let mut tell = |kind, text| changes.push(Change { kind, text });
        if self.draft && !before.draft {
            tell(
                "pull_request_draft",
                format!("pull request #{number} was made a draft again"),
            );
        }
        if self.base != before.base {
            tell(
                "pull_request_retargeted",
                format!(
                    "pull request #{number} goes into {} now, not {}",
                    self.base, before.base
                ),
            );
        }
        if self.text != before.text {
            tell(
                "pull_request_edited",
                format!("title or body of pull request #{number} was edited, and stays so"),
            );
        }
        changes
    }
}

fn repo(watched: &Watched) -> Repo {
    Repo {
        owner: watched.owner.clone(),
        name: watched.name.clone(),
    }
}

fn key(watched: &Watched) -> String {
    format!("{}/{}", watched.owner, watched.name)
}
