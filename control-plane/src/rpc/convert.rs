//! Between the contract and the store's rows. Proto types stop here.

use std::collections::HashMap;

use jiff::Timestamp;
use mainloop_core::{Choice, Completion, Gate, Group, Phase, Reason, Run, State, Step, Wait, step};
use mainloop_proto::v1;
use serde_json::Value;

use crate::db::{
    TaskRow,
    events::EventRow,
    inbox::{ItemState, SeenItem},
    logs::LogRow,
    read::{OpenItem, Seen},
};

/// A time on the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A task with what is open on it.
pub fn seen(seen: &Seen) -> v1::Task {
    task(&seen.task, &seen.open)
}

/// A task as the contract has it.
pub fn task(row: &TaskRow, open: &[OpenItem]) -> v1::Task {
    let task = &row.task;
    let state = State::of(task);
    let (completion, failure) = match &task.phase {
        Phase::Completed(completion) => (self::completion(*completion), None),
        Phase::Failed { failure, .. } => (
            v1::Completion::Unspecified,
            Some(v1::Failure {
                reason: failure_reason(failure.reason).into(),
                message: failure.message.clone(),
            }),
        ),
        Phase::Proposed
        | Phase::Planning
        | Phase::PlanReview
        | Phase::Implementing
        | Phase::Ci
        | Phase::FixingCi
        | Phase::Ready
        | Phase::AddressingReview
        | Phase::Cancelled
        | Phase::Declined => (v1::Completion::Unspecified, None),
    };
    let working = if task.run == Run::Live {
        step(task)
    } else {
        None
    };
    v1::Task {
        id: row.id.to_string(),
        short_id: row.short_id.clone(),
        version: row.version,
        repository: Some(v1::Repository {
            url: row.repository_url.clone(),
            owner: row.owner.clone(),
            name: row.name.clone(),
        }),
        base_ref: row.base_ref.clone(),
        issue_number: row.issue_number,
        title: row.title.clone(),
        description: row.description.clone(),
        model: row.model.clone(),
        priority: row.priority,
        labels: labels(&row.labels),
        budget_micros: row.budget_micros,
        cost_micros: row.cost_micros,
        state: self::state(state).into(),
        group: group(state.group()).into(),
        phase: phase(&task.phase).into(),
        run: run(task.run).into(),
        wait: Some(wait(&task.wait, open)),
        step: working.map_or(v1::Step::Unspecified, self::step_of).into(),
        completion: completion.into(),
        failure,
        milestone: row.milestone.clone(),
        plan: task.plan.as_ref().map(|plan| v1::PlanSummary {
            revision: number(plan.revision),
            hash: plan.hash.clone(),
            approved: plan.approved,
        }),
        issue: (row.plan_issue > 0).then(|| v1::Link {
            number: row.plan_issue,
            url: row.plan_issue_url.clone(),
        }),
        pull_request: task.pull.map(|pull| v1::Link {
            number: number(pull),
            url: row.pull_url.clone(),
        }),
        branch: row.branch.clone(),
        head_sha: task.head.clone().unwrap_or_default(),
        green_sha: task.green.clone().unwrap_or_default(),
        checks: checks(&row.checks),
        ci_attempts: number(task.ci_attempts),
        attempt: number(task.attempt),
        failures: number(task.failures),
        diffstat: row.diffstat.clone(),
        summary: row.summary.clone(),
        unsandboxed: row.unsandboxed,
        created_by: row.created_by.clone(),
        open_items: open
            .iter()
            .map(|item| format!("{}@{}", item.id, item.revision))
            .collect(),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        confirm_time: row.confirmed_at.map(timestamp),
        settle_time: row.settled_at.map(timestamp),
        step_time: row.step_at.map(timestamp),
        generation: number(task.generation),
        superseded_pull_requests: row.superseded.clone(),
    }
}

/// Checks as they are stored: `[{name, state, conclusion, url, queued}]`.
pub fn checks(checks: &Value) -> Vec<v1::Check> {
    checks
        .as_array()
        .into_iter()
        .flatten()
        .map(|check| {
            let state = match check["state"].as_str() {
                Some("passed") => v1::CheckState::Passed,
                Some("failed") => v1::CheckState::Failed,
                Some("skipped") => v1::CheckState::Skipped,
                _ => v1::CheckState::Pending,
            };
            v1::Check {
                name: text(&check["name"]),
                state: state.into(),
                conclusion: text(&check["conclusion"]),
                url: text(&check["url"]),
                queued: check["queued"] == true,
            }
        })
        .collect()
}

/// An event.
pub fn event(event: &EventRow) -> v1::TaskEvent {
    v1::TaskEvent {
        seq: event.seq,
        time: Some(timestamp(event.at)),
        kind: event.kind.clone(),
        text: event.text.clone(),
        actor: event.actor.clone(),
        attempt: event.attempt,
        detail: Some(structure(&event.detail)),
        ignored: event.ignored,
    }
}

