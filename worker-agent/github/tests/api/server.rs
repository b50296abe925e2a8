//! A scripted GitHub: a closure answers, and every request is recorded.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use mainloop_github::{Client, Options, Repo};
use serde_json::{Value, json};

/// One request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) body: Value,
}

impl Seen {
    /// `GET /path`, below the API's root.
    pub(crate) fn route(&self) -> String {
        let path = self.path.strip_prefix("/api/v3").unwrap_or(&self.path);
        format!("{} {path}", self.method)
    }

    pub(crate) fn page(&self) -> usize {
        self.query
            .split('&')
            .find_map(|pair| pair.strip_prefix("page="))
            .map_or(1, |n| n.parse().unwrap())
    }
}

/// What the script says to a request.
pub(crate) enum Answer {
    Json(u16, Value),
    With(u16, Vec<(&'static str, String)>, Value),
    Text(String),
    /// The status line comes, and then the connection breaks.
    Broken,
    /// Nothing comes.
    Silent,
    /// The head and these bytes come, and then nothing.
    Stalled(&'static [u8]),
}

pub(crate) fn ok(value: Value) -> Answer {
    Answer::Json(200, value)
}

pub(crate) fn error(status: u16, message: &str) -> Answer {
    Answer::Json(
        status,
        json!({ "message": message, "documentation_url": "https://docs" }),
    )
}

pub(crate) fn not_found() -> Answer {
    error(404, "Not Found")
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Seen>>>,
}

pub(crate) struct Server {
    pub(crate) origin: String,
    log: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Shared {
            script: Arc::new(script),
            log: Arc::default(),
        };
        let log = shared.log.clone();
        let app = Router::new().fallback(answer).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { origin, log, task }
    }

    /// A client for `o/r` whose API is an Enterprise server's.
    pub(crate) fn client(&self) -> Client {
        self.client_with(Options::default())
    }

    pub(crate) fn client_with(&self, options: Options) -> Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let base = format!("{}/api/v3", self.origin).parse().unwrap();
        let repo = Repo {
            owner: "o".into(),
            name: "r".into(),
        };
        Client::with(&base, repo, &"token".to_owned().into(), options).unwrap()
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, route: &str) -> usize {
        self.log().iter().filter(|s| s.route() == route).count()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let header = |name: &str| {
        let value = parts.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or("").to_owned(),
        authorization: header("authorization"),
        if_none_match: header("if-none-match"),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    shared.log.lock().unwrap().push(seen.clone());
    let mut builder = Response::builder();
    match (shared.script)(&seen) {
        Answer::Silent => std::future::pending().await,
        Answer::Stalled(bytes) => {
            let first =
                futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]);
            builder.body(Body::from_stream(
                first.chain(futures_util::stream::pending()),
            ))
        }
        Answer::Json(status, value) => builder.status(status).body(Body::from(value.to_string())),
        Answer::With(status, headers, value) => {
            builder = builder.status(status);
            for (name, value) in headers {
                builder = builder.header(name, value);
            }
            builder.body(Body::from(value.to_string()))
        }
        Answer::Text(text) => builder.body(Body::from(text)),
        Answer::Broken => {
            let cut = std::io::Error::other("cut by the script");
            let stream = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(cut)]);
            builder.body(Body::from_stream(stream))
        }
    }
    .unwrap()
}
