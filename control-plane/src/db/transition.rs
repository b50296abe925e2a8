//! The one way in which a task's state changes: lock the row, ask the workflow, store its answer.
//!
//! Task, event and every desired-state row are written in one transaction. An occurrence that the workflow refuses
//! changes nothing; a worker's is appended as ignored, so that it is acknowledged and never resent for ever.

use deadpool_postgres::Transaction;
use jiff::{SignedDuration, Timestamp};
use mainloop_core::{Event, Gate, Phase, Rejected, Run, Task, Timer, Wait, Want, step};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Error, Store, TaskRow, commands, execute, holds, query_one, query_opt, tidying, words,
};
use crate::{task_columns, texts};

const LOCK: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", clock_timestamp() AS now, (SELECT max(lease_until) FROM replica) AS awake_until FROM task WHERE id = $1 FOR UPDATE"
);

const UPDATE: &str = "\
UPDATE task SET version = version + 1, updated_at = clock_timestamp(), phase = $3, completion = $4, failure_reason = $5, \
failure_message = $6, failed_from = $7, run = $8, wait = $9, gate = $10, gate_ref = $11, wait_until = $12, wait_why = $13, \
phase_version = $14, timer_at = $15, timer_kind = $16, attempt = $17, failures = $18, ci_attempts = $19, signature = $20, \
plan_revision = $21, plan_hash = $22, plan_approved = $23, head_sha = $24, green_sha = $25, pull_number = $26, branch = $27, \
pull_url = $28, plan_issue = $29, plan_issue_url = $30, checks = $31, ci_log = $32, guidance = $33, diffstat = $34, \
summary = $35, milestone = $36, session_id = $37, event_seq = $38, confirmed_at = $39, \
queued_at = coalesce($40, queued_at), step_at = $41, settled_at = $42, waits = $43, \
ci_allowed = $44, generation = $45, superseded = $46, asked_at = $47, reminded_at = $48, recommends = $49, worked_ms = $50, \
busy_since = $51, ready_first = $52, review_rounds = $53, rebases = $54, reds = $55, conflicted = $56 \
WHERE id = $1 AND version = $2 RETURNING version, updated_at";

const EVENT: &str = "\
INSERT INTO event (task_id, seq, at, kind, text, actor, attempt, detail, ignored) VALUES ($1, $2, clock_timestamp(), $3, $4, \
$5, $6, $7, $8)";

const BUMP_SEQ: &str = "\
UPDATE task SET event_seq = event_seq + 1, version = version + 1, updated_at = clock_timestamp() WHERE id = $1 \
RETURNING event_seq";

const PLAN: &str = "\
INSERT INTO plan (task_id, revision, hash, body) VALUES ($1, $2, $3, $4) \
ON CONFLICT (task_id, revision) DO UPDATE SET hash = excluded.hash, body = excluded.body";

const START_ATTEMPT: &str = "\
INSERT INTO attempt (id, task_id, n, token_hash, host_id, state) VALUES ($1, $2, $3, '', $4, 'wanted')";

const END_ATTEMPT: &str = "\
UPDATE attempt SET state = 'ending', end_reason = $3 WHERE task_id = $1 AND n = $2 AND state NOT IN ('ending', 'ended')";

const WITHDRAW_ITEM: &str = "\
UPDATE inbox_item SET state = 'withdrawn', closed_at = clock_timestamp() WHERE task_id = $1 AND state = 'open'";

const OPEN_ITEM: &str = "\
INSERT INTO inbox_item (id, task_id, kind, revision, state, gate, gate_ref, title, body, plan_hash, questions) \
VALUES ($1, $2, $3, 1, 'open', $4, $5, $6, $7, $8, $9)";

/// A plan's gate keeps its item: the next plan is the next revision of it.
const REOPEN_PLAN_ITEM: &str = "\
UPDATE inbox_item SET revision = revision + 1, state = 'open', previous = body, title = $2, body = $3, plan_hash = $4, \
opened_at = clock_timestamp(), action = NULL, text = '', actor = '', closed_at = NULL \
WHERE task_id = $1 AND kind = 'plan'";

