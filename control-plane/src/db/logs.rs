//! A task's log, read from a position on.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Store, query};

const LIST: &str = "\
SELECT position, attempt, source, at, text, dropped FROM log_chunk WHERE task_id = $1 AND position > $2 ORDER BY position \
LIMIT $3";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("logs::LIST", LIST)];

/// A stored piece of a log.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Per task, from 1, in the order of arrival.
    pub position: i64,
    /// Attempt that wrote it.
    pub attempt: i32,
    /// `agent`, `harness`, `claude` or `tool`.
    pub source: String,
    /// When the agent saw it.
    pub at: Timestamp,
    /// Text.
    pub text: String,
    /// Chunks that were dropped before this one.
    pub dropped: i64,
}

impl Store {
    /// Chunks of a task's log after a position, at most `limit`, oldest first.
    pub async fn logs(&self, task: Uuid, after: i64, limit: i64) -> Result<Vec<LogRow>, Error> {
        let what = "read a task's log";
        let client = self.connection(what).await?;
        Ok(query(&client, what, LIST, &[&task, &after, &limit])
            .await?
            .iter()
            .map(|row| LogRow {
                position: row.get("position"),
                attempt: row.get("attempt"),
                source: row.get("source"),
                at: row.get("at"),
                text: row.get("text"),
                dropped: row.get("dropped"),
            })
            .collect())
    }
}
