//! The proxies as their clients meet them: real sockets, real git, and a small upstream.
#![allow(clippy::unwrap_used)]

mod forward;
mod git;
mod model;
mod screen;
mod stalls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};

use super::{
    Credential, Event, Events, Options, Proxy, Timeouts, TurnedAway, forward as fwd, git as g,
    model as m,
};

/// How long anything may take before a test says what it waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy in front of one upstream that plays both hosts.
struct World {
    proxy: Proxy,
    events: Events,
    socket: PathBuf,
    dir: TempDir,
}

impl World {
    async fn new(upstream: SocketAddr, edit: impl FnOnce(&mut Options)) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("proxy.sock");
        let url: url::Url = format!("http://{upstream}").parse().unwrap();
        let mut options = Options {
            socket: socket.clone(),
            socket_mode: 0o600,
            model: m::Options {
                upstream: url.join("/prefix").unwrap(),
                credential: Some(Credential::ApiKey("real-key".into())),
                models: vec!["claude-*".into()],
                prices: vec![m::Price {
                    model_prefix: "claude-".into(),
                    input: 3_000_000,
                    output: 15_000_000,
                    cache_read: 300_000,
                    cache_write_5m: 3_750_000,
                    cache_write_1h: 6_000_000,
                }],
                budget_micros: 1_000_000,
                spent_micros: 0,
            },
            git: g::Options {
                upstream: url,
                owner: "o".into(),
                repository: "r".into(),
                branch: "mainloop/task".into(),
                token: Some("git-token".into()),
                screen: None,
            },
            forward: fwd::Options::default(),
            timeouts: Timeouts::default(),
        };
        edit(&mut options);
        let (proxy, events) = Proxy::start(options).await.unwrap();
        Self {
            proxy,
            events,
            socket,
            dir,
        }
    }

    /// The next event that is not about spending.
    async fn event(&mut self) -> Event {
        let next = async {
            loop {
                match self.events.recv().await.expect("the proxy lives") {
                    Event::Spend { .. } => {}
                    event => return event,
                }
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("an event was awaited and none came")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .expect("the proxy gave no answer")
            .unwrap()
    }

    /// A plain TCP port that leads to the socket, as the harness makes one.
    async fn tcp(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = self.socket.clone();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let mut unix = UnixStream::connect(socket).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tcp, &mut unix).await;
                });
            }
        });
        address
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

async fn upstream(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn text(response: Response<Incoming>) -> String {
    use http_body_util::BodyExt as _;
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .expect("the body did not end");
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited for {what}"));
}
