//! Inbox items: read with their task, and resolved once, by one person, for the revision that they saw.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use mainloop_core::{Choice, Event, Gate, Reason, Rejected, Run};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Applied, Error, Facts, Occurrence, Store, TaskRow, commands,
    commands::Command,
    create::{Snapshot, take_snapshot},
    execute, query, query_one, query_opt,
    read::Seen,
    transition::{apply_in, lock_task},
    words,
};
use crate::task_columns;

/// An item with its task and with what is open on that.
macro_rules! items {
    ($texts:expr, $rest:expr) => {
        concat!(
            "SELECT ",
            task_columns!(),
            ", item.id AS item_id, item.revision AS item_revision, item.kind AS item_kind, item.state AS item_state, \
             item.gate AS item_gate, item.gate_ref AS item_gate_ref, item.title AS item_title, item.plan_hash AS item_plan_hash, \
             item.questions AS item_questions, item.opened_at AS item_opened_at, item.action AS item_action, \
             item.text AS item_text, item.actor AS item_actor, item.closed_at AS item_closed_at, ",
            $texts,
            ", present.id AS open_id, present.revision AS open_revision FROM inbox_item item JOIN task ON task.id = item.task_id \
             LEFT JOIN inbox_item present ON present.task_id = task.id AND present.state = 'open' ",
            $rest
        )
    };
}

const BY_ID: &str = items!(
    "item.body AS item_body, item.previous AS item_previous",
    "WHERE item.id = $1"
);

const LIST: &str = items!(
    "'' AS item_body, '' AS item_previous",
    "WHERE (item.opened_at, item.id) < ($1, $2) AND ($3 OR item.state = 'open') AND ($4::uuid IS NULL OR item.task_id = $4) \
     ORDER BY item.opened_at DESC, item.id DESC LIMIT $5"
);

const OPEN_ON: &str = items!(
    "'' AS item_body, '' AS item_previous",
    "WHERE item.task_id = ANY($1) AND item.state = 'open'"
);

const CLOSE: &str = "\
UPDATE inbox_item SET state = 'resolved', action = $2, text = $3, actor = $4, closed_at = clock_timestamp() \
WHERE task_id = $1 AND state = 'open'";

const TOP_UP: &str = "\
UPDATE task SET budget_micros = budget_micros + $2 WHERE id = $1 RETURNING budget_micros";

const ALLOW_CHANGE: &str = "\
UPDATE task SET allowed_changes = array_append(array_remove(allowed_changes, $2), $2) WHERE id = $1";

const ALLOWED_CHANGES: &str = "SELECT allowed_changes FROM task WHERE id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("inbox::BY_ID", BY_ID),
    ("inbox::LIST", LIST),
    ("inbox::OPEN_ON", OPEN_ON),
    ("inbox::CLOSE", CLOSE),
    ("inbox::TOP_UP", TOP_UP),
    ("inbox::ALLOW_CHANGE", ALLOW_CHANGE),
    ("inbox::ALLOWED_CHANGES", ALLOWED_CHANGES),
];

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// Waits for a person.
    Open,
    /// A person decided.
    Resolved,
    /// No longer asked.
    Withdrawn,
}

/// An inbox item as it is stored.
#[derive(Clone, Debug)]
pub struct ItemRow {
    /// Short id.
    pub id: String,
    /// Counts from 1.
    pub revision: i32,
    /// What is decided.
    pub gate: Gate,
    /// Where it stands.
    pub state: ItemState,
    /// One line.
    pub title: String,
    /// Markdown; empty in lists.
    pub body: String,
    /// The body of the revision before; empty in lists.
    pub previous: String,
    /// Hash of the plan; empty unless the gate is a plan.
    pub plan_hash: String,
    /// The contract's questions as JSON.
    pub questions: Value,
    /// When this revision opened.
    pub opened_at: Timestamp,
    /// What was done; none unless resolved.
    pub action: Option<Choice>,
    /// The words that came with it.
    pub text: String,
    /// Who did it.
    pub actor: String,
    /// When it was resolved or withdrawn.
    pub closed_at: Option<Timestamp>,
}

