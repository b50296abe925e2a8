//! Tasks and items as a plane would send them. Times lie far ahead, so that every age reads `0s`.

use mainloop_proto::v1::*;

/// 2100-01-01 12:00:00 UTC.
const TIME: i64 = 4_102_488_000;

#[allow(clippy::unnecessary_wraps)]
pub(crate) fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: TIME + seconds,
        nanos: 0,
    })
}

pub(crate) fn task(id: &str, title: &str, state: TaskState, group: InboxGroup) -> Task {
    Task {
        id: format!("0000-{id}"),
        short_id: id.to_owned(),
        version: 1,
        title: title.to_owned(),
        repository: Some(Repository {
            url: "https://github.com/acme/widgets".to_owned(),
            owner: "acme".to_owned(),
            name: "widgets".to_owned(),
        }),
        base_ref: "main".to_owned(),
        model: "sonnet".to_owned(),
        budget_micros: 5_000_000,
        cost_micros: 12_300,
        state: state.into(),
        group: group.into(),
        attempt: 1,
        created_by: "ada".to_owned(),
        create_time: at(0),
        update_time: at(60),
        confirm_time: at(0),
        ..Task::default()
    }
}

pub(crate) fn ready_task() -> Task {
    Task {
        checks: vec![
            Check {
                name: "build".to_owned(),
                state: CheckState::Passed.into(),
                ..Check::default()
            },
            Check {
                name: "docs".to_owned(),
                state: CheckState::Skipped.into(),
                ..Check::default()
            },
        ],
        issue: Some(Link {
            number: 1,
            url: "https://github.com/acme/widgets/issues/1".to_owned(),
        }),
        pull_request: Some(Link {
            number: 2,
            url: "https://github.com/acme/widgets/pull/2".to_owned(),
        }),
        branch: "mainloop/r1-retry".to_owned(),
        diffstat: "3 files, +40 -2".to_owned(),
        summary: "Retries with back-off.".to_owned(),
        description: "Retry on 503".to_owned(),
        labels: [("team".to_owned(), "infra".to_owned())].into(),
        plan: Some(PlanSummary {
            revision: 1,
            hash: "ab".to_owned(),
            approved: true,
        }),
        ..task(
            "r1",
            "Retry on 503",
            TaskState::Ready,
            InboxGroup::Completed,
        )
    }
}

pub(crate) fn failed_task() -> Task {
    Task {
        failure: Some(Failure {
            reason: FailureReason::NoCi.into(),
            message: "the check `test` failed 3 times".to_owned(),
        }),
        settle_time: at(125),
        ..task(
            "f1",
            "Port to the new API",
            TaskState::Failed,
            InboxGroup::Failed,
        )
    }
}

pub(crate) fn plan_item() -> InboxItem {
    InboxItem {
        id: "k3f9".to_owned(),
        revision: 2,
        kind: InboxItemKind::Plan.into(),
        state: InboxItemState::Open.into(),
        task: Some(task("p1", "Retry on 503", TaskState::PlanReview, InboxGroup::NeedsYou)),
        title: "Plan: retry on 503".to_owned(),
        body: "# Plan\n\n1. Change `src/fetch.rs`.\n2. Add a test in `tests/fetch.rs`.\n3. Keep the old flag.\n".to_owned(),
        previous_body: "# Plan\n\n1. Change `src/fetch.rs`.\n2. Remove the old flag.\n".to_owned(),
        plan_hash: "0123456789abcdef0123".to_owned(),
        actions: vec![
            InboxAction::Approve.into(),
            InboxAction::Revise.into(),
            InboxAction::Reject.into(),
        ],
        open_time: at(0),
        ..InboxItem::default()
    }
}

pub(crate) fn question_item() -> InboxItem {
    let option = |label: &str, description: &str| QuestionOption {
        label: label.to_owned(),
        description: description.to_owned(),
    };
    InboxItem {
        id: "q7".to_owned(),
        revision: 1,
        kind: InboxItemKind::Question.into(),
        state: InboxItemState::Open.into(),
        task: Some(task(
            "q1",
            "Add a cache",
            TaskState::Question,
            InboxGroup::NeedsYou,
        )),
        title: "How long may an entry live?".to_owned(),
        questions: vec![Question {
            text: "How long may an entry live?".to_owned(),
            header: "Expiry".to_owned(),
            options: vec![option("One hour", "as the docs say"), option("One day", "")],
            multi_select: false,
        }],
        actions: vec![InboxAction::Answer.into()],
        open_time: at(0),
        ..InboxItem::default()
    }
}

pub(crate) fn event(seq: i64, kind: &str, text: &str) -> TaskEvent {
    TaskEvent {
        seq,
        time: at(seq),
        kind: kind.to_owned(),
        text: text.to_owned(),
        actor: "worker".to_owned(),
        attempt: 1,
        ..TaskEvent::default()
    }
}

pub(crate) fn chunk(position: i64, source: LogSource, text: &str) -> StreamTaskLogsResponse {
    StreamTaskLogsResponse {
        position,
        time: at(position),
        attempt: 1,
        source: source.into(),
        text: text.to_owned(),
        dropped: 0,
    }
}

pub(crate) fn status() -> GetStatusResponse {
    GetStatusResponse {
        version: "0.1.0".to_owned(),
        start_time: at(0),
        database: "embedded PostgreSQL 15.14".to_owned(),
        code_host: "https://github.com".to_owned(),
        code_host_login: "ada".to_owned(),
        model_credential: "api_key".to_owned(),
        launcher: "process, sandboxed".to_owned(),
        slots_used: 1,
        slots_total: 4,
        queued: 2,
        open_items: 2,
        active: 3,
        problems: Vec::new(),
        models: vec!["sonnet".to_owned(), "opus".to_owned()],
        default_budget_micros: 5_000_000,
    }
}
