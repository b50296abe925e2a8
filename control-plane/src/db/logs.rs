//! Reading a task's log of its workers' output.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Store, query, query_one};

const AFTER: &str = "\
SELECT position, attempt, source, at, text, dropped FROM log_chunk WHERE task_id = $1 AND position > $2 ORDER BY position LIMIT $3";

/// Positions have no gaps, so that the last so many begin at a number.
const TAIL: &str = "SELECT greatest(coalesce(max(position), 0) - $2, 0)::bigint AS after FROM log_chunk WHERE task_id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("logs::AFTER", AFTER), ("logs::TAIL", TAIL)];

/// A piece of the log.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the contract")]
pub struct LogRow {
    pub position: i64,
    pub attempt: i32,
    pub source: String,
    pub at: Timestamp,
    pub text: String,
    pub dropped: i64,
}

impl Store {
    /// Chunks after a position, oldest first.
    pub async fn logs_after(
        &self,
        task: Uuid,
        position: i64,
        limit: i64,
    ) -> Result<Vec<LogRow>, Error> {
        let what = "read a task's log";
        let client = self.connection(what).await?;
        Ok(query(&client, what, AFTER, &[&task, &position, &limit])
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

    /// The position before the newest so many chunks.
    pub async fn log_tail(&self, task: Uuid, chunks: i64) -> Result<i64, Error> {
        let what = "find the end of a task's log";
        let client = self.connection(what).await?;
        Ok(query_one(&client, what, TAIL, &[&task, &chunks])
            .await?
            .get("after"))
    }
}
