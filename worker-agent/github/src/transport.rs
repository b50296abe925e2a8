//! Requests to one GitHub API with one token.
//!
//! Owns the octocrab client: everything else in the crate speaks JSON through it. Reads are
//! repeated a few times with a growing pause; **writes are sent once**, because a write
//! whose answer is lost may have happened, and only its caller knows how to look for it.
//! Every answer is bounded in size and time. Nothing here sleeps out a rate limit: the caller
//! gets the time and decides.
//!
//! octocrab is used for its connection, authentication and redirects (which drop the token on
//! another host). Its typed calls hide response headers, read unbounded bodies and fail on enum
//! values that they do not know, so the few fields we use are our own structs.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use octocrab::Octocrab;
use octocrab::service::middleware::retry::RetryConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::client::Options;
use crate::error::{Class, Error, Result, Thing};
use crate::quota::Quota;

/// How long is waited for GitHub. A host that accepts and says nothing, or that stops in the middle, is given up then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection is there.
    pub connect: Duration,
    /// From the first byte sent to the last byte read. GitHub itself gives up after ten seconds.
    pub request: Duration,
    /// The same for logs, which come from a blob store and may be large.
    pub download: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(30),
            download: Duration::from_mins(2),
        }
    }
}

/// A page of a hundred issues with bodies of 64 KiB is the largest answer that we ask for.
const BODY_LIMIT: usize = 16 << 20;
/// A download stops here, whatever the other side sends.
const DOWNLOAD_LIMIT: usize = 256 << 20;
/// Repeats of a read after its first failure.
const READ_RETRIES: usize = 3;
pub(crate) const PER_PAGE: usize = 100;
/// GitHub's names of the limits that requests count against.
const CORE: &str = "core";
const GRAPHQL: &str = "graphql";

/// One API, one token at a time. Cheap to clone; clones share the token.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Inner>);

struct Inner {
    origin: String,
    crab: RwLock<Octocrab>,
    /// Path before every REST route: empty on github.com, `/api/v3` on an Enterprise server.
    rest: String,
    /// Path of the GraphQL endpoint, which is not below `rest` on an Enterprise server.
    graphql: String,
    quota: Quota,
    timeouts: Timeouts,
}

/// A successful or "not modified" answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self, operation: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|source| Error::Malformed {
            operation: operation.to_owned(),
            source,
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// How much of a list was asked for.
pub(crate) struct Pages<T> {
    pub(crate) items: Vec<T>,
    /// There was more than the bound on pages let us read.
    pub(crate) cut: bool,
}

impl Transport {
    /// Must be called inside a Tokio runtime (octocrab keeps a task for its queue).
    pub(crate) fn new(api_base: &Url, token: &SecretString, options: Options) -> Result<Self> {
        let Options { quota, timeouts } = options;
        let config = |text: &str| Error::Config(text.to_owned());
        if !matches!(api_base.scheme(), "http" | "https") {
            return Err(Error::Config(format!(
                "the API's address must be http or https, not {}",
                api_base.scheme()
            )));
        }
        let host = api_base
            .host_str()
            .ok_or_else(|| config("the API's address has no host"))?;
        let origin = match api_base.port() {
            Some(port) => format!("{}://{host}:{port}", api_base.scheme()),
            None => format!("{}://{host}", api_base.scheme()),
        };
        let rest = api_base.path().trim_end_matches('/').to_owned();
        let graphql = match rest.strip_suffix("/v3") {
            Some(api) => format!("{api}/graphql"),
            None => format!("{rest}/graphql"),
        };
        let crab = RwLock::new(crab(&origin, token, timeouts.connect)?);
        Ok(Self(Arc::new(Inner {
            origin,
            crab,
            rest,
            graphql,
            quota,
            timeouts,
        })))
    }

