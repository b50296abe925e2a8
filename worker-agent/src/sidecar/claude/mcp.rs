//! The tools that Claude is offered over the pipe, as an MCP server written by hand.
//!
//! Owns the JSON-RPC messages and the tools' schemas. Pure: it parses a message into what the driver has to do. It holds no
//! state and knows no human. A malformed call is answered with a tool error that says what is wrong, so that Claude can mend it.

use serde_json::{Value, json};

use super::events::{BlockerKind, MAX_TEXT, Question, QuestionOption, clip};

/// The server's name, as in `mcp__mainloop__ask_human`.
pub const SERVER: &str = "mainloop";
const LATEST_PROTOCOL: &str = "2025-11-25";
const MAX_OPTIONS: usize = 8;

/// What one message from the CLI asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// Answer at once with this reply.
    Reply(Value),
    /// Run the tool, then answer the JSON-RPC `id`.
    Call { id: Value, tool: Tool },
    /// The call with this JSON-RPC id is no longer waited for. Needs a bare acknowledgement.
    Cancelled { id: Value },
}

/// A well-formed call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    AskHuman {
        question: Question,
        context: Option<String>,
    },
    ReportProgress {
        text: String,
    },
    ReportBlocker {
        kind: BlockerKind,
        what: String,
        detail: String,
    },
    NothingToChange {
        reason: String,
    },
    AnswerThread {
        thread: String,
        answer: String,
    },
}

/// What to do about `message`.
pub(crate) fn receive(message: &Value) -> Message {
    let id = message.get("id").cloned();
    let params = &message["params"];
    match (message["method"].as_str().unwrap_or_default(), id) {
        ("notifications/cancelled", _) => Message::Cancelled {
            id: params["requestId"].clone(),
        },
        (_, None) => Message::Reply(acknowledgement()),
        ("initialize", Some(id)) => Message::Reply(reply(
            &id,
            json!({
                "protocolVersion": params["protocolVersion"].as_str().unwrap_or(LATEST_PROTOCOL),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": SERVER, "version": env!("CARGO_PKG_VERSION")},
            }),
        )),
        ("ping", Some(id)) => Message::Reply(reply(&id, json!({}))),
        ("tools/list", Some(id)) => Message::Reply(reply(&id, json!({"tools": tools()}))),
        ("tools/call", Some(id)) => match call(
            params["name"].as_str().unwrap_or_default(),
            &params["arguments"],
        ) {
            Ok(tool) => Message::Call { id, tool },
            Err(wrong) => Message::Reply(text_result(&id, &wrong, true)),
        },
        (_, Some(id)) => Message::Reply(
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}}),
        ),
    }
}

/// The reply to a tool call.
pub(crate) fn text_result(id: &Value, text: &str, is_error: bool) -> Value {
    reply(
        id,
        json!({"content": [{"type": "text", "text": text}], "isError": is_error}),
    )
}

/// The CLI wants an answer on the pipe also to notifications, which have no id of their own.
pub(crate) fn acknowledgement() -> Value {
    reply(&json!(0), json!({}))
}

fn reply(id: &Value, result: Value) -> Value {
    let mut reply = json!({"jsonrpc": "2.0", "id": id});
    reply["result"] = result;
    reply
}

fn call(name: &str, arguments: &Value) -> Result<Tool, String> {
    match name {
        "ask_human" => Ok(Tool::AskHuman {
            question: Question {
                question: required(arguments, "question")?,
                header: String::new(),
                options: options(&arguments["options"])?,
                multi_select: false,
            },
            context: optional(arguments, "context"),
        }),
        "report_progress" => Ok(Tool::ReportProgress {
            text: required(arguments, "text")?,
        }),
        "report_blocker" => Ok(Tool::ReportBlocker {
            kind: match arguments["kind"].as_str().unwrap_or_default() {
                "access" => BlockerKind::Access,
                "network" => BlockerKind::Network,
                "tooling" => BlockerKind::Tooling,
                "requirements" => BlockerKind::Requirements,
                _ => BlockerKind::Other,
            },
            what: required(arguments, "what")?,
            detail: optional(arguments, "detail").unwrap_or_default(),
        }),
        "nothing_to_change" => Ok(Tool::NothingToChange {
            reason: required(arguments, "reason")?,
        }),
        "answer_thread" => Ok(Tool::AnswerThread {
            thread: required(arguments, "thread")?,
            answer: required(arguments, "answer")?,
        }),
        other => Err(format!("there is no tool {:?} here", clip(other, 80))),
    }
}

fn required(arguments: &Value, name: &str) -> Result<String, String> {
    optional(arguments, name).ok_or_else(|| format!("`{name}` must be a text that is not empty"))
}

fn optional(arguments: &Value, name: &str) -> Option<String> {
    let text = arguments[name].as_str()?.trim();
    (!text.is_empty()).then(|| clip(text, MAX_TEXT))
}

