//! Pull requests of tasks: merged completes a task, closed cancels it, whether a worker is at work or not. What else
//! people change there is told. One that is ready for review is taken up again when it conflicts with its base, when people
//! with write access say something, and when a check of its head turns red.
//!
//! Some are looked at at a time, one of each repository: one that does not answer delays its own only.
//! Polls by conditional requests, which cost nothing of the rate limit while nothing changes. A pull request that
//! cannot be read is asked for again later, ever more slowly; the task stays as it is.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use mainloop_core::{Credential, Event, Failure, Reason, bounded};
use mainloop_github::{
    Class, Client, Conditional, FailedCheck, PullRef, PullState, Quota, Repo, ReviewThread,
    Verdict, verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    code_host::{Lent, Tokens},
    db::{
        self, Occurrence, Store,
        pulls::{Change, Tags, Watched},
        reviews::Thread,
    },
    errors,
    rpc::access::Health,
};

/// How often the table is looked at; each pull request has its own pace.
const TICK: Duration = Duration::from_secs(1);
/// Looks at the same time: few enough that a code host is not stormed.
const LOOKS: usize = 8;
/// How long a look may take: many times what a large review takes.
const LOOK: Duration = Duration::from_mins(2);

/// What the watch needs to ask the code host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base of the REST API.
    pub api: Url,
    /// Tokens that read pull requests.
    pub tokens: Tokens,
    /// Pause between two looks at the same pull request.
    pub interval: Duration,
    /// Where it is said that the code host refuses the token.
    pub health: Health,
}

/// The part of the plane's health that the watch speaks of.
const PART: &str = "pull requests";

/// The loop.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    options: Options,
    /// One client a repository, with its token: making one parses certificates.
    clients: Mutex<HashMap<String, (Client, Lent)>>,
    /// What is left of each rate limit.
    quotas: Mutex<HashMap<String, Quota>>,
}

impl Watch {
    /// A watch that has looked at nothing yet.
    pub fn new(store: Store, options: Options) -> Self {
        Self {
            store,
            options,
            clients: Mutex::default(),
            quotas: Mutex::default(),
        }
    }