/// An item with its task.
#[derive(Clone, Debug)]
pub struct SeenItem {
    /// The item.
    pub item: ItemRow,
    /// The task that it is about, at the same moment.
    pub task: Seen,
}

impl TryFrom<&Row> for SeenItem {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let unknown = |column: &'static str, value: &str| Error::Row {
            table: "inbox_item",
            column,
            value: value.to_owned(),
        };
        let gate: &str = row.get("item_gate");
        let state: &str = row.get("item_state");
        let action: Option<&str> = row.get("item_action");
        Ok(Self {
            item: ItemRow {
                id: row.get("item_id"),
                revision: row.get("item_revision"),
                gate: words::to_gate(gate, row.get("item_gate_ref"))
                    .ok_or_else(|| unknown("gate", gate))?,
                state: match state {
                    "open" => ItemState::Open,
                    "resolved" => ItemState::Resolved,
                    "withdrawn" => ItemState::Withdrawn,
                    other => return Err(unknown("state", other)),
                },
                title: row.get("item_title"),
                body: row.get("item_body"),
                previous: row.get("item_previous"),
                plan_hash: row.get("item_plan_hash"),
                questions: row.get("item_questions"),
                opened_at: row.get("item_opened_at"),
                action: action
                    .map(|word| {
                        Choice::ALL
                            .into_iter()
                            .find(|action| action.word() == word)
                            .ok_or_else(|| unknown("action", word))
                    })
                    .transpose()?,
                text: row.get("item_text"),
                actor: row.get("item_actor"),
                closed_at: row.get("item_closed_at"),
            },
            task: Seen::try_from(row)?,
        })
    }
}

/// Which items to list.
#[derive(Clone, Debug)]
pub struct ItemFilter {
    /// Resolved and withdrawn ones as well.
    pub closed: bool,
    /// Only those of this task.
    pub task: Option<Uuid>,
}

/// A person's decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Short id of the item.
    pub item: String,
    /// The revision that they saw.
    pub revision: i32,
    /// What they do.
    pub action: Choice,
    /// Their words; required to revise, and to answer without `answers`.
    pub text: String,
    /// One for each question; may be empty.
    pub answers: Vec<String>,
    /// Turns of mending to allow; 0 for as many as policy says.
    pub attempts: u32,
    /// What to add to the budget, in millionths of a US dollar.
    pub budget_micros: i64,
    /// Who they are.
    pub actor: String,
}

/// What became of a decision.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// It holds; the item after it.
    Done(Box<SeenItem>),
    /// There is no such item.
    Missing,
    /// Another revision is the newest; nothing changed.
    OtherRevision(i32),
    /// The item is not open any more; nothing changed.
    Closed(Box<ItemRow>),
    /// The gate takes other actions.
    NotPossible(&'static [Choice]),
    /// There are so many questions, and another number of answers.
    WrongCount(usize),
    /// The workflow refused it.
    Refused(Rejected),
}

/// What became of a confirmation.
#[derive(Clone, Debug)]
pub enum Confirmed {
    /// The task waits for a worker.
    Done,
    /// There is no such task.
    Missing,
    /// It is no proposal any more.
    Refused(Rejected),
}

/// Resolves the open item of a locked task.
pub(super) async fn close(
    transaction: &Transaction<'_>,
    task: Uuid,
    action: Choice,
    text: &str,
    actor: &str,
) -> Result<(), Error> {
    execute(
        transaction,
        "resolve an inbox item",
        CLOSE,
        &[&task, &action.word(), &text, &actor],
    )
    .await
    .map(drop)
}

async fn by_id(client: &impl GenericClient, id: &str) -> Result<Option<SeenItem>, Error> {
    query_opt(client, "read an inbox item", BY_ID, &[&id])
        .await?
        .map(|row| SeenItem::try_from(&row))
        .transpose()
}

impl Store {
    /// An item by its short id.
    pub async fn item(&self, id: &str) -> Result<Option<SeenItem>, Error> {
        let client = self.connection("read an inbox item").await?;
        by_id(&client, id).await
    }

