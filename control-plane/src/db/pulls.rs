//! Pull requests that are watched.

use std::time::Duration;

use mainloop_github::{CheckTags, ReviewTags};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Error, Store, execute, query,
    transition::{append_event, lock_task},
};

/// Takes what is due and pushes it into the future, so that another replica leaves it alone.
const DUE: &str = "\
WITH due AS (SELECT task_id FROM pull_watch WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 50 FOR UPDATE SKIP LOCKED) \
UPDATE pull_watch SET due_at = clock_timestamp() + make_interval(secs => $1 * power(2, least(pull_watch.errors, 6))) \
FROM due, task WHERE pull_watch.task_id = due.task_id AND task.id = due.task_id AND task.pull_number IS NOT NULL \
RETURNING pull_watch.task_id, pull_watch.etag, pull_watch.tags, pull_watch.seen, task.owner, task.name, task.pull_number, \
CASE WHEN task.phase = 'ready' THEN task.head_sha END AS ready, pull_watch.unreadable";

const SEEN: &str = "\
UPDATE pull_watch SET etag = $2, tags = $3, seen = coalesce($4, seen), errors = 0 WHERE task_id = $1";

const FAILED: &str = "UPDATE pull_watch SET errors = errors + 1 WHERE task_id = $1";

const LATER: &str = "UPDATE pull_watch SET due_at = clock_timestamp() + make_interval(secs => $2) WHERE task_id = $1";

/// Looks that fail in a row before a pull request counts as one that cannot be read.
const UNREADABLE_AFTER: i32 = 3;

const UNREADABLE: &str = "\
UPDATE pull_watch SET unreadable = true WHERE task_id = $1 AND errors >= $2 AND NOT unreadable";

const READABLE: &str = "UPDATE pull_watch SET unreadable = false WHERE task_id = $1 AND unreadable";

const MILESTONE: &str = "UPDATE task SET milestone = $2 WHERE id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("pulls::DUE", DUE),
    ("pulls::SEEN", SEEN),
    ("pulls::FAILED", FAILED),
    ("pulls::LATER", LATER),
    ("pulls::UNREADABLE", UNREADABLE),
    ("pulls::READABLE", READABLE),
    ("pulls::MILESTONE", MILESTONE),
];

/// A pull request to look at.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its task.
    pub task: Uuid,
    /// Account of the repository.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// The commit that is ready for review; none where the task is elsewhere.
    pub ready: Option<String>,
    /// The task says that it cannot be read.
    pub unreadable: bool,
    /// Tags of what was seen last.
    pub tags: Tags,
    /// What was seen of the pull request itself, if anything.
    pub seen: Option<Value>,
}

/// What was seen of a pull request last; empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Of itself.
    pub pull: String,
    /// Of its reviews.
    pub review: ReviewTags,
    /// Of the checks of its ready head.
    pub checks: CheckTags,
}

impl Tags {
    fn read(pull: String, rest: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            pull,
            review: ReviewTags {
                reviews: text(&rest["reviews"]),
                comments: text(&rest["comments"]),
            },
            checks: CheckTags([0, 1, 2].map(|n| text(&rest["checks"][n]))),
        }
    }

    fn rest(&self) -> Value {
        json!({ "reviews": self.review.reviews, "comments": self.review.comments, "checks": self.checks.0 })
    }
}

/// Something that people changed of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The event's kind.
    pub kind: &'static str,
    /// A sentence.
    pub text: String,
}

impl Store {
    /// What is due to be looked at; each is due again after `interval`, later where looks fail.
    pub async fn due_pulls(&self, interval: Duration) -> Result<Vec<Watched>, Error> {
        let what = "take due pull requests";
        let client = self.connection(what).await?;
        Ok(query(&client, what, DUE, &[&interval.as_secs_f64()])
            .await?
            .iter()
            .map(|row| Watched {
                task: row.get("task_id"),
                owner: row.get("owner"),
                name: row.get("name"),
                number: u32::try_from(row.get::<_, i32>("pull_number")).unwrap_or_default(),
                ready: row.get("ready"),
                unreadable: row.get("unreadable"),
                tags: Tags::read(row.get("etag"), &row.get("tags")),
                seen: row.get("seen"),
            })
            .collect())
    }

    /// Notes the state that was seen, with an event for each thing that people changed.
    pub async fn pull_seen(
        &self,
        task: Uuid,
        tags: &Tags,
        seen: Option<&Value>,
        changes: &[Change],
    ) -> Result<(), Error> {
        let what = "note a look at a pull request";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        // Before the row of the watch: whoever applies an event locks them in this order.
        if !changes.is_empty() && lock_task(&transaction, task).await?.is_none() {
            return Ok(());
        }
        execute(
            &transaction,
            what,
            SEEN,
            &[&task, &tags.pull, &tags.rest(), &seen],
        )
        .await?;
        for change in changes {
            append_event(
                &transaction,
                task,
                change.kind,
                &change.text,
                "github",
                0,
                &json!({}),
                false,
            )
            .await?;
        }
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        if !changes.is_empty() {
            self.nudge().events_grew(task);
        }
        Ok(())
    }

