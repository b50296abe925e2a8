//! What can go wrong with a call to GitHub, and who has to act on it.
//!
//! Owns the mapping from an answer (status, headers, body) to a [`Class`]. Never holds a
//! token or a request body, so that an error may be logged and shown.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::client::Repo;
use crate::quota::by_our_clock;

/// How long to stay away after a secondary rate limit that names no time, as GitHub's
/// documentation asks for.
const SECONDARY_LIMIT_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// GitHub's messages are kept to this many characters.
const MESSAGE_LIMIT: usize = 600;

/// Result of a call to GitHub.
pub type Result<T> = std::result::Result<T, Error>;

/// A call to GitHub that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// GitHub answered, and the answer was no.
    #[error("{operation}: GitHub answered {status}: {message}")]
    Api {
        /// What was attempted, on what.
        operation: String,
        /// HTTP status (200 for an error inside a GraphQL answer).
        status: u16,
        /// GitHub's own words, with the field errors of a 422 appended.
        message: String,
        /// Where GitHub explains it.
        documentation_url: Option<String>,
        /// What it means for the caller.
        class: Class,
        /// What was asked for, by the request's path.
        thing: Thing,
    },
    /// No complete answer came: it is unknown whether the request took effect.
    #[error("{operation}: no answer from GitHub")]
    Transport {
        /// What was attempted, on what.
        operation: String,
        /// What the connection said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// As [`Error::Transport`], by our own clock.
    #[error("{operation}: no answer from GitHub within {} s", after.as_secs())]
    Timeout {
        /// What was attempted, on what.
        operation: String,
        /// How long we waited.
        after: Duration,
    },
    /// Nothing was sent: GitHub would have refused it.
    #[error("{operation}: not asked, because GitHub's rate limit is used up")]
    Limited {
        /// What was to be attempted, on what.
        operation: String,
        /// When the limit ends.
        until: Timestamp,
    },
    /// The answer was larger than the caller's bound.
    #[error("{operation}: more than {limit} bytes")]
    TooLarge {
        /// What was attempted, on what.
        operation: String,
        /// The bound in bytes.
        limit: usize,
    },
    /// GitHub (or something in between) answered something else than its API does.
    #[error("{operation}: answer is not what the API promises")]
    Malformed {
        /// What was attempted, on what.
        operation: String,
        /// Where the JSON did not fit.
        source: serde_json::Error,
    },
    /// The branch has an open pull request that is not ours: using it would put words into
    /// somebody else's mouth.
    #[error("pull request #{number} by {author} already takes the branch {head}")]
    ForeignPull {
        /// Its number.
        number: u64,
        /// Who opened it.
        author: String,
        /// The branch.
        head: String,
    },
    /// Nobody has installed the App there, or not for this repository.
    #[error(
        "the GitHub App is not installed on {repo}: install it there, or add the repository to its installation"
    )]
    NotInstalled {
        /// Where.
        repo: Repo,
    },
    /// The client cannot be built from this.
    #[error("GitHub client: {0}")]
    Config(String),
}

/// What an error means for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The token is wrong, expired or revoked: a new one is needed.
    Unauthorized,
    /// The token may not do this; `hint` names the permission if GitHub said so.
    Forbidden {
        /// For people: which permission or scope is missing, or where to authorise the token.
        hint: Option<String>,
    },
    /// Not there, or not visible to this token (GitHub does not tell which).
    NotFound,
    /// Well understood and refused: repeating it is pointless.
    Validation,
    /// Too many requests. Nothing may be sent before `until` (GitHub's clock, or ours plus
    /// what it asked for).
    RateLimited {
        /// When the limit ends, where it was said.
        until: Option<Timestamp>,
    },
    /// GitHub or the way to it is out of order; repeating may help, and for a write it is
    /// unknown whether it took effect.
    Unavailable,
    /// Anything else.
    Other,
}

/// What a request was about. Told by its path: words of an answer may be anybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// The repository itself.
    Repository,
    /// One issue, or a pull request as one.
    Issue,
    /// One pull request.
    Pull,
    /// Anything else.
    Other,
}

impl Thing {
    /// What `path` asks for; it may begin with a prefix, and end with a query.
    pub(crate) fn of(path: &str) -> Self {
        let Some((_, path)) = path.split_once("/repos/") else {
            return Self::Other;
        };
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.split('/').skip(2).filter(|part| !part.is_empty());
        let numbered = |part: Option<&str>| {
            part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        match parts.next() {
            None => Self::Repository,
            Some("issues") if numbered(parts.next()) => Self::Issue,
            Some("pulls") if numbered(parts.next()) => Self::Pull,
            Some(_) => Self::Other,
        }
    }
}

impl Error {
    /// What the request was about.
    pub fn thing(&self) -> Thing {
        match self {
            Error::Api { thing, .. } => *thing,
            _ => Thing::Other,
        }
    }

