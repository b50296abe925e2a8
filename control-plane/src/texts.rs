//! Every sentence that people read about a task's events and gates, in one place.

use mainloop_core::{CiHold, Event, Gate, NoCi, Phase, Reason, Run, Wait};
use mainloop_proto::v1::IssueChange;
use serde_json::{Value, json};

use crate::db::{Item, TaskRow};

/// Whether the event is worth the one line that a task shows of itself.
pub fn is_milestone(event: &Event) -> bool {
    !matches!(
        event,
        Event::Claimed
            | Event::AttemptConnected
            | Event::WaitElapsed
            | Event::Reminded
            | Event::CiRunning { .. }
    )
}

/// A sentence on what happened. `task` is the task after it.
pub fn event(event: &Event, task: &TaskRow) -> String {
    match event {
        Event::Confirmed => "confirmed: waits for a worker".to_owned(),
        Event::SpawnRejected => "declined before it started".to_owned(),
        Event::PlanApproved { .. } => {
            let revision = task.task.plan.as_ref().map_or(0, |plan| plan.revision);
            format!("plan approved (revision {revision})")
        }
        Event::PlanRejected => "plan rejected".to_owned(),
        Event::PlanRevised => "plan sent back for a revision".to_owned(),
        Event::Answered => "answered".to_owned(),
        Event::AnswerAssumed => {
            "nobody answered: went on with what the worker recommends".to_owned()
        }
        Event::Reminded => "still waits for you".to_owned(),
        Event::ChangeAllowed { .. } => "change of CI definitions allowed".to_owned(),
        Event::UncheckedAccepted => "accepted without checks".to_owned(),
        Event::ReadyAllowed => "to be marked ready before its checks".to_owned(),
        Event::MoreAttempts { count } => format!("{count} more turns of mending allowed"),
        Event::StartedAfresh => "started afresh on a new branch: waits for a worker".to_owned(),
        Event::ToppedUp => "budget topped up: waits for a worker".to_owned(),
        Event::TakenOver => "taken over by hand".to_owned(),
        Event::GivenUp => "given up".to_owned(),
        Event::CancelRequested => "cancelled".to_owned(),
        Event::RetryRequested => "retried: waits for a worker".to_owned(),
        Event::Claimed => format!("worker is starting (attempt {})", task.task.attempt),
        Event::AttemptConnected => "worker connected".to_owned(),
        Event::AttemptLost { why } => after_stumble(task, &format!("worker lost: {why}")),
        Event::Suspended => "the plane was stopped: goes on at its next start".to_owned(),
        Event::DeadlinePassed => after_stumble(task, "deadline passed"),
        Event::CiNotStarted => after_stumble(task, "checks were not begun in time"),
        Event::WaitElapsed => "wait is over: waits for a worker".to_owned(),
        Event::PlanStored { revision, .. } => format!("plan ready (revision {revision})"),
        Event::NothingToChange => "nothing to change".to_owned(),
        Event::QuestionAsked { .. } => "question asked".to_owned(),
        Event::BlockerReported { .. } => "blocked".to_owned(),
        Event::ChangeHeld { .. } => "push held: it changes CI definitions".to_owned(),
        Event::BranchPushed { sha } => {
            format!("branch {} pushed ({})", task.branch, short_sha(sha))
        }
        Event::PullOpened { number } => format!("draft PR created (#{number})"),
        Event::WorkFinished { changed: true } => "work finished".to_owned(),
        Event::WorkFinished { changed: false } => "work finished without a change".to_owned(),
        Event::CiRunning { .. } => "CI running".to_owned(),
        Event::CiPassed { sha } => format!("CI passed ({})", short_sha(sha)),
        Event::CiFailed { .. } => {
            let names = failed_checks(&task.checks);
            match &task.task.phase {
                Phase::FixingCi => format!(
                    "CI failed ({names}); fixing CI (attempt {})",
                    task.task.ci_attempts
                ),
                _ => format!("CI failed ({names})"),
            }
        }
        Event::CiHeld {
            hold: CiHold::Approval,
            ..
        } => "CI waits for an approval on the code host".to_owned(),
        Event::CiHeld {
            hold: CiHold::Draft,
            ..
        } => match &task.task.wait {
            Wait::Human(_) => "CI skips drafts: a person decides".to_owned(),
            _ => "CI skips drafts: to be marked ready before its checks".to_owned(),
        },
        Event::CiAbsent { .. } => match task.limits().no_ci {
            NoCi::Ask => "no CI: a person decides".to_owned(),
            NoCi::Accept => "no CI: accepted by policy".to_owned(),
            NoCi::Fail => "no CI: refused by policy".to_owned(),
        },
        Event::MarkedReady { .. } => "ready for review".to_owned(),
        Event::StepFailed { failure, .. } => after_stumble(task, &failure.message),
        Event::ReviewReceived { threads, .. } => {
            let said = match threads {
                1 => "a review comment".to_owned(),
                threads => format!("{threads} review comments"),
            };
            taken_up(task, &said)
        }
        Event::Conflicted { .. } => taken_up(task, "a conflict with the base"),
        Event::RedAgain { .. } => {
            let names = failed_checks(&task.checks);
            taken_up(task, &format!("a ready head that turned red ({names})"))
        }
        Event::PullMerged { .. } => "merged".to_owned(),
        Event::PullClosed { .. } => "pull request closed".to_owned(),
    }
}

