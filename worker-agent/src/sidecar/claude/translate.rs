//! Messages of the CLI as events for people. Pure; every text is bounded here.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use serde_json::Value;

use super::events::{Event, MAX_TEXT, clip, one_line};
use super::mcp;

/// Most events that one message can make. The CLI sends one block at a time.
const MAX_BLOCKS: usize = 16;
/// Longest retry delay that is believed, in milliseconds.
const MAX_DELAY_MS: f64 = 86_400_000.0;

/// The events of a message that is none of the control protocol's.
pub(crate) fn events(message: &Value) -> Vec<Event> {
    match message["type"].as_str().unwrap_or_default() {
        // Claude's own words; a subagent's stay inside its call's summary.
        "assistant" => blocks(message).filter_map(assistant_block).collect(),
        "user" => blocks(message).filter_map(user_block).collect(),
        "system" => system(message).into_iter().collect(),
        // Signs of life that say nothing new.
        "stream_event" | "tool_progress" | "keep_alive" | "rate_limit_event" => Vec::new(),
        _ => vec![Event::Unknown(clip(&message.to_string(), MAX_TEXT))],
    }
}

/// The error class that the CLI attaches to its own error text, such as `overloaded`.
pub(crate) fn synthetic_error(message: &Value) -> Option<&str> {
    (message["type"] == "assistant")
        .then(|| message["error"].as_str())
        .flatten()
}

/// One line that says what a tool call does.
pub(crate) fn summary(tool: &str, input: &Value) -> String {
    let of = |name: &str| input[name].as_str().unwrap_or_default();
    let told = match tool {
        "Bash" => of("command"),
        "Read" | "Write" | "Edit" => of("file_path"),
        "NotebookEdit" => of("notebook_path"),
        "Glob" | "Grep" => of("pattern"),
        "Agent" | "Task" => of("description"),
        "ToolSearch" => of("query"),
        "Skill" => of("skill"),
        "ExitPlanMode" => "the plan is ready",
        _ => "",
    };
    if told.is_empty() {
        one_line(&clip(&input.to_string(), 1024))
    } else {
        one_line(told)
    }
}

/// Stands for a call with all that is given to it, which its summary leaves out.
fn hash(tool: &str, input: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    (tool, input.to_string()).hash(&mut hasher);
    hasher.finish()
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message["message"]["content"]
        .as_array()
        .into_iter()
        .flatten()
        .take(MAX_BLOCKS)
}

fn assistant_block(block: &Value) -> Option<Event> {
    match block["type"].as_str()? {
        "text" => {
            let text = block["text"].as_str()?.trim();
            (!text.is_empty()).then(|| Event::Text(clip(text, MAX_TEXT)))
        }
        "tool_use" => {
            let name = block["name"].as_str()?;
            // The driver reports these itself, with their content.
            let own = name
                .strip_prefix("mcp__")
                .and_then(|n| n.strip_prefix(mcp::SERVER))
                .is_some_and(|n| n.starts_with("__"));
            (!own).then(|| Event::ToolUse {
                name: clip(name, 100),
                summary: summary(name, &block["input"]),
                hash: hash(name, &block["input"]),
            })
        }
        _ => None,
    }
}

fn user_block(block: &Value) -> Option<Event> {
    if block["type"] != "tool_result" {
        return None;
    }
    let content = &block["content"];
    let text = content
        .as_str()
        .or_else(|| {
            content
                .as_array()?
                .iter()
                .find_map(|part| part["text"].as_str())
        })
        .unwrap_or_default();
    Some(Event::ToolResult {
        is_error: block["is_error"].as_bool().unwrap_or(false),
        summary: one_line(text),
    })
}

