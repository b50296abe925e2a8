//! Who calls, and what they may: one table, looked at before any service is.
//!
//! A credential that is sent always counts, also on the Unix socket, so that a weak token stays weak there. Without
//! one, the kernel's word on the socket's peer is the credential. An attempt's token opens `Connect` and nothing else.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use nix::unistd::{Uid, User};
use tonic::{Status, body::Body, transport::server::UdsConnectInfo};
use tower::Service;

use super::Error;
use crate::db::{
    Store,
    tokens::{ATTEMPT_PREFIX, PREFIX},
};

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See tasks, logs and the inbox.
    Read,
    /// Propose, cancel and guide tasks.
    Submit,
    /// Confirm tasks and resolve inbox items.
    Approve,
    /// Manage tokens.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Approve, Self::Admin];

    /// The word in SQL and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Approve => "approve",
            Self::Admin => "admin",
        }
    }
}

/// What an RPC asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This scope.
    Scope(Scope),
    /// Any valid credential of a client.
    Any,
    /// An attempt's token, which the link checks itself.
    Attempt,
    /// Nothing.
    Open,
}

/// Every RPC with what it asks for; a test holds it against the contract.
pub const TABLE: &[(&str, Access)] = &[
    (
        "/mainloop.v1.TaskService/CreateTask",
        Access::Scope(Scope::Submit),
    ),
    (
        "/mainloop.v1.TaskService/ConfirmTask",
        Access::Scope(Scope::Approve),
    ),
    (
        "/mainloop.v1.TaskService/GetTask",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.TaskService/ListTasks",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.TaskService/WatchTask",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.TaskService/CancelTask",
        Access::Scope(Scope::Submit),
    ),
    (
        "/mainloop.v1.TaskService/RetryTask",
        Access::Scope(Scope::Approve),
    ),
    (
        "/mainloop.v1.TaskService/SayToTask",
        Access::Scope(Scope::Submit),
    ),
    (
        "/mainloop.v1.TaskService/ListTaskEvents",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.TaskService/StreamTaskLogs",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.InboxService/ListInboxItems",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.InboxService/GetInboxItem",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.InboxService/WatchInbox",
        Access::Scope(Scope::Read),
    ),
    (
        "/mainloop.v1.InboxService/ResolveInboxItem",
        Access::Scope(Scope::Approve),
    ),
    (
        "/mainloop.v1.AccessService/CreateToken",
        Access::Scope(Scope::Admin),
    ),
    (
        "/mainloop.v1.AccessService/ListTokens",
        Access::Scope(Scope::Admin),
    ),
    (
        "/mainloop.v1.AccessService/RevokeToken",
        Access::Scope(Scope::Admin),
    ),
    ("/mainloop.v1.AccessService/GetCaller", Access::Any),
    (
        "/mainloop.v1.AccessService/GetStatus",
        Access::Scope(Scope::Read),
    ),
    ("/mainloop.v1.WorkerLinkService/Connect", Access::Attempt),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Access::Any,
    ),
    ("/grpc.health.v1.Health/Check", Access::Open),
    ("/grpc.health.v1.Health/Watch", Access::Open),
    ("/grpc.health.v1.Health/List", Access::Open),
];

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A token's name, or the user behind the local socket.
    pub name: String,
    /// What they may do.
    pub scopes: Vec<Scope>,
    /// On the local socket, by the kernel's word.
    pub local: bool,
    /// Id of the token, where one was sent.
    pub token: Option<String>,
}

impl Caller {
    /// Refuses a caller without this scope.
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        self.need(scope, "this call")
    }

    fn need(&self, scope: Scope, what: &str) -> Result<(), Error> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let has: Vec<&str> = self.scopes.iter().map(|scope| scope.word()).collect();
        Err(Error::Denied {
            message: format!(
                "{what} needs scope `{}`; {} has {}",
                scope.word(),
                self.name,
                has.join(", ")
            ),
        })
    }
}

/// Puts the check in front of all services of a server.
#[derive(Clone, Debug)]
pub struct Layer {
    store: Store,
}

impl Layer {
    /// Looks tokens up in this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            store: self.store.clone(),
        }
    }
}

/// See [`Layer`].
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    store: Store,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let store = self.store.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match admit(&store, &parts).await {
                Ok(Some(caller)) => {
                    parts.extensions.insert(caller);
                }
                Ok(None) => {}
                Err(error) => return Ok(Status::from(error).into_http()),
            }
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}

/// The caller, where the RPC asks for one.
async fn admit(store: &Store, request: &Parts) -> Result<Option<Caller>, Error> {
    let path = request.uri.path();
    let access = TABLE
        .iter()
        .find(|(rpc, _)| *rpc == path)
        .map(|(_, access)| *access);
    let caller = match access {
        // An unknown path is answered as such by whoever finds no service for it.
        None | Some(Access::Open | Access::Attempt) => return Ok(None),
        Some(Access::Scope(_) | Access::Any) => identify(store, request).await?,
    };
    if let Some(Access::Scope(scope)) = access {
        let rpc = path.rsplit('/').next().unwrap_or(path);
        caller.need(scope, rpc)?;
    }
    Ok(Some(caller))
}

async fn identify(store: &Store, request: &Parts) -> Result<Caller, Error> {
    let Some(header) = request.headers.get(http::header::AUTHORIZATION) else {
        return local(request);
    };
    let secret = header
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer "))
        .ok_or(Error::Unauthenticated {
            message: "the authorization header is not `Bearer` with a token",
        })?;
    if secret.starts_with(ATTEMPT_PREFIX) {
        return Err(Error::Denied {
            message: "an attempt's token is good for Connect alone".to_owned(),
        });
    }
    if !secret.starts_with(PREFIX) {
        return Err(unknown());
    }
    let holder = store.token_holder(secret).await?.ok_or_else(unknown)?;
    Ok(Caller {
        scopes: Scope::ALL
            .into_iter()
            .filter(|scope| holder.scopes.iter().any(|word| word == scope.word()))
            .collect(),
        name: holder.name,
        local: false,
        token: Some(holder.id),
    })
}

/// What comes back for a token that is good for nothing.
pub(super) fn unknown() -> Error {
    Error::Unauthenticated {
        message: "the token is unknown, revoked or expired",
    }
}

/// The user behind the Unix socket, if it is the plane's own.
fn local(request: &Parts) -> Result<Caller, Error> {
    let peer = request
        .extensions
        .get::<UdsConnectInfo>()
        .ok_or(Error::Unauthenticated {
            message: "no token was sent",
        })?;
    let uid = peer
        .peer_cred
        .map(|credentials| Uid::from_raw(credentials.uid()));
    match uid {
        Some(uid) if uid == nix::unistd::geteuid() => Ok(Caller {
            name: User::from_uid(uid)
                .ok()
                .flatten()
                .map_or_else(|| format!("uid {uid}"), |user| user.name),
            scopes: Scope::ALL.to_vec(),
            local: true,
            token: None,
        }),
        _ => Err(Error::Unauthenticated {
            message: "the socket's peer is another user than the plane's, and no token was sent",
        }),
    }
}
