//! What cancelled and declined tasks leave at the code host, until it is closed.

use deadpool_postgres::Transaction;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Store, TaskRow, execute, query, transition};
use crate::{
    policy::{OnCancel, Policy},
    task_columns,
};

/// Attempts at one task. The last one comes more than an hour after the first.
const TRIES: i32 = 10;

const WANT: &str = "INSERT INTO tidying (task_id) VALUES ($1) ON CONFLICT (task_id) DO NOTHING";

/// Takes what is due and pushes it into the future, so that another replica leaves it alone. A worker that is still there
/// may be making what is to be closed.
const DUE: &str = concat!(
    "WITH due AS (SELECT task_id FROM tidying WHERE due_at <= clock_timestamp() AND NOT EXISTS (SELECT 1 FROM attempt \
     WHERE attempt.task_id = tidying.task_id AND attempt.state <> 'ended') ORDER BY due_at LIMIT 20 FOR UPDATE SKIP LOCKED), \
     taken AS (UPDATE tidying SET due_at = clock_timestamp() + make_interval(secs => 5 * power(2, tidying.errors)), \
     errors = tidying.errors + 1 FROM due WHERE tidying.task_id = due.task_id RETURNING tidying.task_id, tidying.errors) \
     SELECT taken.errors AS tries, ",
    task_columns!(),
    " FROM taken JOIN task ON task.id = taken.task_id"
);

const DONE: &str = "DELETE FROM tidying WHERE task_id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("tidying::WANT", WANT),
    ("tidying::DUE", DUE),
    ("tidying::DONE", DONE),
];

/// A task whose things are to be closed.
#[derive(Clone, Debug)]
pub struct Untidy {
    /// The task.
    pub task: TaskRow,
    /// How far policy goes.
    pub policy: OnCancel,
    /// Whether this is the last try.
    pub last: bool,
}

/// Has the things of a locked task closed, if its policy says so.
pub(super) async fn want(transaction: &Transaction<'_>, row: &TaskRow) -> Result<(), Error> {
    if Policy::of_snapshot(&row.policy).on_cancel == OnCancel::Leave {
        return Ok(());
    }
    execute(transaction, "want a task tidied up", WANT, &[&row.id])
        .await
        .map(drop)
}

impl Store {
    /// Tasks without a worker whose things are to be closed now.
    pub async fn untidy(&self) -> Result<Vec<Untidy>, Error> {
        let what = "list what is to be closed";
        let client = self.connection(what).await?;
        query(&client, what, DUE, &[])
            .await?
            .iter()
            .map(|row| {
                let task = TaskRow::try_from(row)?;
                Ok(Untidy {
                    policy: Policy::of_snapshot(&task.policy).on_cancel,
                    last: row.get::<_, i32>("tries") >= TRIES,
                    task,
                })
            })
            .collect()
    }

    /// Nothing is left to close; what was done, or why it was not, becomes an event.
    pub async fn tidied(&self, task: Uuid, text: &str, detail: &Value) -> Result<(), Error> {
        let what = "note what was closed";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        if transition::lock_task(&transaction, task).await?.is_none() {
            return Ok(());
        }
        execute(&transaction, what, DONE, &[&task]).await?;
        if !text.is_empty() {
            transition::append_event(
                &transaction,
                task,
                "tidied",
                text,
                "plane",
                0,
                detail,
                false,
            )
            .await?;
        }
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(task);
        Ok(())
    }
}
