//! What the scripted model answers: blocks, usage, and the troubles that come before the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;
use uuid::Uuid;

use super::gate::Gate;
use super::request::Request;

/// Characters for each token, where a script names no usage.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Tokens, as the API counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that was neither read from nor written to the cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache.
    pub cache_creation: u64,
}

/// A call of one of the CLI's tools; see [`super::call`].
#[derive(Clone, Debug)]
pub struct ToolCall {
    pub(super) name: String,
    pub(super) input: Value,
}

/// A content block of an answer.
#[derive(Clone, Debug)]
pub enum Block {
    /// Text for the user.
    Text(String),
    /// A thought, with a signature that the CLI sends back as it is.
    Thinking(String),
    /// A tool call; its id is made when it is sent.
    Call(ToolCall),
}

/// What can go wrong instead of an answer.
#[derive(Clone)]
pub enum Trouble {
    /// An error response.
    Error {
        /// HTTP status.
        status: u16,
        /// `error.type`.
        kind: String,
        /// `error.message`.
        message: String,
        /// `retry-after`, in seconds.
        retry_after: Option<u32>,
        /// `x-should-retry`.
        should_retry: Option<bool>,
    },
    /// The connection ends after this many of the stream's events.
    Cut {
        /// Events that still arrive.
        after: usize,
    },
    /// An `error` event ends the stream after this many of its events.
    ErrorEvent {
        /// Events that still arrive.
        after: usize,
    },
    /// The stream falls silent after its first event until the gate opens, and goes on then.
    Silent(Gate),
}

impl Trouble {
    /// Any error response.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::Error {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
            retry_after: None,
            should_retry: None,
        }
    }

    /// 400.
    pub fn invalid(message: &str) -> Self {
        Self::error(400, "invalid_request_error", message)
    }

    /// 401, as for a key that was revoked.
    pub fn unauthorized() -> Self {
        Self::error(401, "authentication_error", "invalid x-api-key")
    }

    /// 403.
    pub fn forbidden() -> Self {
        Self::error(
            403,
            "permission_error",
            "Your API key does not have permission to use the specified resource.",
        )
    }

    /// 429 with `retry-after` in seconds.
    pub fn rate_limited(retry_after: u32) -> Self {
        Self::Error {
            status: 429,
            kind: "rate_limit_error".to_owned(),
            message: "This request would exceed your organization's rate limit.".to_owned(),
            retry_after: Some(retry_after),
            should_retry: None,
        }
    }

    /// 500.
    pub fn internal() -> Self {
        Self::error(500, "api_error", "Internal server error")
    }

    /// 529.
    pub fn overloaded() -> Self {
        Self::error(529, "overloaded_error", "Overloaded")
    }

    /// The same with `x-should-retry: false`, at which Claude Code gives up. No effect on broken streams.
    #[must_use]
    pub fn not_to_retry(mut self) -> Self {
        if let Self::Error { should_retry, .. } = &mut self {
            *should_retry = Some(false);
        }
        self
    }
}

/// One answer of the model, and what goes wrong before it is given.
#[derive(Clone)]
pub struct Reply {
    pub(super) blocks: Vec<Block>,
    pub(super) usage: Option<Usage>,
    pub(super) stop_reason: Option<String>,
    pub(super) gate: Option<Gate>,
    /// Shared by clones: what happened once does not happen again.
    troubles: Arc<Mutex<VecDeque<Trouble>>>,
    always: Option<Trouble>,
}

impl Reply {
    /// Says `text`.
    pub fn text(text: &str) -> Self {
        Self::empty().and_text(text)
    }

    /// Calls a tool.
    pub fn call(call: ToolCall) -> Self {
        Self::empty().and_call(call)
    }

    /// Never answers, always fails.
    pub fn trouble(trouble: Trouble) -> Self {
        Self {
            always: Some(trouble),
            ..Self::empty()
        }
    }

    /// An answer without content, to add to.
    pub fn empty() -> Self {
        Self {
            blocks: Vec::new(),
            usage: None,
            stop_reason: None,
            gate: None,
            troubles: Arc::default(),
            always: None,
        }
    }

    /// Adds text.
    #[must_use]
    pub fn and_text(mut self, text: &str) -> Self {
        self.blocks.push(Block::Text(text.to_owned()));
        self
    }

    /// Adds a thought.
    #[must_use]
    pub fn and_thought(mut self, text: &str) -> Self {
        self.blocks.push(Block::Thinking(text.to_owned()));
        self
    }

    /// Adds a tool call; several in one answer are allowed.
    #[must_use]
    pub fn and_call(mut self, call: ToolCall) -> Self {
        self.blocks.push(Block::Call(call));
        self
    }

