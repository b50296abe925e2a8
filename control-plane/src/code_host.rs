//! Tokens for the code host: the one that the plane was given, or one per use where it acts as a GitHub App.
//!
//! An attempt's token reaches its task's repository alone. It is renewed well before it runs out, and revoked once the
//! attempt is over. All of them are in this process's memory and nowhere else: what a plane that is killed has given out
//! runs out by itself, within the hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use mainloop_github::{Access, App, Class, Error, Repo};
use secrecy::SecretString;
use tokio::{
    sync::OnceCell,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::{
    config::{CodeHost, CodeHostCredential},
    db::Store,
    errors,
};

/// How long before its end a token is renewed: longer than a clone or a push takes that began with it.
const MARGIN: Duration = Duration::from_mins(10);
/// How long getting one may take. An agent waits a little longer for its welcome.
const GET: Duration = Duration::from_secs(10);
/// How often it is looked whether attempts have ended that have tokens.
const LOOK: Duration = Duration::from_secs(2);
/// How long revoking may take when the plane stops.
const LAST: Duration = Duration::from_secs(5);

/// Where tokens come from. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// One for everything.
    Given(SecretString),
    /// One for each use.
    Minted(Mint),
}

/// A token that was handed out.
#[derive(Clone, Debug)]
pub struct Lent {
    /// The token.
    pub secret: SecretString,
    /// Whom it speaks as; empty where that is not known.
    pub login: String,
    /// When another one is to be asked for; never for a token that was given.
    pub renew_at: Option<Due>,
}

/// A time by two clocks. The wall's may be set back, and the other one stands still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    wall: Timestamp,
    monotonic: Instant,
}

impl Due {
    /// So long from now.
    pub fn after(wait: Duration) -> Self {
        Self {
            wall: Timestamp::now() + wait,
            monotonic: Instant::now() + wait,
        }
    }

    /// Whether it is time.
    pub fn is_over(self) -> bool {
        self.is_over_at(Timestamp::now(), Instant::now())
    }

    fn is_over_at(self, wall: Timestamp, monotonic: Instant) -> bool {
        self.wall <= wall || self.monotonic <= monotonic
    }
}

impl Tokens {
    /// What the configuration says; none where it has no credential.
    pub fn new(code_host: &CodeHost) -> Option<Self> {
        Some(match code_host.credential.as_ref()? {
            CodeHostCredential::Token(token) => Self::Given(token.clone()),
            CodeHostCredential::App { id, key } => {
                Self::Minted(Mint::new(App::new(&code_host.api, id, key.clone())))
            }
        })
    }

    /// The token of an attempt at a task on `repo`; the same until it is to be renewed.
    pub async fn of_attempt(
        &self,
        attempt: Uuid,
        repo: &Repo,
        workflows: bool,
    ) -> Result<Lent, Error> {
        match self {
            Self::Given(token) => Ok(Lent::given(token)),
            Self::Minted(mint) => mint.of_attempt(attempt, repo, workflows).await,
        }
    }

    /// A token that looks at pull requests of `repo`.
    pub async fn for_watch(&self, repo: &Repo) -> Result<Lent, Error> {
        match self {
            Self::Given(token) => Ok(Lent::given(token)),
            Self::Minted(mint) => mint.get(repo, Access::Watch).await,
        }
    }

    /// A token that closes what a task left in `repo`; to be given back.
    pub async fn for_tidying(&self, repo: &Repo) -> Result<Lent, Error> {
        match self {
            Self::Given(token) => Ok(Lent::given(token)),
            Self::Minted(mint) => mint.get(repo, Access::Work { workflows: false }).await,
        }
    }

    /// Ends a token that was made for one use.
    pub async fn give_back(&self, lent: Lent) {
        if let Self::Minted(mint) = self
            && let Err(error) = mint.shared.app.revoke(&lent.secret).await
        {
            tracing::warn!(
                error = errors::chain(&error),
                "could not revoke a token; it runs out by itself"
            );
        }
    }

    /// The name of the rate limit that requests for `repo` count against: one for all, or one for each installation.
    pub fn limit_of(&self, repo: &Repo) -> String {
        match self {
            Self::Given(_) => String::new(),
            Self::Minted(_) => repo.owner.to_lowercase(),
        }
    }

    /// Whom they speak as.
    pub async fn login(&self, api: &Url) -> Result<String, Error> {
        match self {
            Self::Given(token) => {
                // A client is of a repository; who asks is the same for each.
                let repo = Repo {
                    owner: "mainloop".to_owned(),
                    name: "identity".to_owned(),
                };
                let client = mainloop_github::Client::new(api, repo, token)?;
                Ok(client.identity().await?.login)
            }
            Self::Minted(mint) => mint.login().await,
        }
    }
}