/// A chunk of the log.
pub fn log(row: &LogRow) -> v1::StreamTaskLogsResponse {
    let source = match row.source.as_str() {
        "agent" => v1::LogSource::Agent,
        "harness" => v1::LogSource::Harness,
        "claude" => v1::LogSource::Claude,
        "tool" => v1::LogSource::Tool,
        _ => v1::LogSource::Unspecified,
    };
    v1::StreamTaskLogsResponse {
        position: row.position,
        time: Some(timestamp(row.at)),
        attempt: row.attempt,
        source: source.into(),
        text: row.text.clone(),
        dropped: row.dropped,
    }
}

/// An inbox item with its task.
pub fn item(seen: &SeenItem) -> v1::InboxItem {
    let item = &seen.item;
    let (kind, open) = (
        match &item.gate {
            Gate::Spawn => v1::InboxItemKind::Spawn,
            Gate::Plan => v1::InboxItemKind::Plan,
            Gate::Question(_) => v1::InboxItemKind::Question,
            Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_) => v1::InboxItemKind::Blocker,
        },
        item.state == ItemState::Open,
    );
    let workflow = &seen.task.task.task;
    let possible = if open { item.gate.choices() } else { &[] };
    v1::InboxItem {
        id: item.id.clone(),
        revision: item.revision,
        kind: kind.into(),
        state: match item.state {
            ItemState::Open => v1::InboxItemState::Open,
            ItemState::Resolved => v1::InboxItemState::Resolved,
            ItemState::Withdrawn => v1::InboxItemState::Withdrawn,
        }
        .into(),
        task: Some(self::seen(&seen.task)),
        title: item.title.clone(),
        body: item.body.clone(),
        previous_body: item.previous.clone(),
        plan_hash: item.plan_hash.clone(),
        questions: item
            .questions
            .as_array()
            .into_iter()
            .flatten()
            .map(question)
            .collect(),
        actions: possible
            .iter()
            .map(|action| self::action(*action).into())
            .collect(),
        open_time: Some(timestamp(item.opened_at)),
        resolution: item.action.map(|action| v1::Resolution {
            action: self::action(action).into(),
            text: item.text.clone(),
            actor: item.actor.clone(),
            time: item.closed_at.map(timestamp),
        }),
        reason: match &item.gate {
            Gate::Stuck(reason) => failure_reason(*reason),
            Gate::Change(_) => v1::FailureReason::WorkflowChange,
            Gate::Spawn | Gate::Plan | Gate::Question(_) | Gate::Blocker(_) => {
                v1::FailureReason::Unspecified
            }
        }
        .into(),
        reminded: open && workflow.asked.is_some_and(|asked| asked.reminded.is_some()),
        assume_time: workflow
            .assumes_at(&seen.task.task.limits())
            .filter(|_| open)
            .map(timestamp),
    }
}

fn question(question: &Value) -> v1::Question {
    v1::Question {
        text: text(&question["text"]),
        header: text(&question["header"]),
        options: question["options"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|option| v1::QuestionOption {
                label: text(&option["label"]),
                description: text(&option["description"]),
            })
            .collect(),
        multi_select: question["multi_select"].as_bool().unwrap_or_default(),
    }
}

/// The choice that a client named.
pub fn to_choice(action: v1::InboxAction) -> Option<Choice> {
    Choice::ALL
        .into_iter()
        .find(|choice| self::action(*choice) == action)
}

fn action(choice: Choice) -> v1::InboxAction {
    match choice {
        Choice::Approve => v1::InboxAction::Approve,
        Choice::Reject => v1::InboxAction::Reject,
        Choice::Revise => v1::InboxAction::Revise,
        Choice::Answer => v1::InboxAction::Answer,
        Choice::Retry => v1::InboxAction::Retry,
        Choice::MoreAttempts => v1::InboxAction::MoreAttempts,
        Choice::StartAfresh => v1::InboxAction::StartAfresh,
        Choice::TopUp => v1::InboxAction::TopUp,
        Choice::TakeOver => v1::InboxAction::TakeOver,
    }
}

/// A state as the contract has it.
pub fn state(state: State) -> v1::TaskState {
    match state {
        State::Proposed => v1::TaskState::Proposed,
        State::Queued => v1::TaskState::Queued,
        State::Starting => v1::TaskState::Starting,
        State::Planning => v1::TaskState::Planning,
        State::PlanReview => v1::TaskState::PlanReview,
        State::Implementing => v1::TaskState::Implementing,
        State::Ci => v1::TaskState::Ci,
        State::FixingCi => v1::TaskState::FixingCi,
        State::Question => v1::TaskState::Question,
        State::Blocked => v1::TaskState::Blocked,
        State::Waiting => v1::TaskState::Waiting,
        State::Ready => v1::TaskState::Ready,
        State::AddressingReview => v1::TaskState::AddressingReview,
        State::Completed => v1::TaskState::Completed,
        State::Cancelled => v1::TaskState::Cancelled,
        State::Declined => v1::TaskState::Declined,
        State::Failed => v1::TaskState::Failed,
    }
}