const READ: &str = concat!("SELECT ", task_columns!(), " FROM task WHERE id = $1");

const SET_SESSION: &str = "UPDATE task SET session_id = $2 WHERE id = $1";

const DURABLE: &str = "SELECT milestone FROM attempt WHERE id = $1";

const WATCH_PULL: &str = "\
INSERT INTO pull_watch (task_id) VALUES ($1) ON CONFLICT (task_id) DO UPDATE SET due_at = now(), errors = 0";

const UNWATCH_PULL: &str = "DELETE FROM pull_watch WHERE task_id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("transition::LOCK", LOCK),
    ("transition::UPDATE", UPDATE),
    ("transition::EVENT", EVENT),
    ("transition::BUMP_SEQ", BUMP_SEQ),
    ("transition::PLAN", PLAN),
    ("transition::START_ATTEMPT", START_ATTEMPT),
    ("transition::END_ATTEMPT", END_ATTEMPT),
    ("transition::WITHDRAW_ITEM", WITHDRAW_ITEM),
    ("transition::OPEN_ITEM", OPEN_ITEM),
    ("transition::REOPEN_PLAN_ITEM", REOPEN_PLAN_ITEM),
    ("transition::READ", READ),
    ("transition::SET_SESSION", SET_SESSION),
    ("transition::DURABLE", DURABLE),
    ("transition::WATCH_PULL", WATCH_PULL),
    ("transition::UNWATCH_PULL", UNWATCH_PULL),
];

/// Something that happened to a task, with what people read about it.
#[derive(Clone, Debug)]
pub struct Occurrence {
    /// What it is to the workflow.
    pub event: Event,
    /// `plane`, `worker`, `github` or a credential's name.
    pub actor: String,
    /// Attempt that it came from; 0 for none.
    pub attempt: u32,
    /// A sentence for people; made from the event when empty.
    pub text: String,
    /// Facts for programs.
    pub detail: Value,
    /// Columns that it sets.
    pub facts: Facts,
    /// What an item that it opens says; made from the gate when unset.
    pub item: Option<Item>,
}

impl Occurrence {
    /// An occurrence with no more to say than its event.
    pub fn new(event: Event, actor: impl Into<String>) -> Self {
        Self {
            event,
            actor: actor.into(),
            attempt: 0,
            text: String::new(),
            detail: json!({}),
            facts: Facts::default(),
            item: None,
        }
    }
}

/// Columns of people's interest that an occurrence sets; what is unset stays.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the columns are described in the migration")]
pub struct Facts {
    pub plan_body: Option<String>,
    pub branch: Option<String>,
    pub pull_url: Option<String>,
    pub plan_issue: Option<(i32, String)>,
    pub checks: Option<Value>,
    pub ci_log: Option<String>,
    pub guidance: Option<String>,
    pub diffstat: Option<String>,
    pub summary: Option<String>,
    pub session_id: Option<String>,
}

/// What an inbox item says.
#[derive(Clone, Debug)]
pub struct Item {
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// The contract's questions as JSON: `[{text, header, options: [{label, description}], multi_select}]`.
    pub questions: Value,
}

/// What became of an occurrence.
#[derive(Clone, Debug)]
pub enum Applied {
    /// The task is as this from now on.
    Changed(Box<TaskRow>),
    /// The workflow refused it; nothing changed.
    Ignored {
        /// Why.
        rejected: Rejected,
        /// The task as it is.
        task: Box<TaskRow>,
    },
    /// There is no such task.
    Missing,
}

impl Store {
    /// Applies an occurrence in a transaction of its own and nudges whoever cares.
    pub async fn apply(&self, id: Uuid, occurrence: &Occurrence) -> Result<Applied, Error> {
        let mut attempts = 0;
        loop {
            match self.try_apply(id, occurrence).await {
                Err(error) if error.is_transient() && attempts < 3 => attempts += 1,
                Err(error) => return Err(error),
                Ok(applied) => return applied,
            }
        }
    }