    /// At most `limit` items without their bodies, newest first, that opened before `(at, id)`.
    pub async fn list_items(
        &self,
        filter: &ItemFilter,
        after: (Timestamp, &str),
        limit: i64,
    ) -> Result<Vec<SeenItem>, Error> {
        let what = "list inbox items";
        let client = self.connection(what).await?;
        query(
            &client,
            what,
            LIST,
            &[&after.0, &after.1, &filter.closed, &filter.task, &limit],
        )
        .await?
        .iter()
        .map(SeenItem::try_from)
        .collect()
    }

    /// Items that are open on these tasks, without their bodies.
    pub async fn open_items(&self, tasks: &[Uuid]) -> Result<Vec<SeenItem>, Error> {
        let what = "list open inbox items";
        let client = self.connection(what).await?;
        query(&client, what, OPEN_ON, &[&tasks])
            .await?
            .iter()
            .map(SeenItem::try_from)
            .collect()
    }

    /// Hashes of the CI definitions that people allowed a task to push.
    pub async fn allowed_changes(&self, task: Uuid) -> Result<Vec<String>, Error> {
        let what = "read what a task may push";
        let client = self.connection(what).await?;
        query_one(&client, what, ALLOWED_CHANGES, &[&task])
            .await
            .map(|row| row.get("allowed_changes"))
    }

    /// Starts a proposed task, with the policy as it is now.
    pub async fn confirm_task(
        &self,
        id: Uuid,
        actor: &str,
        snapshot: &Snapshot,
    ) -> Result<Confirmed, Error> {
        let what = "confirm a task";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some((mut row, now)) = lock_task(&transaction, id).await? else {
            return Ok(Confirmed::Missing);
        };
        if row.task.phase == mainloop_core::Phase::Proposed {
            take_snapshot(&transaction, &mut row, snapshot).await?;
            close(&transaction, id, Choice::Approve, "", actor).await?;
        }
        let applied = apply_in(
            &transaction,
            row,
            now,
            &Occurrence::new(Event::Confirmed, actor),
        )
        .await?;
        if let Applied::Ignored { rejected, .. } = applied {
            return Ok(Confirmed::Refused(rejected));
        }
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(id);
        Ok(Confirmed::Done)
    }

    /// Takes a person's decision: item, words, command and workflow change together or not at all.
    pub async fn resolve_item(
        &self,
        decision: &Decision,
        snapshot: &Snapshot,
    ) -> Result<Resolved, Error> {
        let what = "resolve an inbox item";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some(found) = by_id(&transaction, &decision.item).await? else {
            return Ok(Resolved::Missing);
        };
        let id = found.task.task.id;
        let Some((mut row, now)) = lock_task(&transaction, id).await? else {
            return Ok(Resolved::Missing);
        };
        // Read again: what was read before the lock may be of another revision.
        let Some(SeenItem { item, .. }) = by_id(&transaction, &decision.item).await? else {
            return Ok(Resolved::Missing);
        };
        if item.revision != decision.revision {
            return Ok(Resolved::OtherRevision(item.revision));
        }
        if item.state != ItemState::Open {
            return Ok(Resolved::Closed(Box::new(item)));
        }
        let Some(event) = event(&item, &row, decision) else {
            return Ok(Resolved::NotPossible(item.gate.choices()));
        };
        let asked = questions(&item.questions);
        if decision.action == Choice::Answer
            && !decision.answers.is_empty()
            && !asked.is_empty()
            && asked.len() != decision.answers.len()
        {
            return Ok(Resolved::WrongCount(asked.len()));
        }
        let said = said(decision);
        close(&transaction, id, decision.action, &said, &decision.actor).await?;
        if matches!(event, Event::Confirmed) {
            take_snapshot(&transaction, &mut row, snapshot).await?;
        }
        if decision.action == Choice::TopUp {
            row.budget_micros = top_up(&transaction, id, decision.budget_micros).await?;
        }
        if let Event::ChangeAllowed { hash } = &event {
            allow_change(&transaction, &row, &item, hash, decision).await?;
        }
        let is_heard = match decision.action {
            Choice::Reject => false,
            // With a change they go along with the yes.
            Choice::Approve => matches!(item.gate, Gate::Spawn | Gate::Plan),
            _ => true,
        };
        if !said.is_empty() && is_heard {
            note_words(&transaction, &row, &item, &asked, decision, &said, false).await?;
        }
        let mut occurrence = Occurrence::new(event, &decision.actor);
        occurrence.detail = json!({ "item": item.id, "revision": item.revision, "text": said });
        if let Gate::Stuck(_) = &item.gate
            && !said.is_empty()
        {
            occurrence.facts = Facts {
                guidance: Some(said.clone()),
                ..Facts::default()
            };
        }
        let applied = apply_in(&transaction, row, now, &occurrence).await?;
        if let Applied::Ignored { rejected, .. } = applied {
            return Ok(Resolved::Refused(rejected));
        }
        let after = by_id(&transaction, &decision.item).await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(id);
        Ok(after.map_or(Resolved::Missing, |after| Resolved::Done(Box::new(after))))
    }
}

