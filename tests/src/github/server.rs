//! The HTTP server: one listener for the REST API, GraphQL, git, logs and pages, and the lock around the site.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::{Level, Need, Role, Scope, Token};
use super::call::{Call, Reply};
use super::ci::runner;
use super::faults::{self, FaultKind};
use super::problem::Problem;
use super::site::{Request, Site};
use super::{contract, graphql, html, rest};

/// Requests per hour and user, as for a personal token.
pub(super) const RATE_LIMIT: u64 = 5000;
/// Largest request body of the API. Git's are streamed.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// The site behind its lock, and who is told when it changes.
pub(super) struct Hub {
    site: Mutex<Site>,
    changed: watch::Sender<u64>,
    runtime: tokio::runtime::Handle,
    pub(super) stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// The emulator is being stopped.
#[derive(Debug)]
pub(super) struct Stopped;

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection cut by an injected fault")
    }
}

impl std::error::Error for Cut {}

impl Hub {
    pub(super) fn new(site: Site, dir: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self {
            site: Mutex::new(site),
            changed: watch::Sender::new(0),
            runtime,
            stop: CancellationToken::new(),
            _dir: dir,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Site> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction: changes the site, starts the workflow runs that came of it, wakes those who wait.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Site) -> T) -> T {
        let (out, runs) = {
            let mut site = self.lock();
            (change(&mut site), std::mem::take(&mut site.to_run))
        };
        for (repo, run) in runs {
            let hub = self.clone();
            self.runtime.spawn(async move {
                hub.stop
                    .clone()
                    .run_until_cancelled(runner::run(hub.clone(), repo, run))
                    .await
            });
        }
        self.changed.send_modify(|version| *version += 1);
        out
    }

    /// Waits until `look` finds something. It looks first at the present state, and again after each change.
    pub(super) async fn wait<T>(&self, look: impl Fn(&Site) -> Option<T>) -> Result<T, Stopped> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let found = look(&self.lock());
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped),
                changed = changes.changed() => changed.map_err(|_| Stopped)?,
            }
        }
    }
}

pub(super) async fn listen(hub: Arc<Hub>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let hub = hub.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(hub.clone(), request));
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

async fn answer(hub: Arc<Hub>, request: HttpRequest<Incoming>) -> Result<Response<Body>, Cut> {
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
            })
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
        Some(FaultKind::Delay(time)) => tokio::time::sleep(*time).await,
        Some(FaultKind::CutAfter) | None => {}
        Some(kind) => {
            let response = fault_response(kind);
            log(response.status().as_u16(), true, login);
            return Ok(response);
        }
    }
    let response = match place(&path) {
        Place::Rest(rest) => api(&hub, request, rest.to_owned(), token).await,
        Place::GraphQl => graphql_call(&hub, request, token).await,
        Place::Git => super::git_server::serve(&hub, request, token).await,
        Place::Page => html::page(&hub, request.method(), &path, request.headers()),
    };
    let cut = matches!(fault, Some(FaultKind::CutAfter));
    log(
        if cut { 0 } else { response.status().as_u16() },
        fault.is_some(),
        login,
    );
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
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let (scheme, secret) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(Problem::bad_credentials)?;
    let secret = if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD
            .decode(secret.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        pair.as_deref()
            .and_then(|pair| pair.split_once(':'))
            .map(|(_, password)| password.to_owned())
            .ok_or_else(Problem::bad_credentials)?
    } else {
        secret.trim().to_owned()
    };
    hub.lock()
        .tokens
        .get(&secret)
        .cloned()
        .map(Some)
        .ok_or_else(Problem::bad_credentials)
}

pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
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

async fn read_body(request: HttpRequest<Incoming>) -> Result<Vec<u8>, Problem> {
    let limited = http_body_util::Limited::new(request.into_body(), BODY_MAX);
    let collected = limited
        .collect()
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large"))?;
    Ok(collected.to_bytes().to_vec())
}

async fn api(
    hub: &Arc<Hub>,
    request: HttpRequest<Incoming>,
    path: String,
    token: Result<Option<Token>, Problem>,
) -> Response<Body> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes())
            .into_owned()
            .collect();
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(problem) => return json_response(problem.status, &problem.body(None)),
    };
    let exchange = Exchange {
        hub: hub.clone(),
        method,
        path,
        query,
        headers,
        body,
    };
    // Handlers run git and wait for it, so they stay off the threads that serve connections.
    let done = tokio::task::spawn_blocking(move || exchange.answer(token)).await;
    done.unwrap_or_else(|error| {
        let problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("emulator: {error}"),
        );
        hub.change(|site| site.violations.push(problem.message.clone()));
        json_response(problem.status, &problem.body(None))
    })
}

