//! A task's events, read in their order.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Store, query};

const LIST: &str = "\
SELECT seq, at, kind, text, actor, attempt, detail, ignored FROM event WHERE task_id = $1 AND seq > $2 AND seq <= $3 \
ORDER BY seq LIMIT $4";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("events::LIST", LIST)];

/// An entry of a task's log of events.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Per task, from 1, without gaps.
    pub seq: i64,
    /// When it was appended.
    pub at: Timestamp,
    /// A stable word.
    pub kind: String,
    /// A sentence for people.
    pub text: String,
    /// Who caused it.
    pub actor: String,
    /// Attempt that it came from; 0 for none.
    pub attempt: i32,
    /// Facts, by kind.
    pub detail: Value,
    /// It changed nothing.
    pub ignored: bool,
}

impl Store {
    /// Events of a task after `after` and up to `until`, at most `limit`, oldest first.
    pub async fn events(
        &self,
        task: Uuid,
        after: i64,
        until: i64,
        limit: i64,
    ) -> Result<Vec<EventRow>, Error> {
        let what = "list a task's events";
        let client = self.connection(what).await?;
        Ok(query(&client, what, LIST, &[&task, &after, &until, &limit])
            .await?
            .iter()
            .map(|row| EventRow {
                seq: row.get("seq"),
                at: row.get("at"),
                kind: row.get("kind"),
                text: row.get("text"),
                actor: row.get("actor"),
                attempt: row.get("attempt"),
                detail: row.get("detail"),
                ignored: row.get("ignored"),
            })
            .collect())
    }
}
