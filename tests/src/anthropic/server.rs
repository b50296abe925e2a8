//! The HTTP side: authenticate, validate, record, choose, send.
//!
//! A request is recorded before its answer is sent, so that whoever saw the answer finds the record.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{any, post};
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::record::Recorded;
use super::reply::{Message, Reply, Trouble, Usage, tokens};
use super::request::Request;
use super::script::{Credential, Script};
use super::sse;

/// What the API itself accepts: 32 MB.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// What handlers share.
pub(super) struct Shared {
    script: Script,
    pub(super) log: watch::Sender<Vec<Recorded>>,
    usage: Mutex<Usage>,
    outage: Mutex<Option<Trouble>>,
}

impl Shared {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script,
            log: watch::Sender::new(Vec::new()),
            usage: Mutex::default(),
            outage: Mutex::default(),
        }
    }

    pub(super) fn charged(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_outage(&self, trouble: Option<Trouble>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn outage(&self) -> Option<Trouble> {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.clone()
    }

    fn charge_input(&self, message: &Message) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.input += message.usage.input;
        usage.cache_read += message.usage.cache_read;
        usage.cache_creation += message.usage.cache_creation;
    }

    fn charge_output(&self, output: u64) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.output += output;
    }
}

/// Serves until `stop`; open streams are cut then.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .fallback(any(absent))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared);
    // Dropped with this function, which ends every connection: axum's own loop would leave them running.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // One connection that failed (the peer left, or no descriptor was free) ends nothing else.
                Err(error) => {
                    tracing::warn!(%error, "the scripted model could not accept a connection");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let served = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                // Clients that leave and streams that a script cuts come here.
                tracing::debug!(%error, "a connection to the scripted model ended early");
            }
        });
    }
}

/// What will be sent, with what is recorded of it.
enum Answer {
    Trouble(Trouble),
    Message(Message, Option<Trouble>),
    Body(Value),
}

async fn messages(State(shared): State<Arc<Shared>>, request: http::Request<Body>) -> Response {
    let (parts, body) = match read(request).await {
        Ok(read) => read,
        Err(answer) => return respond_error(&answer),
    };
    let mut record = record(&parts, &body);
    let admitted = admit(&shared, &parts.headers, &body).and_then(|()| {
        if body["max_tokens"].is_u64() {
            Ok(())
        } else {
            Err(Trouble::invalid("max_tokens: Field required"))
        }
    });
    if let Err(refusal) = admitted {
        return send(&shared, record, Answer::Trouble(refusal), false);
    }
    let session = header(&parts.headers, "x-claude-code-session-id").to_owned();
    let streaming = body["stream"] == true;
    let request = Request::new(&session, body);
    let (conversation, choice) = shared.script.choose(&request);
    record.conversation.clone_from(&conversation);
    let reply = match choice {
        Ok(reply) => reply,
        Err(problem) => return misfit(&shared, record, problem),
    };
    if let Some(gate) = &reply.gate {
        gate.pass().await;
    }
    let answer = match answer(&reply, &request) {
        Ok(answer) => answer,
        Err(problem) => return misfit(&shared, record, problem),
    };
    if let (Answer::Message(_, None | Some(Trouble::Silent(_))), Some(name)) =
        (&answer, &conversation)
    {
        shared.script.advance(name, &session);
    }
    send(&shared, record, answer, streaming)
}

async fn count_tokens(State(shared): State<Arc<Shared>>, request: http::Request<Body>) -> Response {
    let (parts, body) = match read(request).await {
        Ok(read) => read,
        Err(answer) => return respond_error(&answer),
    };
    let record = record(&parts, &body);
    let answer = match admit(&shared, &parts.headers, &body) {
        Err(refusal) => Answer::Trouble(refusal),
        Ok(()) => Answer::Body(json!({"input_tokens": tokens(body.to_string().len())})),
    };
    send(&shared, record, answer, false)
}

