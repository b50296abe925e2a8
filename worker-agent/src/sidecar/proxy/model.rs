//! The model proxy: Messages API requests to one fixed host.
//!
//! It puts the credential in, screens the request, meters the reply and stops at the budget. It never delays a byte of
//! a reply to read it, never follows or passes on a redirect, and never sends on a header that it does not know.
//! When the host cannot be reached it answers with a status that Claude Code retries; when policy or the budget says no,
//! with one that ends the turn at once.

#![allow(
    clippy::result_large_err,
    reason = "a refusal is the answer itself, made once a request"
)]

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod meter;
mod screen;
mod sse;
mod usage;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

pub use meter::Meter;
pub use usage::{Price, Usage};

use self::meter::Charge;
use super::body::{Body, BodyError, full, strip_hop_by_hop};
use super::event::{Event, Sink, clip};
use super::upstream::{self, Base, Heard, Stalled, Timeouts, Upstream};
use crate::sidecar::claude::classify::BUDGET_PREFIX;

/// The API's own limit on a request.
const REQUEST: usize = 32 * 1024 * 1024;

/// Largest reply without streaming that is kept for reading its usage; a larger one is charged by its size.
const DOCUMENT: usize = 4 * 1024 * 1024;

/// Bytes of an error's body that are kept for reading what it means.
const ERROR: usize = 64 * 1024;

/// Requests at once: subagents run side by side, and each request may hold a body of the size above. More wait.
const IN_FLIGHT: usize = 8;

/// The beta that a subscription's token needs.
const OAUTH_BETA: &str = "oauth-2025-04-20";

/// How the attempt's model requests are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// `https://host[/prefix]`, in front of `/v1/messages`.
    pub upstream: Url,
    /// What is sent as the credential; without one, requests are refused.
    pub credential: Option<Credential>,
    /// Models that policy lists: a name (its dated releases pass too) or a prefix ending in `*`.
    pub models: Vec<String>,
    /// Prices; a model without one is refused, for its cost could not be bounded.
    pub prices: Vec<Price>,
    /// The task's budget in micro-USD, with what earlier attempts had spent.
    pub budget_micros: u64,
    /// Micro-USD that earlier attempts had spent.
    pub spent_micros: u64,
}

/// A model credential. Never printed.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Sent as `x-api-key`.
    ApiKey(SecretString),
    /// A subscription's token: sent as a bearer token, with the beta that it needs.
    OAuth(SecretString),
    /// A gateway's token: sent as a bearer token.
    Gateway(SecretString),
}

/// Why a model request was turned away, as the proxy itself saw it. What the CLI says of it passes through the harness,
/// where anybody may write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// The model host did not take the credential.
    Credential,
    /// The model host said that there is no credit.
    Credit,
    /// The model host said that a limit is reached.
    Limit,
    /// Policy refuses what was asked for; why.
    Policy(String),
}

/// How the last answered request was turned away; nothing where it was not.
#[derive(Clone, Debug, Default)]
struct Last(Arc<Mutex<Option<TurnedAway>>>);

