//! The harness's only way out: one HTTP server on one Unix socket.
//!
//! Owns the socket, the routing and the tasks of the three proxies. `CONNECT` and absolute URLs go to `forward`,
//! `/v1/` to `model`, `/git/` to `git`, and anything else is not found. Everything that comes in is hostile: heads
//! are bounded in size and time, connections in number. A connection that fails ends alone.

mod body;
mod event;
pub mod forward;
pub mod git;
pub mod model;
mod tasks;
#[cfg(test)]
mod tests;
mod upstream;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

pub use event::{Event, Events};
pub use git::{Denied, HeldChange, LastDenied, PushGate, Refusal, Screen};
pub use model::{Credential, Meter, TurnedAway, Usage};
pub use upstream::Timeouts;

use self::body::Body;
use self::forward::{Forward, Never};
use self::git::Git;
use self::model::Model;
use self::tasks::Tasks;
use self::upstream::{Base, Upstream};
use crate::channel::socket;

/// Connections at once; more wait in the socket's backlog.
const CONNECTIONS: usize = 128;

/// Time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a connection's read buffer, which bounds a request's head.
const BUFFER: usize = 64 * 1024;

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the proxies of one attempt are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket; one that is there from an earlier run is replaced.
    pub socket: PathBuf,
    /// The socket's mode: 0o600 where the harness has the sidecar's uid, else 0o666 in a directory that is closed to others.
    pub socket_mode: u32,
    /// The model proxy.
    pub model: model::Options,
    /// The git proxy.
    pub git: git::Options,
    /// The forward proxy.
    pub forward: forward::Options,
    /// How long the model's host and the code host are waited for.
    pub timeouts: Timeouts,
}

/// Why the proxies did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A base URL is not `http(s)://host[:port][/prefix]` without credentials and query.
    #[error("use {url} as the {role} host")]
    BaseUrl {
        /// `model` or `code`.
        role: &'static str,
        /// The URL.
        url: String,
    },
    /// The owner, repository or branch is not one.
    #[error("proxy git for {0:?}: not a valid name")]
    Name(String),
}

/// The running proxies. Dropping it stops them; `shutdown` also waits.
#[derive(Debug)]
pub struct Proxy {
    routes: Arc<Routes>,
    tasks: Tasks,
    socket: PathBuf,
}

impl Proxy {
    /// Binds the socket and serves. A rustls provider must have been installed where an upstream speaks TLS.
    ///
    /// The events end when the proxy and every `Meter` are gone.
    #[allow(
        clippy::unused_async,
        reason = "binding needs the runtime, and callers await every start"
    )]
    pub async fn start(options: Options) -> Result<(Self, Events), Error> {
        let model_base = base("model", &options.model.upstream)?;
        let git_base = base("code", &options.git.upstream)?;
        for (name, slashes) in [
            (&options.git.owner, false),
            (&options.git.repository, false),
            (&options.git.branch, true),
        ] {
            let valid = |c: char| {
                c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || (slashes && c == '/')
            };
            if name.is_empty() || name.contains("..") || !name.chars().all(valid) {
                return Err(Error::Name(name.clone()));
            }
        }
        let never = [&model_base, &git_base]
            .map(|base| Never::new(base.host(), Some(base.port())))
            .to_vec();
        let listener =
            bind(&options.socket, options.socket_mode).map_err(|source| Error::Listen {
                path: options.socket.clone(),
                source,
            })?;
        let (sink, events) = event::channel();
        let tasks = Tasks::default();
        let timeouts = options.timeouts;
        let upstream = Arc::new(Upstream::new(timeouts));
        let routes = Arc::new(Routes {
            model: Model::new(
                options.model,
                model_base,
                (Arc::clone(&upstream), timeouts),
                sink.clone(),
            ),
            git: Git::new(
                options.git,
                git_base,
                (upstream, timeouts.git),
                tasks.clone(),
                sink.clone(),
            ),
            forward: Forward::new(options.forward, never, tasks.clone(), sink),
        });
        tasks.spawn(accept(listener, Arc::clone(&routes), tasks.clone()));
        Ok((
            Self {
                routes,
                tasks,
                socket: options.socket,
            },
            events,
        ))
    }

    /// Whether pushes may pass; closed at first.
    pub fn gate(&self) -> PushGate {
        self.routes.git.gate()
    }

    /// What the code host answered git last, where that was a no.
    pub fn denied(&self) -> LastDenied {
        self.routes.git.denied()
    }

    /// What looks at pushes, where something does.
    pub fn screen(&self) -> Option<Screen> {
        self.routes.git.screen()
    }

    /// The spending of the attempt.
    pub fn meter(&self) -> Meter {
        self.routes.model.meter()
    }

    /// How the model request that was answered last was turned away, if it was, since [`Self::forget_turned_away`].
    pub fn turned_away(&self) -> Option<TurnedAway> {
        self.routes.model.turned_away()
    }

    /// A turn begins: how requests before it were turned away is over.
    pub fn forget_turned_away(&self) {
        self.routes.model.forget_turned_away();
    }

    /// Where credentials are replaced.
    pub fn keys(&self) -> Keys {
        Keys(Arc::clone(&self.routes))
    }

    /// Ends every connection, waits for the tasks and removes the socket.
    pub async fn shutdown(self) {
        self.tasks.stop();
        self.tasks.join().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stop();
        // Gone already, or left for the next start to replace.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn base(role: &'static str, url: &url::Url) -> Result<Base, Error> {
    Base::parse(url).ok_or_else(|| {
        let mut shown = url.clone();
        // Both fail only for URLs that can hold no credentials.
        let _ = (shown.set_username(""), shown.set_password(None));
        Error::BaseUrl {
            role,
            url: shown.to_string(),
        }
    })
}

fn bind(path: &PathBuf, mode: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, routes: Arc<Routes>, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = Arc::clone(&routes);
                tasks.spawn(async move {
                    let _slot = slot;
                    serve(stream, routes).await;
                });
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the proxy socket accepted no connection"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, routes: Arc<Routes>) {
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(routes.serve(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a proxy connection ended early"
        );
    }
}

/// A handle to replace credentials with; requests on their way keep the old ones.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Routes>);

impl Keys {
    /// The model credential.
    pub fn set_model(&self, credential: Option<Credential>) {
        self.0.model.set_credential(credential);
    }

    /// The code host's token.
    pub fn set_git(&self, token: Option<SecretString>) {
        self.0.git.set_token(token);
    }
}

#[derive(Debug)]
struct Routes {
    model: Model,
    git: Git,
    forward: Forward,
}

impl Routes {
    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT || request.uri().scheme().is_some() {
            return self.forward.serve(request).await;
        }
        let path = request.uri().path().to_owned();
        if path.starts_with("/v1/") {
            self.model.serve(request).await
        } else if let Some(rest) = path
            .strip_prefix("/git")
            .filter(|rest| rest.starts_with('/'))
        {
            self.git.serve(rest, request).await
        } else {
            body::text(StatusCode::NOT_FOUND, "mainloop: nothing is served here")
        }
    }
}
