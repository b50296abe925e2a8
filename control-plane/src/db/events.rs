//! Reading a task's event log.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Store, query};

const AFTER: &str = "\
SELECT seq, at, kind, text, actor, attempt, detail, ignored FROM event WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("events::AFTER", AFTER)];

/// An entry of a task's log.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the contract")]
pub struct EventRow {
    pub seq: i64,
    pub at: Timestamp,
    pub kind: String,
    pub text: String,
    pub actor: String,
    pub attempt: i32,
    pub detail: Value,
    pub ignored: bool,
}

impl Store {
    /// Events after a number, oldest first. Numbers are given under the task's lock, so that none can come in between.
    pub async fn events_after(
        &self,
        task: Uuid,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<EventRow>, Error> {
        let what = "read a task's events";
        let client = self.connection(what).await?;
        Ok(query(&client, what, AFTER, &[&task, &seq, &limit])
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