impl Last {
    fn set(&self, why: Option<TurnedAway>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn get(&self) -> Option<TurnedAway> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The proxy behind `/v1/`.
#[derive(Debug)]
pub(super) struct Model {
    base: Base,
    models: Vec<String>,
    prices: Vec<Price>,
    credential: RwLock<Option<Credential>>,
    meter: Meter,
    slots: Arc<Semaphore>,
    upstream: Arc<Upstream>,
    timeouts: Timeouts,
    last: Last,
    sink: Sink,
}

impl Model {
    pub(super) fn new(
        options: Options,
        base: Base,
        (upstream, timeouts): (Arc<Upstream>, Timeouts),
        sink: Sink,
    ) -> Self {
        Self {
            base,
            models: options.models,
            prices: options.prices,
            credential: RwLock::new(options.credential),
            meter: Meter::new(options.budget_micros, options.spent_micros, sink.clone()),
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            upstream,
            timeouts,
            last: Last::default(),
            sink,
        }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// How the last answered request was turned away, if it was.
    pub(super) fn turned_away(&self) -> Option<TurnedAway> {
        self.last.get()
    }

    /// What comes from now on counts.
    pub(super) fn forget_turned_away(&self) {
        self.last.set(None);
    }

    pub(super) fn set_credential(&self, credential: Option<Credential>) {
        *self
            .credential
            .write()
            .unwrap_or_else(PoisonError::into_inner) = credential;
    }

    /// Answers one request under `/v1/`.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let metered = match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/messages") => true,
            (&Method::POST, "/v1/messages/count_tokens") => false,
            (_, "/v1/messages" | "/v1/messages/count_tokens") => {
                return refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "invalid_request_error",
                    "only POST is allowed",
                );
            }
            _ => {
                return refusal(
                    StatusCode::NOT_FOUND,
                    "not_found_error",
                    "the model proxy does not serve this path",
                );
            }
        };
        match self.forward(request, metered).await {
            Ok(response) | Err(response) => response,
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        metered: bool,
    ) -> Result<Response<Body>, Response<Body>> {
        let (head, body) = request.into_parts();
        if head.headers.contains_key(CONTENT_ENCODING) {
            return Err(self.refuse("an encoded request body cannot be screened"));
        }
        let headers = self.headers(&head.headers)?;
        let query = head
            .uri
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let uri = self
            .base
            .join(&format!("{}{query}", head.uri.path()))
            .ok_or_else(|| self.refuse("the query is not valid"))?;
        // Closed never: the semaphore lives as long as this.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let body = read(body).await?;
        let screened =
            screen::screen(&body, &self.models).map_err(|reason| self.refuse(&reason))?;
        let price = usage::price_of(&self.prices, &screened.model).ok_or_else(|| {
            self.refuse(&format!(
                "model {:?} has no price in the policy",
                clip(&screened.model)
            ))
        })?;
        let charge = if metered {
            let admitted = self
                .meter
                .admit(price.clone(), body.len(), screened.max_tokens);
            Some(admitted.map_err(|(spent, budget)| self.at_budget(spent, budget))?)
        } else {
            None
        };
        let mut upstream = Request::new(full(body));
        *upstream.method_mut() = Method::POST;
        *upstream.uri_mut() = uri;
        *upstream.headers_mut() = headers;
        // A reply that is not streamed sends no byte before it is done.
        let silence = if metered && !screened.stream {
            self.timeouts.document
        } else {
            self.timeouts.model
        };
        match self.upstream.send(upstream, silence).await {
            Ok(response) => Ok(self.answer(response, charge, slot)),
            Err(error) => {
                if let Some(mut charge) = charge {
                    if error.nothing_sent() {
                        charge.waive();
                    } else if !error.is_ours() {
                        charge.whole();
                    }
                }
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the model host gave no answer"
                );
                Err(match error {
                    upstream::Error::Silent { .. } => api_error(
                        StatusCode::GATEWAY_TIMEOUT,
                        "api_error",
                        "the model host does not answer",
                    ),
                    _ => api_error(
                        StatusCode::BAD_GATEWAY,
                        "api_error",
                        "the model host cannot be reached",
                    ),
                })
            }
        }
    }

