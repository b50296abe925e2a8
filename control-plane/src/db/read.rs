//! Tasks as clients see them: one by its name, pages of many, what changed lately, and counts. Reads only.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use mainloop_core::State;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Error, Store, TaskRow, query, query_one, query_opt};
use crate::task_columns;

/// A task with the item that is open on it.
macro_rules! seen {
    ($rest:expr) => {
        concat!(
            "SELECT ",
            task_columns!(),
            ", item.id AS open_id, item.revision AS open_revision FROM task \
             LEFT JOIN inbox_item item ON item.task_id = task.id AND item.state = 'open' ",
            $rest
        )
    };
}

/// The word of the state for people; the same as [`State::of`], which a test holds.
macro_rules! state {
    () => {
        "CASE WHEN task.phase IN ('proposed', 'ready', 'completed', 'failed', 'cancelled', 'declined') THEN task.phase \
         WHEN task.gate = 'question' THEN 'question' \
         WHEN task.gate IS NOT NULL AND task.gate NOT IN ('spawn', 'plan') THEN 'blocked' \
         WHEN task.phase = 'plan_review' THEN 'plan_review' \
         WHEN task.wait = 'until' THEN 'waiting' \
         WHEN task.run IN ('idle', 'queued') THEN 'queued' \
         WHEN task.run = 'starting' THEN 'starting' \
         ELSE task.phase END"
    };
}

/// For the test.
#[cfg(test)]
pub(super) const STATE: &str = state!();

const BY_ID: &str = seen!("WHERE task.id = $1");

const BY_SHORT_ID: &str = seen!("WHERE task.short_id = $1");

const BY_IDS: &str = seen!("WHERE task.id = ANY($1) ORDER BY task.updated_at, task.id");

const LIST: &str = seen!(concat!(
    "WHERE (task.created_at, task.id) < ($1, $2) AND ($3::text[] IS NULL OR ",
    state!(),
    " = ANY($3)) AND ($4::text IS NULL OR task.repository_url = $4) AND task.labels @> $5 \
     ORDER BY task.created_at DESC, task.id DESC LIMIT $6"
));

const CHANGED: &str = seen!(
    "WHERE task.updated_at > clock_timestamp() - make_interval(secs => $1) ORDER BY task.updated_at, task.id"
);

const COUNTS: &str = concat!(
    "SELECT count(*) FILTER (WHERE task.run IN ('starting', 'live')) AS slots_used, \
     count(*) FILTER (WHERE task.run = 'queued') AS queued, \
     count(*) FILTER (WHERE ",
    state!(),
    " IN ('queued', 'starting', 'planning', 'implementing', 'ci', 'fixing_ci', 'addressing_review', 'waiting')) AS active, \
     (SELECT count(*) FROM inbox_item WHERE state = 'open') AS open_items FROM task"
);

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("read::BY_ID", BY_ID),
    ("read::BY_SHORT_ID", BY_SHORT_ID),
    ("read::BY_IDS", BY_IDS),
    ("read::LIST", LIST),
    ("read::CHANGED", CHANGED),
    ("read::COUNTS", COUNTS),
];

/// An inbox item that is open on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenItem {
    /// Short id.
    pub id: String,
    /// Counts from 1.
    pub revision: i32,
}

/// A task as clients see it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The task.
    pub task: TaskRow,
    /// What is open on it, at the same moment.
    pub open: Vec<OpenItem>,
}

/// Where a page begins: after this task, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// When it was proposed.
    pub at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

impl After {
    /// Before the newest task.
    pub fn start() -> Self {
        Self {
            // Later than any clock says, and well inside what Postgres can hold.
            at: Timestamp::constant(200_000_000_000, 0),
            id: Uuid::max(),
        }
    }
}

/// Which tasks to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only these states; all when unset.
    pub states: Option<Vec<State>>,
    /// Only this repository; all when unset.
    pub repository_url: Option<String>,
    /// A JSON object: only tasks that carry all of these labels.
    pub labels: Value,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            states: None,
            repository_url: None,
            labels: Value::Object(serde_json::Map::new()),
        }
    }
}

