//! The inbox: reading items, and resolving them once, for the revision that was seen.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use mainloop_core::{Event, Rejected};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Applied, Error, Occurrence, Store,
    commands::{self, Command},
    create, execute, query, query_opt,
    transition::{append_event, apply_in, lock_task},
};

macro_rules! columns {
    () => {
        "item.id, item.task_id, item.kind, item.revision, item.state, item.gate, item.gate_ref, item.title, item.body, \
         item.previous, item.plan_hash, item.questions, item.opened_at, item.action, item.text, item.actor, item.closed_at"
    };
}

const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox_item item WHERE item.id = $1"
);

const LOCK: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox_item item WHERE item.id = $1 FOR UPDATE"
);

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox_item item WHERE (item.opened_at, item.id) < ($1, $2) AND ($3 OR item.state = 'open') \
     AND ($4::uuid IS NULL OR item.task_id = $4) ORDER BY item.opened_at DESC, item.id DESC LIMIT $5"
);

const RESOLVE_OPEN: &str = "\
UPDATE inbox_item SET state = 'resolved', action = $2, text = $3, actor = $4, closed_at = clock_timestamp() \
WHERE task_id = $1 AND state = 'open'";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("inbox::GET", GET),
    ("inbox::LOCK", LOCK),
    ("inbox::LIST", LIST),
    ("inbox::RESOLVE_OPEN", RESOLVE_OPEN),
];

/// An item as it is stored.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the migration")]
pub struct ItemRow {
    pub id: String,
    pub task_id: Uuid,
    pub kind: String,
    pub revision: i32,
    pub state: String,
    pub gate: String,
    pub gate_ref: Option<String>,
    pub title: String,
    pub body: String,
    pub previous: String,
    pub plan_hash: String,
    pub questions: Value,
    pub opened_at: Timestamp,
    pub action: Option<String>,
    pub text: String,
    pub actor: String,
    pub closed_at: Option<Timestamp>,
}

impl From<&Row> for ItemRow {
    fn from(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            task_id: row.get("task_id"),
            kind: row.get("kind"),
            revision: row.get("revision"),
            state: row.get("state"),
            gate: row.get("gate"),
            gate_ref: row.get("gate_ref"),
            title: row.get("title"),
            body: row.get("body"),
            previous: row.get("previous"),
            plan_hash: row.get("plan_hash"),
            questions: row.get("questions"),
            opened_at: row.get("opened_at"),
            action: row.get("action"),
            text: row.get("text"),
            actor: row.get("actor"),
            closed_at: row.get("closed_at"),
        }
    }
}

/// What a person does with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// Not yet.
    Revise,
    /// These are the answers.
    Answer,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Approve, Self::Reject, Self::Revise, Self::Answer];

    /// The word in SQL and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Revise => "revise",
            Self::Answer => "answer",
        }
    }

    /// What can be done with an item of this kind and gate.
    pub fn possible(kind: &str, gate: &str) -> &'static [Self] {
        match (kind, gate) {
            ("spawn", _) => &[Self::Approve, Self::Reject],
            ("plan", _) => &[Self::Approve, Self::Reject, Self::Revise],
            ("blocker", "no_ci") => &[Self::Approve, Self::Answer, Self::Reject],
            _ => &[Self::Answer, Self::Reject],
        }
    }
}

/// A decision on the revision that was seen.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The item.
    pub item: String,
    /// The revision that the person saw.
    pub revision: i32,
    /// What to do.
    pub action: Action,
    /// The words that come with it.
    pub text: String,
    /// One for each question.
    pub answers: Vec<String>,
    /// Who decides.
    pub actor: String,
}

/// What became of a decision.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// It holds.
    Done,
    /// There is no such item.
    Missing,
    /// The item has a newer revision, or the one that was named does not exist.
    OtherRevision {
        /// The newest.
        newest: i32,
    },
    /// Somebody was faster, or it is no longer asked.
    Closed(Box<ItemRow>),
    /// The item takes no such action.
    Impossible {
        /// Those that it takes.
        possible: &'static [Action],
    },
    /// There are not as many answers as questions.
    Answers {
        /// How many questions there are.
        questions: usize,
    },
    /// The workflow refused it.
    Refused(Rejected),
}