/// A pull request came back from where nothing more was to be done, or from its checks.
fn taken_up(task: &TaskRow, what: &str) -> String {
    match &task.task.wait {
        Wait::Human(Gate::Stuck(reason)) => format!("{}: {what}", reason.row().title),
        _ if task.task.run == Run::Live => format!("{what}: taken up"),
        _ => format!("{what}: waits for a worker"),
    }
}

fn after_stumble(task: &TaskRow, what: &str) -> String {
    match (&task.task.phase, &task.task.wait) {
        (Phase::Failed { .. }, _) => format!("failed: {what}"),
        (_, Wait::Human(Gate::Stuck(reason))) => format!("{}: {what}", reason.row().title),
        (_, Wait::Human(_)) => format!("{what}; waits for a person"),
        (_, Wait::Until { at, .. }) if task.task.waits > 0 => {
            format!(
                "{what}; goes on by itself at {}",
                at.strftime("%Y-%m-%d %H:%M:%S UTC")
            )
        }
        _ => format!("{what}; will be tried again"),
    }
}

/// The first characters of a commit's name.
pub fn short_sha(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

/// The names of the failed checks, for a sentence.
pub fn failed_checks(checks: &Value) -> String {
    let mut names: Vec<&str> = checks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["state"] == "failed")
        .filter_map(|check| check["name"].as_str())
        .collect();
    // One workflow may run for the push and for the pull request, under one name.
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        "no name".to_owned()
    } else {
        names.join(", ")
    }
}

/// The word for a check that a person has to act on, as the worker has it.
const WAITS: &str = "waits for a person";

/// Whether checks are awaited, and nothing has begun any of those.
pub fn none_has_begun(checks: &Value) -> bool {
    let mut awaited = checks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["state"] == "pending")
        .peekable();
    awaited.peek().is_some() && awaited.all(|check| check["queued"] == true)
}

