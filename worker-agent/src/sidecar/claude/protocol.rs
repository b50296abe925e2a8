//! The CLI's lines: what comes in, parsed with every field optional, and what goes out.
//!
//! Pure. Key order, extra fields and unknown types do not matter, and no input makes it panic: the far end is not trusted.

use serde_json::{Value, json};
use uuid::Uuid;

use super::events::{MAX_TEXT, Usage, clip};

/// Longest line that is parsed, in bytes. The largest honest ones carry an image that a tool read.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// One line from the CLI.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The CLI asks and waits for a `control_response` with this id.
    Request {
        request_id: String,
        request: Request,
    },
    /// The answer to one of our own requests.
    Response {
        request_id: String,
        result: Result<Value, String>,
    },
    /// The CLI no longer waits for our answer.
    Cancel { request_id: String },
    /// How far a message of ours has come.
    Lifecycle { uuid: String, state: Lifecycle },
    /// A turn's result.
    Result(Box<TurnResult>),
    /// Any other object.
    Message(Value),
    /// No JSON object.
    Text(String),
}

/// What the CLI asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    CanUseTool { tool: String, input: Value },
    Mcp { server: String, message: Value },
    Other(String),
}

/// The state of a message that was sent with a uuid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    Queued,
    Started,
    /// Completed or cancelled: the CLI will not come back to it.
    Settled,
    Unknown,
}

/// The fields of a `result` line that matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TurnResult {
    pub subtype: String,
    pub is_error: bool,
    /// The final text, or the error's.
    pub text: String,
    pub errors: Vec<String>,
    pub terminal_reason: String,
    pub stop_reason: String,
    pub status: Option<u16>,
    pub turns: u32,
    pub total_usd: Option<f64>,
    pub usage: Usage,
    /// The CLI began this turn by itself, for example because a background task ended.
    pub spontaneous: bool,
}

/// Parses one line.
pub fn parse(line: &str) -> Incoming {
    if line.len() > MAX_LINE {
        return Incoming::Text(format!("a line of {} bytes was not read", line.len()));
    }
    let value: Value = match serde_json::from_str(line) {
        Ok(value @ Value::Object(_)) => value,
        _ => return Incoming::Text(clip(line, MAX_TEXT)),
    };
    match value["type"].as_str().unwrap_or_default() {
        "control_request" => Incoming::Request {
            request_id: string(&value["request_id"]),
            request: request(&value["request"]),
        },
        "control_response" => {
            let response = &value["response"];
            let result = if response["subtype"] == "success" {
                Ok(response["response"].clone())
            } else {
                Err(clip(
                    response["error"].as_str().unwrap_or("no reason given"),
                    MAX_TEXT,
                ))
            };
            Incoming::Response {
                request_id: string(&response["request_id"]),
                result,
            }
        }
        "control_cancel_request" => Incoming::Cancel {
            request_id: string(&value["request_id"]),
        },
        "command_lifecycle" => Incoming::Lifecycle {
            uuid: string(&value["command_uuid"]),
            state: match value["state"].as_str().unwrap_or_default() {
                "queued" => Lifecycle::Queued,
                "started" => Lifecycle::Started,
                "completed" | "cancelled" => Lifecycle::Settled,
                _ => Lifecycle::Unknown,
            },
        },
        "result" => Incoming::Result(Box::new(result(&value))),
        _ => Incoming::Message(value),
    }
}

/// A message to Claude. Its `uuid` comes back in [`Incoming::Lifecycle`].
pub fn user_message(uuid: Uuid, text: &str) -> String {
    json!({"type": "user", "uuid": uuid.to_string(), "message": {"role": "user", "content": text}})
        .to_string()
}

/// A request of ours.
pub fn control_request(request_id: &str, request: &Value) -> String {
    json!({"type": "control_request", "request_id": request_id, "request": request}).to_string()
}

/// Our answer to a request of the CLI.
pub fn control_success(request_id: &str, response: &Value) -> String {
    json!({"type": "control_response", "response": {"subtype": "success", "request_id": request_id, "response": response}}).to_string()
}

/// Our refusal of a request of the CLI.
pub fn control_error(request_id: &str, error: &str) -> String {
    json!({"type": "control_response", "response": {"subtype": "error", "request_id": request_id, "error": error}}).to_string()
}

fn request(value: &Value) -> Request {
    match value["subtype"].as_str().unwrap_or_default() {
        "can_use_tool" => Request::CanUseTool {
            tool: string(&value["tool_name"]),
            input: value["input"].clone(),
        },
        "mcp_message" => Request::Mcp {
            server: string(&value["server_name"]),
            message: value["message"].clone(),
        },
        other => Request::Other(clip(other, 100)),
    }
}