async fn absent(State(shared): State<Arc<Shared>>, request: http::Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let record = record(&parts, &Value::Null);
    let answer = Trouble::error(404, "not_found_error", "Not found");
    send(&shared, record, Answer::Trouble(answer), false)
}

fn answer(reply: &Reply, request: &Request) -> Result<Answer, String> {
    Ok(match reply.next_trouble() {
        Some(error @ Trouble::Error { .. }) => Answer::Trouble(error),
        trouble => Answer::Message(reply.message(request)?, trouble),
    })
}

/// Refuses loudly what the script does not describe, in a way that the CLI does not try again for minutes.
fn misfit(shared: &Arc<Shared>, mut record: Recorded, problem: String) -> Response {
    let refusal = Trouble::invalid(&format!("the scripted model: {problem}")).not_to_retry();
    record.problem = Some(problem);
    send(shared, record, Answer::Trouble(refusal), false)
}

fn send(shared: &Arc<Shared>, mut record: Recorded, answer: Answer, streaming: bool) -> Response {
    let status = match &answer {
        Answer::Trouble(Trouble::Error { status, .. }) => *status,
        _ => 200,
    };
    record.status = status;
    record.answer = match &answer {
        Answer::Trouble(Trouble::Error { message, .. }) => message.clone(),
        Answer::Trouble(_) => "a broken stream".to_owned(),
        Answer::Message(message, None) => message.summary(),
        Answer::Message(message, Some(Trouble::Silent(_))) => {
            format!("{}, falling silent", message.summary())
        }
        Answer::Message(message, Some(_)) => format!("{}, cut", message.summary()),
        Answer::Body(body) => body.to_string(),
    };
    shared.log.send_modify(|log| log.push(record));
    match answer {
        Answer::Trouble(trouble) => respond_error(&trouble),
        Answer::Body(body) => respond_json(200, &body),
        Answer::Message(message, trouble) if streaming => stream_message(shared, &message, trouble),
        // Outside a stream there is nothing to break off but the whole answer.
        Answer::Message(message, None) => {
            shared.charge_input(&message);
            shared.charge_output(message.usage.output);
            respond_json(200, &sse::body(&message))
        }
        Answer::Message(message, Some(Trouble::Silent(gate))) => {
            shared.charge_input(&message);
            shared.charge_output(message.usage.output);
            let body = sse::body(&message).to_string();
            let late = stream::once(async move {
                gate.pass().await;
                Ok::<_, Infallible>(Bytes::from(body))
            });
            respond(200, "application/json", Body::from_stream(late))
        }
        Answer::Message(..) => {
            let cut = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            respond(200, "application/json", Body::from_stream(cut))
        }
    }
}

fn stream_message(shared: &Arc<Shared>, message: &Message, trouble: Option<Trouble>) -> Response {
    let mut events = sse::events(message);
    let (mut cut, mut gate) = (false, None);
    match trouble {
        Some(Trouble::Cut { after }) => {
            events.truncate(after);
            cut = true;
        }
        Some(Trouble::ErrorEvent { after }) => {
            events.truncate(after);
            events.push(error_body("overloaded_error", "Overloaded"));
        }
        Some(Trouble::Silent(silence)) => gate = Some(silence),
        Some(Trouble::Error { .. }) | None => {}
    }
    let shared = Arc::clone(shared);
    let message = message.clone();
    let body = stream::unfold(0, move |index| {
        let (shared, message, gate) = (Arc::clone(&shared), message.clone(), gate.clone());
        let event = events.get(index).cloned();
        async move {
            let Some(event) = event else {
                // Pending once, so that what came before the cut is flushed and not thrown away with it.
                tokio::task::yield_now().await;
                return cut.then(|| (Err(std::io::Error::other("cut")), usize::MAX));
            };
            if let (1, Some(gate)) = (index, &gate) {
                gate.pass().await;
            }
            if let Some(pace) = shared.script.pace {
                tokio::time::sleep(pace).await;
            }
            if event["type"] == "message_start" {
                shared.charge_input(&message);
            }
            if event["type"] == "message_delta" {
                shared.charge_output(message.usage.output);
            }
            Some((Ok(Bytes::from(sse::frame(&event))), index + 1))
        }
    });
    respond(
        200,
        "text/event-stream; charset=utf-8",
        Body::from_stream(body),
    )
}