impl Lent {
    fn given(token: &SecretString) -> Self {
        Self {
            secret: token.clone(),
            login: String::new(),
            renew_at: None,
        }
    }

    /// Whether another one is to be asked for.
    pub fn is_due(&self) -> bool {
        self.renew_at.is_some_and(Due::is_over)
    }
}

/// Has tokens made, and remembers whose they are.
#[derive(Clone, Debug)]
pub struct Mint {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    app: App,
    login: OnceCell<String>,
    /// Every token of an attempt that has not been revoked, oldest first: until it runs out, a request that began with
    /// an older one is on its way.
    lent: Mutex<HashMap<Uuid, Vec<Lent>>>,
}

impl Mint {
    fn new(app: App) -> Self {
        Self {
            shared: Arc::new(Shared {
                app,
                login: OnceCell::new(),
                lent: Mutex::default(),
            }),
        }
    }

    fn lent(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<Lent>>> {
        self.shared
            .lent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn login(&self) -> Result<String, Error> {
        let ask = async || Ok(self.shared.app.about().await?.login());
        self.shared.login.get_or_try_init(ask).await.cloned()
    }

    async fn get(&self, repo: &Repo, access: Access) -> Result<Lent, Error> {
        let asked = async {
            let login = self.login().await?;
            let token = self.shared.app.token(repo, access).await?;
            let use_for = token
                .lifetime
                .saturating_sub(MARGIN.min(token.lifetime / 2));
            Ok(Lent {
                secret: token.secret,
                login,
                renew_at: Some(Due::after(use_for)),
            })
        };
        timeout(GET, asked).await.unwrap_or_else(|_| {
            Err(Error::Timeout {
                operation: format!("get a token for {repo}"),
                after: GET,
            })
        })
    }

    async fn of_attempt(&self, attempt: Uuid, repo: &Repo, workflows: bool) -> Result<Lent, Error> {
        let newest = self
            .lent()
            .get(&attempt)
            .and_then(|all| all.last())
            .cloned();
        if let Some(newest) = newest.filter(|lent| !lent.is_due()) {
            return Ok(newest);
        }
        let lent = self.get(repo, Access::Work { workflows }).await?;
        self.lent().entry(attempt).or_default().push(lent.clone());
        tracing::info!(attempt.id = %attempt, repository = %repo, "got a token of the App's installation");
        Ok(lent)
    }

    /// Revokes the tokens of attempts that have ended, until told to stop.
    pub async fn keep(self, store: Store, stop: CancellationToken) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let attempts: Vec<Uuid> = self.lent().keys().copied().collect();
            if attempts.is_empty() {
                continue;
            }
            match store.ended_attempts(&attempts).await {
                Ok(ended) => {
                    for attempt in ended {
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = self.revoke(attempt) => {}
                        }
                    }
                }
                Err(error) => tracing::warn!(
                    error = errors::chain(&error),
                    "could not see which attempts have ended"
                ),
            }
        }
    }

    /// Revokes what is left, when no worker is there any more.
    pub async fn revoke_all(&self) {
        let attempts: Vec<Uuid> = self.lent().keys().copied().collect();
        let all = async {
            for attempt in attempts {
                self.revoke(attempt).await;
            }
        };
        if timeout(LAST, all).await.is_err() {
            tracing::warn!("some tokens are not revoked; they run out by themselves");
        }
    }

    async fn revoke(&self, attempt: Uuid) {
        let tokens = self.lent().get(&attempt).cloned().unwrap_or_default();
        for lent in tokens {
            match self.shared.app.revoke(&lent.secret).await {
                Ok(()) => tracing::info!(attempt.id = %attempt, "revoked a token"),
                // It has run out by itself.
                Err(error) if error.class() == Class::Unauthorized => {}
                Err(error) => tracing::warn!(
                    attempt.id = %attempt,
                    error = errors::chain(&error),
                    "could not revoke a token; it runs out by itself"
                ),
            }
        }
        self.lent().remove(&attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_due_by_whichever_clock_comes_first() {
        let hour = Duration::from_hours(1);
        let due = Due::after(hour);
        let (wall, monotonic) = (due.wall - hour, due.monotonic - hour);
        for (wall, monotonic, is_over) in [
            (wall, monotonic, false),
            // The wall's clock was set back by a day.
            (wall - hour * 24, monotonic, false),
            (wall - hour * 24, monotonic + hour, true),
            // The machine slept.
            (wall + hour, monotonic, true),
        ] {
            assert_eq!(due.is_over_at(wall, monotonic), is_over);
        }
    }
}
