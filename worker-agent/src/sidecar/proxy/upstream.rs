//! The one HTTP client of the sidecar's proxies.
//!
//! Owns connection reuse and TLS towards the model host and the code host. It never follows a redirect. The trust
//! roots are read at the first use of a TLS host, so that an idle sidecar does not pay for them.

use std::sync::OnceLock;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::body::{Body, CONNECT_TIMEOUT};

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The trust roots of the system cannot be read.
    #[error("read the system's trust roots")]
    Roots(#[source] std::io::Error),
    /// The proxy was shut down meanwhile.
    #[error("wait for the upstream: the proxy was shut down")]
    Stopped,
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
            Self::Stopped => false,
            Self::Request { source, .. } => source.is_connect(),
        }
    }
}

/// The shared client.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    plain: OnceLock<Client<HttpConnector, Body>>,
    tls: OnceLock<Client<HttpsConnector<HttpConnector>, Body>>,
}

impl Upstream {
    /// Sends a request whose URI is absolute.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let authority = request
            .uri()
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let answer = if request.uri().scheme() == Some(&Scheme::HTTPS) {
            self.tls()?.request(request).await
        } else {
            self.plain
                .get_or_init(|| builder().build(connector()))
                .request(request)
                .await
        };
        answer.map_err(|source| Error::Request { authority, source })
    }

    fn tls(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Body>, Error> {
        if let Some(client) = self.tls.get() {
            return Ok(client);
        }
        let mut inner = connector();
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

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(4);
    builder
}
