//! Conditions on a request, for choosing a conversation or a rule. All look at the request alone.

use std::sync::Arc;

use super::request::Request;

/// A condition on a request.
#[derive(Clone)]
pub struct When(Arc<dyn Fn(&Request) -> bool + Send + Sync>);

impl When {
    /// Any condition that the functions of this module do not have.
    pub fn new(condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(condition))
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(move |request| self.holds(request) && other.holds(request))
    }

    /// At least one holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::new(move |request| self.holds(request) || other.holds(request))
    }

    /// Whether it holds for `request`.
    pub fn holds(&self, request: &Request) -> bool {
        (self.0)(request)
    }
}

/// Holds always: the last rule of a list.
pub fn always() -> When {
    When::new(|_| true)
}

/// The opposite.
pub fn not(condition: When) -> When {
    When::new(move |request| !condition.holds(request))
}

/// The system prompt or any prompt of the conversation contains `marker`: how parallel workers are told apart.
pub fn about(marker: &str) -> When {
    let marker = marker.to_owned();
    When::new(move |request| {
        request.system().contains(&marker)
            || request.prompts().any(|prompt| prompt.contains(&marker))
    })
}

/// The session is `id`.
pub fn session(id: &str) -> When {
    let id = id.to_owned();
    When::new(move |request| request.session() == id)
}

/// The last prompt contains `text`, whatever tools ran since.
pub fn prompt(text: &str) -> When {
    let text = text.to_owned();
    When::new(move |request| request.prompt().contains(&text))
}

/// The CLI has just put in `text` beside the conversation (a message in mid-run, a reminder).
pub fn notice(text: &str) -> When {
    let text = text.to_owned();
    When::new(move |request| request.notices().contains(&text))
}

/// `tool` has just returned.
pub fn returned(tool: &str) -> When {
    returned_with(tool, "")
}

/// `tool` has just returned a text that contains `text`.
pub fn returned_with(tool: &str, text: &str) -> When {
    let (tool, text) = (tool.to_owned(), text.to_owned());
    When::new(move |request| {
        request
            .outcomes()
            .iter()
            .any(|outcome| outcome.tool == tool && outcome.text.contains(&text))
    })
}

/// `tool` has just failed or was denied.
pub fn failed(tool: &str) -> When {
    let tool = tool.to_owned();
    When::new(move |request| {
        request
            .outcomes()
            .iter()
            .any(|outcome| outcome.tool == tool && outcome.is_error)
    })
}

/// `tool` was called exactly `times` since the last prompt.
pub fn called(tool: &str, times: usize) -> When {
    let tool = tool.to_owned();
    When::new(move |request| request.calls().filter(|call| call.tool == tool).count() == times)
}
