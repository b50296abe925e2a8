//! The one HTTP client of the sidecar's proxies.
//!
//! Owns connection reuse and TLS towards the model host and the code host. It never follows a redirect. The trust
//! roots are read at the first use of a TLS host, so that an idle sidecar does not pay for them. A host that lets a
//! request wait without a byte, before its answer or in the middle of it, is given up: a connection that is half open
//! says so by nothing else.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use url::Url;

use super::body::{Body, BodyError};

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The trust roots of the system cannot be read.
    #[error("read the system's trust roots")]
    Roots(#[source] std::io::Error),
    /// The proxy was shut down meanwhile.
    #[error("wait for the upstream: the proxy was shut down")]
    Stopped,
    /// It took the request, and then no byte passed for too long.
    #[error("ask {authority}: no answer, and no byte for {} s", after.as_secs())]
    Silent {
        /// Who was asked.
        authority: String,
        /// For how long.
        after: Duration,
    },
    /// No connection, or no answer on it.
    #[error("ask {authority}")]
    Request {
        /// Who was asked.
        authority: String,
        /// What happened.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
}

impl Error {
    /// Whether nothing was sent, so that nothing can have been charged.
    pub(super) fn nothing_sent(&self) -> bool {
        match self {
            Self::Roots(_) => true,
            Self::Stopped | Self::Silent { .. } => false,
            Self::Request { source, .. } => source.is_connect(),
        }
    }

    /// Whether it was given up here: the host may be at work on it.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Stopped | Self::Silent { .. })
    }
}

/// A host stopped in the middle of its answer, and was given up.
#[derive(Debug, thiserror::Error)]
#[error("the host stopped in the middle of its answer")]
pub(super) struct Stalled;

/// How long hosts are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a connection is there.
    pub connect: Duration,
    /// Without a byte of a model request or its reply. Streams are kept alive by pings.
    pub model: Duration,
    /// The same where the reply is not streamed: nothing of it comes before all is there.
    pub document: Duration,
    /// Without a byte of a fetch or a push, or of its answer.
    pub git: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            model: Duration::from_mins(2),
            document: Duration::from_mins(10),
            git: Duration::from_mins(3),
        }
    }
}

/// The shared client.
#[derive(Debug)]
pub(super) struct Upstream {
    connect: Duration,
    plain: OnceLock<Client<HttpConnector, Body>>,
    tls: OnceLock<Client<HttpsConnector<HttpConnector>, Body>>,
}

impl Upstream {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            connect: timeouts.connect,
            plain: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    /// Sends a request whose URI is absolute. It is given up where no byte passes for as long as `silence`, and so is
    /// its answer.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        silence: Duration,
    ) -> Result<Response<Heard>, Error> {
        let authority = request
            .uri()
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let passed = Arc::new(Mutex::new(Instant::now()));
        let told = Arc::clone(&passed);
        let request = request.map(|body| Sent { body, passed: told }.boxed_unsync());
        let answer = self.ask(request);
        tokio::pin!(answer);
        loop {
            let due = *passed.lock().unwrap_or_else(PoisonError::into_inner) + silence;
            tokio::select! {
                answer = &mut answer => {
                    let heard = |body| Heard { body, silence, waits: None };
                    return answer.map(|response| response.map(heard));
                }
                () = sleep_until(due) => {
                    // A part of the request may have gone meanwhile.
                    if *passed.lock().unwrap_or_else(PoisonError::into_inner) + silence <= Instant::now() {
                        return Err(Error::Silent { authority, after: silence });
                    }
                }
            }
        }
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let authority = request
            .uri()
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let answer = if request.uri().scheme() == Some(&Scheme::HTTPS) {
            self.tls()?.request(request).await
        } else {
            self.plain
                .get_or_init(|| builder().build(connector(self.connect)))
                .request(request)
                .await
        };
        answer.map_err(|source| Error::Request { authority, source })
    }

    fn tls(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Body>, Error> {
        if let Some(client) = self.tls.get() {
            return Ok(client);
        }
        let mut inner = connector(self.connect);
        inner.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(Error::Roots)?
            .https_only()
            .enable_http1()
            .wrap_connector(inner);
        Ok(self.tls.get_or_init(|| builder().build(https)))
    }
}

/// A request's body, which notes when it was asked for more: what went before has gone out.
struct Sent {
    body: Body,
    passed: Arc<Mutex<Instant>>,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which fails where nothing comes for too long. What its reader does not ask for is not awaited.
#[derive(Debug)]
pub(super) struct Heard<B = Incoming> {
    body: B,
    silence: Duration,
    waits: Option<Pin<Box<Sleep>>>,
}

impl<B> hyper::body::Body for Heard<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waits = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let silence = self.silence;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(silence)));
        match waits.as_mut().poll(cx) {
            Poll::Ready(()) => {
                tracing::warn!(
                    seconds = silence.as_secs(),
                    "a host stopped in the middle of its answer"
                );
                Poll::Ready(Some(Err(Stalled.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A fixed place that requests go to.
#[derive(Clone, Debug)]
pub(super) struct Base {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

impl Base {
    /// Takes `http(s)://host[:port][/prefix]`; anything else is `None`.
    pub(super) fn parse(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "https" => Scheme::HTTPS,
            "http" => Scheme::HTTP,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return None;
        }
        let host = url.host_str()?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Some(Self {
            scheme,
            authority: authority.parse().ok()?,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The URI of a path (with query) below the base.
    pub(super) fn join(&self, path_and_query: &str) -> Option<Uri> {
        let path: PathAndQuery = format!("{}{path_and_query}", self.prefix).parse().ok()?;
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .ok()
    }

    /// The host, without a port.
    pub(super) fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port that is dialled.
    pub(super) fn port(&self) -> u16 {
        self.authority
            .port_u16()
            .unwrap_or(if self.scheme == Scheme::HTTPS {
                443
            } else {
                80
            })
    }
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(timeout));
    connector
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(4);
    builder
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::poll;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn only_silence_ends_an_answer_and_not_its_length() {
        let (sender, receiver) = mpsc::channel(1);
        let mut heard = Heard {
            body: StreamBody::new(ReceiverStream::new(receiver)),
            silence: Duration::from_hours(1),
            waits: None,
        };
        for _ in 0..3 {
            assert!(poll!(heard.frame()).is_pending());
            assert!(heard.waits.is_some(), "silence is counted");
            let frame = Frame::data(Bytes::from_static(b"."));
            sender.send(Ok::<_, BodyError>(frame)).await.unwrap();
            assert!(poll!(heard.frame()).is_ready());
            assert!(heard.waits.is_none(), "and begins anew with each piece");
        }
    }
}