    /// A task as it is now, for the worker's link and for the watch of pull requests.
    pub async fn task_for_link(&self, id: Uuid) -> Result<Option<TaskRow>, Error> {
        let what = "read a task";
        let client = self.connection(what).await?;
        query_opt(&client, what, READ, &[&id])
            .await?
            .map(|row| TaskRow::try_from(&row))
            .transpose()
    }

    /// Highest milestone of an attempt that is durable.
    pub async fn durable_milestone(&self, attempt: Uuid) -> Result<i64, Error> {
        let what = "read an attempt's milestones";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, DURABLE, &[&attempt])
            .await?
            .map(|row| row.get("milestone"))
            .unwrap_or_default())
    }

    /// The outer error says that nothing was stored. The inner one is the commit's: it may have been, and a second
    /// time would be refused.
    async fn try_apply(
        &self,
        id: Uuid,
        occurrence: &Occurrence,
    ) -> Result<Result<Applied, Error>, Error> {
        let mut client = self.connection("change a task").await?;
        let transaction = client
            .transaction()
            .await
            .map_err(Error::on("begin a transaction"))?;
        let Some((task, now)) = lock_task(&transaction, id).await? else {
            return Ok(Ok(Applied::Missing));
        };
        let applied = apply_in(&transaction, task, now, occurrence).await?;
        let committed = transaction
            .commit()
            .await
            .map_err(Error::on("commit a task's change"));
        drop(client);
        self.nudge().task_changed(id);
        Ok(committed.map(|()| applied))
    }
}

/// Locks a task's row until the end of the transaction; also the database's time.
pub async fn lock_task(
    transaction: &Transaction<'_>,
    id: Uuid,
) -> Result<Option<(TaskRow, Timestamp)>, Error> {
    let Some(found) = query_opt(transaction, "lock a task", LOCK, &[&id]).await? else {
        return Ok(None);
    };
    let (mut row, now) = (TaskRow::try_from(&found)?, found.get("now"));
    if let Some(awake_until) = found.get("awake_until") {
        leave_out_sleep(&mut row, awake_until, now);
    }
    Ok(Some((row, now)))
}

/// Where no replica has renewed its lease since the machine slept or the clock went ahead, that time is nobody's work. The
/// first renewal moves what is not moved here.
fn leave_out_sleep(row: &mut TaskRow, awake_until: Timestamp, now: Timestamp) {
    let Some(busy) = row.task.busy_since.filter(|busy| *busy <= awake_until) else {
        return;
    };
    let asleep = now.duration_since(awake_until);
    if asleep <= SignedDuration::ZERO {
        return;
    }
    row.task.busy_since = busy.checked_add(asleep).ok();
    if let Some(Timer::Deadline(at)) = row.timer {
        row.timer = at.checked_add(asleep).ok().map(Timer::Deadline);
    }
}

/// Applies an occurrence to a locked task. The caller commits, and then calls `nudge().task_changed`.
pub async fn apply_in(
    transaction: &Transaction<'_>,
    mut row: TaskRow,
    now: Timestamp,
    occurrence: &Occurrence,
) -> Result<Applied, Error> {
    let from_worker = occurrence.attempt > 0;
    let next = if from_worker && occurrence.attempt != row.task.attempt {
        // The attempt's number is the fencing token.
        Err(Rejected::Guard {
            event: occurrence.event.kind(),
            why: "it comes from an older attempt",
        })
    } else {
        mainloop_core::next(&row.task, &occurrence.event, now, &row.limits())
    };
    let transition = match next {
        Ok(transition) => transition,
        Err(rejected) => {
            if from_worker {
                append_event(
                    transaction,
                    row.id,
                    occurrence.event.kind().word(),
                    &rejected.to_string(),
                    &occurrence.actor,
                    occurrence.attempt,
                    &occurrence.detail,
                    true,
                )
                .await?;
            }
            return Ok(Applied::Ignored {
                rejected,
                task: Box::new(row),
            });
        }
    };
    let before = std::mem::replace(&mut row.task, transition.task);
    take_facts(&mut row, &occurrence.facts);
    if matches!(occurrence.event, Event::StartedAfresh) {
        leave_branch(&mut row, before.pull);
    }
    let text = if occurrence.text.is_empty() {
        texts::event(&occurrence.event, &row)
    } else {
        clean(&occurrence.text)
    };
    if texts::is_milestone(&occurrence.event) {
        row.milestone.clone_from(&text);
    }
    store_task(transaction, &mut row, &before, &transition.wants, now).await?;
    if let (Event::PlanStored { revision, hash }, Some(body)) =
        (&occurrence.event, &occurrence.facts.plan_body)
    {
        execute(
            transaction,
            "store a plan",
            PLAN,
            &[&row.id, &signed(*revision), hash, body],
        )
        .await?;
    }
    insert_event(
        transaction,
        row.id,
        row.event_seq,
        occurrence.event.kind().word(),
        &text,
        &occurrence.actor,
        occurrence.attempt,
        &occurrence.detail,
        false,
    )
    .await?;
    for want in &transition.wants {
        store_want(transaction, &row, want, occurrence).await?;
    }
    if shows_that_services_answer(&occurrence.event) {
        holds::got_through(transaction, row.id).await?;
    }
    if matches!(occurrence.event, Event::AttemptConnected) {
        commands::all_heard(transaction, row.id).await?;
    }
    Ok(Applied::Changed(Box::new(row)))
}

