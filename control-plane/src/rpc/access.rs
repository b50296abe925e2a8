//! `AccessService`: tokens, who the caller is, and how the plane is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use mainloop_proto::v1::{self, access_service_server::AccessService};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Error, Scope, Shared, clean, convert};
use crate::db::{claims::needs, holds::Hold, tokens::TokenRow};

/// Longest name of a token.
const MAX_NAME: usize = 63;
/// Names that stand for others in the event log.
const RESERVED: [&str; 3] = ["plane", "worker", "github"];
/// Longest life of a token that has an end, in seconds: ten years. The database takes no time without bound.
const MAX_TTL: i64 = 10 * 366 * 24 * 3600;

/// What the plane tells about itself, beside what is in the database.
#[derive(Clone, Debug)]
pub struct About {
    /// When this process started.
    pub started: Timestamp,
    /// `embedded` or `external`, with the server's version.
    pub database: String,
    /// The code host.
    pub code_host: String,
    /// Kind of the model's credential; empty for none.
    pub model_credential: &'static str,
    /// The launcher, and whether workers are sandboxed.
    pub launcher: String,
    /// Slots that there are.
    pub slots: u32,
}

/// What the plane learns about its own health. Cheap to clone; whoever learns something says it here.
#[derive(Clone, Debug)]
pub struct Health {
    known: Arc<Mutex<Known>>,
    starts: watch::Sender<Starts>,
}

/// What decides, beside slots, whether queued tasks start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starts {
    /// Whether workers can be made.
    pub workers: Workers,
    /// Credentials that are held.
    pub holds: Vec<Hold>,
}

impl Starts {
    /// What keeps a queued task from starting, as a sentence.
    pub fn obstacle(&self, task: &mainloop_core::Task) -> Option<String> {
        if let Workers::Unable(why) = &self.workers {
            return Some(why.clone());
        }
        self.holds
            .iter()
            .find(|hold| hold.closed && needs(task, hold.credential))
            .map(held)
    }
}

/// A held credential, as a sentence.
fn held(hold: &Hold) -> String {
    let row = hold.reason.row();
    match hold.until {
        Some(_) if hold.over => format!(
            "{} ({}): one task tries whether it is over",
            row.title, hold.why
        ),
        Some(until) => format!(
            "{} ({}): goes on at {}",
            row.title,
            hold.why,
            until.strftime("%Y-%m-%d %H:%M UTC")
        ),
        None => format!("{} ({}). {}", row.title, hold.why, row.remedy),
    }
}

/// Whether this plane can make workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Not tried yet.
    Unknown,
    /// It can.
    Able,
    /// It cannot; why, and how to mend it, as a sentence. Tasks stay queued.
    Unable(String),
}

impl Default for Health {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            starts: watch::Sender::new(Starts {
                workers: Workers::Unknown,
                holds: Vec::new(),
            }),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Known {
    login: String,
    problems: BTreeMap<&'static str, String>,
}

impl Health {
    /// The identity that the code host's credential has.
    pub fn set_login(&self, login: &str) {
        login.clone_into(&mut self.lock().login);
    }

    /// What is wrong with a part of the plane, as a sentence; nothing when it is well again.
    pub fn set_problem(&self, part: &'static str, problem: Option<String>) {
        let mut known = self.lock();
        match problem {
            Some(problem) => known.problems.insert(part, problem),
            None => known.problems.remove(part),
        };
    }

    /// Whether workers can be made, as it was found out just now.
    pub fn set_workers(&self, workers: Workers) {
        self.starts.send_if_modified(|starts| {
            let news = starts.workers != workers;
            starts.workers = workers;
            news
        });
    }

    /// Which credentials are held, as it was read just now.
    pub fn set_holds(&self, holds: Vec<Hold>) {
        self.starts.send_if_modified(|starts| {
            let news = starts.holds != holds;
            starts.holds = holds;
            news
        });
    }

    /// What decides whether queued tasks start, and each change of it.
    pub fn starts(&self) -> watch::Receiver<Starts> {
        self.starts.subscribe()
    }