/// How many there are at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that hold a slot.
    pub slots_used: i64,
    /// Tasks that wait for one.
    pub queued: i64,
    /// Tasks in a state of the active group.
    pub active: i64,
    /// Open inbox items.
    pub open_items: i64,
}

impl TryFrom<&Row> for Seen {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let id: Option<String> = row.get("open_id");
        let revision: Option<i32> = row.get("open_revision");
        Ok(Self {
            task: TaskRow::try_from(row)?,
            open: id
                .zip(revision)
                .map(|(id, revision)| OpenItem { id, revision })
                .into_iter()
                .collect(),
        })
    }
}

/// The word that stands for a state in statements.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Proposed => "proposed",
        State::Queued => "queued",
        State::Starting => "starting",
        State::Planning => "planning",
        State::PlanReview => "plan_review",
        State::Implementing => "implementing",
        State::Ci => "ci",
        State::FixingCi => "fixing_ci",
        State::Question => "question",
        State::Blocked => "blocked",
        State::Waiting => "waiting",
        State::Ready => "ready",
        State::AddressingReview => "addressing_review",
        State::Completed => "completed",
        State::Cancelled => "cancelled",
        State::Declined => "declined",
        State::Failed => "failed",
    }
}

/// A task by its id, also inside a transaction.
pub async fn by_id(client: &impl GenericClient, id: Uuid) -> Result<Option<Seen>, Error> {
    query_opt(client, "read a task", BY_ID, &[&id])
        .await?
        .map(|row| Seen::try_from(&row))
        .transpose()
}

impl Store {
    /// A task by its id.
    pub async fn task(&self, id: Uuid) -> Result<Option<Seen>, Error> {
        let client = self.connection("read a task").await?;
        by_id(&client, id).await
    }

    /// A task by what a person typed: its id or its short id.
    pub async fn task_by_name(&self, name: &str) -> Result<Option<Seen>, Error> {
        if let Ok(id) = Uuid::try_parse(name) {
            return self.task(id).await;
        }
        let what = "read a task";
        let client = self.connection(what).await?;
        query_opt(&client, what, BY_SHORT_ID, &[&name])
            .await?
            .map(|row| Seen::try_from(&row))
            .transpose()
    }

    /// Those of these tasks that exist.
    pub async fn tasks(&self, ids: &[Uuid]) -> Result<Vec<Seen>, Error> {
        let what = "read tasks";
        let client = self.connection(what).await?;
        all(&query(&client, what, BY_IDS, &[&ids]).await?)
    }

    /// At most `limit` tasks, newest first.
    pub async fn list_tasks(
        &self,
        filter: &Filter,
        after: After,
        limit: i64,
    ) -> Result<Vec<Seen>, Error> {
        let what = "list tasks";
        let states: Option<Vec<&str>> = filter
            .states
            .as_ref()
            .map(|states| states.iter().map(|state| state_word(*state)).collect());
        let client = self.connection(what).await?;
        all(&query(
            &client,
            what,
            LIST,
            &[
                &after.at,
                &after.id,
                &states,
                &filter.repository_url,
                &filter.labels,
                &limit,
            ],
        )
        .await?)
    }

    /// Tasks that changed within the last `seconds`, by the database's clock.
    pub async fn tasks_changed_within(&self, seconds: f64) -> Result<Vec<Seen>, Error> {
        let what = "list changed tasks";
        let client = self.connection(what).await?;
        all(&query(&client, what, CHANGED, &[&seconds]).await?)
    }

    /// How many tasks and items there are at present.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let what = "count tasks";
        let client = self.connection(what).await?;
        let row = query_one(&client, what, COUNTS, &[]).await?;
        Ok(Counts {
            slots_used: row.get("slots_used"),
            queued: row.get("queued"),
            active: row.get("active"),
            open_items: row.get("open_items"),
        })
    }
}

fn all(rows: &[Row]) -> Result<Vec<Seen>, Error> {
    rows.iter().map(Seen::try_from).collect()
}