fn take_facts(row: &mut TaskRow, facts: &Facts) {
    fn set<T: Clone>(target: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            target.clone_from(value);
        }
    }
    set(&mut row.branch, facts.branch.as_ref());
    set(&mut row.pull_url, facts.pull_url.as_ref());
    set(&mut row.checks, facts.checks.as_ref());
    set(&mut row.ci_log, facts.ci_log.as_ref());
    set(&mut row.guidance, facts.guidance.as_ref());
    set(&mut row.diffstat, facts.diffstat.as_ref());
    set(&mut row.summary, facts.summary.as_ref());
    set(&mut row.session_id, facts.session_id.as_ref());
    if let Some((number, url)) = &facts.plan_issue {
        row.plan_issue = *number;
        row.plan_issue_url.clone_from(url);
    }
}

/// Whether a worker got so far only because the model and the code host did what it asked.
fn shows_that_services_answer(event: &Event) -> bool {
    matches!(
        event,
        Event::PlanStored { .. }
            | Event::NothingToChange
            | Event::QuestionAsked { .. }
            | Event::BlockerReported { .. }
            | Event::ChangeHeld { .. }
            | Event::PullOpened { .. }
            | Event::BranchPushed { .. }
            | Event::WorkFinished { .. }
            | Event::CiRunning { .. }
            | Event::CiPassed { .. }
            | Event::CiFailed { .. }
            | Event::CiAbsent { .. }
            | Event::CiHeld { .. }
            | Event::MarkedReady { .. }
    )
}