    /// GitHub's own words, without ours; empty where it said nothing.
    pub fn said(&self) -> &str {
        match self {
            Error::Api { message, .. } => message,
            _ => "",
        }
    }

    /// The issue or pull request that was asked for is not there, or no longer.
    pub fn is_gone(&self) -> bool {
        self.class() == Class::NotFound && matches!(self.thing(), Thing::Issue | Thing::Pull)
    }

    /// Who has to act on it.
    pub fn class(&self) -> Class {
        match self {
            Error::Api { class, .. } => class.clone(),
            Error::Transport { .. } | Error::Timeout { .. } => Class::Unavailable,
            Error::Limited { until, .. } => Class::RateLimited {
                until: Some(*until),
            },
            Error::ForeignPull { .. } => Class::Validation,
            Error::NotInstalled { .. } => Class::NotFound,
            Error::TooLarge { .. } | Error::Malformed { .. } | Error::Config(_) => Class::Other,
        }
    }

    /// The token lacks a permission, or cannot see the thing at all.
    pub fn is_denied(&self) -> bool {
        matches!(self.class(), Class::Forbidden { .. } | Class::NotFound)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.class() == Class::NotFound
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        self.class() == Class::Unavailable
    }

    pub(crate) fn is_validation(&self) -> bool {
        self.class() == Class::Validation
    }

