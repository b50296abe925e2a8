//! Streams of a model through the agent's proxy, beside the same requests made directly.
//!
//! The proxy is that of a real, connected sidecar. The model host is the bench's own: it sends one event at a time at a
//! steady pace, and notes when, so that the delay of each event is known to a clock that both ends share.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{body::Frame, client::conn::http1 as client, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::task::AbortOnDropHandle;

use super::{
    figure::{Round, Row, median, milliseconds},
    ground::Ground,
    hello::Agent,
    relay::Relay,
};

/// Requests in a round, each way.
const REQUESTS: usize = 10;
/// Events of a stream after the first.
const EVENTS: usize = 40;
/// Time between two events.
const PACE: Duration = Duration::from_millis(4);
/// Bytes of a request: what Claude Code sends with its tools and a short conversation.
const BODY: usize = 100 * 1024;

/// Sends requests both ways in turns.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    let (task, played) = ground.worker().await?;
    let mut relay = Relay::start(&ground.folder("model")?, &ground.socket()).await?;
    let agent = Agent::start(&ground.agent, &played.given, &relay.socket).await?;
    relay.welcomed().await.with_context(|| ground.report())?;
    let socket = proxy(&played.given.config)?;
    let proxied = crate::world::wait::until(
        "the agent's proxy to listen",
        crate::world::wait::PATIENCE,
        async || UnixStream::connect(&socket).await,
    )
    .await?;
    let mut proxied = Connection::new(proxied).await?;
    let direct = TcpStream::connect((Ipv4Addr::LOCALHOST, ground.upstream.port))
        .await
        .context("connect to the model host")?;
    direct.set_nodelay(true).context("set up the connection")?;
    let mut direct = Connection::new(direct).await?;

    let (mut first, mut rest, mut delays) = (Vec::new(), Vec::new(), Vec::new());
    // The first one opens the proxy's own connection.
    for round in 0..=rounds {
        let mut ours = Times::default();
        let mut limit = Times::default();
        for _ in 0..REQUESTS {
            limit.take(direct.stream(&ground.upstream).await?);
            ours.take(proxied.stream(&ground.upstream).await?);
        }
        if round > 0 {
            let pair = |ours: &[f64], limit: &[f64]| Round {
                ours: median(ours),
                limit: Some(median(limit)),
            };
            first.push(pair(&ours.first, &limit.first));
            rest.push(pair(&ours.rest, &limit.rest));
            delays.push(pair(&ours.delays, &limit.delays));
        }
    }
    drop((direct, proxied));
    ground.cancel(&task).await?;
    agent.end().await?;
    let limit =
        "limit: the same request made directly, in turns; 100 KiB, on a connection that is open";
    let paced = format!(
        "limit: the same directly; {EVENTS} events, one every {} ms, without the host's own time",
        PACE.as_millis()
    );
    Ok(vec![
        Row::beside("model proxy: first byte", limit, first).beyond_limit_at_most(2.0),
        Row::beside("model proxy: first byte to last", &paced, rest).same_as_limit(),
        Row::beside(
            "model proxy: delay of each event",
            "limit: the same directly; from the host's sending to the client's receiving",
            delays,
        ),
    ])
}

/// The proxy's socket of a real agent in this worker's folder.
fn proxy(config: &Path) -> Result<PathBuf> {
    let folder = config
        .parent()
        .context("the launcher's file has a folder")?;
    Ok(folder.join("run").join("sock").join("proxy.sock"))
}

/// What one side took.
#[derive(Default)]
struct Times {
    first: Vec<f64>,
    rest: Vec<f64>,
    delays: Vec<f64>,
}

impl Times {
    fn take(&mut self, timing: Timing) {
        self.first.push(milliseconds(timing.first));
        self.rest.push(timing.rest);
        self.delays
            .extend(timing.delays.into_iter().map(milliseconds));
    }
}

/// One request.
struct Timing {
    /// From its sending to the first byte of the stream.
    first: Duration,
    /// From there to the end, in milliseconds beyond the time that the host itself took from its first event to its
    /// last: a host's timer ticks once a millisecond, and how far off the next tick is depends on when a request came.
    rest: f64,
    /// Of each event after the first.
    delays: Vec<Duration>,
}