/// Head and parsed body; a body that is no JSON is an error of the API's kind.
async fn read(request: http::Request<Body>) -> Result<(Parts, Value), Trouble> {
    let (parts, body) = request.into_parts();
    let bytes = http_body_util::Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|_| Trouble::error(413, "request_too_large", "Request exceeds the maximum size"))?
        .to_bytes();
    let body = serde_json::from_slice(&bytes).map_err(|error| {
        Trouble::invalid(&format!("The request body is not valid JSON: {error}"))
    })?;
    Ok((parts, body))
}

fn record(parts: &Parts, body: &Value) -> Recorded {
    Recorded {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers.clone(),
        body: body.clone(),
        conversation: None,
        status: 0,
        answer: String::new(),
        problem: None,
    }
}

/// What the API checks before it looks at the conversation.
fn admit(shared: &Shared, headers: &HeaderMap, body: &Value) -> Result<(), Trouble> {
    if let Some(trouble) = shared.outage() {
        return Err(trouble);
    }
    authenticate(&shared.script.credentials, headers)?;
    if header(headers, "anthropic-version").is_empty() {
        return Err(Trouble::invalid("anthropic-version: header is required"));
    }
    if !body["model"].is_string() {
        return Err(Trouble::invalid("model: Field required"));
    }
    if body["messages"].as_array().is_none_or(Vec::is_empty) {
        return Err(Trouble::invalid(
            "messages: at least one message is required",
        ));
    }
    Ok(())
}

fn authenticate(credentials: &[Credential], headers: &HeaderMap) -> Result<(), Trouble> {
    let refused = |message: &str| Err(Trouble::error(401, "authentication_error", message));
    let key = header(headers, "x-api-key");
    let bearer = header(headers, "authorization")
        .strip_prefix("Bearer ")
        .unwrap_or_default();
    if key.is_empty() && bearer.is_empty() {
        return refused("x-api-key header is required");
    }
    let oauth = header(headers, "anthropic-beta").contains("oauth-2025-04-20");
    let known = credentials.iter().any(|credential| match credential {
        Credential::ApiKey(accepted) => accepted == key,
        Credential::OAuth(accepted) => accepted == bearer && oauth,
        Credential::Bearer(accepted) => accepted == bearer,
    });
    if known || credentials.is_empty() {
        return Ok(());
    }
    if !key.is_empty() {
        return refused("invalid x-api-key");
    }
    let needs_beta = credentials
        .iter()
        .any(|credential| matches!(credential, Credential::OAuth(accepted) if accepted == bearer));
    if needs_beta {
        return refused("OAuth authentication is currently not supported.");
    }
    refused("Invalid bearer token")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn respond_error(trouble: &Trouble) -> Response {
    let Trouble::Error {
        status,
        kind,
        message,
        retry_after,
        should_retry,
    } = trouble
    else {
        // A broken stream as an outage: nothing at all comes back.
        let cut = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
        return respond(200, "text/event-stream", Body::from_stream(cut));
    };
    let mut response = respond_json(*status, &error_body(kind, message));
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after {
        headers.insert("retry-after", (*seconds).into());
    }
    if let Some(should_retry) = should_retry {
        let value = if *should_retry { "true" } else { "false" };
        headers.insert("x-should-retry", http::HeaderValue::from_static(value));
    }
    response
}

fn error_body(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

fn respond_json(status: u16, body: &Value) -> Response {
    respond(status, "application/json", Body::from(body.to_string()))
}

fn respond(status: u16, content_type: &str, body: Body) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("request-id", format!("req_{}", Uuid::new_v4().simple()))
        .body(body)
        .expect("a status and constant headers")
}
