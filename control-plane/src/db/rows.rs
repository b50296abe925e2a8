//! A task's row, and the way between it and the workflow's own types.

use jiff::{SignedDuration, Timestamp};
use mainloop_core::{Asked, Failure, Limits, Phase, Plan, Reason, Run, Task, Timer, Wait};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Error, limits::Written, words};

/// Columns of a task in the order in which statements name them. A macro, so that statements stay constants.
#[macro_export]
macro_rules! task_columns {
    () => {
        "task.id, task.short_id, task.version, task.created_by, task.repository_url, task.owner, task.name, task.base_ref, \
         task.issue_number, task.title, task.description, task.model, task.priority, task.labels, task.budget_micros, \
         task.policy, task.unsandboxed, task.phase, task.completion, task.failure_reason, task.failure_message, \
         task.failed_from, task.run, task.wait, task.gate, task.gate_ref, task.wait_until, task.wait_why, \
         task.phase_version, task.timer_at, task.timer_kind, task.attempt, task.failures, task.ci_attempts, task.waits, task.ci_allowed, task.generation, task.superseded, task.ready_first, \
         task.review_rounds, task.rebases, task.reds, task.conflicted, \
         task.signature, task.plan_revision, task.plan_hash, task.plan_approved, task.head_sha, task.green_sha, \
         task.pull_number, task.branch, task.pull_url, task.plan_issue, task.plan_issue_url, task.checks, task.ci_log, \
         task.guidance, task.diffstat, task.summary, task.milestone, task.session_id, task.cost_micros, task.event_seq, \
         task.asked_at, task.reminded_at, task.recommends, task.worked_ms, task.busy_since, task.log_position, task.created_at, task.updated_at, task.confirmed_at, task.step_at, task.settled_at"
    };
}

/// A task as it is stored.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the migration")]
pub struct TaskRow {
    pub id: Uuid,
    pub short_id: String,
    pub version: i64,
    pub created_by: String,
    pub repository_url: String,
    pub owner: String,
    pub name: String,
    pub base_ref: String,
    pub issue_number: i32,
    pub title: String,
    pub description: String,
    pub model: String,
    pub priority: i32,
    pub labels: Value,
    pub budget_micros: i64,
    pub policy: Value,
    pub unsandboxed: bool,
    /// Phase, run, wait and the facts that the workflow decides by.
    pub task: Task,
    pub timer: Option<Timer>,
    pub superseded: Vec<i32>,
    pub branch: String,
    pub pull_url: String,
    pub plan_issue: i32,
    pub plan_issue_url: String,
    pub checks: Value,
    pub ci_log: String,
    pub guidance: String,
    pub diffstat: String,
    pub summary: String,
    pub milestone: String,
    pub session_id: String,
    pub cost_micros: i64,
    pub event_seq: i64,
    pub log_position: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub confirmed_at: Option<Timestamp>,
    pub step_at: Option<Timestamp>,
    pub settled_at: Option<Timestamp>,
}

impl TaskRow {
    /// The limits that the task was confirmed with.
    pub fn limits(&self) -> Limits {
        Limits::from(&Written::of_snapshot(&self.policy))
    }
}

fn unknown(column: &'static str, value: impl Into<String>) -> Error {
    Error::Row {
        table: "task",
        column,
        value: value.into(),
    }
}

fn phase(row: &Row) -> Result<Phase, Error> {
    let word: &str = row.get("phase");
    Ok(match word {
        "proposed" => Phase::Proposed,
        "planning" => Phase::Planning,
        "plan_review" => Phase::PlanReview,
        "implementing" => Phase::Implementing,
        "ci" => Phase::Ci,
        "fixing_ci" => Phase::FixingCi,
        "ready" => Phase::Ready,
        "addressing_review" => Phase::AddressingReview,
        "cancelled" => Phase::Cancelled,
        "declined" => Phase::Declined,
        "completed" => {
            let word: Option<&str> = row.get("completion");
            Phase::Completed(
                word.and_then(words::to_completion)
                    .ok_or_else(|| unknown("completion", word.unwrap_or_default()))?,
            )
        }
        "failed" => {
            let reason: Option<&str> = row.get("failure_reason");
            let from: Option<&str> = row.get("failed_from");
            Phase::Failed {
                failure: Failure {
                    reason: reason
                        .and_then(Reason::of_word)
                        .ok_or_else(|| unknown("failure_reason", reason.unwrap_or_default()))?,
                    message: row
                        .get::<_, Option<String>>("failure_message")
                        .unwrap_or_default(),
                },
                from: from
                    .and_then(words::to_stage)
                    .ok_or_else(|| unknown("failed_from", from.unwrap_or_default()))?,
            }
        }
        other => return Err(unknown("phase", other)),
    })
}