    /// The headers that go to the host: those of the API and of the client's identity, and the credential.
    fn headers(&self, from: &HeaderMap) -> Result<HeaderMap, Response<Body>> {
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in from.iter().filter(|(name, _)| passes(name.as_str())) {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let credential = self
            .credential
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(credential) = credential.as_ref() else {
            let message = "the worker has no model credential yet";
            return Err(api_error(
                StatusCode::SERVICE_UNAVAILABLE,
                "api_error",
                message,
            ));
        };
        let (name, text) = match credential {
            Credential::ApiKey(key) => (
                HeaderName::from_static("x-api-key"),
                key.expose_secret().to_owned(),
            ),
            Credential::OAuth(token) | Credential::Gateway(token) => {
                (AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
            }
        };
        let Ok(mut value) = HeaderValue::try_from(text) else {
            let message = "the model credential cannot be sent in a header";
            self.last.set(Some(TurnedAway::Credential));
            return Err(refusal(StatusCode::FORBIDDEN, "permission_error", message));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
        if matches!(credential, Credential::OAuth(_)) {
            add_beta(&mut headers, OAUTH_BETA);
        }
        Ok(headers)
    }

    fn answer(
        &self,
        response: Response<Heard>,
        charge: Option<Charge>,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(SET_COOKIE);
        self.observe(head.status, &head.headers);
        self.last.set(of_status(head.status));
        if head.status.is_redirection() {
            charge.into_iter().for_each(Charge::waive);
            return api_error(
                StatusCode::BAD_GATEWAY,
                "api_error",
                "the model host answered with a redirect",
            );
        }
        if matches!(head.status.as_u16(), 401..=403) {
            // The same credential is sent each time: Claude Code would try for minutes, and nothing would change.
            head.headers
                .insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if !head.status.is_success() {
            charge.into_iter().for_each(Charge::waive);
            let passed = Passed {
                inner: body,
                reading: None,
                blame: Some(Blame {
                    kept: Vec::new(),
                    last: self.last.clone(),
                }),
                _slot: slot,
            };
            return Response::from_parts(head, passed.boxed_unsync());
        }
        if charge.is_some()
            && head
                .headers
                .get(CONTENT_ENCODING)
                .is_some_and(|encoding| encoding != "identity")
        {
            // Charged for the input: what it would have sent cannot be read.
            return api_error(
                StatusCode::BAD_GATEWAY,
                "api_error",
                "the model host encoded its reply, which cannot be metered",
            );
        }
        let streamed = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        let reading = charge.map(|charge| Reading {
            charge,
            source: if streamed {
                Source::Stream(sse::Stream::default())
            } else {
                Source::Document(Vec::new(), 0)
            },
        });
        Response::from_parts(
            head,
            Passed {
                inner: body,
                reading,
                blame: None,
                _slot: slot,
            }
            .boxed_unsync(),
        )
    }

    fn observe(&self, status: StatusCode, headers: &HeaderMap) {
        match status.as_u16() {
            status @ (401 | 403) => self.sink.put(Event::ModelUnauthorized { status }),
            status @ (429 | 529) => self.sink.put(Event::ModelLimited {
                status,
                retry_after: limits::retry_after(headers),
                reset_at: limits::reset_at(headers, Timestamp::now()),
            }),
            _ => {}
        }
    }

    fn refuse(&self, reason: &str) -> Response<Body> {
        // The reason of a body that cannot be read quotes it.
        let reason = clip(reason);
        let response = refusal(StatusCode::FORBIDDEN, "permission_error", &reason);
        self.last.set(Some(TurnedAway::Policy(reason.clone())));
        self.sink.put(Event::ModelRefused { reason });
        response
    }

    fn at_budget(&self, spent_micros: u64, budget_micros: u64) -> Response<Body> {
        self.sink.put(Event::BudgetReached {
            spent_micros,
            budget_micros,
        });
        let message = format!(
            "{BUDGET_PREFIX} ({} of {} USD)",
            usd(spent_micros),
            usd(budget_micros)
        );
        refusal(StatusCode::PAYMENT_REQUIRED, "billing_error", &message)
    }
}

/// Request headers that go on to the host. The harness's own credentials are dummies and stay here.
fn passes(name: &str) -> bool {
    const EXACT: [&str; 5] = [
        "accept",
        "content-type",
        "user-agent",
        "x-app",
        "x-client-request-id",
    ];
    const PREFIX: [&str; 3] = ["anthropic-", "x-stainless-", "x-claude-"];
    EXACT.contains(&name) || PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

fn add_beta(headers: &mut HeaderMap, beta: &'static str) {
    let name = HeaderName::from_static("anthropic-beta");
    let there = headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| one.trim() == beta));
    if !there {
        headers.append(name, HeaderValue::from_static(beta));
    }
}

async fn read(body: Incoming) -> Result<Bytes, Response<Body>> {
    match Limited::new(body, REQUEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            "the request is larger than 32 MB",
        )),
        Err(_) => Err(refusal(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "the request was cut",
        )),
    }
}

/// Whole micro-USD as dollars with four digits after the point, rounded down.
fn usd(micros: u64) -> String {
    format!("{}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}

/// An error in the API's own form, after which Claude Code may retry.
fn api_error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({"type": "error", "error": {"type": kind, "message": format!("mainloop: {message}")}});
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The same, after which it does not retry.
fn refusal(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let mut response = api_error(status, kind, message);
    response
        .headers_mut()
        .insert("x-should-retry", HeaderValue::from_static("false"));
    response
}

/// A reply on its way; it holds its slot and its charge until it ends or is dropped.
struct Passed {
    inner: Heard,
    reading: Option<Reading>,
    blame: Option<Blame>,
    _slot: Option<OwnedSemaphorePermit>,
}

/// Reads what the body of an error says beyond its status, before the harness has it.
struct Blame {
    kept: Vec<u8>,
    last: Last,
}

impl Blame {
    fn feed(&mut self, data: &[u8]) {
        if self.kept.len() + data.len() > ERROR {
            return;
        }
        self.kept.extend_from_slice(data);
        if speaks_of_credit(&self.kept) {
            self.last.set(Some(TurnedAway::Credit));
        }
    }
}

/// What a status of the model host means for the credential.
fn of_status(status: StatusCode) -> Option<TurnedAway> {
    match status.as_u16() {
        401 | 403 => Some(TurnedAway::Credential),
        402 => Some(TurnedAway::Credit),
        429 => Some(TurnedAway::Limit),
        _ => None,
    }
}

/// Whether an error says that the account has no credit: the API does so under statuses that mean other things too.
fn speaks_of_credit(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    let error = &body["error"];
    error["type"] == "billing_error"
        || error["message"]
            .as_str()
            .is_some_and(|message| message.to_lowercase().contains("credit balance"))
}

impl hyper::body::Body for Passed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(reading)) = (&polled, &mut self.reading)
            && let Some(data) = frame.data_ref()
        {
            reading.feed(data);
        }
        if let (Poll::Ready(Some(Ok(frame))), Some(blame)) = (&polled, &mut self.blame)
            && let Some(data) = frame.data_ref()
        {
            blame.feed(data);
        }
        let ended = match &polled {
            Poll::Ready(Some(Ok(_))) => self.inner.is_end_stream(),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        if ended && let Some(mut reading) = self.reading.take() {
            let is_ours = matches!(&polled, Poll::Ready(Some(Err(error))) if error.is::<Stalled>());
            if !is_ours {
                reading.charge.whole();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads the cost of one reply.
struct Reading {
    charge: Charge,
    source: Source,
}

enum Source {
    Stream(sse::Stream),
    /// What was kept of a document, and how long it is.
    Document(Vec<u8>, u64),
}

impl Reading {
    fn feed(&mut self, data: &Bytes) {
        match &mut self.source {
            Source::Stream(stream) => {
                let started = stream.started();
                stream.feed(data);
                if stream.started() && !started {
                    self.charge.tell(stream.input());
                }
            }
            Source::Document(kept, length) => {
                *length += data.len() as u64;
                if kept.len() + data.len() <= DOCUMENT {
                    kept.extend_from_slice(data);
                }
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Source::Stream(stream) = &self.source
            && stream.finished()
        {
            self.charge.whole();
        }
        match &self.source {
            Source::Stream(stream) if stream.started() => self.charge.set(stream.usage()),
            Source::Stream(stream) => self.charge.set_output(stream.usage().output),
            Source::Document(kept, length) => match sse::of_document(kept) {
                Some(usage) => self.charge.set(usage),
                None => self.charge.set_output(length.div_ceil(3)),
            },
        }
    }
}