/// Answers the open question of a locked task with the options that its worker recommends.
pub(super) async fn assume(
    transaction: &Transaction<'_>,
    row: &TaskRow,
) -> Result<Occurrence, Error> {
    let mut occurrence = Occurrence::new(Event::AnswerAssumed, "policy");
    let open = query_opt(
        transaction,
        "read an open question",
        OPEN_ON,
        &[&vec![row.id]],
    )
    .await?;
    // Without an item the workflow refuses the event.
    let Some(open) = open else {
        return Ok(occurrence);
    };
    let SeenItem { item, .. } = SeenItem::try_from(&open)?;
    let decision = Decision {
        item: item.id.clone(),
        revision: item.revision,
        action: Choice::Answer,
        text: String::new(),
        answers: recommended(&item.questions),
        attempts: 0,
        budget_micros: 0,
        actor: "policy".to_owned(),
    };
    let said = said(&decision);
    close(transaction, row.id, Choice::Answer, &said, &decision.actor).await?;
    let asked = questions(&item.questions);
    note_words(transaction, row, &item, &asked, &decision, &said, true).await?;
    occurrence.text = format!("nobody answered: went on with {said}");
    occurrence.detail = json!({ "item": item.id, "revision": item.revision, "text": said });
    Ok(occurrence)
}

/// The first option of each question: what the worker recommends.
fn recommended(questions: &Value) -> Vec<String> {
    questions
        .as_array()
        .into_iter()
        .flatten()
        .map(|question| question["options"][0]["label"].as_str())
        .map(|label| label.unwrap_or_default().to_owned())
        .collect()
}

/// What a decision is to the workflow; none when the gate does not take it.
fn event(item: &ItemRow, task: &TaskRow, decision: &Decision) -> Option<Event> {
    if !item.gate.choices().contains(&decision.action) {
        return None;
    }
    Some(match (decision.action, &item.gate) {
        (Choice::Approve, Gate::Spawn) => Event::Confirmed,
        (Choice::Approve, Gate::Plan) => Event::PlanApproved {
            hash: item.plan_hash.clone(),
        },
        (Choice::Approve, Gate::Change(hash)) => Event::ChangeAllowed { hash: hash.clone() },
        (Choice::Approve, Gate::Stuck(Reason::CiDraft)) => Event::ReadyAllowed,
        (Choice::Approve, _) => Event::UncheckedAccepted,
        (Choice::Reject, Gate::Spawn) => Event::SpawnRejected,
        (Choice::Reject, Gate::Plan) => Event::PlanRejected,
        (Choice::Reject, _) => Event::GivenUp,
        (Choice::Revise, Gate::Change(_)) => Event::Answered,
        (Choice::Revise, _) => Event::PlanRevised,
        (Choice::Answer, _) => Event::Answered,
        (Choice::Retry, _) => Event::RetryRequested,
        (Choice::MoreAttempts, _) => Event::MoreAttempts {
            count: match decision.attempts {
                0 => task.limits().max_ci_attempts.max(1),
                count => count,
            },
        },
        (Choice::StartAfresh, _) => Event::StartedAfresh,
        (Choice::TopUp, _) => Event::ToppedUp,
        (Choice::TakeOver, _) => Event::TakenOver,
    })
}