    /// Reads an answer that is not a success.
    pub(crate) fn from_reply(
        operation: &str,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let parsed: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let message = parsed.text().unwrap_or_else(|| {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            // A proxy's HTML page says nothing that its status does not.
            if text.is_empty() || text.starts_with('<') {
                status.canonical_reason().unwrap_or("no reason").to_owned()
            } else {
                text.to_owned()
            }
        });
        let message: String = message.chars().take(MESSAGE_LIMIT).collect();
        Error::Api {
            operation: operation.to_owned(),
            status: status.as_u16(),
            class: classify(status, headers, &message, Timestamp::now()),
            message,
            documentation_url: parsed.documentation_url,
            thing: Thing::of(path),
        }
    }
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    message: Option<String>,
    documentation_url: Option<String>,
    #[serde(default)]
    errors: serde_json::Value,
}

impl ErrorBody {
    /// The message and the field errors in one line: a 422's message alone is "Validation Failed".
    fn text(&self) -> Option<String> {
        let mut text = self.message.clone()?;
        let details: Vec<String> = match &self.errors {
            serde_json::Value::Array(list) => list.iter().map(detail).collect(),
            serde_json::Value::Null => Vec::new(),
            other => vec![detail(other)],
        };
        let details: Vec<String> = details.into_iter().filter(|d| !d.is_empty()).collect();
        if !details.is_empty() {
            text.push_str(": ");
            text.push_str(&details.join("; "));
        }
        Some(text)
    }
}

fn detail(error: &serde_json::Value) -> String {
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    let get = |key: &str| error.get(key).and_then(|v| v.as_str());
    if let Some(message) = get("message") {
        return message.to_owned();
    }
    [get("resource"), get("field"), get("code")]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What status, headers and message mean. `now` is ours; it only turns `retry-after` into a time.
fn classify(status: StatusCode, headers: &HeaderMap, message: &str, now: Timestamp) -> Class {
    let lower = message.to_lowercase();
    let exhausted = header(headers, "x-ratelimit-remaining") == Some("0");
    let secondary = lower.contains("secondary rate limit") || lower.contains("abuse detection");
    match status.as_u16() {
        401 => Class::Unauthorized,
        429 => limited(headers, now),
        403 if exhausted || secondary || header(headers, "retry-after").is_some() => {
            limited(headers, now)
        }
        403 => Class::Forbidden {
            hint: permission_hint(headers, &lower),
        },
        404 | 410 => Class::NotFound,
        400 | 409 | 422 => Class::Validation,
        408 | 500..=599 => Class::Unavailable,
        _ => Class::Other,
    }
}

fn limited(headers: &HeaderMap, now: Timestamp) -> Class {
    let after = header(headers, "retry-after").and_then(|v| v.parse::<i64>().ok());
    let reset = header(headers, "x-ratelimit-reset").and_then(|v| v.parse::<i64>().ok());
    let exhausted = header(headers, "x-ratelimit-remaining") == Some("0");
    let until = match (after, reset) {
        (Some(seconds), _) => now.checked_add(SignedDuration::from_secs(seconds)).ok(),
        // The reset is that of the primary limit: it says nothing while some of it is left.
        (None, Some(at)) if exhausted => Timestamp::from_second(at)
            .ok()
            .map(|at| by_our_clock(at, headers, now)),
        _ => now.checked_add(SECONDARY_LIMIT_PAUSE).ok(),
    };
    Class::RateLimited { until }
}

fn permission_hint(headers: &HeaderMap, message: &str) -> Option<String> {
    if let Some(sso) = header(headers, "x-github-sso") {
        let url = sso.split("url=").nth(1).unwrap_or(sso);
        return Some(format!("authorise the token for the organisation: {url}"));
    }
    if let Some(wanted) = header(headers, "x-accepted-github-permissions") {
        return Some(format!("the token needs the permission {wanted}"));
    }
    if let Some(scopes) = header(headers, "x-accepted-oauth-scopes").filter(|s| !s.is_empty()) {
        return Some(format!("the token needs one of the scopes {scopes}"));
    }
    if message.contains("archived") {
        return Some("the repository is archived, and so read-only".to_owned());
    }
    None
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    fn class(status: u16, pairs: &[(&'static str, &'static str)], message: &str) -> Class {
        let now = Timestamp::from_second(1_000).unwrap();
        classify(
            StatusCode::from_u16(status).unwrap(),
            &headers(pairs),
            message,
            now,
        )
    }

    fn until(second: i64) -> Class {
        Class::RateLimited {
            until: Some(Timestamp::from_second(second).unwrap()),
        }
    }

    #[test]
    fn statuses_and_headers_tell_the_class() {
        let hint = |text: &str| Class::Forbidden {
            hint: Some(text.to_owned()),
        };
        let cases = [
            (class(401, &[], "Bad credentials"), Class::Unauthorized),
            (class(404, &[], "Not Found"), Class::NotFound),
            (class(410, &[], "Issues are disabled"), Class::NotFound),
            (class(422, &[], "Validation Failed"), Class::Validation),
            (class(502, &[], "Bad Gateway"), Class::Unavailable),
            (class(418, &[], "teapot"), Class::Other),
            (
                class(
                    403,
                    &[
                        ("x-ratelimit-remaining", "0"),
                        ("x-ratelimit-reset", "1500"),
                    ],
                    "API rate limit exceeded",
                ),
                until(1_500),
            ),
            (
                class(429, &[("retry-after", "30")], "slow down"),
                until(1_030),
            ),
            (
                class(
                    403,
                    &[
                        ("x-ratelimit-remaining", "4000"),
                        ("x-ratelimit-reset", "9000"),
                    ],
                    "You have exceeded a secondary rate limit",
                ),
                until(1_060),
            ),
            (
                class(
                    403,
                    &[("x-accepted-github-permissions", "checks=read")],
                    "Resource not accessible by personal access token",
                ),
                hint("the token needs the permission checks=read"),
            ),
            (
                class(
                    403,
                    &[(
                        "x-github-sso",
                        "required; url=https://github.com/orgs/o/sso",
                    )],
                    "SAML",
                ),
                hint("authorise the token for the organisation: https://github.com/orgs/o/sso"),
            ),
            (class(403, &[], "no"), Class::Forbidden { hint: None }),
        ];
        for (seen, wanted) in cases {
            assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn what_was_asked_for_is_told_by_the_path() {
        for (path, thing) in [
            ("/api/v3/repos/o/r/", Thing::Repository),
            ("/repos/o/issue", Thing::Repository),
            ("/repos/o/r/issues/12", Thing::Issue),
            ("/repos/o/r/issues/12/comments?per_page=100", Thing::Issue),
            ("/repos/o/r/pulls/7", Thing::Pull),
            ("/repos/o/r/issues?state=all", Thing::Other),
            ("/repos/o/issues/contents/pulls/7", Thing::Other),
            ("/user", Thing::Other),
        ] {
            assert_eq!(Thing::of(path), thing, "{path}");
        }
    }

    #[test]
    fn field_errors_are_part_of_the_message() {
        let body = br#"{"message":"Validation Failed","errors":[{"resource":"PullRequest","code":"custom","message":"A pull request already exists for o:b."},{"resource":"Issue","field":"title","code":"missing"}],"documentation_url":"https://docs"}"#;
        let error = Error::from_reply(
            "open pull request",
            "/repos/o/r/pulls",
            StatusCode::UNPROCESSABLE_ENTITY,
            &HeaderMap::new(),
            body,
        );
        assert_eq!(
            error.to_string(),
            "open pull request: GitHub answered 422: Validation Failed: A pull request already exists for o:b.; Issue title missing"
        );
    }

    #[test]
    fn html_of_a_proxy_is_not_shown() {
        let error = Error::from_reply(
            "read issue #1",
            "/repos/o/r/issues/1",
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            b"<html>nginx</html>",
        );
        assert_eq!(
            error.to_string(),
            "read issue #1: GitHub answered 502: Bad Gateway"
        );
    }
}
