//! Reading tasks: one, a page, or what changed.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Error, Store, TaskRow, query, query_one, query_opt};
use crate::task_columns;

/// A task with the head of its open item, read in one statement so that the two fit each other.
macro_rules! views {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            task_columns!(),
            ", item.id AS item_id, item.revision AS item_revision, item.kind AS item_kind, item.gate AS item_gate, \
             item.title AS item_title, item.opened_at AS item_opened_at \
             FROM task LEFT JOIN inbox_item item ON item.task_id = task.id AND item.state = 'open' ",
            $rest
        )
    };
}

/// The state for people in SQL; a test holds it against the workflow's own.
macro_rules! state_word {
    () => {
        "CASE WHEN task.phase IN ('ready', 'completed', 'failed', 'cancelled', 'declined', 'proposed') THEN task.phase \
         WHEN task.gate = 'question' THEN 'question' \
         WHEN task.gate IS NOT NULL AND task.gate NOT IN ('spawn', 'plan') THEN 'blocked' \
         WHEN task.phase = 'plan_review' THEN 'plan_review' \
         WHEN task.wait = 'until' THEN 'waiting' \
         WHEN task.run IN ('idle', 'queued') THEN 'queued' \
         WHEN task.run = 'starting' THEN 'starting' \
         ELSE task.phase END"
    };
}

const FIND: &str = views!("WHERE task.id = $1 OR task.short_id = $2");

const BY_IDS: &str = views!("WHERE task.id = ANY ($1)");

const LIST: &str = concat!(
    views!("WHERE (task.created_at, task.id) < ($1, $2) AND ($3::text[] IS NULL OR "),
    state_word!(),
    " = ANY ($3)) AND ($4::text IS NULL OR task.repository_url = $4) AND task.labels @> $5 \
     ORDER BY task.created_at DESC, task.id DESC LIMIT $6"
);

const CHANGED: &str = views!(
    "WHERE (task.updated_at, task.id) > ($1, $2) ORDER BY task.updated_at, task.id LIMIT $3"
);

const COUNTS: &str = "\
SELECT count(*) FILTER (WHERE run IN ('starting', 'live')) AS slots_used, count(*) FILTER (WHERE run = 'queued') AS queued, \
count(*) FILTER (WHERE phase IN ('planning', 'implementing', 'ci', 'fixing_ci') AND wait <> 'human') AS active, \
count(*) FILTER (WHERE wait = 'human') AS open_items, current_setting('server_version') AS server_version \
FROM task WHERE settled_at IS NULL";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("read::FIND", FIND),
    ("read::BY_IDS", BY_IDS),
    ("read::LIST", LIST),
    ("read::CHANGED", CHANGED),
    ("read::COUNTS", COUNTS),
];

/// A task as clients see it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The task.
    pub row: TaskRow,
    /// What is asked of a person, if anything is.
    pub open: Option<OpenItem>,
}

/// The head of an item that is open.
#[derive(Clone, Debug)]
pub struct OpenItem {
    /// Short id.
    pub id: String,
    /// Its revision.
    pub revision: i32,
    /// `spawn`, `plan`, `question` or `blocker`.
    pub kind: String,
    /// What exactly it is about.
    pub gate: String,
    /// One line.
    pub title: String,
    /// When this revision opened.
    pub opened_at: Timestamp,
}

/// Which tasks a list is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these states, by their words; all when unset.
    pub states: Option<Vec<&'static str>>,
    /// Only this repository.
    pub repository: Option<String>,
    /// Only tasks with all of these labels.
    pub labels: Value,
}

/// How the plane is filled.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Tasks that hold a slot.
    pub slots_used: i64,
    /// Tasks that wait for one.
    pub queued: i64,
    /// Tasks that are active.
    pub active: i64,
    /// Items that are open.
    pub open_items: i64,
    /// The server's version.
    pub server_version: String,
}

impl TryFrom<&Row> for TaskView {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let open = row.get::<_, Option<String>>("item_id").map(|id| OpenItem {
            id,
            revision: row.get("item_revision"),
            kind: row.get("item_kind"),
            gate: row.get("item_gate"),
            title: row.get("item_title"),
            opened_at: row.get("item_opened_at"),
        });
        Ok(Self {
            row: TaskRow::try_from(row)?,
            open,
        })
    }
}

fn views(rows: &[Row]) -> Result<Vec<TaskView>, Error> {
    rows.iter().map(TaskView::try_from).collect()
}

impl Store {
    /// A task by its id or short id.
    pub async fn task(&self, key: &str) -> Result<Option<TaskView>, Error> {
        let what = "read a task";
        let id: Option<Uuid> = key.parse().ok();
        let client = self.connection(what).await?;
        query_opt(&client, what, FIND, &[&id, &key])
            .await?
            .as_ref()
            .map(TaskView::try_from)
            .transpose()
    }

    /// Tasks by their ids, in no order.
    pub async fn tasks_by_id(&self, ids: &[Uuid]) -> Result<Vec<TaskView>, Error> {
        let what = "read tasks";
        let client = self.connection(what).await?;
        views(&query(&client, what, BY_IDS, &[&ids]).await?)
    }

    /// Tasks that fit, newest first, after the position of a page before.
    pub async fn list_tasks(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, Uuid)>,
        limit: i64,
    ) -> Result<Vec<TaskView>, Error> {
        let what = "list tasks";
        let (time, id) = after.unwrap_or((Timestamp::MAX, Uuid::max()));
        let labels = if filter.labels.is_object() {
            filter.labels.clone()
        } else {
            serde_json::json!({})
        };
        let client = self.connection(what).await?;
        views(
            &query(
                &client,
                what,
                LIST,
                &[
                    &time,
                    &id,
                    &filter.states,
                    &filter.repository,
                    &labels,
                    &limit,
                ],
            )
            .await?,
        )
    }

    /// Tasks that changed after a position, in the order of their last change.
    pub async fn changed_tasks(
        &self,
        after: (Timestamp, Uuid),
        limit: i64,
    ) -> Result<Vec<TaskView>, Error> {
        let what = "read changed tasks";
        let client = self.connection(what).await?;
        views(&query(&client, what, CHANGED, &[&after.0, &after.1, &limit]).await?)
    }

    /// How the plane is filled.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let what = "count tasks";
        let client = self.connection(what).await?;
        let row = query_one(&client, what, COUNTS, &[]).await?;
        Ok(Counts {
            slots_used: row.get("slots_used"),
            queued: row.get("queued"),
            active: row.get("active"),
            open_items: row.get("open_items"),
            server_version: row.get("server_version"),
        })
    }
}

#[cfg(test)]
mod tests;