    /// Charges exactly this; without it, by the length of request and answer.
    #[must_use]
    pub fn charging(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Stops for `reason` in place of `end_turn` or `tool_use`.
    #[must_use]
    pub fn stopping_for(mut self, reason: &str) -> Self {
        self.stop_reason = Some(reason.to_owned());
        self
    }

    /// Comes only when `gate` is open.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Comes only after `trouble` has happened once, to whichever request asked first. May be repeated; the
    /// order is that of the calls.
    #[must_use]
    pub fn after(self, trouble: Trouble) -> Self {
        self.queue().push_back(trouble);
        self
    }

    /// As [`Reply::after`], `times` in a row.
    #[must_use]
    pub fn after_times(self, trouble: &Trouble, times: usize) -> Self {
        self.queue()
            .extend(std::iter::repeat_n(trouble.clone(), times));
        self
    }

    pub(super) fn next_trouble(&self) -> Option<Trouble> {
        self.queue().pop_front().or_else(|| self.always.clone())
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The message for `request`: strings filled in, ids made, usage counted. Fails in words where a
    /// `{{re:..}}` finds nothing.
    pub(super) fn message(&self, request: &Request) -> Result<Message, String> {
        let text = request.text();
        let blocks = self
            .blocks
            .iter()
            .map(|block| fill_block(block, &text))
            .collect::<Result<Vec<_>, _>>()?;
        let calls = blocks
            .iter()
            .any(|block| matches!(block, Sent::Call { .. }));
        let natural = if calls { "tool_use" } else { "end_turn" };
        let usage = self.usage.unwrap_or_else(|| Usage {
            input: tokens(text.len()),
            output: tokens(blocks.iter().map(Sent::len).sum()),
            ..Usage::default()
        });
        Ok(Message {
            id: format!("msg_{}", Uuid::new_v4().simple()),
            model: request.model().to_owned(),
            stop_reason: self.stop_reason.as_deref().unwrap_or(natural).to_owned(),
            blocks,
            usage,
        })
    }
}

/// An answer ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) stop_reason: String,
    pub(super) blocks: Vec<Sent>,
    pub(super) usage: Usage,
}

#[derive(Clone, Debug)]
pub(super) enum Sent {
    Text(String),
    Thinking(String),
    Call {
        id: String,
        name: String,
        input: Value,
    },
}

impl Sent {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Thinking(text) => text.len(),
            Self::Call { name, input, .. } => name.len() + input.to_string().len(),
        }
    }
}

impl Message {
    /// A few words for logs and failed waits.
    pub(super) fn summary(&self) -> String {
        let parts: Vec<String> = self
            .blocks
            .iter()
            .map(|block| match block {
                Sent::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
                Sent::Thinking(_) => "a thought".to_owned(),
                Sent::Call { name, .. } => format!("call {name}"),
            })
            .collect();
        parts.join(", ")
    }
}

/// Tokens for a text of `length` bytes; never zero, as an API never charges nothing.
pub(super) fn tokens(length: usize) -> u64 {
    u64::try_from(length / CHARACTERS_PER_TOKEN + 1).unwrap_or(u64::MAX)
}

fn fill_block(block: &Block, request: &str) -> Result<Sent, String> {
    Ok(match block {
        Block::Text(text) => Sent::Text(fill(text, request)?),
        Block::Thinking(text) => Sent::Thinking(fill(text, request)?),
        Block::Call(call) => Sent::Call {
            id: format!("toolu_{}", Uuid::new_v4().simple()),
            name: call.name.clone(),
            input: fill_value(&call.input, request)?,
        },
    })
}

fn fill_value(value: &Value, request: &str) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill(text, request)?),
        Value::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| fill_value(value, request))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, value)| Ok((key.clone(), fill_value(value, request)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

fn fill(template: &str, request: &str) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{re:") {
        let (pattern, tail) = after
            .split_once("}}")
            .ok_or_else(|| format!("`{{{{re:` without an end in {template:?}"))?;
        let regex = Regex::new(pattern).map_err(|error| format!("pattern {pattern:?}: {error}"))?;
        // The last match: what the CLI announced latest holds.
        let found = regex
            .captures_iter(request)
            .last()
            .ok_or_else(|| format!("nothing in the request matches {pattern:?}"))?;
        filled.push_str(before);
        filled.push_str(
            found
                .get(1)
                .or(found.get(0))
                .map_or("", |group| group.as_str()),
        );
        rest = tail;
    }
    filled.push_str(rest);
    Ok(filled)
}