    /// Everything that is wrong at present.
    fn problems(&self) -> Vec<String> {
        let starts = self.starts.borrow().clone();
        let workers = match starts.workers {
            Workers::Unable(why) => Some(why),
            Workers::Unknown | Workers::Able => None,
        };
        let known = self.lock().problems.values().cloned().collect::<Vec<_>>();
        workers
            .into_iter()
            .chain(starts.holds.iter().filter(|hold| hold.closed).map(held))
            .chain(known)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Access {
    shared: Shared,
    about: About,
}

impl Access {
    /// The service over what all services share.
    pub fn new(shared: Shared, about: About) -> Self {
        Self { shared, about }
    }

    async fn create(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<v1::CreateTokenResponse, Error> {
        self.shared.caller(&request, Scope::Admin)?;
        let request = request.into_inner();
        let name = request.name.trim();
        let mut violations = Vec::new();
        let mut violate =
            |field: &str, reason: &str| violations.push((field.to_owned(), reason.to_owned()));
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control)
        {
            violate(
                "name",
                "must have 1 to 63 characters, and no control characters",
            );
        }
        if RESERVED.contains(&name) {
            violate("name", "stands for another in events: choose another one");
        }
        if request.scopes.is_empty() {
            violate(
                "scopes",
                "must name at least one of read, submit, approve, admin",
            );
        }
        let mut scopes = Vec::new();
        // Not by `scopes()`, which leaves out what it does not know.
        for scope in &request.scopes {
            match v1::Scope::try_from(*scope) {
                Err(_) | Ok(v1::Scope::Unspecified) => {
                    violate("scopes", "has a scope that does not exist");
                }
                Ok(v1::Scope::Read) => scopes.push(Scope::Read.word()),
                Ok(v1::Scope::Submit) => scopes.push(Scope::Submit.word()),
                Ok(v1::Scope::Approve) => scopes.push(Scope::Approve.word()),
                Ok(v1::Scope::Admin) => scopes.push(Scope::Admin.word()),
            }
        }
        let ttl = request.ttl.map(|ttl| ttl.seconds);
        if ttl.is_some_and(|seconds| !(1..=MAX_TTL).contains(&seconds)) {
            violate("ttl", "must be from one second to ten years");
        }
        if !violations.is_empty() {
            return Err(Error::Invalid { violations });
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds of a token's life")]
        let ttl = ttl.map(|seconds| seconds as f64);
        scopes.sort_unstable();
        scopes.dedup();
        let (token, secret) = self
            .shared
            .store
            .create_token(name, &scopes, ttl)
            .await?
            .ok_or_else(|| Error::AlreadyExists {
                message: format!(
                    "a token named {name} is there; revoke it first, or choose another name"
                ),
            })?;
        Ok(v1::CreateTokenResponse {
            token: Some(on_wire(&token)),
            secret,
        })
    }

    async fn list(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<v1::ListTokensResponse, Error> {
        self.shared.caller(&request, Scope::Admin)?;
        let tokens = self
            .shared
            .store
            .list_tokens(request.into_inner().include_revoked)
            .await?;
        Ok(v1::ListTokensResponse {
            tokens: tokens.iter().map(on_wire).collect(),
        })
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<v1::RevokeTokenResponse, Error> {
        self.shared.caller(&request, Scope::Admin)?;
        let key = clean(&request.into_inner().token_id);
        let token = self
            .shared
            .store
            .revoke_token(&key)
            .await?
            .ok_or_else(|| Error::NotFound {
                what: format!("token {key}"),
            })?;
        Ok(v1::RevokeTokenResponse {
            token: Some(on_wire(&token)),
        })
    }

    async fn status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<v1::GetStatusResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let counts = self.shared.store.counts().await?;
        let login = self.shared.health.lock().login.clone();
        let rules = &self.shared.rules;
        let count = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
        Ok(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(convert::timestamp(self.about.started)),
            database: self.about.database.clone(),
            code_host: self.about.code_host.clone(),
            code_host_login: login,
            model_credential: self.about.model_credential.to_owned(),
            launcher: self.about.launcher.clone(),
            slots_used: count(counts.slots_used),
            slots_total: i32::try_from(self.about.slots).unwrap_or(i32::MAX),
            queued: count(counts.queued),
            open_items: count(counts.open_items),
            active: count(counts.active),
            problems: self.shared.health.problems(),
            models: rules.models.clone(),
            default_budget_micros: rules.default_budget_micros,
        })
    }
}

#[tonic::async_trait]
impl AccessService for Access {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        Ok(Response::new(self.create(request).await?))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        Ok(Response::new(self.list(request).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        Ok(Response::new(self.revoke(request).await?))
    }

    async fn get_caller(
        &self,
        request: Request<v1::GetCallerRequest>,
    ) -> Result<Response<v1::GetCallerResponse>, Status> {
        let caller = self.shared.anyone(&request)?;
        Ok(Response::new(v1::GetCallerResponse {
            name: caller.name,
            scopes: caller
                .scopes
                .into_iter()
                .map(|scope| wire_scope(scope).into())
                .collect(),
            local: caller.local,
        }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(self.status(request).await?))
    }
}

fn wire_scope(scope: Scope) -> v1::Scope {
    match scope {
        Scope::Read => v1::Scope::Read,
        Scope::Submit => v1::Scope::Submit,
        Scope::Approve => v1::Scope::Approve,
        Scope::Admin => v1::Scope::Admin,
    }
}

fn on_wire(token: &TokenRow) -> v1::Token {
    v1::Token {
        id: token.id.clone(),
        name: token.name.clone(),
        scopes: Scope::ALL
            .into_iter()
            .filter(|scope| token.scopes.iter().any(|word| word == scope.word()))
            .map(|scope| wire_scope(scope).into())
            .collect(),
        create_time: Some(convert::timestamp(token.created_at)),
        expire_time: token.expires_at.map(convert::timestamp),
        revoke_time: token.revoked_at.map(convert::timestamp),
        last_use_time: token.used_at.map(convert::timestamp),
    }
}