    /// Looks at what is due until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = FuturesUnordered::new();
        let mut busy = Vec::new();
        loop {
            tokio::select! {
                // What was seen is noted last: a look that a stop cuts short is done again.
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                Some(done) = looks.next() => busy.retain(|repository| *repository != done),
            }
            let free = LOOKS - looks.len();
            if free == 0 {
                continue;
            }
            let due = self
                .store
                .due_pulls(self.options.interval, &busy, free)
                .await;
            match due {
                Ok(due) => {
                    for watched in due {
                        busy.push(key(&watched));
                        looks.push(Box::pin(self.look(watched)));
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

    /// Looks at one, and says of which repository it is.
    async fn look(&self, watched: Watched) -> String {
        let look = async {
            let client = self.client(&watched).await?;
            self.look_with(&client, &watched).await
        };
        let result = timeout(LOOK, look).await;
        let stored = match result.unwrap_or(Err(Trouble::Slow)) {
            Ok(()) => self.can_be_read(&watched).await,
            Err(Trouble::Slow) => {
                tracing::warn!(task.id = %watched.task, seconds = LOOK.as_secs(), "a look at a pull request took too long");
                self.store.pull_failed(watched.task).await
            }
            Err(Trouble::Store(error)) => Err(error),
            Err(Trouble::Host(error)) if matches!(error.class(), Class::RateLimited { .. }) => {
                self.limited(&watched, &error).await
            }
            Err(Trouble::Host(error)) => {
                tracing::warn!(task.id = %watched.task, error = errors::chain(&error), "could not look at a pull request");
                self.cannot_be_read(&watched, &error).await
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
        key(&watched)
    }

    /// What was seen is noted last: a look that ends half-way is done again.
    async fn look_with(&self, client: &Client, watched: &Watched) -> Result<(), Trouble> {
        let mut tags = watched.tags.clone();
        let etag = (!tags.pull.is_empty()).then_some(tags.pull.as_str());
        let number = u64::from(watched.number);
        let changed = match client.pull_if_changed(number, etag).await? {
            Conditional::NotModified => None,
            Conditional::Changed { pull, etag } => {
                // While the code host computes whether it merges, it is asked again.
                let is_known = pull.state != PullState::Open || pull.mergeable.is_some();
                tags.pull = etag.filter(|_| is_known).unwrap_or_default();
                Some(pull)
            }
        };
        let now = changed.as_deref().map(Seen::of);
        let before = Seen::read(watched.seen.clone());
        let pull = watched.number;
        let event = match changed.as_ref().map(|pull| &pull.state) {
            Some(PullState::Merged { .. }) => Some(Event::PullMerged { pull }),
            Some(PullState::Closed) => Some(Event::PullClosed { pull }),
            // One that was seen when nobody could take it up lasts while nothing changes.
            Some(PullState::Open) | None => now
                .as_ref()
                .or(before.as_ref())
                .and_then(|seen| seen.conflict.clone())
                .filter(|_| watched.must_merge)
                .map(|sha| Event::Conflicted { pull, sha }),
        };
        let told = match (&changed, &now, before) {
            (Some(pull), Some(now), Some(before)) if pull.state == PullState::Open => {
                now.changes_since(&before, pull)
            }
            _ => Vec::new(),
        };
        if let Some(event) = event {
            self.apply(watched.task, Occurrence::new(event, "github"))
                .await?;
        } else if let Some(sha) = &watched.ready {
            self.look_at_ready(client, watched, sha, changed.is_some(), &mut tags)
                .await?;
        }
        let now = now.and_then(|now| serde_json::to_value(now).ok());
        Ok(self
            .store
            .pull_seen(watched.task, watched.number, &tags, now.as_ref(), &told)
            .await?)
    }

    /// What reviewers say comes first: what turned red is read again after it.
    async fn look_at_ready(
        &self,
        client: &Client,
        watched: &Watched,
        sha: &str,
        changed: bool,
        tags: &mut Tags,
    ) -> Result<(), Trouble> {
        let (task, number) = (watched.task, u64::from(watched.number));
        let read = client
            .reviews_if_changed(number, &task.to_string(), &tags.review, changed)
            .await?;
        if let Some((threads, seen)) = read {
            for thread in threads {
                let (thread, answered) = stored(thread);
                self.store
                    .note_thread(task, watched.number, &thread, answered)
                    .await?;
            }
            tags.review = seen;
        }
        let open = self.store.open_threads(task).await?.len();
        if open > 0 {
            let threads = u32::try_from(open).unwrap_or(u32::MAX);
            let event = Event::ReviewReceived {
                pull: watched.number,
                threads,
            };
            return self.apply(task, Occurrence::new(event, "github")).await;
        }
        if let Some((checks, seen)) = client.checks_if_changed(sha, &tags.checks).await? {
            if let Verdict::Failed { checks } = verdict(&checks) {
                let event = Event::RedAgain {
                    sha: sha.to_owned(),
                };
                let mut occurrence = Occurrence::new(event, "github");
                occurrence.detail = json!({ "sha": sha });
                occurrence.facts.checks = Some(failed(&checks));
                self.apply(task, occurrence).await?;
            }
            tags.checks = seen;
        }
        Ok(())
    }

    async fn apply(&self, task: Uuid, occurrence: Occurrence) -> Result<(), Trouble> {
        self.store.apply(task, &occurrence).await?;
        Ok(())
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
        let until = bounded(until, Timestamp::now());
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

    async fn can_be_read(&self, watched: &Watched) -> Result<(), db::Error> {
        self.options.health.set_problem(PART, None);
        if watched.unreadable {
            self.store.pull_shown(watched).await?;
        }
        Ok(())
    }

    async fn cannot_be_read(
        &self,
        watched: &Watched,
        error: &mainloop_github::Error,
    ) -> Result<(), db::Error> {
        let why = errors::chain(error);
        match error.class() {
            Class::NotFound | Class::Forbidden { .. } => {
                self.store.pull_hidden(watched, &why).await
            }
            class => {
                if class == Class::Unauthorized {
                    // Revoked from outside, it may be: the next look gets another one.
                    lock(&self.clients).remove(&key(watched));
                    let problem = format!(
                        "pull requests are not looked at: the code host refuses the token ({why}); start the plane \
                         with a valid one"
                    );
                    self.options.health.set_problem(PART, Some(problem));
                }
                self.store.pull_failed(watched.task).await
            }
        }
    }

    fn quota(&self, repo: &Repo) -> Quota {
        let name = self.options.tokens.limit_of(repo);
        lock(&self.quotas).entry(name).or_default().clone()
    }

    async fn client(&self, watched: &Watched) -> Result<Client, mainloop_github::Error> {
        let key = key(watched);
        if let Some((client, lent)) = lock(&self.clients).get(&key)
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
        let mut client = Client::with(&self.options.api, repo, &lent.secret, options)?;
        if !lent.login.is_empty() {
            client = client.known_as(&lent.login);
        }
        lock(&self.clients).insert(key, (client.clone(), lent));
        Ok(client)
    }
}

/// Why a look came to nothing.
enum Trouble {
    /// The code host.
    Host(mainloop_github::Error),
    /// The database.
    Store(db::Error),
    /// It took too long.
    Slow,
}

impl From<mainloop_github::Error> for Trouble {
    fn from(error: mainloop_github::Error) -> Self {
        Self::Host(error)
    }
}

impl From<db::Error> for Trouble {
    fn from(error: db::Error) -> Self {
        Self::Store(error)
    }
}

/// A thread as it is stored, and up to where it is answered.
fn stored(thread: ReviewThread) -> (Thread, i64) {
    // Postgres takes no NUL in text.
    let clean = |text: String| text.replace('\0', "\u{fffd}");
    let id = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
    let newest = id(thread.newest);
    let answered = if thread.answered { newest } else { 0 };
    let thread = Thread {
        is_review: thread.is_review,
        id: id(thread.id),
        newest,
        author: clean(thread.author),
        path: clean(thread.path.unwrap_or_default()),
        line: thread
            .line
            .and_then(|line| i32::try_from(line).ok())
            .unwrap_or_default(),
        body: clean(thread.text),
    };
    (thread, answered)
}

/// Checks that failed, as a task has them.
fn failed(checks: &[FailedCheck]) -> Value {
    checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name.replace('\0', "\u{fffd}"),
                "state": "failed",
                "conclusion": check.conclusion.words(),
                "url": check.url.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// What people may change of a pull request that stays open.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    draft: bool,
    base: String,
    /// A digest of title and body: what they say is the code host's.
    text: String,
    /// The head, where that conflicts with the base.
    #[serde(default)]
    conflict: Option<String>,
}

impl Seen {
    fn of(pull: &PullRef) -> Self {
        let text = format!("{}\n{}", pull.title, pull.body);
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        Self {
            draft: pull.draft,
            base: pull.base.clone(),
            text: STANDARD.encode(digest.as_ref()),
            conflict: (pull.mergeable == Some(false)).then(|| pull.head_sha.clone()),
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

/// What panicked with the lock left a map that is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