/// A request to the REST API that has been read to its end.
struct Exchange {
    hub: Arc<Hub>,
    method: Method,
    path: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Exchange {
    fn answer(self, token: Result<Option<Token>, Problem>) -> Response<Body> {
        let login = token
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map_or_else(String::new, |token| token.login.clone());
        let mut response = self.respond(token);
        let free = response.status() == StatusCode::NOT_MODIFIED;
        let (used, reset) = self.hub.change(|site| {
            let used = site.spent.entry(login).or_default();
            *used += u64::from(!free);
            (*used, site.started.as_second() + 3600)
        });
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", RATE_LIMIT.into());
        headers.insert("x-ratelimit-used", used.into());
        headers.insert(
            "x-ratelimit-remaining",
            RATE_LIMIT.saturating_sub(used).into(),
        );
        headers.insert("x-ratelimit-reset", reset.into());
        headers.insert(
            "x-ratelimit-resource",
            header::HeaderValue::from_static("core"),
        );
        headers.insert(
            "x-github-api-version-selected",
            header::HeaderValue::from_static("2022-11-28"),
        );
        if let Ok(id) = header::HeaderValue::from_str(&uuid::Uuid::new_v4().simple().to_string()) {
            headers.insert("x-github-request-id", id);
        }
        response
    }

    fn respond(&self, token: Result<Option<Token>, Problem>) -> Response<Body> {
        let refuse = |problem: &Problem, operation: Option<&str>| {
            json_response(problem.status, &problem.body(operation))
        };
        if !self.headers.contains_key(header::USER_AGENT) {
            return refuse(
                &Problem::forbidden(
                    "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
                ),
                None,
            );
        }
        let token = match token {
            Ok(token) => token,
            Err(problem) => return refuse(&problem, None),
        };
        let (operation, params) = match rest::find(self.method.as_str(), &self.path) {
            rest::Match::Found(operation, params) => (operation, params),
            rest::Match::WrongMethod | rest::Match::Unknown => {
                self.violation(vec![format!(
                    "{} {}: the emulator serves no such operation",
                    self.method, self.path
                )]);
                return refuse(&Problem::not_found(), None);
            }
        };
        let body = match serde_json::from_slice::<Value>(&self.body) {
            Ok(body) => Some(body),
            Err(_) if self.body.is_empty() => None,
            Err(_) => {
                return refuse(
                    &Problem::new(StatusCode::BAD_REQUEST, "Problems parsing JSON"),
                    Some(operation.id),
                );
            }
        };
        let wrong = contract::request(operation.id, &self.query, body.as_ref());
        if !wrong.is_empty() {
            return self.violation(wrong);
        }
        let accept = self
            .headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let call = Call {
            params,
            query: self.query.clone(),
            body: body.unwrap_or(Value::Null),
            token,
            accept,
        };
        let reply = self.hub.change(|site| {
            authorise(site, &call, operation.need).and_then(|()| (operation.handler)(site, &call))
        });
        match reply {
            Err(problem) => {
                let body = problem.body(Some(operation.id));
                let wrong = contract::response(operation.id, problem.status.as_u16(), Some(&body));
                let mut response = if wrong.is_empty() {
                    json_response(problem.status, &body)
                } else {
                    self.violation(wrong)
                };
                if let (StatusCode::FORBIDDEN, Need::On(scope, level)) =
                    (problem.status, operation.need)
                {
                    let level = if level == Level::Write {
                        "write"
                    } else {
                        "read"
                    };
                    let accepted = format!("{}={level}", scope.name());
                    response
                        .headers_mut()
                        .extend(accepted.parse().ok().map(|value| {
                            (
                                header::HeaderName::from_static("x-accepted-github-permissions"),
                                value,
                            )
                        }));
                }
                response
            }
            Ok(reply) => self.deliver(operation.id, &call, reply),
        }
    }

    fn deliver(&self, operation: &str, call: &Call, reply: Reply) -> Response<Body> {
        let mut link = None;
        let (status, value) = match reply {
            Reply::Json(status, value) => (status, Some(value)),
            Reply::List(items) => {
                let (page, links) = self.page(items);
                link = links;
                (StatusCode::OK, Some(Value::Array(page)))
            }
            Reply::Counted(key, items) => {
                let total = items.len();
                let (page, links) = self.page(items);
                link = links;
                (
                    StatusCode::OK,
                    Some(json!({"total_count": total, key: page})),
                )
            }
            Reply::Empty(status) => (status, None),
            Reply::Redirect(target) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::FOUND;
                response
                    .headers_mut()
                    .extend(target.parse().ok().map(|value| (header::LOCATION, value)));
                return response;
            }
            Reply::Raw(kind, bytes) => {
                let mut response = Response::new(Body::from(bytes));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
                return response;
            }
        };
        let wrong = contract::response(operation, status.as_u16(), value.as_ref());
        if !wrong.is_empty() {
            return self.violation(wrong);
        }
        let Some(value) = value else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            return response;
        };
        let mut response = json_response(status, &value);
        let headers = response.headers_mut();
        headers.extend(
            link.and_then(|link| link.parse().ok())
                .map(|value| (header::LINK, value)),
        );
        if self.method == Method::GET {
            let etag = format!(
                "W/\"{:016x}\"",
                fingerprint(format!("{}\n{value}", call.login()).as_bytes())
            );
            let same = self
                .headers
                .get(header::IF_NONE_MATCH)
                .and_then(|known| known.to_str().ok());
            let same = same.is_some_and(|known| {
                known
                    .split(',')
                    .any(|one| one.trim().trim_start_matches("W/") == etag.trim_start_matches("W/"))
            });
            headers.extend(etag.parse().ok().map(|value| (header::ETAG, value)));
            headers.insert(
                header::CACHE_CONTROL,
                header::HeaderValue::from_static("private, max-age=60, s-maxage=60"),
            );
            if same {
                headers.remove(header::CONTENT_TYPE);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::empty();
            }
        }
        response
    }

    /// The page that was asked for, and the `Link` header where there is more than one.
    fn page(&self, items: Vec<Value>) -> (Vec<Value>, Option<String>) {
        let number = |name: &str, default: usize| {
            self.query
                .get(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(default)
        };
        let (size, page) = (
            number("per_page", 30).clamp(1, 100),
            number("page", 1).max(1),
        );
        let last = items.len().div_ceil(size).max(1);
        let start = (page - 1).saturating_mul(size);
        let base = self.hub.lock().base.clone();
        let url = |page: usize| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(self.query.iter().filter(|(name, _)| *name != "page"));
            query.append_pair("page", &page.to_string());
            format!("<{base}/api/v3{}?{}>", self.path, query.finish())
        };
        let mut links = Vec::new();
        if page > 1 {
            links.push(format!("{}; rel=\"prev\"", url((page - 1).min(last))));
        }
        if page < last {
            links.push(format!("{}; rel=\"next\"", url(page + 1)));
            links.push(format!("{}; rel=\"last\"", url(last)));
        }
        if page > 1 {
            links.push(format!("{}; rel=\"first\"", url(1)));
        }
        let items = items.into_iter().skip(start).take(size).collect();
        (
            items,
            (last > 1 && !links.is_empty()).then(|| links.join(", ")),
        )
    }

    /// Records what broke the contract, and answers with it.
    fn violation(&self, wrong: Vec<String>) -> Response<Body> {
        let text = wrong.join("; ");
        self.hub.change(|site| site.violations.extend(wrong));
        json_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"message": format!("contract violation: {text}"), "documentation_url": "", "status": "500"}),
        )
    }
}

