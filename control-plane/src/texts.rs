//! Every sentence that people read about a task's events and gates, in one place.

use mainloop_core::{Blocker, Event, Gate, NoCi, Phase, Wait};
use serde_json::{Value, json};

use crate::db::{Item, TaskRow};

/// Whether the event is worth the one line that a task shows of itself.
pub fn is_milestone(event: &Event) -> bool {
    !matches!(
        event,
        Event::Claimed | Event::AttemptConnected | Event::WaitElapsed | Event::CiRunning { .. }
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
        Event::NoCiAccepted => "accepted without checks".to_owned(),
        Event::GivenUp => "given up".to_owned(),
        Event::CancelRequested => "cancelled".to_owned(),
        Event::RetryRequested => "retried: waits for a worker".to_owned(),
        Event::Claimed => format!("worker is starting (attempt {})", task.task.attempt),
        Event::AttemptConnected => "worker connected".to_owned(),
        Event::AttemptLost { why } => after_stumble(task, &format!("worker lost: {why}")),
        Event::Suspended => "the plane was stopped: goes on at its next start".to_owned(),
        Event::DeadlinePassed => after_stumble(task, "deadline passed"),
        Event::WaitElapsed => "wait is over: waits for a worker".to_owned(),
        Event::PlanStored { revision, .. } => format!("plan ready (revision {revision})"),
        Event::NothingToChange => "nothing to change".to_owned(),
        Event::QuestionAsked { .. } => "question asked".to_owned(),
        Event::BlockerReported { .. } => "blocked".to_owned(),
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
        Event::CiAbsent { .. } => match task.limits().no_ci {
            NoCi::Ask => "no CI: a person decides".to_owned(),
            NoCi::Accept => "no CI: accepted by policy".to_owned(),
            NoCi::Fail => "no CI: refused by policy".to_owned(),
        },
        Event::MarkedReady { .. } => "ready for review".to_owned(),
        Event::StepFailed { failure, .. } => after_stumble(task, &failure.message),
        Event::PullMerged => "merged".to_owned(),
        Event::PullClosed => "pull request closed".to_owned(),
    }
}

fn after_stumble(task: &TaskRow, what: &str) -> String {
    match (&task.task.phase, &task.task.wait) {
        (Phase::Failed { .. }, _) => format!("failed: {what}"),
        (_, Wait::Human(_)) => format!("{what}; waits for a person"),
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

/// What the item of a gate says when whoever opened it said nothing better.
pub fn item(gate: &Gate, task: &TaskRow) -> Item {
    let (title, body) = match gate {
        Gate::Spawn => (format!("Start: {}", task.title), task.description.clone()),
        Gate::Plan => (format!("Plan: {}", task.title), String::new()),
        Gate::Question(_) => (format!("Question: {}", task.title), String::new()),
        Gate::Blocker(blocker) => blocked(blocker, task),
    };
    Item {
        title,
        body,
        questions: json!([]),
    }
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

fn blocked(blocker: &Blocker, task: &TaskRow) -> (String, String) {
    let checks = failed_checks(&task.checks);
    let log = if task.ci_log.is_empty() {
        String::new()
    } else {
        format!("\n\n{}", fenced(&task.ci_log))
    };
    let way_on =
        "Answer with an insight to let the worker try again with it, or reject to give up.";
    match blocker {
        Blocker::Worker(_) => (format!("Blocked: {}", task.title), String::new()),
        Blocker::CiLimit => (
            format!("CI keeps failing: {}", task.title),
            format!(
                "{checks} still failed after {} turns of mending. {way_on}{log}",
                task.task.ci_attempts
            ),
        ),
        Blocker::SameFailure => (
            format!("CI fails in the same way: {}", task.title),
            format!("{checks} failed twice in the same way, so another turn would not help. {way_on}{log}"),
        ),
        Blocker::NoFix => (
            format!("CI failure not mended: {}", task.title),
            format!("The worker was asked to mend {checks} and changed nothing. {way_on}{log}"),
        ),
        Blocker::CiDeadline => (
            format!("CI does not finish: {}", task.title),
            "The checks of the head were not decided in time. Answer to wait for them once more, or reject to give up."
                .to_owned(),
        ),
        Blocker::NoCi => (
            format!("No CI: {}", task.title),
            "The head of the pull request has no checks, so nothing says whether it works. Approve to take it as it is, \
             answer with what the worker is to change, or reject to give up."
                .to_owned(),
        ),
        Blocker::NoChange => (
            format!("No change was made: {}", task.title),
            "The worker finished the approved plan without pushing a change. Answer with what it missed to let it try \
             again, or reject to give up."
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_log_ends_its_block() {
        assert_eq!(super::fenced("a\n```\nb"), "````\na\n```\nb\n````");
        assert_eq!(super::fenced("`x`"), "```\n`x`\n```");
    }
}
