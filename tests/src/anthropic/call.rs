//! Calls of Claude Code's tools, as a script writes them.
//!
//! Strings may hold `{{re:PATTERN}}`: replaced by the last match of PATTERN in the request's text (its first
//! group, if it has one).

use serde_json::{Value, json};

use super::reply::ToolCall;

/// The file in which plan mode wants the plan, as it announces it to the model.
pub const PLAN_FILE: &str = r"{{re:plan at (/\S+\.md)}}";

/// Any tool by name.
pub fn tool(name: &str, input: Value) -> ToolCall {
    ToolCall {
        name: name.to_owned(),
        input,
    }
}

/// Runs a shell command.
pub fn bash(command: &str) -> ToolCall {
    tool(
        "Bash",
        json!({"command": command, "description": "run a command"}),
    )
}

/// Reads a file by its absolute path.
pub fn read(path: &str) -> ToolCall {
    tool("Read", json!({"file_path": path}))
}

/// Writes a file by its absolute path; one that exists must have been read before.
pub fn write(path: &str, content: &str) -> ToolCall {
    tool("Write", json!({"file_path": path, "content": content}))
}

/// Replaces `old`, which must occur once in a file that was read before.
pub fn edit(path: &str, old: &str, new: &str) -> ToolCall {
    tool(
        "Edit",
        json!({"file_path": path, "old_string": old, "new_string": new}),
    )
}

/// Writes the plan where plan mode wants it; [`exit_plan_mode`] then presents it.
pub fn write_plan(content: &str) -> ToolCall {
    write(PLAN_FILE, content)
}

/// Presents the plan that was written.
pub fn exit_plan_mode() -> ToolCall {
    tool("ExitPlanMode", json!({}))
}

/// Asks the user one question with the given options (label, description).
pub fn ask_user_question(question: &str, header: &str, options: &[(&str, &str)]) -> ToolCall {
    let options: Vec<Value> = options
        .iter()
        .map(|(label, description)| json!({"label": label, "description": description}))
        .collect();
    tool(
        "AskUserQuestion",
        json!({"questions": [{"question": question, "header": header, "options": options, "multiSelect": false}]}),
    )
}

/// A tool of mainloop's own MCP server.
pub fn mainloop(name: &str, input: Value) -> ToolCall {
    tool(&format!("mcp__mainloop__{name}"), input)
}

/// Answers a thread of a review.
pub fn answer_thread(thread: &str, answer: &str) -> ToolCall {
    mainloop("answer_thread", json!({"thread": thread, "answer": answer}))
}

/// Asks the human who owns the task; `options` may be empty.
pub fn ask_human(question: &str, options: &[&str]) -> ToolCall {
    mainloop(
        "ask_human",
        json!({"question": question, "options": options}),
    )
}

/// Reports progress to whoever watches.
pub fn report_progress(text: &str) -> ToolCall {
    mainloop("report_progress", json!({"text": text}))
}

/// Says that the work cannot go on without a person; `kind` is `access`, `network`, `tooling` or another.
pub fn report_blocker(kind: &str, what: &str) -> ToolCall {
    mainloop("report_blocker", json!({"kind": kind, "what": what}))
}

/// Says that the task needs no change.
pub fn nothing_to_change(reason: &str) -> ToolCall {
    mainloop("nothing_to_change", json!({"reason": reason}))
}
