//! What the server saw and how it answered, for assertions.

use std::fmt::Write as _;

use http::HeaderMap;
use serde_json::Value;

use super::request::Request;

/// One request and, in words, its answer.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `POST` and so on.
    pub method: String,
    /// Path and query as they were sent, such as `/v1/messages?beta=true`.
    pub target: String,
    /// Headers as they were sent, credentials included.
    pub headers: HeaderMap,
    /// The parsed body, null where there was none.
    pub body: Value,
    /// Which conversation of the script answered.
    pub conversation: Option<String>,
    /// Status that was answered.
    pub status: u16,
    /// The answer in a few words.
    pub answer: String,
    /// Why the script had no answer.
    pub problem: Option<String>,
}

impl Recorded {
    /// One header as text; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The request as rules see it.
    pub fn request(&self) -> Request {
        Request::new(self.header("x-claude-code-session-id"), self.body.clone())
    }

    /// Whether it asked for a message (not a token count or a probe).
    pub fn is_message(&self) -> bool {
        self.method == "POST" && self.target.split('?').next() == Some("/v1/messages")
    }
}

/// One line for each request: what a failed wait shows.
pub(super) fn lines(requests: &[Recorded]) -> String {
    if requests.is_empty() {
        return "  nothing".to_owned();
    }
    let mut text = String::new();
    for request in requests {
        let _ = writeln!(
            text,
            "  {} {} [{}] -> {} {}",
            request.method,
            request.target,
            request.conversation.as_deref().unwrap_or("no conversation"),
            request.status,
            request.answer,
        );
    }
    text
}