    /// Leaves it alone for so long: the code host limits how often it is asked.
    pub async fn pull_later(&self, task: Uuid, wait: Duration) -> Result<(), Error> {
        let what = "put off a look at a pull request";
        let client = self.connection(what).await?;
        execute(&client, what, LATER, &[&task, &wait.as_secs_f64()])
            .await
            .map(drop)
    }

    /// Notes that it could not be read.
    pub async fn pull_failed(&self, task: Uuid) -> Result<(), Error> {
        let what = "note a failed look at a pull request";
        let client = self.connection(what).await?;
        execute(&client, what, FAILED, &[&task]).await.map(drop)
    }

    /// Notes that the code host does not show it. The task says so, once, when it is no passing thing.
    pub async fn pull_hidden(&self, watched: &Watched, why: &str) -> Result<(), Error> {
        self.pull_failed(watched.task).await?;
        let text = format!("pull request #{} cannot be read: {why}", watched.number);
        self.tell_of_pull(
            watched,
            UNREADABLE,
            &[&watched.task, &UNREADABLE_AFTER],
            ("pull_request_unreadable", &text),
        )
        .await
    }

    /// Notes that the code host shows it again.
    pub async fn pull_shown(&self, watched: &Watched) -> Result<(), Error> {
        let text = format!("pull request #{} can be read again", watched.number);
        self.tell_of_pull(
            watched,
            READABLE,
            &[&watched.task],
            ("pull_request_readable", &text),
        )
        .await
    }

    /// Appends an event, and shows it, where the statement finds that it is news.
    async fn tell_of_pull(
        &self,
        watched: &Watched,
        news: &str,
        parameters: &[&(dyn ToSql + Sync)],
        (kind, text): (&str, &str),
    ) -> Result<(), Error> {
        let what = "tell whether a pull request can be read";
        let task = watched.task;
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        // The task before the row of the watch, as everywhere.
        if lock_task(&transaction, task).await?.is_none()
            || execute(&transaction, what, news, parameters).await? == 0
        {
            return Ok(());
        }
        execute(&transaction, what, MILESTONE, &[&task, &text]).await?;
        append_event(
            &transaction,
            task,
            kind,
            text,
            "github",
            0,
            &json!({}),
            false,
        )
        .await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().events_grew(task);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        dispatch::tests::{live, sql},
        testing,
    };

    #[tokio::test]
    async fn a_pull_request_that_cannot_be_read_is_told_of_once_and_when_it_is_there_again() {
        let store = testing::store().await;
        let (task, _) = live(&store, Uuid::now_v7()).await;
        sql(
            &store,
            "UPDATE task SET pull_number = 7; INSERT INTO pull_watch (task_id) SELECT id FROM task",
        )
        .await;
        let told = async || {
            let events = store.events(task, 0, i64::MAX, 100).await.unwrap();
            let of_it = events
                .into_iter()
                .filter(|event| event.kind.starts_with("pull_request"));
            let row = store.task_for_link(task).await.unwrap().unwrap();
            (
                of_it.map(|event| event.kind).collect::<Vec<_>>(),
                row.milestone,
            )
        };
        let due = async || {
            sql(&store, "UPDATE pull_watch SET due_at = now()").await;
            let mut due = store.due_pulls(Duration::from_secs(1)).await.unwrap();
            due.pop().unwrap()
        };
        for _ in 1..UNREADABLE_AFTER {
            store.pull_hidden(&due().await, "not found").await.unwrap();
        }
        assert_eq!(told().await.0, Vec::<String>::new(), "it may pass");
        for _ in 0..3 {
            store.pull_hidden(&due().await, "not found").await.unwrap();
        }
        let (kinds, milestone) = told().await;
        assert_eq!(kinds, ["pull_request_unreadable"]);
        assert_eq!(milestone, "pull request #7 cannot be read: not found");
        assert!(due().await.unreadable);
        for _ in 0..2 {
            store.pull_shown(&due().await).await.unwrap();
        }
        let (kinds, milestone) = told().await;
        assert_eq!(kinds, ["pull_request_unreadable", "pull_request_readable"]);
        assert_eq!(milestone, "pull request #7 can be read again");
        assert!(!due().await.unreadable);
    }

    #[test]
    fn tags_are_read_as_they_are_written() {
        let tags = Tags {
            pull: "p".to_owned(),
            review: ReviewTags {
                reviews: "r".to_owned(),
                comments: "c".to_owned(),
            },
            checks: CheckTags(["1", "2", "3"].map(str::to_owned)),
        };
        assert_eq!(Tags::read("p".to_owned(), &tags.rest()), tags);
        assert_eq!(Tags::read(String::new(), &json!({})), Tags::default());
    }
}