impl Store {
    /// An item.
    pub async fn item(&self, id: &str) -> Result<Option<ItemRow>, Error> {
        let what = "read an inbox item";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, GET, &[&id])
            .await?
            .as_ref()
            .map(ItemRow::from))
    }

    /// Items, newest first, after the position of a page before.
    pub async fn list_items(
        &self,
        closed: bool,
        task: Option<Uuid>,
        after: Option<(Timestamp, String)>,
        limit: i64,
    ) -> Result<Vec<ItemRow>, Error> {
        let what = "list inbox items";
        let (time, id) = after.unwrap_or((Timestamp::MAX, String::new()));
        let client = self.connection(what).await?;
        Ok(
            query(&client, what, LIST, &[&time, &id, &closed, &task, &limit])
                .await?
                .iter()
                .map(ItemRow::from)
                .collect(),
        )
    }

    /// Stores a decision, closes the item and moves the task, all or nothing.
    pub async fn resolve(&self, decision: &Decision, policy: &Value) -> Result<Resolved, Error> {
        let what = "resolve an inbox item";
        let mut client = self.connection(what).await?;
        // The task's row is locked first, as everywhere; which one it is never changes.
        let Some(row) = query_opt(&client, what, GET, &[&decision.item]).await? else {
            return Ok(Resolved::Missing);
        };
        let task_id: Uuid = row.get("task_id");
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let resolved = resolve_in(&transaction, task_id, decision, policy).await?;
        if matches!(resolved, Resolved::Done) {
            transaction.commit().await.map_err(Error::on(what))?;
            drop(client);
            self.nudge().task_changed(task_id);
        }
        Ok(resolved)
    }

    /// Stores a person's guidance to a task's worker. False when this id was there before.
    pub async fn say(&self, task: Uuid, id: Uuid, text: &str, actor: &str) -> Result<bool, Error> {
        let what = "store guidance";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        if lock_task(&transaction, task).await?.is_none() {
            return Ok(false);
        }
        let command = Command::Say {
            text: text.to_owned(),
        };
        if !commands::insert(&transaction, task, id, &command).await? {
            return Ok(false);
        }
        commands::insert_word(&transaction, task, "", text, actor).await?;
        let shown = format!("guidance: {}", first_line(text));
        append_event(
            &transaction,
            task,
            "said",
            &shown,
            actor,
            0,
            &json!({ "text": text }),
            false,
        )
        .await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(task);
        Ok(true)
    }
}

/// Closes a locked task's open item as a person's decision.
pub(super) async fn resolve_open(
    transaction: &Transaction<'_>,
    task: Uuid,
    action: Action,
    text: &str,
    actor: &str,
) -> Result<(), Error> {
    execute(
        transaction,
        "close an inbox item",
        RESOLVE_OPEN,
        &[&task, &action.word(), &text, &actor],
    )
    .await
    .map(drop)
}