/// Whether the call's token and its user may do what the operation needs. What they cannot see is not found.
fn authorise(site: &Site, call: &Call, need: Need) -> Result<(), Problem> {
    let Need::On(scope, level) = need else {
        return Ok(());
    };
    let repo = site.need_repo(&call.repo())?;
    let role = site.role(repo, call.login());
    let reached = call
        .token
        .as_ref()
        .is_some_and(|token| token.reaches(&repo.full_name()));
    if repo.private && (!reached || role.is_none()) {
        return Err(Problem::not_found());
    }
    let Some(token) = &call.token else {
        return if level == Level::Write {
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "Requires authentication",
            ))
        } else {
            Ok(())
        };
    };
    if level == Level::Write && repo.archived {
        return Err(Problem::forbidden(
            "Repository was archived so is read-only.",
        ));
    }
    // A pull request is an issue too: its own permission will do for its comments and labels.
    let on_pull = call
        .number("issue_number")
        .is_ok_and(|number| repo.pull(number).is_ok());
    let comments_pull = call.number("comment_id").is_ok_and(|id| {
        repo.pulls()
            .any(|(issue, _)| issue.comments.iter().any(|comment| comment.id == id))
    });
    let enough = token.level(scope) >= level
        || scope == Scope::Issues
            && (on_pull || comments_pull)
            && token.level(Scope::PullRequests) >= level;
    let open_to_all = level == Level::Read && !repo.private;
    if !enough && !open_to_all || level == Level::Write && !reached {
        return Err(Problem::forbidden(token.refusal()));
    }
    if level == Level::Write
        && matches!(scope, Scope::Contents | Scope::Statuses)
        && role.is_none_or(|role| role < Role::Write)
    {
        return Err(Problem::not_found());
    }
    Ok(())
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
    let body = match read_body(request)
        .await
        .map(|body| serde_json::from_slice::<Value>(&body))
    {
        Ok(Ok(body)) => body,
        _ => {
            return json_response(
                StatusCode::BAD_REQUEST,
                &json!({"message": "Problems parsing JSON", "documentation_url": "https://docs.github.com/graphql"}),
            );
        }
    };
    json_response(
        StatusCode::OK,
        &hub.change(|site| graphql::execute(site, &token, &body)),
    )
}

/// How long `wait_for` waits before it gives up.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
