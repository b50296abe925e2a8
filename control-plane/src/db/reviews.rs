//! What people with write access said about pull requests, and up to where it is answered.
//!
//! A thread is open while something in it is newer than what was answered. It is noted before the task is told of it,
//! and answered only when the worker saw its reply on the code host, so that none is lost and none answered twice.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::{Error, Store, execute, query};

/// What was said later counts; what is answered stays so.
const NOTE: &str = "\
INSERT INTO review_thread (task_id, kind, id, pull_number, newest, answered, author, path, line, body) \
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (task_id, kind, id) DO UPDATE SET \
newest = greatest(review_thread.newest, excluded.newest), answered = greatest(review_thread.answered, excluded.answered), \
author = excluded.author, path = excluded.path, line = excluded.line, body = excluded.body";

const OPEN: &str = "\
SELECT thread.kind, thread.id, thread.newest, thread.author, thread.path, thread.line, thread.body \
FROM review_thread thread JOIN task ON task.id = thread.task_id AND task.pull_number = thread.pull_number \
WHERE thread.task_id = $1 AND thread.answered < thread.newest ORDER BY thread.newest, thread.id";

const ANSWERED: &str = "\
UPDATE review_thread SET answered = greatest(answered, $4), answer = $5, answered_at = clock_timestamp() \
WHERE task_id = $1 AND kind = $2 AND id = $3";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("reviews::NOTE", NOTE),
    ("reviews::OPEN", OPEN),
    ("reviews::ANSWERED", ANSWERED),
];

/// What was said in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The text of a review as a whole; else comments on a line or a file.
    pub is_review: bool,
    /// The code host's id of the review, or of the first comment.
    pub id: i64,
    /// Id of what was said last.
    pub newest: i64,
    /// Who said it.
    pub author: String,
    /// File; empty for none.
    pub path: String,
    /// Line; 0 for none.
    pub line: i32,
    /// What was said.
    pub body: String,
}

/// What a worker answered, as it saw it on the code host.
#[derive(Clone, Debug)]
pub struct Answered {
    /// As of the thread.
    pub is_review: bool,
    /// As of the thread.
    pub id: i64,
    /// What was said last when it was answered.
    pub newest: i64,
    /// The answer.
    pub text: String,
}

fn kind(is_review: bool) -> &'static str {
    if is_review { "review" } else { "comment" }
}

impl Store {
    /// Notes what was seen of a thread, and up to where its answer was seen.
    pub async fn note_thread(
        &self,
        task: Uuid,
        pull: u32,
        thread: &Thread,
        answered: i64,
    ) -> Result<(), Error> {
        let what = "note a thread of a review";
        let client = self.connection(what).await?;
        execute(
            &client,
            what,
            NOTE,
            &[
                &task,
                &kind(thread.is_review),
                &thread.id,
                &i32::try_from(pull).unwrap_or(i32::MAX),
                &thread.newest,
                &answered,
                &thread.author,
                &thread.path,
                &thread.line,
                &thread.body,
            ],
        )
        .await
        .map(drop)
    }

    /// The threads of the task's present pull request that are not answered, oldest first.
    pub async fn open_threads(&self, task: Uuid) -> Result<Vec<Thread>, Error> {
        let what = "read threads of a review";
        let client = self.connection(what).await?;
        Ok(query(&client, what, OPEN, &[&task])
            .await?
            .iter()
            .map(|row| Thread {
                is_review: row.get::<_, &str>("kind") == "review",
                id: row.get("id"),
                newest: row.get("newest"),
                author: row.get("author"),
                path: row.get("path"),
                line: row.get("line"),
                body: row.get("body"),
            })
            .collect())
    }
}

/// Notes an answer. A thread that is not there needs none.
pub async fn answered(
    transaction: &Transaction<'_>,
    task: Uuid,
    answered: &Answered,
) -> Result<(), Error> {
    execute(
        transaction,
        "note an answer to a review",
        ANSWERED,
        &[
            &task,
            &kind(answered.is_review),
            &answered.id,
            &answered.newest,
            &answered.text,
        ],
    )
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        dispatch::tests::{queued, sql},
        testing,
    };

    /// A task with this pull request.
    async fn with_pull(store: &Store, number: u32) -> Uuid {
        let task = queued(store, "one", 0).await;
        sql(store, &format!("UPDATE task SET pull_number = {number}")).await;
        task
    }

    #[tokio::test]
    async fn a_thread_is_open_until_its_newest_word_is_answered() {
        let store = testing::store().await;
        let task = with_pull(&store, 7).await;
        let thread = |newest: i64| Thread {
            is_review: false,
            id: 10,
            newest,
            author: "ada".to_owned(),
            path: "calc.py".to_owned(),
            line: 6,
            body: format!("said {newest}"),
        };
        let answer = async |newest: i64| {
            let mut client = store.connection("test").await.unwrap();
            let transaction = client.transaction().await.unwrap();
            let done = Answered {
                is_review: false,
                id: 10,
                newest,
                text: "done".to_owned(),
            };
            answered(&transaction, task, &done).await.unwrap();
            transaction.commit().await.unwrap();
        };
        store.note_thread(task, 7, &thread(10), 0).await.unwrap();
        assert_eq!(store.open_threads(task).await.unwrap(), [thread(10)]);
        // Another word comes while the first is being addressed.
        store.note_thread(task, 7, &thread(12), 0).await.unwrap();
        answer(10).await;
        assert_eq!(store.open_threads(task).await.unwrap(), [thread(12)]);
        answer(12).await;
        assert!(store.open_threads(task).await.unwrap().is_empty());
        // What was seen earlier changes nothing, and an old answer neither.
        store.note_thread(task, 7, &thread(10), 0).await.unwrap();
        answer(10).await;
        assert!(store.open_threads(task).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_said_about_a_pull_request_that_was_left_is_not_open() {
        let store = testing::store().await;
        let task = with_pull(&store, 8).await;
        let thread = Thread {
            is_review: true,
            id: 1,
            newest: 1,
            author: "ada".to_owned(),
            path: String::new(),
            line: 0,
            body: "no".to_owned(),
        };
        store.note_thread(task, 7, &thread, 0).await.unwrap();
        assert!(store.open_threads(task).await.unwrap().is_empty());
    }
}