async fn resolve_in(
    transaction: &Transaction<'_>,
    task_id: Uuid,
    decision: &Decision,
    policy: &Value,
) -> Result<Resolved, Error> {
    let Some((task, now)) = lock_task(transaction, task_id).await? else {
        return Ok(Resolved::Missing);
    };
    let what = "lock an inbox item";
    let Some(row) = query_opt(transaction, what, LOCK, &[&decision.item]).await? else {
        return Ok(Resolved::Missing);
    };
    let item = ItemRow::from(&row);
    if item.revision != decision.revision {
        return Ok(Resolved::OtherRevision {
            newest: item.revision,
        });
    }
    if item.state != "open" {
        return Ok(Resolved::Closed(Box::new(item)));
    }
    let possible = Action::possible(&item.kind, &item.gate);
    if !possible.contains(&decision.action) {
        return Ok(Resolved::Impossible { possible });
    }
    let questions = item.questions.as_array().map_or(0, Vec::len);
    if decision.action == Action::Answer
        && !decision.answers.is_empty()
        && questions > 0
        && decision.answers.len() != questions
    {
        return Ok(Resolved::Answers { questions });
    }
    if item.kind == "spawn" && decision.action == Action::Approve {
        return finish(
            transaction,
            &item,
            decision,
            create::confirm_in(
                transaction,
                task_id,
                policy,
                &decision.actor,
                &decision.text,
            )
            .await?,
        )
        .await;
    }
    let text = words(decision);
    resolve_open(
        transaction,
        task_id,
        decision.action,
        &text,
        &decision.actor,
    )
    .await?;
    let mut occurrence = Occurrence::new(event(&item, decision), &decision.actor);
    occurrence.detail = json!({ "item": item.id, "revision": item.revision, "text": text });
    let to_worker = matches!(item.gate.as_str(), "question" | "worker");
    if decision.action == Action::Answer && !to_worker {
        occurrence.facts.guidance = Some(text);
    }
    let applied = apply_in(transaction, task, now, &occurrence).await?;
    finish(transaction, &item, decision, applied).await
}

/// Stores the words of a decision that holds.
async fn finish(
    transaction: &Transaction<'_>,
    item: &ItemRow,
    decision: &Decision,
    applied: Applied,
) -> Result<Resolved, Error> {
    match applied {
        Applied::Changed(_) => {}
        Applied::Ignored { rejected, .. } => return Ok(Resolved::Refused(rejected)),
        Applied::Missing => return Ok(Resolved::Missing),
    }
    let text = words(decision);
    let to_worker =
        decision.action == Action::Answer && matches!(item.gate.as_str(), "question" | "worker");
    if to_worker {
        let command = Command::Answer {
            question_id: item.gate_ref.clone().unwrap_or_default(),
            answers: decision.answers.clone(),
            text: decision.text.clone(),
        };
        commands::insert(transaction, item.task_id, Uuid::now_v7(), &command).await?;
    } else if item.kind == "plan" && decision.action == Action::Approve && !text.is_empty() {
        // The worker that made the plan is still there, and has read its human words already.
        let command = Command::Say { text: text.clone() };
        commands::insert(transaction, item.task_id, Uuid::now_v7(), &command).await?;
    }
    // A revision's words go into the next plan's prompt by themselves.
    if !text.is_empty() && decision.action != Action::Revise {
        let asked = if item.kind == "question" || item.kind == "blocker" {
            asked(item)
        } else {
            String::new()
        };
        commands::insert_word(transaction, item.task_id, &asked, &text, &decision.actor).await?;
    }
    Ok(Resolved::Done)
}

/// The event of an action that the item takes.
fn event(item: &ItemRow, decision: &Decision) -> Event {
    match (item.kind.as_str(), decision.action) {
        ("spawn", Action::Approve) => Event::Confirmed,
        ("spawn", _) => Event::SpawnRejected,
        ("plan", Action::Approve) => Event::PlanApproved {
            hash: item.plan_hash.clone(),
        },
        ("plan", Action::Reject) => Event::PlanRejected,
        ("plan", _) => Event::PlanRevised,
        (_, Action::Approve) => Event::NoCiAccepted,
        (_, Action::Reject) => Event::GivenUp,
        (_, Action::Answer | Action::Revise) => Event::Answered,
    }
}

/// Answers and text in one.
fn words(decision: &Decision) -> String {
    let mut parts: Vec<&str> = decision.answers.iter().map(String::as_str).collect();
    if !decision.text.is_empty() {
        parts.push(&decision.text);
    }
    parts.join("\n")
}

/// What was asked, for the prompts of later attempts.
fn asked(item: &ItemRow) -> String {
    let questions: Vec<&str> = item
        .questions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|question| question["text"].as_str())
        .collect();
    if questions.is_empty() {
        item.title.clone()
    } else {
        questions.join("\n")
    }
}

fn first_line(text: &str) -> String {
    const SHOWN: usize = 120;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > SHOWN {
        line.chars().take(SHOWN).chain(['…']).collect()
    } else {
        line.to_owned()
    }
}
