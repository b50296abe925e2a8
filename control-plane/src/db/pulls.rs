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

/// Takes what is due and pushes it into the future, so that another replica leaves it alone: one of each repository, and
/// none of those that are being looked at.
const DUE: &str = "\
WITH first AS (SELECT DISTINCT ON (task.owner, task.name) task_id FROM pull_watch JOIN task ON task.id = task_id \
WHERE due_at <= clock_timestamp() AND pull_number IS NOT NULL AND task.owner || '/' || task.name <> ALL ($2) \
ORDER BY task.owner, task.name, due_at), \
due AS (SELECT pull_watch.task_id FROM pull_watch JOIN first ON first.task_id = pull_watch.task_id \
WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT $3 FOR UPDATE OF pull_watch SKIP LOCKED) \
UPDATE pull_watch SET due_at = clock_timestamp() + make_interval(secs => $1 * power(2, least(pull_watch.errors, 6))) \
FROM due, task WHERE pull_watch.task_id = due.task_id AND task.id = due.task_id AND task.pull_number IS NOT NULL \
RETURNING pull_watch.task_id, pull_watch.etag, pull_watch.tags, pull_watch.seen, task.owner, task.name, task.pull_number, \
CASE WHEN task.phase = 'ready' THEN task.head_sha END AS ready, task.phase IN ('ci', 'ready') AS must_merge, \
pull_watch.unreadable";

/// Only of the pull request that the task still has.
const SEEN: &str = "\
UPDATE pull_watch SET etag = $3, tags = $4, seen = coalesce($5, seen), errors = 0 \
FROM task WHERE pull_watch.task_id = $1 AND task.id = $1 AND task.pull_number = $2";

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
    /// A conflict with the base is taken up now: it is ready, or awaits checks that do not run until then.
    pub must_merge: bool,
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
    /// At most `count` that are due to be looked at, of different repositories, without those of `busy` ones
    /// (`owner/name`); each is due again after `interval`, later where looks fail.
    pub async fn due_pulls(
        &self,
        interval: Duration,
        busy: &[String],
        count: usize,
    ) -> Result<Vec<Watched>, Error> {
        let what = "take due pull requests";
        let client = self.connection(what).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 3] = [&interval.as_secs_f64(), &busy, &count];
        Ok(query(&client, what, DUE, &parameters)
            .await?
            .iter()
            .map(|row| Watched {
                task: row.get("task_id"),
                owner: row.get("owner"),
                name: row.get("name"),
                number: u32::try_from(row.get::<_, i32>("pull_number")).unwrap_or_default(),
                ready: row.get("ready"),
                unreadable: row.get("unreadable"),
                must_merge: row.get("must_merge"),
                tags: Tags::read(row.get("etag"), &row.get("tags")),
                seen: row.get("seen"),
            })
            .collect())
    }

    /// Notes the state that was seen, with an event for each thing that people changed. Nothing where the task has
    /// another pull request by now.
    pub async fn pull_seen(
        &self,
        task: Uuid,
        number: u32,
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
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let noted = execute(
            &transaction,
            what,
            SEEN,
            &[&task, &number, &tags.pull, &tags.rest(), &seen],
        )
        .await?;
        if noted == 0 {
            return Ok(());
        }
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

    use mainloop_core::{Event, Phase, PhaseKind};

    use super::*;
    use crate::{
        db::{Applied, Occurrence},
        dispatch::tests::{live, queued, sql},
        testing,
    };

    const SOON: Duration = Duration::from_secs(30);

    /// A task with this pull request, which is watched.
    async fn with_pull(store: &Store, repository: &str, number: u32) -> Uuid {
        let task = queued(store, repository, 0).await;
        has_pull(store, task, number).await;
        task
    }

    async fn has_pull(store: &Store, task: Uuid, number: u32) {
        sql(
            store,
            &format!(
                "UPDATE task SET phase = 'ready', run = 'idle', plan_revision = 1, plan_hash = 'h', plan_approved = true, \
                 head_sha = 'aaa', green_sha = 'aaa', pull_number = {number} WHERE id = '{task}'; \
                 DELETE FROM pull_watch WHERE task_id = '{task}'; INSERT INTO pull_watch (task_id) VALUES ('{task}')"
            ),
        )
        .await;
    }

    #[tokio::test]
    async fn one_of_each_repository_is_taken_and_none_of_one_that_is_busy() {
        let store = testing::store().await;
        let first = with_pull(&store, "one", 1).await;
        let second = with_pull(&store, "one", 2).await;
        let other = with_pull(&store, "other", 1).await;
        sql(
            &store,
            &format!(
                "UPDATE pull_watch SET due_at = due_at - interval '1 minute' WHERE task_id = '{first}'"
            ),
        )
        .await;
        let take = async |busy: &[&str], count| {
            let busy: Vec<String> = busy.iter().map(|name| format!("acme/{name}")).collect();
            let due = store.due_pulls(SOON, &busy, count).await.unwrap();
            due.iter().map(|one| one.task).collect::<Vec<_>>()
        };
        assert_eq!(take(&["one"], 8).await, [other]);
        assert!(take(&["other"], 0).await.is_empty());
        assert_eq!(take(&[], 8).await, [first], "the one that is due longest");
        assert!(take(&["one"], 8).await.is_empty());
        assert_eq!(take(&[], 8).await, [second]);
        assert!(take(&[], 8).await.is_empty());
    }

    #[tokio::test]
    async fn a_look_at_the_pull_request_of_an_older_branch_changes_nothing() {
        let store = testing::store().await;
        let task = with_pull(&store, "one", 7).await;
        let stale = store.due_pulls(SOON, &[], 8).await.unwrap().remove(0);
        has_pull(&store, task, 8).await;

        let event = Event::PullClosed { pull: stale.number };
        let occurrence = Occurrence::new(event, "github");
        let applied = store.apply(task, &occurrence).await.unwrap();
        assert!(matches!(applied, Applied::Ignored { .. }), "{applied:?}");
        let tags = Tags {
            pull: "of 7".to_owned(),
            ..Tags::default()
        };
        let change = Change {
            kind: "pull_request_edited",
            text: "edited".to_owned(),
        };
        store
            .pull_seen(task, stale.number, &tags, Some(&json!({})), &[change])
            .await
            .unwrap();
        let now = store.task_for_link(task).await.unwrap().unwrap();
        assert_eq!(now.task.phase, Phase::Ready);
        let seen = store.due_pulls(SOON, &[], 8).await.unwrap().remove(0);
        assert_eq!((seen.number, &seen.tags), (8, &Tags::default()));
        assert_eq!(seen.seen, None);
        let kinds = store.events(task, 0, i64::MAX, 100).await.unwrap();
        assert!(
            kinds
                .iter()
                .all(|event| event.kind != "pull_request_edited")
        );

        store
            .pull_seen(task, 8, &tags, Some(&json!({})), &[])
            .await
            .unwrap();
        sql(&store, "UPDATE pull_watch SET due_at = now()").await;
        let seen = store.due_pulls(SOON, &[], 8).await.unwrap().remove(0);
        assert_eq!(seen.tags, tags);
        let merged = Occurrence::new(Event::PullMerged { pull: 8 }, "github");
        store.apply(task, &merged).await.unwrap();
        let now = store.task_for_link(task).await.unwrap().unwrap();
        assert_eq!(now.task.phase.kind(), PhaseKind::Completed);
    }

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
            let mut due = store.due_pulls(SOON, &[], 8).await.unwrap();
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
