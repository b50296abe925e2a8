//! A REST request as handlers see it, and what they answer.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;

use super::access::Token;
use super::problem::Problem;

/// An authorised request: its repository exists and its token may do what the operation's row asks.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) params: BTreeMap<String, String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Value,
    pub(super) token: Option<Token>,
    /// What was shown for it; empty for nothing.
    pub(super) secret: String,
    /// The media type that was asked for.
    pub(super) accept: String,
}

impl Call {
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, Problem> {
        self.param(name).parse().map_err(|_| Problem::not_found())
    }

    /// `owner/name`, in lower case: GitHub compares them so.
    pub(super) fn repo(&self) -> String {
        format!("{}/{}", self.param("owner"), self.param("repo")).to_lowercase()
    }

    pub(super) fn login(&self) -> &str {
        self.token.as_ref().map_or("", |token| token.login.as_str())
    }

    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A text of the body; `None` where it is absent or null.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str)
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.body.get(name)?.as_array()?;
        let text = |item: &Value| {
            item.as_str()
                .or_else(|| item.get("name")?.as_str())
                .map(str::to_owned)
        };
        Some(list.iter().filter_map(text).collect())
    }
}

pub(super) enum Reply {
    Json(StatusCode, Value),
    /// A list, which the server cuts into pages.
    List(Vec<Value>),
    /// A list below a key, beside `total_count`.
    Counted(&'static str, Vec<Value>),
    Empty(StatusCode),
    Redirect(String),
    /// Another media type that was asked for, such as a diff.
    Raw(&'static str, Vec<u8>),
}

impl Reply {
    pub(super) fn ok(value: Value) -> Self {
        Self::Json(StatusCode::OK, value)
    }

    pub(super) fn created(value: Value) -> Self {
        Self::Json(StatusCode::CREATED, value)
    }
}
