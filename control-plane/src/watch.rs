//! Pull requests of tasks without a worker: merged completes a task, closed cancels it.
//!
//! Polls by conditional requests, which cost nothing of the rate limit while nothing changes. A pull request that
//! cannot be read is asked for again later, ever more slowly; the task stays as it is.

use std::{collections::HashMap, time::Duration};

use mainloop_core::Event;
use mainloop_github::{Class, Client, Conditional, PullState, Repo};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    code_host::{Lent, Tokens},
    db::{self, Occurrence, Store, pulls::Watched},
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
}

impl Watch {
    /// A watch that has looked at nothing yet.
    pub fn new(store: Store, options: Options) -> Self {
        Self {
            store,
            options,
            clients: HashMap::new(),
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
            Ok(Conditional::NotModified) => Ok(()),
            Ok(Conditional::Changed { pull, etag }) => {
                let event = match pull.state {
                    PullState::Merged { .. } => Some(Event::PullMerged),
                    PullState::Closed => Some(Event::PullClosed),
                    PullState::Open => None,
                };
                self.seen(watched.task, event, etag.as_deref()).await
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
        if let Err(error) = stored {
            tracing::warn!(task.id = %watched.task, error = errors::chain(&error), "could not store a look at a pull request");
        }
    }

    async fn seen(
        &self,
        task: Uuid,
        event: Option<Event>,
        etag: Option<&str>,
    ) -> Result<(), db::Error> {
        if let Some(event) = event {
            self.store
                .apply(task, &Occurrence::new(event, "github"))
                .await?;
        }
        self.store.pull_seen(task, etag.unwrap_or_default()).await
    }

    async fn client(&mut self, watched: &Watched) -> Result<Client, mainloop_github::Error> {
        let key = key(watched);
        if let Some((client, lent)) = self.clients.get(&key)
            && !lent.is_due()
        {
            return Ok(client.clone());
        }
        let repo = Repo {
            owner: watched.owner.clone(),
            name: watched.name.clone(),
        };
        let lent = self.options.tokens.for_watch(&repo).await?;
        let client = Client::new(&self.options.api, repo, &lent.secret)?;
        self.clients.insert(key, (client.clone(), lent));
        Ok(client)
    }
}

fn key(watched: &Watched) -> String {
    format!("{}/{}", watched.owner, watched.name)
}