/// The state that a client named; none for one that it must not send.
pub fn to_state(wanted: i32) -> Option<State> {
    let wanted = v1::TaskState::try_from(wanted).ok()?;
    State::ALL
        .into_iter()
        .find(|candidate| state(*candidate) == wanted)
}

/// The group that a client named; none for one that it must not send.
pub fn to_group(wanted: i32) -> Option<Group> {
    let wanted = v1::InboxGroup::try_from(wanted).ok()?;
    [
        Group::Active,
        Group::NeedsYou,
        Group::Completed,
        Group::Failed,
    ]
    .into_iter()
    .find(|candidate| group(*candidate) == wanted)
}

fn group(group: Group) -> v1::InboxGroup {
    match group {
        Group::Active => v1::InboxGroup::Active,
        Group::NeedsYou => v1::InboxGroup::NeedsYou,
        Group::Completed => v1::InboxGroup::Completed,
        Group::Failed => v1::InboxGroup::Failed,
    }
}

fn phase(phase: &Phase) -> v1::Phase {
    match phase {
        Phase::Proposed => v1::Phase::Proposed,
        Phase::Planning => v1::Phase::Planning,
        Phase::PlanReview => v1::Phase::PlanReview,
        Phase::Implementing => v1::Phase::Implementing,
        Phase::Ci => v1::Phase::Ci,
        Phase::FixingCi => v1::Phase::FixingCi,
        Phase::Ready => v1::Phase::Ready,
        Phase::AddressingReview => v1::Phase::AddressingReview,
        Phase::Completed(_) => v1::Phase::Completed,
        Phase::Failed { .. } => v1::Phase::Failed,
        Phase::Cancelled => v1::Phase::Cancelled,
        Phase::Declined => v1::Phase::Declined,
    }
}

fn run(run: Run) -> v1::Run {
    match run {
        Run::Idle => v1::Run::Idle,
        Run::Queued => v1::Run::Queued,
        Run::Starting => v1::Run::Starting,
        Run::Live => v1::Run::Live,
    }
}

fn wait(wait: &Wait, open: &[OpenItem]) -> v1::Wait {
    let kind = |kind: v1::WaitKind| v1::Wait {
        kind: kind.into(),
        ..v1::Wait::default()
    };
    match wait {
        Wait::None => kind(v1::WaitKind::None),
        Wait::Human(gate) => v1::Wait {
            item: open.first().map(|item| item.id.clone()).unwrap_or_default(),
            reason: match gate {
                Gate::Spawn => "a person starts it",
                Gate::Plan => "a person reads the plan",
                Gate::Question(_) => "a person answers a question",
                Gate::Blocker(_) => "a person unblocks it",
                Gate::Change(_) => "a person allows a change of CI definitions",
                Gate::Stuck(reason) => reason.row().title,
            }
            .to_owned(),
            ..kind(v1::WaitKind::Human)
        },
        Wait::Ci => kind(v1::WaitKind::Ci),
        Wait::Until { at, why } => v1::Wait {
            until: Some(timestamp(*at)),
            reason: why.clone(),
            ..kind(v1::WaitKind::Until)
        },
    }
}

fn step_of(step: Step) -> v1::Step {
    match step {
        Step::Plan => v1::Step::Plan,
        Step::Implement => v1::Step::Implement,
        Step::AwaitCi => v1::Step::AwaitCi,
        Step::FixCi => v1::Step::FixCi,
        Step::MarkReady => v1::Step::MarkReady,
        Step::AddressReview => v1::Step::AddressReview,
        Step::Rebase => v1::Step::Rebase,
    }
}

fn completion(completion: Completion) -> v1::Completion {
    match completion {
        Completion::Merged => v1::Completion::Merged,
        Completion::NoChange => v1::Completion::NoChange,
        Completion::TakenOver => v1::Completion::TakenOver,
    }
}

/// A reason by its word, which is the same in the contract; a test holds that.
pub fn failure_reason(reason: Reason) -> v1::FailureReason {
    let name = format!("FAILURE_REASON_{}", reason.word().to_ascii_uppercase());
    v1::FailureReason::from_str_name(&name).unwrap_or_default()
}

fn labels(labels: &Value) -> HashMap<String, String> {
    labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Counts on the wire are signed.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn structure(value: &Value) -> prost_types::Struct {
    prost_types::Struct {
        fields: value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), self::value(value)))
            .collect(),
    }
}

fn value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;

    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(*bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(self::value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(structure(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_every_choice_is_in_the_contract() {
        let mut reasons: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| failure_reason(*reason))
            .collect();
        assert!(!reasons.contains(&v1::FailureReason::Unspecified));
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), Reason::ALL.len());
        let last = reasons.last().map(|reason| *reason as i32);
        assert!(v1::FailureReason::try_from(last.unwrap_or_default() + 1).is_err());
        for choice in Choice::ALL {
            assert_eq!(to_choice(action(choice)), Some(choice));
        }
        assert_eq!(to_choice(v1::InboxAction::Unspecified), None);
    }
}
