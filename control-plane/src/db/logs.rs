//! A task's log, read from a position on.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Store, query, query_one};

const LIST: &str = "\
SELECT position, attempt, source, at, text, dropped FROM log_chunk WHERE task_id = $1 AND position > $2 ORDER BY position \
LIMIT $3";

const SIZE: &str = "\
SELECT coalesce(sum(octet_length(text)), 0)::bigint AS size FROM log_chunk WHERE task_id = $1 AND attempt = $2";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("logs::LIST", LIST), ("logs::SIZE", SIZE)];

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
    /// How many bytes of log an attempt has.
    pub async fn log_size(&self, task: Uuid, attempt: u32) -> Result<i64, Error> {
        let what = "measure a log";
        let client = self.connection(what).await?;
        let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
        Ok(query_one(&client, what, SIZE, &[&task, &attempt])
            .await?
            .get("size"))
    }

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
