//! One request to the REST API: found in the table, held against the contract, authorised, answered in pages and with tags.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::access::{Level, Need, Role, Scope, Token};
use super::call::{Call, Reply};
use super::hub::Hub;
use super::problem::Problem;
use super::server::{json_response, read_body, secret};
use super::site::Site;
use super::{contract, rest};

pub(super) async fn api(
    hub: &Arc<Hub>,
    request: Request<Incoming>,
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
        let writes = self.method != Method::GET && self.method != Method::HEAD;
        // Who asks how much is left is told so, and not counted.
        let is_free = self.path == "/rate_limit";
        let refused = self.hub.change(|site| {
            if is_free {
                None
            } else {
                site.limits.refuse(&login, "core", writes)
            }
        });
        let mut response = match refused {
            Some(problem) => json_response(problem.status, &problem.body(None)),
            None => self.respond(token),
        };
        let status = response.status();
        let headers = response.headers_mut();
        if !is_free {
            self.hub
                .change(|site| site.limits.count(&login, "core", status, headers));
        }
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
            secret: secret(&self.headers).ok().flatten().unwrap_or_default(),
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
                    let accepted = format!("{}={}", scope.name(), level.name());
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
    let role = repo.role(call.login());
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

pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
