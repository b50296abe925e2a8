//! The forward proxy: HTTP and TLS tunnels to the hosts of an allow-list.
//!
//! Names are resolved here, and the address that was checked is the one that is dialled, so that a name cannot change
//! in between. The code host and the model host are never reached this way, even when they are listed. What flows in a
//! tunnel is not read: a listed host that serves other names behind it can be used for those.

mod address;
mod allow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use allow::{HostPattern, PatternError};

use super::body::{Body, CONNECT_TIMEOUT, full, strip_hop_by_hop, text};
use super::event::{Event, Sink, clip};
use super::tasks::Tasks;

/// Connections at once: package managers open tens; more are refused with 503 and tried again by them.
const CONNECTIONS: usize = 64;

/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_mins(2);

/// A connection is closed after so long, whatever moves on it.
const TOTAL: Duration = Duration::from_hours(1);

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// Where the harness may go.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Hosts that are allowed.
    pub allow: Vec<HostPattern>,
    /// Networks that are allowed although they are not public: a mirror of the user's own, by the user's configuration.
    pub allow_addresses: Vec<IpNet>,
    /// Hosts, with all below them, that are never allowed, beside the code host and the model host.
    pub never: Vec<String>,
}

/// The proxy for `CONNECT` and for absolute URLs.
#[derive(Debug)]
pub(super) struct Forward {
    options: Options,
    never: Vec<Never>,
    slots: Arc<Semaphore>,
    tasks: Tasks,
    sink: Sink,
}

/// A host that is never allowed: a name with all below it, or an address, there only on its port.
#[derive(Clone, Debug)]
pub(super) struct Never {
    host: String,
    port: Option<u16>,
}

impl Never {
    pub(super) fn new(host: &str, port: Option<u16>) -> Self {
        Self {
            host: allow::normal(host).unwrap_or_default(),
            port,
        }
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.host.parse::<IpAddr>().is_ok() {
            return host == self.host && self.port.is_none_or(|own| own == port);
        }
        host == self.host || allow::is_below(host, &self.host)
    }
}

impl Forward {
    pub(super) fn new(options: Options, mut never: Vec<Never>, tasks: Tasks, sink: Sink) -> Self {
        never.extend(options.never.iter().map(|host| Never::new(host, None)));
        Self {
            options,
            never,
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks,
            sink,
        }
    }

    /// Answers one request for another host.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(authority) = request.uri().authority().cloned() else {
            return text(
                StatusCode::BAD_REQUEST,
                "mainloop: the request names no host",
            );
        };
        let tunnel = request.method() == Method::CONNECT;
        let port = match (tunnel, authority.port_u16()) {
            (true, None) => return text(StatusCode::BAD_REQUEST, "mainloop: CONNECT needs a port"),
            (_, Some(port)) => port,
            (false, None) => 80,
        };
        if !tunnel && request.uri().scheme() != Some(&Scheme::HTTP) {
            return text(
                StatusCode::BAD_REQUEST,
                "mainloop: use CONNECT for anything but http",
            );
        }
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "mainloop: too many connections at once",
            );
        };
        let stream = match self.dial(authority.host(), port).await {
            Ok(stream) => stream,
            Err(Denied::Refused(reason)) => {
                let host = format!("{}:{port}", clip(authority.host()));
                let message = format!("mainloop: {host} is refused: {reason}");
                self.sink.put(Event::HostRefused {
                    host,
                    reason: reason.to_owned(),
                });
                return text(StatusCode::FORBIDDEN, &message);
            }
            Err(Denied::Failed(error)) => {
                let message = format!(
                    "mainloop: {}:{port} cannot be reached: {error}",
                    clip(authority.host())
                );
                return text(StatusCode::BAD_GATEWAY, &message);
            }
        };
        if tunnel {
            self.tunnel(request, stream, permit)
        } else {
            self.request(request, &authority, stream, permit).await
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<Counted, Denied> {
        let host = allow::normal(host).ok_or(Denied::Refused("it is not a valid host name"))?;
        if self.never.iter().any(|never| never.matches(&host, port)) {
            return Err(Denied::Refused(
                "the code host and the model host are reached through their own proxies only",
            ));
        }
        if !self
            .options
            .allow
            .iter()
            .any(|pattern| pattern.matches(&host, port))
        {
            return Err(Denied::Refused("it is not on the allow-list"));
        }
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::time::timeout(
                CONNECT_TIMEOUT,
                tokio::net::lookup_host((host.as_str(), port)),
            )
            .await
            .map_err(|_| Denied::Failed(io::ErrorKind::TimedOut.into()))?
            .map_err(Denied::Failed)?
            .collect(),
        };
        let fit =
            |address: &&SocketAddr| address::may_dial(address.ip(), &self.options.allow_addresses);
        let dialled: Vec<_> = found.iter().filter(fit).take(ADDRESSES).collect();
        if dialled.is_empty() && !found.is_empty() {
            return Err(Denied::Refused("its address is not on the public Internet"));
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in dialled {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Only a delay, where it fails.
                    let _ = stream.set_nodelay(true);
                    return Ok(Counted {
                        stream,
                        moved: Arc::default(),
                    });
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(Denied::Failed(last))
    }

    fn tunnel(
        &self,
        request: Request<Incoming>,
        mut stream: Counted,
        permit: OwnedSemaphorePermit,
    ) -> Response<Body> {
        self.tasks.spawn(async move {
            let _permit = permit;
            let moved = Arc::clone(&stream.moved);
            let copy = async {
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    let mut client = TokioIo::new(upgraded);
                    // Either side may hang up as it likes.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
                }
            };
            bounded(copy, &moved).await;
        });
        Response::new(full(Bytes::new()))
    }

    async fn request(
        &self,
        request: Request<Incoming>,
        authority: &Authority,
        stream: Counted,
        permit: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let moved = Arc::clone(&stream.moved);
        let failed = |error: hyper::Error| {
            text(
                StatusCode::BAD_GATEWAY,
                &format!("mainloop: the host gave no answer: {error}"),
            )
        };
        let (mut sender, connection) =
            match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
                Ok(pair) => pair,
                Err(error) => return failed(error),
            };
        self.tasks.spawn(async move {
            let _permit = permit;
            bounded(async { drop(connection.await) }, &moved).await;
        });
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        head.uri = Uri::from(
            head.uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        );
        match sender.send_request(Request::from_parts(head, body)).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                strip_hop_by_hop(&mut head.headers);
                Response::from_parts(head, body.map_err(Into::into).boxed_unsync())
            }
            Err(error) => failed(error),
        }
    }
}

enum Denied {
    Refused(&'static str),
    Failed(io::Error),
}

/// Runs until the end, the total bound, or an idle period.
async fn bounded(work: impl Future<Output = ()>, moved: &AtomicU64) {
    let idle = async {
        let mut seen = None;
        loop {
            let now = Some(moved.load(Ordering::Relaxed));
            if now == seen {
                return;
            }
            seen = now;
            tokio::time::sleep(IDLE).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = idle => {}
        () = tokio::time::sleep(TOTAL) => {}
    }
}

/// A stream that counts what moves.
struct Counted {
    stream: TcpStream,
    moved: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.count(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
