//! The contract's enums in words.

use mainloop_proto::v1::{
    FailureReason, InboxAction, InboxGroup, InboxItem, InboxItemKind, LogSource, Scope, Step, Task,
    TaskState,
};

/// `TASK_STATE_PLAN_REVIEW` as `plan review`.
fn spoken(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
        .replace('_', " ")
}

/// A state; a completed task says how it ended.
pub(crate) fn state(task: &Task) -> String {
    use mainloop_proto::v1::Completion;
    match (task.state(), task.completion()) {
        (TaskState::Completed, Completion::Merged) => "merged".to_owned(),
        (TaskState::Completed, Completion::NoChange) => "no change needed".to_owned(),
        (TaskState::Completed, Completion::TakenOver) => "taken over".to_owned(),
        (TaskState::Ready, _) => "ready for review".to_owned(),
        (state, _) => spoken(state.as_str_name(), "TASK_STATE_"),
    }
}

pub(crate) fn group(group: InboxGroup) -> String {
    spoken(group.as_str_name(), "INBOX_GROUP_")
}

pub(crate) fn step(step: Step) -> String {
    match step {
        Step::AwaitCi => "await CI".to_owned(),
        Step::FixCi => "fix CI".to_owned(),
        other => spoken(other.as_str_name(), "STEP_"),
    }
}

/// What kind of item it is, and whether it waits for too long.
pub(crate) fn kind(item: &InboxItem) -> String {
    let kind = match item.kind() {
        InboxItemKind::Spawn => "proposal".to_owned(),
        other => spoken(other.as_str_name(), "INBOX_ITEM_KIND_"),
    };
    if item.reminded {
        format!("{kind}, overdue")
    } else {
        kind
    }
}

pub(crate) fn failure(reason: FailureReason) -> String {
    spoken(reason.as_str_name(), "FAILURE_REASON_")
}

pub(crate) fn source(source: LogSource) -> &'static str {
    match source {
        LogSource::Unspecified => "log",
        LogSource::Agent => "agent",
        LogSource::Harness => "setup",
        LogSource::Claude => "claude",
        LogSource::Tool => "tool",
    }
}

pub(crate) fn scope(scope: Scope) -> String {
    spoken(scope.as_str_name(), "SCOPE_")
}

pub(crate) fn scopes(scopes: impl Iterator<Item = Scope>) -> String {
    scopes.map(scope).collect::<Vec<_>>().join(", ")
}

/// What was done, in the past tense.
pub(crate) fn done(action: InboxAction) -> &'static str {
    match action {
        InboxAction::Unspecified => "resolved",
        InboxAction::Approve => "approved",
        InboxAction::Reject => "rejected",
        InboxAction::Revise => "sent back",
        InboxAction::Answer => "answered",
        InboxAction::Retry => "retried",
        InboxAction::MoreAttempts => "given more turns",
        InboxAction::StartAfresh => "started afresh",
        InboxAction::TopUp => "topped up",
        InboxAction::TakeOver => "taken over",
    }
}

/// The command that does it.
pub(crate) fn command(action: InboxAction) -> Option<&'static str> {
    match action {
        InboxAction::Unspecified => None,
        InboxAction::Approve => Some("approve"),
        InboxAction::Reject => Some("reject"),
        InboxAction::Revise => Some("revise"),
        InboxAction::Answer => Some("answer"),
        InboxAction::Retry => Some("resolve --retry"),
        InboxAction::MoreAttempts => Some("resolve --more-attempts"),
        InboxAction::StartAfresh => Some("resolve --start-afresh"),
        InboxAction::TopUp => Some("resolve --top-up"),
        InboxAction::TakeOver => Some("resolve --take-over"),
    }
}

/// What a person types to act on the item, one line for each of its actions.
pub(crate) fn commands_for(item: &InboxItem) -> Vec<String> {
    let id = format!("{}@{}", item.id, item.revision);
    item.actions()
        .filter_map(|action| {
            let name = command(action)?;
            let text = match (action, item.questions.first()) {
                (InboxAction::Revise, _) => " \"what to change\"",
                (InboxAction::Answer, Some(question)) if !question.options.is_empty() => " 1",
                (InboxAction::Answer, _) if item.kind() == InboxItemKind::Blocker => {
                    " \"what it should know\""
                }
                (InboxAction::Answer, _) => " \"your answer\"",
                _ => "",
            };
            Some(match name.split_once(' ') {
                Some((name, flag)) => format!("mainloop {name} {id} {flag}"),
                None => format!("mainloop {name} {id}{text}"),
            })
        })
        .collect()
}

/// True when nothing more will happen without a person: settled, or ready for review.
pub(crate) fn is_over(state: TaskState) -> bool {
    matches!(state, TaskState::Ready) || is_settled(state)
}

/// True when the task has ended.
pub(crate) fn is_settled(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Completed | TaskState::Cancelled | TaskState::Declined | TaskState::Failed
    )
}

/// Reads `plan-review`, `plan_review` or `Plan Review`.
pub(crate) fn parse_state(text: &str) -> Result<TaskState, String> {
    parse(text, "TASK_STATE_", TaskState::from_str_name).ok_or_else(|| {
        format!("`{text}` is not a state; states are proposed, queued, starting, planning, plan-review, implementing, ci, fixing-ci, question, blocked, waiting, ready, addressing-review, completed, cancelled, declined, failed")
    })
}

pub(crate) fn parse_group(text: &str) -> Result<InboxGroup, String> {
    parse(text, "INBOX_GROUP_", InboxGroup::from_str_name).ok_or_else(|| {
        format!("`{text}` is not a group; groups are active, needs-you, completed, failed")
    })
}

pub(crate) fn parse_scope(text: &str) -> Result<Scope, String> {
    parse(text, "SCOPE_", Scope::from_str_name)
        .ok_or_else(|| format!("`{text}` is not a scope; scopes are read, submit, approve, admin"))
}

fn parse<E>(text: &str, prefix: &str, read: impl Fn(&str) -> Option<E>) -> Option<E> {
    let name = text.to_ascii_uppercase().replace(['-', ' '], "_");
    if name == "UNSPECIFIED" {
        return None;
    }
    read(&format!("{prefix}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_are_written() {
        assert_eq!(parse_state("plan-review"), Ok(TaskState::PlanReview));
        assert_eq!(parse_state("Ready"), Ok(TaskState::Ready));
        assert!(parse_state("unspecified").is_err());
        assert!(parse_state("done").is_err());
        assert_eq!(parse_group("needs-you"), Ok(InboxGroup::NeedsYou));
        assert_eq!(parse_scope("admin"), Ok(Scope::Admin));
    }
}