    /// Requests go with this token from now on; those on their way keep the old one.
    pub(crate) fn renew(&self, token: &SecretString) -> Result<()> {
        let new = crab(&self.0.origin, token, self.0.timeouts.connect)?;
        self.0.quota.forget();
        *self.0.crab.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(crate) fn quota(&self) -> &Quota {
        &self.0.quota
    }

    /// Whether a request may be sent.
    fn admit(&self, operation: &str, resource: &str) -> Result<()> {
        match self.0.quota.closed(resource, Timestamp::now()) {
            Some(until) => Err(Error::Limited {
                operation: operation.to_owned(),
                until,
            }),
            None => Ok(()),
        }
    }

    fn crab(&self) -> Octocrab {
        let crab = self.0.crab.read();
        crab.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads `path` (below the REST root, query included).
    pub(crate) async fn get<T: DeserializeOwned>(&self, operation: &str, path: &str) -> Result<T> {
        self.get_reply(operation, path, None).await?.json(operation)
    }

    /// As [`Self::get`], but what is not there is `None`.
    pub(crate) async fn get_optional<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
    ) -> Result<Option<T>> {
        match self.get(operation, path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads with `If-None-Match`; the answer may be 304 with no body.
    pub(crate) async fn get_reply(
        &self,
        operation: &str,
        path: &str,
        etag: Option<&str>,
    ) -> Result<Reply> {
        let path = format!("{}{path}", self.0.rest);
        (|| self.once(operation, Method::GET, &path, etag, None))
            .retry(backoff())
            .when(Error::is_unavailable)
            .notify(|error, pause| {
                tracing::debug!(%error, ?pause, "read is repeated");
            })
            .await
    }

    /// Reads a list page after page, at most `max_pages`. `key` is the member that holds the
    /// list where the answer is an object.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        key: Option<&str>,
        max_pages: usize,
    ) -> Result<Pages<T>> {
        let join = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        for page in 1..=max_pages {
            // Counting pages instead of following `Link` keeps every request on our own host.
            let url = format!("{path}{join}per_page={PER_PAGE}&page={page}");
            let reply = self.get_reply(operation, &url, None).await?;
            let has_next = reply
                .header("link")
                .is_some_and(|link| link.contains("rel=\"next\""));
            let list: Vec<T> = match key {
                None => reply.json(operation)?,
                Some(key) => {
                    let mut object: Value = reply.json(operation)?;
                    serde_json::from_value(object[key].take()).map_err(|source| {
                        Error::Malformed {
                            operation: operation.to_owned(),
                            source,
                        }
                    })?
                }
            };
            items.extend(list);
            if !has_next {
                return Ok(Pages { items, cut: false });
            }
        }
        Ok(Pages { items, cut: true })
    }

    /// Writes, once. An error of class `Unavailable` means that it may have happened.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        operation: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T> {
        let path = format!("{}{path}", self.0.rest);
        self.once(operation, method, &path, None, Some(body))
            .await?
            .json(operation)
    }

    /// As [`Self::send`], with the answer's headers.
    #[cfg(feature = "app")]
    pub(crate) async fn post(&self, operation: &str, path: &str, body: &Value) -> Result<Reply> {
        let path = format!("{}{path}", self.0.rest);
        self.once(operation, Method::POST, &path, None, Some(body))
            .await
    }

    /// Deletes, once.
    pub(crate) async fn delete(&self, operation: &str, path: &str) -> Result<()> {
        let path = format!("{}{path}", self.0.rest);
        self.once(operation, Method::DELETE, &path, None, None)
            .await
            .map(drop)
    }

    /// A GraphQL request, once; returns the `data` member.
    pub(crate) async fn graphql<T: DeserializeOwned>(
        &self,
        operation: &str,
        query: &str,
        variables: &Value,
    ) -> Result<T> {
        let body = json!({ "query": query, "variables": variables });
        let reply = self
            .once(operation, Method::POST, &self.0.graphql, None, Some(&body))
            .await?;
        let answer: GraphqlAnswer = reply.json(operation)?;
        if let Some(first) = answer.errors.first() {
            let error = first.to_error(operation);
            return Err(match error.class() {
                // The answer's headers said when it ends.
                Class::RateLimited { .. } => self.admit(operation, GRAPHQL).err().unwrap_or(error),
                _ => error,
            });
        }
        serde_json::from_value(answer.data).map_err(|source| Error::Malformed {
            operation: operation.to_owned(),
            source,
        })
    }

    /// Downloads `path` (redirects followed, without the token on another host) and keeps the
    /// last `keep` bytes. The second value says whether something was dropped.
    pub(crate) async fn tail(
        &self,
        operation: &str,
        path: &str,
        keep: usize,
    ) -> Result<(Vec<u8>, bool)> {
        let path = format!("{}{path}", self.0.rest);
        (|| self.tail_once(operation, &path, keep))
            .retry(backoff())
            .when(Error::is_unavailable)
            .await
    }

    async fn tail_once(&self, operation: &str, path: &str, keep: usize) -> Result<(Vec<u8>, bool)> {
        self.admit(operation, CORE)?;
        within(operation, self.0.timeouts.download, async {
            let response = self.crab()._get(path).await.map_err(transport(operation))?;
            let (parts, mut body) = response.into_parts();
            let (mut tail, mut read) = (BytesMut::new(), 0usize);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(transport(operation))?;
                let Some(data) = frame.data_ref() else {
                    continue;
                };
                read += data.len();
                tail.extend_from_slice(data);
                // Twice the size before cutting, so that cutting is not done for each frame.
                if tail.len() > keep.saturating_mul(2) {
                    let _ = tail.split_to(tail.len() - keep);
                }
                if read > DOWNLOAD_LIMIT {
                    break;
                }
            }
            if !parts.status.is_success() {
                return Err(Error::from_reply(
                    operation,
                    path,
                    parts.status,
                    &parts.headers,
                    &tail,
                ));
            }
            let cut = tail.len().saturating_sub(keep);
            let _ = tail.split_to(cut);
            Ok((tail.to_vec(), read > keep))
        })
        .await
    }

