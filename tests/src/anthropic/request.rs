//! A Messages API request as scripts look at it: prompts, tool calls, and tool results by tool name.
//!
//! The CLI wraps what people wrote in `<system-reminder>` blocks, adds `role: system` messages of its own,
//! and puts several texts into one message. Here a *prompt* is what remains of the user's texts between two
//! assistant messages, and a *turn* is everything since the last prompt.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

static REMINDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?s)<system-reminder>.*?</system-reminder>").expect("a constant pattern")
});

/// A request, read once.
#[derive(Clone, Debug)]
pub struct Request {
    session: String,
    body: Value,
    system: String,
    events: Vec<Event>,
}

/// A call that the model made earlier in the conversation.
#[derive(Clone, Debug)]
pub struct Call {
    /// Tool name.
    pub tool: String,
    /// Its input.
    pub input: Value,
}

/// What a call came back with.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the tool that was called; empty if the call is not in the history.
    pub tool: String,
    /// The result's text.
    pub text: String,
    /// Whether the tool failed or was denied.
    pub is_error: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Prompt(String),
    Notice(String),
    Reply,
    Call(Call),
    Outcome(Outcome),
}

impl Request {
    pub(super) fn new(session: &str, body: Value) -> Self {
        Self {
            session: session.to_owned(),
            system: text_of(&body["system"]),
            events: events(&body["messages"]),
            body,
        }
    }

    /// `x-claude-code-session-id`, empty if it was not sent.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The body as it was sent.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Model asked for.
    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    /// The system prompt.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// What the user said in the whole conversation, one entry between two assistant messages.
    pub fn prompts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Prompt(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The last prompt: what this turn is about.
    pub fn prompt(&self) -> &str {
        self.prompts().next_back().unwrap_or_default()
    }

    /// Calls since the last prompt, oldest first.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.turn().iter().filter_map(|event| match event {
            Event::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Assistant messages since the last prompt: how far this turn is.
    pub fn replies(&self) -> usize {
        self.turn()
            .iter()
            .filter(|event| matches!(event, Event::Reply))
            .count()
    }

    /// Results since the last assistant message, and none if the user spoke after them.
    pub fn outcomes(&self) -> Vec<&Outcome> {
        self.news()
            .iter()
            .filter_map(|event| match event {
                Event::Outcome(outcome) => Some(outcome),
                _ => None,
            })
            .collect()
    }

    /// Texts that the CLI put in by `role: system` messages and reminders since the last assistant message,
    /// such as a message that was sent in mid-run.
    pub fn notices(&self) -> String {
        let notices: Vec<&str> = self
            .news()
            .iter()
            .filter_map(|event| match event {
                Event::Notice(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        notices.join("\n")
    }

    /// All text of the request, in order: system prompt, then messages with tool inputs and results.
    pub fn text(&self) -> String {
        let mut text = self.system.clone();
        collect(&self.body["messages"], &mut text);
        text
    }

    fn turn(&self) -> &[Event] {
        let start = self
            .events
            .iter()
            .rposition(|event| matches!(event, Event::Prompt(_)));
        &self.events[start.unwrap_or(0)..]
    }

    fn news(&self) -> &[Event] {
        let start = self
            .events
            .iter()
            .rposition(|event| matches!(event, Event::Reply | Event::Call(_)));
        &self.events[start.map_or(0, |index| index + 1)..]
    }
}

fn events(messages: &Value) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tools: HashMap<String, String> = HashMap::new();
    // Texts of the user since the last assistant message, put in as one prompt.
    let mut said = String::new();
    for message in messages.as_array().into_iter().flatten() {
        match message["role"].as_str() {
            Some("assistant") => {
                flush(&mut said, &mut events);
                events.push(Event::Reply);
                for block in blocks(&message["content"]) {
                    if block["type"] == "tool_use" {
                        let tool = block["name"].as_str().unwrap_or_default().to_owned();
                        let id = block["id"].as_str().unwrap_or_default().to_owned();
                        tools.insert(id, tool.clone());
                        let input = block["input"].clone();
                        events.push(Event::Call(Call { tool, input }));
                    }
                }
            }
            Some("user") => {
                for block in blocks(&message["content"]) {
                    if block["type"] == "tool_result" {
                        let id = block["tool_use_id"].as_str().unwrap_or_default();
                        events.push(Event::Outcome(Outcome {
                            tool: tools.get(id).cloned().unwrap_or_default(),
                            text: text_of(&block["content"]),
                            is_error: block["is_error"].as_bool().unwrap_or(false),
                        }));
                    } else {
                        split(&text_of(&block), &mut said, &mut events);
                    }
                }
            }
            _ => events.push(Event::Notice(text_of(&message["content"]))),
        }
    }
    flush(&mut said, &mut events);
    events
}

/// Reminders become notices, the rest is what the user said.
fn split(text: &str, said: &mut String, events: &mut Vec<Event>) {
    for reminder in REMINDER.find_iter(text) {
        events.push(Event::Notice(reminder.as_str().to_owned()));
    }
    let rest = REMINDER.replace_all(text, "");
    let rest = rest.trim();
    if !rest.is_empty() {
        if !said.is_empty() {
            said.push('\n');
        }
        said.push_str(rest);
    }
}

fn flush(said: &mut String, events: &mut Vec<Event>) {
    if !said.is_empty() {
        events.push(Event::Prompt(std::mem::take(said)));
    }
}

/// Content as blocks: a plain string is one text block.
fn blocks(content: &Value) -> Vec<Value> {
    match content {
        Value::Array(blocks) => blocks.clone(),
        Value::String(text) => vec![serde_json::json!({"type": "text", "text": text})],
        _ => Vec::new(),
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<String> = blocks.iter().map(text_of).collect();
            texts.join("\n")
        }
        Value::Object(block) => block.get("text").map(text_of).unwrap_or_default(),
        _ => String::new(),
    }
}

fn collect(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => {
            text.push('\n');
            text.push_str(part);
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, text)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, text)),
        _ => {}
    }
}