/// A client's open connection.
struct Connection {
    sender: client::SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let (sender, connection) = client::handshake(TokioIo::new(stream))
            .await
            .context("open an HTTP connection")?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        }));
        Ok(Self {
            sender,
            _driver: driver,
        })
    }

    async fn stream(&mut self, upstream: &Upstream) -> Result<Timing> {
        let request = Request::post("/v1/messages?beta=true")
            .header("host", "model.invalid")
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("x-api-key", "a-dummy")
            .body(Full::new(body()))
            .context("make a request")?;
        self.sender
            .ready()
            .await
            .context("wait for the connection")?;
        let began = Instant::now();
        let response = self
            .sender
            .send_request(request)
            .await
            .context("ask for a stream")?;
        let status = response.status();
        let mut body = response.into_body();
        let mut text = Vec::new();
        let mut arrivals = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("read a stream")?;
            if let Some(data) = frame.data_ref() {
                let now = Instant::now();
                text.extend_from_slice(data);
                // An event ends in an empty line; several may come at once.
                let ends = text.windows(2).filter(|two| two == b"\n\n").count();
                arrivals.resize(ends, now);
            }
        }
        let ended = Instant::now();
        if !status.is_success() || arrivals.len() != EVENTS + 1 {
            bail!(
                "the model host's stream came as {status} with {} events: {}",
                arrivals.len(),
                String::from_utf8_lossy(&text[..text.len().min(500)])
            );
        }
        let sent = upstream.sent();
        let [first, .., last] = sent.as_slice() else {
            bail!("the model host noted {} events", sent.len());
        };
        let host = last.duration_since(*first);
        Ok(Timing {
            first: arrivals[0].duration_since(began),
            rest: milliseconds(ended.duration_since(arrivals[0])) - milliseconds(host),
            delays: sent
                .iter()
                .zip(&arrivals)
                .skip(1)
                .map(|(sent, came)| came.saturating_duration_since(*sent))
                .collect(),
        })
    }
}

fn body() -> Bytes {
    let text = "All of this is read, and none of it is meant. ".repeat(BODY / 46);
    let body = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 32,
        "stream": true,
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": text }] }],
    });
    Bytes::from(body.to_string())
}

/// A model host that sends a paced stream to every request.
pub(super) struct Upstream {
    port: u16,
    sent: Arc<Mutex<Vec<Instant>>>,
    _server: AbortOnDropHandle<()>,
}

impl Upstream {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen as the model host")?;
        let port = listener
            .local_addr()
            .context("read the model host's address")?
            .port();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let server = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::clone(&sent))));
        Ok(Self {
            port,
            sent,
            _server: server,
        })
    }

    /// By name, so that a static agent has to resolve one.
    pub(super) fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// When the events of the newest stream were sent.
    fn sent(&self) -> Vec<Instant> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn accept(listener: TcpListener, sent: Arc<Mutex<Vec<Instant>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let sent = Arc::clone(&sent);
        // Ends with its connection.
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let sent = Arc::clone(&sent);
                async move { Ok::<_, Infallible>(answer(request, sent).await) }
            });
            if let Err(error) = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                tracing::debug!(%error, "a connection to the model host ended early");
            }
        });
    }
}

type Events = StreamBody<
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>,
>;

async fn answer(
    request: Request<hyper::body::Incoming>,
    sent: Arc<Mutex<Vec<Instant>>>,
) -> Response<Events> {
    // Read as a host reads it, before it answers.
    let _ = request.into_body().collect().await;
    sent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let (sender, events) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(PACE);
        for n in 0..=EVENTS {
            tick.tick().await;
            sent.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Instant::now());
            if sender.send(event(n)).await.is_err() {
                return;
            }
        }
    });
    let events = ReceiverStream::new(events).map(|event| Ok(Frame::data(event)));
    let mut response = Response::new(StreamBody::new(Box::pin(events) as _));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/event-stream"),
    );
    response
}

/// The events of a message that costs next to nothing.
fn event(n: usize) -> Bytes {
    let usage = json!({ "input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0 });
    let event = match n {
        0 => {
            json!({ "type": "message_start", "message": { "id": "msg_bench", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage } })
        }
        1 => {
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } })
        }
        n if n == EVENTS => json!({ "type": "message_stop" }),
        n if n == EVENTS - 1 => json!({ "type": "message_delta", "usage": usage,
            "delta": { "stop_reason": "end_turn", "stop_sequence": null } }),
        n if n == EVENTS - 2 => json!({ "type": "content_block_stop", "index": 0 }),
        _ => json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": "a few words of an answer" } }),
    };
    let name = event["type"].as_str().unwrap_or_default().to_owned();
    Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
}