/// The next worker begins on a branch of its own, and closes the pull request of the one before.
fn leave_branch(row: &mut TaskRow, pull: Option<u32>) {
    row.superseded.extend(pull.map(signed));
    row.branch = String::new();
    row.pull_url = String::new();
    row.checks = json!([]);
    row.ci_log = String::new();
    row.diffstat = String::new();
    row.session_id = String::new();
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

async fn store_task(
    transaction: &Transaction<'_>,
    row: &mut TaskRow,
    before: &Task,
    wants: &[Want],
    now: Timestamp,
) -> Result<(), Error> {
    for want in wants {
        if let Want::SetTimer(timer) = want {
            row.timer = *timer;
        }
    }
    let task = &row.task;
    if before.phase_version != task.phase_version || before.run != task.run {
        row.step_at = (task.run == Run::Live && step(task).is_some()).then_some(now);
    }
    let queued_at = (before.run != Run::Queued && task.run == Run::Queued).then_some(now);
    if before.phase == Phase::Proposed && task.phase == Phase::Planning {
        row.confirmed_at = Some(now);
    }
    row.settled_at = if task.phase.is_settled() {
        row.settled_at.or(Some(now))
    } else {
        None
    };
    row.event_seq += 1;

    let completion = match &task.phase {
        Phase::Completed(completion) => Some(words::completion(*completion)),
        _ => None,
    };
    let failed = match &task.phase {
        Phase::Failed { failure, from } => Some((
            failure.reason.word(),
            failure.message.as_str(),
            words::stage(*from),
        )),
        _ => None,
    };
    let gate = match &task.wait {
        Wait::Human(gate) => Some(words::gate(gate)),
        Wait::None | Wait::Ci | Wait::Until { .. } => None,
    };
    let until = match &task.wait {
        Wait::Until { at, why } => Some((*at, why.as_str())),
        Wait::None | Wait::Ci | Wait::Human(_) => None,
    };
    let wait = match &task.wait {
        Wait::None => "none",
        Wait::Human(_) => "human",
        Wait::Ci => "ci",
        Wait::Until { .. } => "until",
    };
    let plan = task.plan.as_ref();
    let updated = query_one(
        transaction,
        "store a task's change",
        UPDATE,
        &[
            &row.id,
            &row.version,
            &task.phase.kind().word(),
            &completion,
            &failed.map(|failed| failed.0),
            &failed.map(|failed| failed.1),
            &failed.map(|failed| failed.2),
            &words::run(task.run),
            &wait,
            &gate.map(|gate| gate.0),
            &gate.and_then(|gate| gate.1),
            &until.map(|until| until.0),
            &until.map(|until| until.1),
            &task.phase_version,
            &row.timer.map(Timer::at),
            &row.timer.map(words::timer),
            &signed(task.attempt),
            &signed(task.failures),
            &signed(task.ci_attempts),
            &task.signature,
            &plan.map(|plan| signed(plan.revision)),
            &plan.map(|plan| plan.hash.as_str()),
            &plan.is_some_and(|plan| plan.approved),
            &task.head,
            &task.green,
            &task.pull.map(signed),
            &row.branch,
            &row.pull_url,
            &row.plan_issue,
            &row.plan_issue_url,
            &row.checks,
            &row.ci_log,
            &row.guidance,
            &row.diffstat,
            &row.summary,
            &row.milestone,
            &row.session_id,
            &row.event_seq,
            &row.confirmed_at,
            &queued_at,
            &row.step_at,
            &row.settled_at,
            &signed(task.waits),
            &task.ci_allowed.map(signed),
            &signed(task.generation),
            &row.superseded,
            &task.asked.map(|asked| asked.at),
            &task.asked.and_then(|asked| asked.reminded),
            &task.asked.is_some_and(|asked| asked.recommends),
            &i64::try_from(task.worked.as_millis()).unwrap_or(i64::MAX),
            &task.busy_since,
            &task.ready_first,
            &signed(task.review_rounds),
            &signed(task.rebases),
            &signed(task.reds),
            &task.conflicted,
        ],
    )
    .await?;
    row.version = updated.get("version");
    row.updated_at = updated.get("updated_at");
    Ok(())
}

async fn store_want(
    transaction: &Transaction<'_>,
    row: &TaskRow,
    want: &Want,
    occurrence: &Occurrence,
) -> Result<(), Error> {
    match want {
        // The timer stands in the task's row; the assignment is read off it.
        Want::SetTimer(_) | Want::Assign => {}
        Want::StartAttempt(n) => {
            let host = occurrence
                .detail
                .get("host")
                .and_then(Value::as_str)
                .unwrap_or_default();
            execute(
                transaction,
                "want an attempt",
                START_ATTEMPT,
                &[&Uuid::now_v7(), &row.id, &signed(*n), &host],
            )
            .await?;
        }
        Want::EndAttempt(n) => {
            let why = occurrence.event.kind().word();
            execute(
                transaction,
                "end an attempt",
                END_ATTEMPT,
                &[&row.id, &signed(*n), &why],
            )
            .await?;
        }
        Want::WithdrawItem => {
            execute(
                transaction,
                "withdraw an inbox item",
                WITHDRAW_ITEM,
                &[&row.id],
            )
            .await?;
        }
        Want::OpenItem(gate) => open_item(transaction, row, gate, occurrence).await?,
        Want::Tidy => tidying::want(transaction, row).await?,
        Want::WatchPull => {
            execute(transaction, "watch a pull request", WATCH_PULL, &[&row.id]).await?;
        }
        Want::Hold(credential, until) => {
            let Event::StepFailed { failure, .. } = &occurrence.event else {
                return Ok(());
            };
            holds::hold(transaction, *credential, row.id, failure, *until).await?;
        }
        Want::Release(credential) => holds::release(transaction, *credential).await?,
        Want::TryHeld => holds::try_at_once(transaction, &row.task).await?,
        Want::UnwatchPull => {
            execute(
                transaction,
                "stop watching a pull request",
                UNWATCH_PULL,
                &[&row.id],
            )
            .await?;
        }
    }
    Ok(())
}

/// Notes the Claude session that a later attempt can resume, for a locked task.
pub async fn set_session(
    transaction: &Transaction<'_>,
    task: Uuid,
    session: &str,
) -> Result<(), Error> {
    execute(
        transaction,
        "note a session",
        SET_SESSION,
        &[&task, &session],
    )
    .await
    .map(drop)
}

/// Opens the item of a gate. Also used when a proposal is made.
pub async fn open_item(
    transaction: &Transaction<'_>,
    row: &TaskRow,
    gate: &Gate,
    occurrence: &Occurrence,
) -> Result<(), Error> {
    let item = occurrence
        .item
        .clone()
        .unwrap_or_else(|| texts::item(gate, row, &occurrence.event));
    let hash = match gate {
        Gate::Plan => row.task.plan.as_ref().map_or("", |plan| &plan.hash),
        Gate::Spawn | Gate::Question(_) | Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_) => "",
    };
    if matches!(gate, Gate::Plan) {
        let body = occurrence.facts.plan_body.as_ref().unwrap_or(&item.body);
        let reopened = execute(
            transaction,
            "open an inbox item",
            REOPEN_PLAN_ITEM,
            &[&row.id, &item.title, body, &hash],
        )
        .await?;
        if reopened > 0 {
            return Ok(());
        }
    }
    let body = match (gate, &occurrence.facts.plan_body) {
        (Gate::Plan, Some(plan)) => plan,
        _ => &item.body,
    };
    let (word, reference) = words::gate(gate);
    execute(
        transaction,
        "open an inbox item",
        OPEN_ITEM,
        &[
            &crate::ids::short(),
            &row.id,
            &words::item_kind(gate),
            &word,
            &reference,
            &item.title,
            body,
            &hash,
            &item.questions,
        ],
    )
    .await
    .map(drop)
}