/// Some of the checks with their pages, below a line; empty for none.
fn listed(line: &str, checks: &Value, some: impl Fn(&Value) -> bool) -> String {
    let mut lines: Vec<String> = checks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| some(check))
        .map(|check| {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            format!("- {} {}", text("name"), text("url"))
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.dedup();
    if lines.is_empty() {
        String::new()
    } else {
        format!("{line}\n\n{}", lines.join("\n"))
    }
}

/// The kind and the sentence of what somebody did to a task's issue.
pub fn issue_change(change: IssueChange, number: i32) -> Option<(&'static str, String)> {
    Some(match change {
        IssueChange::Unspecified => return None,
        IssueChange::Closed => (
            "issue_closed",
            format!("issue #{number} was closed: the task goes on, and the inbox takes answers"),
        ),
        IssueChange::Edited => (
            "issue_edited",
            format!(
                "issue #{number} was edited: the plan is the one that was stored, and the edit is not followed"
            ),
        ),
        IssueChange::Gone => (
            "issue_gone",
            format!("issue #{number} is gone: the plan is in the inbox and the task alone"),
        ),
    })
}

/// What the item of a gate says when whoever opened it said nothing better.
pub fn item(gate: &Gate, task: &TaskRow, event: &Event) -> Item {
    let (title, body) = match gate {
        Gate::Spawn => ("Start", task.description.clone()),
        Gate::Plan => ("Plan", String::new()),
        Gate::Question(_) => ("Question", String::new()),
        Gate::Blocker(_) => ("Blocked", String::new()),
        Gate::Change(_) => (Reason::WorkflowChange.row().title, String::new()),
        Gate::Stuck(reason) => (reason.row().title, stuck(*reason, task, event)),
    };
    Item {
        title: format!("{title}: {}", task.title),
        body,
        questions: json!([]),
    }
}

/// The item of a push that is held.
pub fn held_change(diff: &str) -> Item {
    let row = Reason::WorkflowChange.row();
    Item {
        title: row.title.to_owned(),
        body: format!("{}\n\n{}\n\n{diff}", row.meaning, row.remedy),
        questions: json!([]),
    }
}

/// What happened, what it means, what to do, and what there is to see.
fn stuck(reason: Reason, task: &TaskRow, event: &Event) -> String {
    let row = reason.row();
    let mut parts = vec![row.meaning.to_owned()];
    match event {
        Event::StepFailed { failure, .. } => parts.push(quoted(&failure.message)),
        Event::AttemptLost { why } => parts.push(quoted(why)),
        _ => {}
    }
    if task.task.failures > 1 {
        parts.push(format!("It was tried {} times.", task.task.failures));
    }
    if let Reason::CiLimit | Reason::SameFailure | Reason::NoFix = reason {
        let turns = match task.task.ci_attempts {
            1 => "one turn".to_owned(),
            turns => format!("{turns} turns"),
        };
        parts.push(format!(
            "Failing: {}. Tried: {turns} of mending.",
            failed_checks(&task.checks)
        ));
        if !task.ci_log.is_empty() {
            parts.push(fenced(&task.ci_log));
        }
    }
    match reason {
        Reason::CiNotStarted | Reason::CiDeadline => {
            let waited = task.limits().await_ci;
            parts.push(listed(
                &format!("Not over after {waited:#}:"),
                &task.checks,
                |check| check["state"] == "pending",
            ));
        }
        Reason::CiApproval => parts.push(listed("Waiting for a person:", &task.checks, |check| {
            check["conclusion"] == WAITS
        })),
        Reason::RedAgain => {
            parts.push(format!("Failing: {}.", failed_checks(&task.checks)));
        }
        _ => {}
    }
    parts.retain(|part| !part.is_empty());
    parts.push(row.remedy.to_owned());
    if !task.branch.is_empty() {
        parts.push(format!(
            "To take it over by hand:\n\n{}",
            fenced(&format!(
                "git fetch origin {branch}\ngit switch {branch}",
                branch = task.branch
            ))
        ));
    }
    parts.join("\n\n")
}

/// What somebody else said, as such.
fn quoted(text: &str) -> String {
    text.trim()
        .lines()
        .map(|line| format!("> {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Text as a block of code that nothing in it can end.
fn fenced(text: &str) -> String {
    let longest = text
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn checks_have_not_begun_where_all_that_are_awaited_are_queued() {
        let check = |state: &str, queued: bool| json!({ "state": state, "queued": queued });
        for (checks, none) in [
            (json!([]), false),
            (json!([check("passed", false)]), false),
            (
                json!([check("pending", true), check("passed", false)]),
                true,
            ),
            (
                json!([check("pending", true), check("pending", false)]),
                false,
            ),
            // As an older worker told it.
            (json!([{ "state": "pending" }]), false),
        ] {
            assert_eq!(super::none_has_begun(&checks), none, "{checks}");
        }
    }

    #[test]
    fn no_log_ends_its_block() {
        assert_eq!(super::fenced("a\n```\nb"), "````\na\n```\nb\n````");
        assert_eq!(super::fenced("`x`"), "```\n`x`\n```");
    }
}
