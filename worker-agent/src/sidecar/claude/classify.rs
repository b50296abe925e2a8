//! From a `result` line to how the turn ended. Pure.
//!
//! `is_error` and `terminal_reason` decide: the CLI calls an API error a `success` in its `subtype`.

use super::events::{FailureClass, TurnEnd};
use super::protocol::TurnResult;

/// How the sidecar's model proxy begins the message of an error when the task's budget is used up. The proxy uses this very
/// constant, so that the two cannot drift apart.
pub const BUDGET_PREFIX: &str = "the task's budget is used up";

/// What `result` says. `error` is the class that the CLI attached to its last error text, if any.
pub(crate) fn turn_end(result: &TurnResult, error: Option<&str>) -> TurnEnd {
    if result.terminal_reason.starts_with("aborted") {
        return TurnEnd::Interrupted;
    }
    if !result.is_error {
        return TurnEnd::Completed {
            text: result.text.clone(),
            turns: result.turns,
            total_usd: result.total_usd.unwrap_or(0.0),
        };
    }
    let message = if result.text.is_empty() {
        result.errors.join("; ")
    } else {
        result.text.clone()
    };
    TurnEnd::Failed {
        class: class(result, error, &message),
        status: result.status,
        message,
    }
}

fn class(result: &TurnResult, error: Option<&str>, message: &str) -> FailureClass {
    let says = |part: &str| message.contains(part);
    // The budget first: its HTTP status is one that also means other things.
    if says(BUDGET_PREFIX) || result.subtype == "error_max_budget_usd" {
        return FailureClass::Budget;
    }
    if result.subtype == "error_max_turns" {
        return FailureClass::MaxTurns;
    }
    if result.terminal_reason == "prompt_too_long"
        || result.status == Some(413)
        || says("Prompt is too long")
    {
        return FailureClass::PromptTooLong;
    }
    if result.stop_reason == "refusal" || says("safeguards flagged") {
        return FailureClass::Refused;
    }
    if says("No conversation found with session ID") {
        return FailureClass::SessionLost;
    }
    // These two statuses say more than the CLI's own class, which calls a 529 that may not be retried a `server_error`.
    match result.status {
        Some(429) => return FailureClass::RateLimited,
        Some(529) => return FailureClass::Overloaded,
        _ => {}
    }
    match error.unwrap_or_default() {
        "authentication_failed" => return FailureClass::Authentication,
        "billing_error" => return FailureClass::Billing,
        "rate_limit" => return FailureClass::RateLimited,
        "overloaded" => return FailureClass::Overloaded,
        "server_error" => return FailureClass::Server,
        _ => {}
    }
    match result.status {
        Some(401 | 403) => FailureClass::Authentication,
        Some(402) => FailureClass::Billing,
        Some(404) => FailureClass::ModelUnavailable,
        Some(500..=599) => FailureClass::Server,
        Some(_) => FailureClass::Other,
        None if says("Not logged in") || says("Invalid API key") => FailureClass::Authentication,
        None if says("Credit balance is too low") => FailureClass::Billing,
        None if says("issue with the selected model") => FailureClass::ModelUnavailable,
        None if says("Overloaded") => FailureClass::Overloaded,
        None if says("empty or malformed response") => FailureClass::Server,
        None if says("Connection")
            || says("timed out")
            || says("ECONN")
            || says("ENOTFOUND")
            || says("socket") =>
        {
            FailureClass::Network
        }
        None => FailureClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: Option<u16>, error: Option<&str>, text: &str) -> FailureClass {
        let result = TurnResult {
            subtype: "success".into(),
            is_error: true,
            status,
            text: text.into(),
            terminal_reason: "api_error".into(),
            ..TurnResult::default()
        };
        match turn_end(&result, error) {
            TurnEnd::Failed { class, .. } => class,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_error_of_the_cli_has_its_class() {
        for (status, error, text, class) in [
            (
                Some(401),
                Some("authentication_failed"),
                "Invalid API key · Fix external API key",
                FailureClass::Authentication,
            ),
            (
                Some(403),
                Some("authentication_failed"),
                "Failed to authenticate. API Error: 403 no",
                FailureClass::Authentication,
            ),
            (
                Some(400),
                Some("billing_error"),
                "Credit balance is too low",
                FailureClass::Billing,
            ),
            (
                Some(402),
                Some("unknown"),
                "API Error: 402 pay",
                FailureClass::Billing,
            ),
            (
                Some(404),
                None,
                "There's an issue with the selected model (x).",
                FailureClass::ModelUnavailable,
            ),
            (
                Some(429),
                Some("rate_limit"),
                "API Error: Request rejected (429) · x",
                FailureClass::RateLimited,
            ),
            (
                Some(529),
                Some("overloaded"),
                "API Error: Repeated 529 Overloaded errors",
                FailureClass::Overloaded,
            ),
            (
                Some(529),
                Some("server_error"),
                "API Error: 529 Overloaded. This is a server-side issue",
                FailureClass::Overloaded,
            ),
            (
                Some(500),
                Some("server_error"),
                "API Error: 500 x",
                FailureClass::Server,
            ),
            (
                None,
                Some("unknown"),
                "API Error: Connection refused (ECONNREFUSED)",
                FailureClass::Network,
            ),
            (
                None,
                Some("unknown"),
                "Request timed out. x",
                FailureClass::Network,
            ),
            (
                Some(400),
                Some("unknown"),
                "API Error: 400 bad",
                FailureClass::Other,
            ),
            (
                Some(402),
                Some("billing_error"),
                "API Error: 402 mainloop: the task's budget is used up (5.0010 of 5.0000 USD)",
                FailureClass::Budget,
            ),
            (
                Some(400),
                Some("invalid_request"),
                "API Error: safeguards flagged this message",
                FailureClass::Refused,
            ),
            (
                None,
                None,
                "Not logged in · Please run /login",
                FailureClass::Authentication,
            ),
        ] {
            assert_eq!(failed(status, error, text), class, "{text}");
        }
    }

    #[test]
    fn success_with_an_error_flag_is_no_success_and_an_abort_is_no_failure() {
        let aborted = TurnResult {
            subtype: "error_during_execution".into(),
            is_error: true,
            terminal_reason: "aborted_tools".into(),
            ..TurnResult::default()
        };
        assert_eq!(turn_end(&aborted, None), TurnEnd::Interrupted);
        let turns = TurnResult {
            subtype: "error_max_turns".into(),
            is_error: true,
            ..TurnResult::default()
        };
        assert!(matches!(
            turn_end(&turns, None),
            TurnEnd::Failed {
                class: FailureClass::MaxTurns,
                ..
            }
        ));
        let lost = TurnResult {
            subtype: "error_during_execution".into(),
            is_error: true,
            errors: vec!["No conversation found with session ID: x".into()],
            ..TurnResult::default()
        };
        assert!(matches!(
            turn_end(&lost, None),
            TurnEnd::Failed {
                class: FailureClass::SessionLost,
                ..
            }
        ));
    }

    #[test]
    fn words_of_a_successful_answer_are_not_taken_for_an_error() {
        let result = TurnResult {
            text: "API Error: 402 mainloop: the task's budget is used up".into(),
            terminal_reason: "completed".into(),
            ..TurnResult::default()
        };
        assert!(matches!(turn_end(&result, None), TurnEnd::Completed { .. }));
    }
}
