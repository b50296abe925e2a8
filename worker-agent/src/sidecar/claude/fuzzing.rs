//! For the crate in `/fuzz` alone.

use std::path::Path;

use super::driver::Mode;
use super::events::{Event, MAX_PLAN, MAX_SUMMARY, MAX_TEXT, TurnEnd};
use super::protocol::{self, Incoming, Request};
use super::{classify, mcp, policy, translate};

/// One line from the CLI, through everything that reads it. No text that comes out is longer than its bound.
pub fn line(line: &str) {
    match protocol::parse(line) {
        Incoming::Request { request, .. } => match request {
            Request::CanUseTool { tool, input } => {
                assert!(translate::summary(&tool, &input).len() <= MAX_SUMMARY);
                for mode in [Mode::Plan, Mode::Work] {
                    let verdict = policy::decide(mode, &tool, &input, "/home/worker/.claude");
                    if let policy::Verdict::Plan(plan) = verdict {
                        assert!(mode == Mode::Plan && plan.len() <= MAX_PLAN);
                    } else if mode == Mode::Plan && verdict == policy::Verdict::Allow {
                        let path = Path::new(input["file_path"].as_str().unwrap_or_default());
                        assert!(
                            !matches!(&*tool, "Write" | "Edit")
                                || path.starts_with("/home/worker/.claude/plans")
                        );
                    }
                }
            }
            Request::Mcp { message, .. } => {
                let _ = mcp::receive(&message);
            }
            Request::Other(name) => assert!(name.len() <= MAX_TEXT),
        },
        Incoming::Response { result, .. } => {
            if let Err(reason) = result {
                assert!(reason.len() <= MAX_TEXT);
            }
        }
        Incoming::Cancel { .. } | Incoming::Lifecycle { .. } => {}
        Incoming::Result(result) => {
            assert!(result.text.len() <= MAX_TEXT);
            match classify::turn_end(&result, None) {
                TurnEnd::Completed { total_usd, .. } => {
                    assert!(total_usd.is_finite() && total_usd >= 0.0);
                }
                TurnEnd::Failed { message, .. } => assert!(message.len() <= MAX_TEXT),
                _ => {}
            }
        }
        Incoming::Message(message) => {
            let _ = translate::synthetic_error(&message);
            translate::events(&message).iter().for_each(bounded);
        }
        Incoming::Text(text) => assert!(text.len() <= MAX_TEXT),
    }
}

fn bounded(event: &Event) {
    let longest = match event {
        Event::ToolUse { name, summary, .. } => name.len().max(summary.len()),
        Event::ToolResult { summary, .. } => summary.len(),
        Event::ModelFallback { from, to } => from.len().max(to.len()),
        Event::Denied { tool, reason } => tool.len().max(reason.len()),
        Event::Retry { error, .. } => error.len(),
        Event::Started { model, .. } => model.len(),
        Event::Text(text) | Event::Notice(text) | Event::Unknown(text) => text.len(),
        Event::Compacted { .. } => 0,
        other => panic!("a message made {other:?}, which is the driver's to make"),
    };
    assert!(longest <= MAX_TEXT);
}