fn result(value: &Value) -> TurnResult {
    let usage = &value["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    TurnResult {
        subtype: string(&value["subtype"]),
        is_error: value["is_error"].as_bool().unwrap_or(false),
        text: clip(value["result"].as_str().unwrap_or_default(), MAX_TEXT),
        errors: value["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .take(8)
            .filter_map(Value::as_str)
            .map(|e| clip(e, 1000))
            .collect(),
        terminal_reason: string(&value["terminal_reason"]),
        stop_reason: string(&value["stop_reason"]),
        status: value["api_error_status"]
            .as_u64()
            .and_then(|s| u16::try_from(s).ok()),
        turns: value["num_turns"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        total_usd: value["total_cost_usd"]
            .as_f64()
            .filter(|usd| usd.is_finite() && *usd >= 0.0),
        usage: Usage {
            input: tokens("input_tokens"),
            output: tokens("output_tokens"),
            cache_write: tokens("cache_creation_input_tokens"),
            cache_read: tokens("cache_read_input_tokens"),
        },
        spontaneous: !value["origin"].is_null(),
    }
}

/// A short name or id; the bound is far above any that is honest.
fn string(value: &Value) -> String {
    clip(value.as_str().unwrap_or_default(), 256)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::translate;
    use super::*;

    // Lines as the CLI 2.1.329 wrote them, shortened.
    const LIFECYCLE: &str = r#"{"type":"command_lifecycle","command_uuid":"22222222-2222-4222-8222-222222222222","state":"cancelled","uuid":"5c142429-b74b-40f7-badd-97ef53a027c9","session_id":"4b05eb41-c60e-4522-bfd2-f8454975423c"}"#;
    const PERMISSION: &str = r#"{"type":"control_request","request_id":"eb798bd0-7922-41a1-9582-a2f881db9dd6","request":{"subtype":"can_use_tool","tool_name":"Bash","display_name":"Bash","input":{"command":"echo hi","description":"wait"},"description":"wait","decision_reason_type":"subcommandResults","tool_use_id":"toolu_1_0"}}"#;
    const RESULT: &str = r#"{"duration_api_ms":1145,"stop_reason":"end_turn","session_id":"c356aafc","total_cost_usd":0.0008,"usage":{"input_tokens":200,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":40},"type":"result","subtype":"success","is_error":false,"num_turns":2,"result":"done one","terminal_reason":"completed","api_error_status":null,"queued_turn_count":0}"#;
    const SPONTANEOUS: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"seen","origin":{"kind":"task-notification","task_id":"b1"},"num_turns":1}"#;

    #[test]
    fn recorded_lines_are_understood() {
        assert_eq!(
            parse(LIFECYCLE),
            Incoming::Lifecycle {
                uuid: "22222222-2222-4222-8222-222222222222".into(),
                state: Lifecycle::Settled
            }
        );
        let Incoming::Request {
            request_id,
            request: Request::CanUseTool { tool, input },
        } = parse(PERMISSION)
        else {
            panic!("not a permission request")
        };
        assert_eq!(
            (request_id.as_str(), tool.as_str()),
            ("eb798bd0-7922-41a1-9582-a2f881db9dd6", "Bash")
        );
        assert_eq!(input["command"], "echo hi");
        let Incoming::Result(result) = parse(RESULT) else {
            panic!("not a result")
        };
        assert_eq!(
            (result.text.as_str(), result.turns, result.total_usd),
            ("done one", 2, Some(0.0008))
        );
        assert_eq!(
            result.usage,
            Usage {
                input: 200,
                output: 40,
                cache_write: 3,
                cache_read: 4
            }
        );
        assert!(!result.spontaneous);
        let Incoming::Result(result) = parse(SPONTANEOUS) else {
            panic!("not a result")
        };
        assert!(result.spontaneous);
    }

    #[test]
    fn what_is_no_object_is_text() {
        for line in ["", "plain words", "[1,2]", "\"x\"", "{\"type\":", "null"] {
            assert_eq!(parse(line), Incoming::Text(line.to_owned()));
        }
        let deep = format!("{}{}", "{\"a\":".repeat(500), "1");
        assert!(
            matches!(parse(&deep), Incoming::Text(_)),
            "deep nesting is refused"
        );
    }

    #[test]
    fn a_refused_request_keeps_its_reason() {
        let line = r#"{"type":"control_response","response":{"subtype":"error","request_id":"r1","error":"no","error_code":"bypass_not_launched"}}"#;
        assert_eq!(
            parse(line),
            Incoming::Response {
                request_id: "r1".into(),
                result: Err("no".into())
            }
        );
    }

    /// Objects that use the protocol's own words with values of any shape: these reach every branch.
    fn hostile_line() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "type",
            "subtype",
            "request",
            "request_id",
            "response",
            "message",
            "content",
            "input",
            "tool_name",
            "result",
            "usage",
            "is_error",
            "origin",
            "errors",
            "state",
            "control_request",
            "control_response",
            "can_use_tool",
            "mcp_message",
            "assistant",
            "user",
            "system",
            "text",
            "tool_use",
            "tool_result",
            "api_retry",
            "init",
            "compact_boundary",
            "model_fallback",
            "informational",
            "command_lifecycle",
            "name",
            "retry_delay_ms",
            "status",
            "error",
            "attempt",
        ]);
        let leaf = prop_oneof![
            word.clone().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            any::<f64>().prop_map(|f| json!(f)),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        let value = leaf.prop_recursive(4, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6).prop_map(|pairs| Value::Object(
                    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                )),
            ]
        });
        value.prop_map(|value| value.to_string())
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn hostile_objects_are_survived(line in hostile_line()) {
            if let Incoming::Message(value) = parse(&line) {
                let _ = translate::events(&value);
            }
        }
    }
}