fn options(value: &Value) -> Result<Vec<QuestionOption>, String> {
    let Some(list) = value.as_array() else {
        return if value.is_null() {
            Ok(Vec::new())
        } else {
            Err("`options` must be a list of texts".into())
        };
    };
    if list.len() > MAX_OPTIONS {
        return Err(format!("at most {MAX_OPTIONS} options can be offered"));
    }
    list.iter()
        .map(|option| {
            option.as_str().map(|label| QuestionOption {
                label: clip(label, 400),
                description: String::new(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| "`options` must be a list of texts".into())
}

fn tools() -> Value {
    let text =
        |description: &str| json!({"type": "string", "minLength": 1, "description": description});
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({
            "name": name,
            "description": description,
            "inputSchema": {"type": "object", "properties": properties, "required": required, "additionalProperties": false},
        })
    };
    json!([
        tool(
            "ask_human",
            "Ask the person who gave this task one question and wait for the answer. Use it where the task is ambiguous and the \
             repository does not settle it, or before a choice that is costly to undo. It may take hours: ask only what you need.",
            json!({
                "question": text("The question, understandable without this conversation."),
                "options": {"type": "array", "maxItems": MAX_OPTIONS, "items": {"type": "string"}, "description": "Answers to choose from, if there are natural ones. The person may also answer freely."},
                "context": text("What you found out that helps to answer."),
            }),
            &["question"],
        ),
        tool(
            "report_progress",
            "Tell the people who watch in one sentence what you have reached or do next. Returns at once.",
            json!({"text": text("One sentence.")}),
            &["text"],
        ),
        tool(
            "report_blocker",
            "Say that you cannot go on by yourself, and wait until a person has helped or tells you to stop. Use it for what you cannot \
             mend from here: a missing credential, a host that is refused, a tool that is not installed, requirements that contradict each other.",
            json!({
                "kind": {"type": "string", "enum": ["access", "network", "tooling", "requirements", "other"], "description": "What sort of help is needed."},
                "what": text("In one sentence, what is in the way."),
                "detail": text("What you tried, and the error's own words."),
            }),
            &["kind", "what"],
        ),
        tool(
            "nothing_to_change",
            "Only while planning: say that the task needs no change to the repository, because it is done already or rests on a mistake. Ends the work.",
            json!({"reason": text("Why nothing needs to change, with the places in the code that show it.")}),
            &["reason"],
        ),
        tool(
            "answer_thread",
            "Only while a review is addressed: answer one thread. The answer is posted in it when your commits are pushed. A second call for the same thread replaces the first.",
            json!({
                "thread": text("The thread's name, such as t1."),
                "answer": text("What you changed and where, or why you changed nothing: a sentence or two, to the person who wrote it."),
            }),
            &["thread", "answer"],
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool_call(name: &str, arguments: &Value) -> Message {
        receive(
            &json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": name, "arguments": arguments}}),
        )
    }

    #[test]
    fn the_protocol_version_of_the_client_is_taken() {
        let message = json!({"method": "initialize", "id": 0, "jsonrpc": "2.0", "params": {"protocolVersion": "2026-01-01", "capabilities": {}}});
        let Message::Reply(reply) = receive(&message) else {
            panic!("no reply")
        };
        assert_eq!(reply["result"]["protocolVersion"], "2026-01-01");
    }

    #[test]
    fn unknown_methods_are_errors_and_notifications_are_acknowledged() {
        let Message::Reply(reply) = receive(&json!({"method": "server/discover", "id": 3})) else {
            panic!("no reply")
        };
        assert_eq!(reply["error"]["code"], -32601);
        assert_eq!(reply["id"], 3);
        assert_eq!(
            receive(&json!({"method": "notifications/initialized"})),
            Message::Reply(acknowledgement())
        );
        assert_eq!(
            receive(
                &json!({"method": "notifications/cancelled", "params": {"requestId": 9, "reason": "x"}})
            ),
            Message::Cancelled { id: json!(9) }
        );
    }

    #[test]
    fn a_question_keeps_its_options() {
        let Message::Call {
            id,
            tool: Tool::AskHuman { question, context },
        } = tool_call(
            "ask_human",
            &json!({"question": "Which?", "options": ["a", "b"], "context": "seen"}),
        )
        else {
            panic!("no call")
        };
        assert_eq!(id, 4);
        assert_eq!(question.question, "Which?");
        assert_eq!(
            question
                .options
                .iter()
                .map(|o| o.label.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(context.as_deref(), Some("seen"));
    }

    #[test]
    fn a_malformed_call_is_told_what_is_wrong() {
        for (name, arguments, says) in [
            ("ask_human", json!({"question": " "}), "`question`"),
            (
                "ask_human",
                json!({"question": "x", "options": [1]}),
                "`options`",
            ),
            ("report_progress", json!([]), "`text`"),
            ("rm", Value::Null, "no tool"),
        ] {
            let Message::Reply(reply) = tool_call(name, &arguments) else {
                panic!("{name} was run")
            };
            assert_eq!(reply["result"]["isError"], true);
            let text = reply["result"]["content"][0]["text"]
                .as_str()
                .unwrap_or_default();
            assert!(text.contains(says), "{text:?} does not mention {says}");
        }
    }

    #[test]
    fn every_tool_describes_itself_and_its_arguments() {
        let tools = tools();
        let names: Vec<_> = tools
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["name"].as_str())
            .collect();
        assert_eq!(
            names,
            [
                "ask_human",
                "report_progress",
                "report_blocker",
                "nothing_to_change",
                "answer_thread"
            ]
        );
        for tool in tools.as_array().into_iter().flatten() {
            for (name, property) in tool["inputSchema"]["properties"]
                .as_object()
                .into_iter()
                .flatten()
            {
                assert!(
                    property["description"].is_string(),
                    "{name} of {} has no description",
                    tool["name"]
                );
            }
        }
    }
}
