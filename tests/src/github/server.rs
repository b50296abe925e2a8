//! The HTTP server: one listener for the REST API, GraphQL, git, logs and pages, with the faults that a test ordered.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::access::Token;
use super::exchange;
use super::faults::{self, FaultKind};
use super::hub::Hub;
use super::limits::RATE_LIMIT;
use super::problem::Problem;
use super::site::Request;
use super::{apps, git_server, graphql, html};

/// Largest request body of the API. Git's are streamed.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection cut by an injected fault")
    }
}

impl std::error::Error for Cut {}

/// Which of the two listeners a connection came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Site,
    Blobs,
}

pub(super) async fn listen(hub: Arc<Hub>, listener: TcpListener, part: Part) {
    loop {
        let accepted = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let hub = hub.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(hub.clone(), part, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away in the middle is no event.
            let _ = hub.stop.run_until_cancelled(connection).await;
        });
    }
}

/// Where a path leads.
enum Place<'a> {
    Rest(&'a str),
    GraphQl,
    Git,
    Page,
}

fn place(path: &str) -> Place<'_> {
    if let Some(rest) = path.strip_prefix("/api/v3") {
        return Place::Rest(rest);
    }
    if path == "/api/graphql" {
        return Place::GraphQl;
    }
    if path.ends_with("/info/refs")
        || path.ends_with("/git-upload-pack")
        || path.ends_with("/git-receive-pack")
    {
        return Place::Git;
    }
    Place::Page
}

async fn answer(
    hub: Arc<Hub>,
    part: Part,
    request: HttpRequest<Incoming>,
) -> Result<Response<Body>, Cut> {
    if part == Part::Blobs {
        return Ok(html::blob(
            &hub.lock(),
            request.uri().path(),
            request.headers(),
        ));
    }
    let (method, path, query) = (
        request.method().clone(),
        request.uri().path().to_owned(),
        request.uri().query().unwrap_or("").to_owned(),
    );
    let fault = match place(&path) {
        Place::Page => None,
        _ => faults::take(&mut hub.lock().faults, method.as_str(), &path),
    };
    let log = |status: u16, faulted: bool, login: String| {
        hub.change(|site| {
            site.requests.push(Request {
                method: method.to_string(),
                path: path.clone(),
                query: query.clone(),
                login,
                status,
                faulted,
            });
        });
    };
    let token = identify(&hub, request.headers());
    let login = token
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map_or_else(String::new, |token| token.login.clone());
    match &fault {
        Some(FaultKind::CutBefore) => {
            log(0, true, login);
            return Err(Cut);
        }
        Some(FaultKind::CutAfter | FaultKind::HeldAfter(_)) | None => {}
        Some(kind) => {
            let response = fault_response(kind);
            log(response.status().as_u16(), true, login);
            return Ok(response);
        }
    }
    let response = match place(&path) {
        Place::Rest(rest) => exchange::api(&hub, request, rest.to_owned(), token).await,
        Place::GraphQl => graphql_call(&hub, request, token).await,
        Place::Git => git_server::serve(&hub, request, token).await,
        Place::Page => html::page(&hub, request.method(), &path),
    };
    let cut = matches!(fault, Some(FaultKind::CutAfter));
    log(
        if cut { 0 } else { response.status().as_u16() },
        fault.is_some(),
        login,
    );
    if let Some(FaultKind::HeldAfter(gate)) = &fault {
        gate.pass().await;
    }
    if cut { Err(Cut) } else { Ok(response) }
}

fn fault_response(kind: &FaultKind) -> Response<Body> {
    let (status, message) = match kind {
        FaultKind::Status(status) => (
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            "Server Error",
        ),
        FaultKind::SecondaryRateLimit(_) => (
            StatusCode::FORBIDDEN,
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        ),
        _ => (
            StatusCode::FORBIDDEN,
            "API rate limit exceeded for user ID 1.",
        ),
    };
    let problem = Problem::new(status, message);
    let mut response = json_response(status, &problem.body(None));
    let headers = response.headers_mut();
    match kind {
        FaultKind::SecondaryRateLimit(seconds) => {
            headers.insert("retry-after", (*seconds).into());
        }
        FaultKind::RateLimit(seconds) => {
            let reset =
                jiff::Timestamp::now().as_second() + i64::try_from(*seconds).unwrap_or(3600);
            headers.insert("x-ratelimit-limit", RATE_LIMIT.into());
            headers.insert("x-ratelimit-remaining", 0.into());
            headers.insert("x-ratelimit-reset", reset.into());
        }
        _ => {}
    }
    response
}

/// Whose token a request carries: `Ok(None)` for none at all.
fn identify(hub: &Hub, headers: &HeaderMap) -> Result<Option<Token>, Problem> {
    let Some(secret) = secret(headers)? else {
        return Ok(None);
    };
    let (site, now) = (hub.lock(), Timestamp::now());
    // Three parts: an App's own signature.
    if secret.split('.').count() == 3 {
        return apps::signed(&site, &secret, now).map(Some);
    }
    site.tokens
        .get(&secret)
        .filter(|token| token.is_valid(now))
        .cloned()
        .map(Some)
        .ok_or_else(Problem::bad_credentials)
}

/// What a request shows, by either scheme.
pub(super) fn secret(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let (scheme, secret) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(Problem::bad_credentials)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(Some(secret.trim().to_owned()));
    }
    let pair = STANDARD
        .decode(secret.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    pair.as_deref()
        .and_then(|pair| pair.split_once(':'))
        .map(|(_, password)| Some(password.to_owned()))
        .ok_or_else(Problem::bad_credentials)
}

pub(super) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

pub(super) async fn read_body(request: HttpRequest<Incoming>) -> Result<Vec<u8>, Problem> {
    let limited = http_body_util::Limited::new(request.into_body(), BODY_MAX);
    let collected = limited
        .collect()
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large"))?;
    Ok(collected.to_bytes().to_vec())
}

async fn graphql_call(
    hub: &Arc<Hub>,
    request: HttpRequest<Incoming>,
    token: Result<Option<Token>, Problem>,
) -> Response<Body> {
    let token = match token {
        Ok(Some(token)) => token,
        Ok(None) => {
            return json_response(
                StatusCode::UNAUTHORIZED,
                &json!({"message": "This endpoint requires you to be authenticated.", "documentation_url": "https://docs.github.com/graphql"}),
            );
        }
        Err(problem) => return json_response(problem.status, &problem.body(None)),
    };
    let read = read_body(request).await;
    let Some(body) = read
        .ok()
        .and_then(|body| serde_json::from_slice::<Value>(&body).ok())
    else {
        return json_response(
            StatusCode::BAD_REQUEST,
            &json!({"message": "Problems parsing JSON", "documentation_url": "https://docs.github.com/graphql"}),
        );
    };
    hub.change(|site| {
        let refused = {
            let query = body["query"].as_str().unwrap_or_default();
            let writes = query.trim_start().starts_with("mutation");
            site.limits.refuse(&token.login, "graphql", writes)
        };
        let mut response = match refused {
            Some(problem) => json_response(problem.status, &problem.body(None)),
            None => json_response(StatusCode::OK, &graphql::execute(site, &token, &body)),
        };
        let status = response.status();
        site.limits
            .count(&token.login, "graphql", status, response.headers_mut());
        response
    })
}