fn wait(row: &Row) -> Result<Wait, Error> {
    let word: &str = row.get("wait");
    Ok(match word {
        "none" => Wait::None,
        "ci" => Wait::Ci,
        "human" => {
            let gate: Option<&str> = row.get("gate");
            Wait::Human(
                gate.and_then(|gate| words::to_gate(gate, row.get("gate_ref")))
                    .ok_or_else(|| unknown("gate", gate.unwrap_or_default()))?,
            )
        }
        "until" => Wait::Until {
            at: row
                .get::<_, Option<Timestamp>>("wait_until")
                .ok_or_else(|| unknown("wait_until", ""))?,
            why: row.get::<_, Option<String>>("wait_why").unwrap_or_default(),
        },
        other => return Err(unknown("wait", other)),
    })
}

fn timer(row: &Row) -> Result<Option<Timer>, Error> {
    let at: Option<Timestamp> = row.get("timer_at");
    let kind: Option<&str> = row.get("timer_kind");
    let kind = kind.unwrap_or_default();
    at.map(|at| words::to_timer(kind, at).ok_or_else(|| unknown("timer_kind", kind)))
        .transpose()
}

fn count(row: &Row, column: &'static str) -> Result<u32, Error> {
    let value: i32 = row.get(column);
    u32::try_from(value).map_err(|_| unknown(column, value.to_string()))
}

impl TryFrom<&Row> for TaskRow {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let run: &str = row.get("run");
        let plan_revision: Option<i32> = row.get("plan_revision");
        let pull: Option<i32> = row.get("pull_number");
        let task = Task {
            phase: phase(row)?,
            run: words::to_run(run).ok_or_else(|| unknown("run", run))?,
            wait: wait(row)?,
            asked: row.get::<_, Option<Timestamp>>("asked_at").map(|at| Asked {
                at,
                reminded: row.get("reminded_at"),
                recommends: row.get("recommends"),
            }),
            worked: SignedDuration::from_millis(row.get("worked_ms")),
            busy_since: row.get("busy_since"),
            phase_version: row.get("phase_version"),
            attempt: count(row, "attempt")?,
            failures: count(row, "failures")?,
            waits: count(row, "waits")?,
            ci_attempts: count(row, "ci_attempts")?,
            ci_allowed: row
                .get::<_, Option<i32>>("ci_allowed")
                .and_then(|allowed| u32::try_from(allowed).ok()),
            generation: count(row, "generation")?,
            review_rounds: count(row, "review_rounds")?,
            rebases: count(row, "rebases")?,
            reds: count(row, "reds")?,
            conflicted: row.get("conflicted"),
            signature: row.get("signature"),
            plan: plan_revision
                .and_then(|revision| u32::try_from(revision).ok())
                .map(|revision| Plan {
                    revision,
                    hash: row
                        .get::<_, Option<String>>("plan_hash")
                        .unwrap_or_default(),
                    approved: row.get("plan_approved"),
                }),
            head: row.get("head_sha"),
            green: row.get("green_sha"),
            pull: pull.and_then(|pull| u32::try_from(pull).ok()),
            ready_first: row.get("ready_first"),
        };
        debug_assert!(task.run != Run::Live || task.attempt > 0);
        Ok(Self {
            id: row.get("id"),
            short_id: row.get("short_id"),
            version: row.get("version"),
            created_by: row.get("created_by"),
            repository_url: row.get("repository_url"),
            owner: row.get("owner"),
            name: row.get("name"),
            base_ref: row.get("base_ref"),
            issue_number: row.get("issue_number"),
            title: row.get("title"),
            description: row.get("description"),
            model: row.get("model"),
            priority: row.get("priority"),
            labels: row.get("labels"),
            budget_micros: row.get("budget_micros"),
            policy: row.get("policy"),
            unsandboxed: row.get("unsandboxed"),
            task,
            timer: timer(row)?,
            superseded: row.get("superseded"),
            branch: row.get("branch"),
            pull_url: row.get("pull_url"),
            plan_issue: row.get("plan_issue"),
            plan_issue_url: row.get("plan_issue_url"),
            checks: row.get("checks"),
            ci_log: row.get("ci_log"),
            guidance: row.get("guidance"),
            diffstat: row.get("diffstat"),
            summary: row.get("summary"),
            milestone: row.get("milestone"),
            session_id: row.get("session_id"),
            cost_micros: row.get("cost_micros"),
            event_seq: row.get("event_seq"),
            log_position: row.get("log_position"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            confirmed_at: row.get("confirmed_at"),
            step_at: row.get("step_at"),
            settled_at: row.get("settled_at"),
        })
    }
}