    async fn once(
        &self,
        operation: &str,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply> {
        let resource = if path == self.0.graphql {
            GRAPHQL
        } else {
            CORE
        };
        self.admit(operation, resource)?;
        within(operation, self.0.timeouts.request, async {
            let mut request = http::Request::builder()
                .method(method)
                .uri(path)
                .header(header::ACCEPT, "application/vnd.github+json");
            if let Some(value) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
                request = request.header(header::IF_NONE_MATCH, value);
            }
            let crab = self.crab();
            let request = crab
                .build_request(request, body)
                .map_err(transport(operation))?;
            let response = crab.execute(request).await.map_err(transport(operation))?;
            let (parts, mut stream) = response.into_parts();
            self.0
                .quota
                .heard(resource, &parts.headers, Timestamp::now());
            let mut bytes = BytesMut::new();
            while let Some(frame) = stream.frame().await {
                let frame = frame.map_err(transport(operation))?;
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > BODY_LIMIT {
                        return Err(Error::TooLarge {
                            operation: operation.to_owned(),
                            limit: BODY_LIMIT,
                        });
                    }
                    bytes.extend_from_slice(data);
                }
            }
            if !parts.status.is_success() && parts.status != StatusCode::NOT_MODIFIED {
                let error =
                    Error::from_reply(operation, path, parts.status, &parts.headers, &bytes);
                // A primary limit closes its own resource, as its headers said.
                if let Class::RateLimited { until: Some(until) } = error.class()
                    && self.admit(operation, resource).is_ok()
                {
                    self.0.quota.close(until);
                }
                return Err(error);
            }
            Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                body: bytes.freeze(),
            })
        })
        .await
    }
}

/// A connection to `origin` with this token.
fn crab(origin: &str, token: &SecretString, connect: Duration) -> Result<Octocrab> {
    // octocrab would panic on a token that is no header value.
    let secret = token.expose_secret().trim();
    if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::Config(
            "the token is empty or has characters that no token has".to_owned(),
        ));
    }
    // The base is the origin alone: with a path in it octocrab prefixes what already has
    // that prefix in some cases only, and /api/graphql would become /api/v3/api/graphql.
    Octocrab::builder()
        .base_uri(origin)
        .map_err(|_| Error::Config("the API's address is not a URI".to_owned()))?
        .personal_token(secret.to_owned())
        // The default re-sends a POST at once after a 5xx: three issues instead of one.
        .add_retry_config(RetryConfig::None)
        .set_connect_timeout(Some(connect))
        .build()
        .map_err(|error| Error::Config(format!("cannot build the HTTP client: {error}")))
}

/// Pauses between tries: 200 ms, 400 ms, 800 ms, each with jitter.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(READ_RETRIES)
        .with_jitter()
}

/// One path segment or query value, escaped. A slash is escaped too.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A path of several segments: slashes stay, and `.` or `..` segments are refused by the caller.
pub(crate) fn escape_path(path: &str) -> String {
    path.split('/').map(escape).collect::<Vec<_>>().join("/")
}

async fn within<T>(
    operation: &str,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            operation: operation.to_owned(),
            after: limit,
        })
    })
}

fn transport(operation: &str) -> impl FnOnce(octocrab::Error) -> Error + '_ {
    move |source| Error::Transport {
        operation: operation.to_owned(),
        source: Box::new(source),
    }
}

#[derive(Deserialize)]
struct GraphqlAnswer {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    errors: Vec<GraphqlError>,
}

#[derive(Deserialize)]
struct GraphqlError {
    #[serde(default)]
    message: String,
    #[serde(rename = "type", default)]
    kind: String,
}

impl GraphqlError {
    fn to_error(&self, operation: &str) -> Error {
        let class = match self.kind.as_str() {
            "NOT_FOUND" => Class::NotFound,
            "FORBIDDEN" | "INSUFFICIENT_SCOPES" => Class::Forbidden {
                hint: Some(self.message.clone()),
            },
            "RATE_LIMITED" => Class::RateLimited { until: None },
            "UNPROCESSABLE" => Class::Validation,
            "SERVICE_UNAVAILABLE" | "INTERNAL" => Class::Unavailable,
            _ => Class::Other,
        };
        Error::Api {
            operation: operation.to_owned(),
            status: 200,
            message: self.message.chars().take(600).collect(),
            documentation_url: None,
            class,
            thing: Thing::Other,
        }
    }
}