/// Appends an event that changes nothing but the log, to a locked task.
#[expect(
    clippy::too_many_arguments,
    reason = "they are the columns of an event"
)]
pub async fn append_event(
    transaction: &Transaction<'_>,
    task: Uuid,
    kind: &str,
    text: &str,
    actor: &str,
    attempt: u32,
    detail: &Value,
    ignored: bool,
) -> Result<i64, Error> {
    let seq: i64 = query_one(transaction, "number an event", BUMP_SEQ, &[&task])
        .await?
        .get("event_seq");
    insert_event(
        transaction,
        task,
        seq,
        kind,
        text,
        actor,
        attempt,
        detail,
        ignored,
    )
    .await?;
    Ok(seq)
}

#[expect(
    clippy::too_many_arguments,
    reason = "they are the columns of an event"
)]
async fn insert_event(
    transaction: &Transaction<'_>,
    task: Uuid,
    seq: i64,
    kind: &str,
    text: &str,
    actor: &str,
    attempt: u32,
    detail: &Value,
    ignored: bool,
) -> Result<(), Error> {
    let (text, mut detail) = (clean(text), detail.clone());
    clean_json(&mut detail);
    execute(
        transaction,
        "append an event",
        EVENT,
        &[
            &task,
            &seq,
            &kind,
            &text,
            &actor,
            &signed(attempt),
            &detail,
            &ignored,
        ],
    )
    .await
    .map(drop)
}

/// Postgres takes no NUL in text.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Nor in a text of a document.
fn clean_json(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(values) => values.iter_mut().for_each(clean_json),
        Value::Object(fields) => fields.values_mut().for_each(clean_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