fn system(message: &Value) -> Option<Event> {
    let text = |name: &str| clip(message[name].as_str().unwrap_or_default(), 1024);
    match message["subtype"].as_str().unwrap_or_default() {
        "init" => Some(Event::Started {
            model: text("model"),
            tools_connected: message["mcp_servers"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|server| server["name"] == mcp::SERVER && server["status"] == "connected"),
        }),
        "api_retry" => Some(Event::Retry {
            attempt: message["attempt"]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            delay: Duration::from_secs_f64(
                message["retry_delay_ms"]
                    .as_f64()
                    .unwrap_or(0.0)
                    .clamp(0.0, MAX_DELAY_MS)
                    / 1000.0,
            ),
            status: message["error_status"]
                .as_u64()
                .and_then(|s| u16::try_from(s).ok()),
            error: text("error"),
        }),
        "compact_boundary" => Some(Event::Compacted {
            tokens_before: message["compact_metadata"]["pre_tokens"].as_u64(),
        }),
        "model_fallback" => Some(Event::ModelFallback {
            from: text("original_model"),
            to: text("fallback_model"),
        }),
        "informational" => Some(Event::Notice(text("content"))),
        "permission_denied" => Some(Event::Denied {
            tool: text("tool_name"),
            reason: text("message"),
        }),
        "status"
        | "thinking_tokens"
        | "session_state_changed"
        | "task_started"
        | "task_progress"
        | "task_updated"
        | "task_notification"
        | "background_tasks_changed" => None,
        _ => Some(Event::Unknown(clip(&message.to_string(), 1024))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn translated(line: &str) -> Vec<Event> {
        events(&serde_json::from_str(line).expect("test line is JSON"))
    }

    #[test]
    fn a_tool_call_and_its_result_are_one_line_each() {
        let call = r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"tool_use","id":"toolu_1_0","name":"Bash","input":{"command":"cargo test\n  --all","description":"wait"}}]},"parent_tool_use_id":null}"#;
        assert_eq!(
            translated(call),
            [Event::ToolUse {
                name: "Bash".into(),
                summary: "cargo test --all".into(),
                hash: hash(
                    "Bash",
                    &json!({"command": "cargo test\n  --all", "description": "wait"})
                ),
            }]
        );
        let result = r#"{"type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_1_0","type":"tool_result","content":"hi","is_error":false}]},"tool_use_result":{"stdout":"hi"}}"#;
        assert_eq!(
            translated(result),
            [Event::ToolResult {
                is_error: false,
                summary: "hi".into()
            }]
        );
    }

    #[test]
    fn edits_of_one_file_read_alike_and_are_not_the_same_call() {
        let edit = |new: &str| {
            let input = json!({"file_path": "/work/a.rs", "old_string": "a", "new_string": new});
            let message = json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "Edit", "input": input}]}});
            match events(&message).as_slice() {
                [Event::ToolUse { summary, hash, .. }] => (summary.clone(), *hash),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(edit("b"), edit("b"));
        assert_eq!(edit("b").0, edit("c").0);
        assert_ne!(edit("b").1, edit("c").1);
    }

    #[test]
    fn a_retry_says_when_and_why() {
        let line = r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":556,"error_status":500,"error":"server_error"}"#;
        assert_eq!(
            translated(line),
            [Event::Retry {
                attempt: 1,
                delay: Duration::from_millis(556),
                status: Some(500),
                error: "server_error".into()
            }]
        );
        let hostile = json!({"type": "system", "subtype": "api_retry", "retry_delay_ms": -1e300});
        assert!(matches!(
            &events(&hostile)[..],
            [Event::Retry {
                delay: Duration::ZERO,
                ..
            }]
        ));
    }

    #[test]
    fn unknown_messages_are_shown_and_bounded() {
        let line = json!({"type": "novelty", "blob": "x".repeat(100_000)});
        let events = events(&line);
        let [Event::Unknown(text)] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(text.len() <= MAX_TEXT);
    }

    #[test]
    fn own_tools_are_left_to_the_driver() {
        let message = json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "mcp__mainloop__ask_human", "input": {}}]}});
        assert_eq!(events(&message), []);
    }
}