/// Lets a locked task cost more. What it may cost from now on.
async fn top_up(transaction: &Transaction<'_>, task: Uuid, micros: i64) -> Result<i64, Error> {
    query_one(transaction, "top up a budget", TOP_UP, &[&task, &micros])
        .await
        .map(|row| row.get("budget_micros"))
}

/// Notes that the definitions with this hash may be pushed, and tells the worker: the one that is there, which holds the
/// push, or a later one, which has to make the change again.
async fn allow_change(
    transaction: &Transaction<'_>,
    row: &TaskRow,
    item: &ItemRow,
    hash: &str,
    decision: &Decision,
) -> Result<(), Error> {
    execute(
        transaction,
        "allow a change",
        ALLOW_CHANGE,
        &[&row.id, &hash],
    )
    .await?;
    if row.task.run == Run::Live {
        let command = Command::Answer {
            question_id: hash.to_owned(),
            answers: Vec::new(),
            text: decision.text.clone(),
            assumed: false,
            approved: true,
        };
        commands::insert(transaction, row.id, Uuid::now_v7(), &command).await?;
        if !decision.text.is_empty() {
            // The worker may die before it has them.
            let (title, text, actor) = (&item.title, &decision.text, &decision.actor);
            commands::insert_word(transaction, row.id, title, text, actor, false).await?;
        }
    } else {
        let text = format!("Yes, exactly this. {}", decision.text);
        commands::insert_word(
            transaction,
            row.id,
            &item.body,
            text.trim(),
            &decision.actor,
            false,
        )
        .await?;
    }
    Ok(())
}

/// The texts of an item's questions.
fn questions(questions: &Value) -> Vec<&str> {
    questions
        .as_array()
        .into_iter()
        .flatten()
        .map(|question| question["text"].as_str().unwrap_or_default())
        .collect()
}

/// The words of a decision in one text.
fn said(decision: &Decision) -> String {
    let mut parts: Vec<&str> = decision.answers.iter().map(String::as_str).collect();
    if !decision.text.is_empty() {
        parts.push(&decision.text);
    }
    parts.join("\n")
}

/// Keeps what a person said for later attempts, and tells the worker that is there.
async fn note_words(
    transaction: &Transaction<'_>,
    row: &TaskRow,
    item: &ItemRow,
    asked: &[&str],
    decision: &Decision,
    said: &str,
    assumed: bool,
) -> Result<(), Error> {
    let actor = &decision.actor;
    if !decision.answers.is_empty() && asked.len() == decision.answers.len() {
        for (question, answer) in asked.iter().zip(&decision.answers) {
            commands::insert_word(transaction, row.id, question, answer, actor, assumed).await?;
        }
        if !decision.text.is_empty() {
            commands::insert_word(
                transaction,
                row.id,
                &item.title,
                &decision.text,
                actor,
                assumed,
            )
            .await?;
        }
    } else {
        let question = if asked.is_empty() {
            item.title.clone()
        } else {
            asked.join("\n")
        };
        commands::insert_word(transaction, row.id, &question, said, actor, assumed).await?;
    }
    // A worker that comes later has the words in its first prompt.
    if row.task.run != Run::Live {
        return Ok(());
    }
    let command = match &item.gate {
        Gate::Question(id) | Gate::Blocker(id) | Gate::Change(id) => Command::Answer {
            question_id: id.clone(),
            answers: decision.answers.clone(),
            text: decision.text.clone(),
            assumed,
            approved: false,
        },
        // The step begins again in the session that did not know what it missed.
        Gate::Stuck(Reason::NoChange) => Command::Say {
            text: said.to_owned(),
        },
        // Not for the turn that planned, which may be about to end: an answer that nobody waits for is kept for the next.
        Gate::Plan if decision.action == Choice::Approve => Command::Answer {
            question_id: item.id.clone(),
            answers: Vec::new(),
            text: said.to_owned(),
            assumed: false,
            approved: false,
        },
        // The assignment carries the words.
        Gate::Spawn | Gate::Plan | Gate::Stuck(_) => return Ok(()),
    };
    commands::insert(transaction, row.id, Uuid::now_v7(), &command)
        .await
        .map(drop)
}
