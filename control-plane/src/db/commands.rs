//! Commands to a task's worker, the words of people, milestones' positions and log chunks.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Store, attempts::sane, execute, query, query_opt};

const INSERT: &str = "\
INSERT INTO command (id, task_id, kind, payload) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING";

const PENDING: &str = "\
SELECT id, kind, payload FROM command WHERE task_id = $1 AND done_at IS NULL ORDER BY n LIMIT 100";

const DONE: &str = "UPDATE command SET done_at = clock_timestamp() WHERE id = $1 AND task_id = $2 AND done_at IS NULL";

const ALL_HEARD: &str =
    "UPDATE command SET done_at = clock_timestamp() WHERE task_id = $1 AND done_at IS NULL";

const WORD: &str =
    "INSERT INTO human_word (task_id, question, text, actor, assumed) VALUES ($1, $2, $3, $4, $5)";

const WORDS: &str =
    "SELECT question, text, at, assumed FROM human_word WHERE task_id = $1 ORDER BY n";

const ADVANCE: &str = "\
UPDATE attempt SET milestone = $2::bigint WHERE id = $1 AND milestone = $2::bigint - 1 AND state <> 'ended' RETURNING task_id";

const APPEND_LOGS: &str = "\
WITH moved AS (UPDATE task SET log_position = log_position + cardinality($3::text[]) WHERE id = $1 RETURNING log_position) \
INSERT INTO log_chunk (task_id, position, attempt, source, at, text, dropped) \
SELECT $1, moved.log_position - cardinality($3::text[]) + chunk.ordinality, $2, chunk.source, chunk.at, chunk.text, chunk.dropped \
FROM moved, unnest($3::text[], $4::timestamptz[], $5::text[], $6::bigint[]) WITH ORDINALITY \
AS chunk (source, at, text, dropped, ordinality)";

const PLAN: &str = "SELECT body FROM plan WHERE task_id = $1 AND revision = $2";

const FEEDBACK: &str = "\
SELECT text FROM inbox_item WHERE task_id = $1 AND kind = 'plan' AND state = 'resolved' AND action = 'revise'";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("commands::INSERT", INSERT),
    ("commands::PENDING", PENDING),
    ("commands::DONE", DONE),
    ("commands::ALL_HEARD", ALL_HEARD),
    ("commands::WORD", WORD),
    ("commands::WORDS", WORDS),
    ("commands::ADVANCE", ADVANCE),
    ("commands::APPEND_LOGS", APPEND_LOGS),
    ("commands::PLAN", PLAN),
    ("commands::FEEDBACK", FEEDBACK),
];

/// A command that was not applied yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Id; a repeated one is not applied again.
    pub id: Uuid,
    /// What to apply.
    pub what: Command,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Guidance to Claude.
    Say {
        /// The person's words.
        text: String,
    },
    /// Answers to a question or a blocker.
    Answer {
        /// The worker's id of the question.
        question_id: String,
        /// One for each question.
        answers: Vec<String>,
        /// Free text.
        text: String,
        /// Nobody answered: policy took what the worker recommends.
        assumed: bool,
        /// A held push may pass.
        approved: bool,
    },
}

impl Command {
    fn to_columns(&self) -> (&'static str, Value) {
        match self {
            Self::Say { text } => ("say", serde_json::json!({ "text": text })),
            Self::Answer {
                question_id,
                answers,
                text,
                assumed,
                approved,
            } => (
                "answer",
                serde_json::json!({
                    "question_id": question_id, "answers": answers, "text": text, "assumed": assumed,
                    "approved": approved,
                }),
            ),
        }
    }

    fn from_columns(kind: &str, payload: &Value) -> Self {
        let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
        if kind == "answer" {
            Self::Answer {
                question_id: text("question_id"),
                answers: payload["answers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                text: text("text"),
                assumed: payload["assumed"].as_bool().unwrap_or_default(),
                approved: payload["approved"].as_bool().unwrap_or_default(),
            }
        } else {
            Self::Say { text: text("text") }
        }
    }
}

/// Something that a person said.
#[derive(Clone, Debug)]
pub struct Word {
    /// What was asked; empty when nothing was.
    pub question: String,
    /// What they said.
    pub text: String,
    /// Nobody said it: policy took what the worker recommends.
    pub assumed: bool,
    /// When.
    pub at: Timestamp,
}

/// A piece of a worker's log.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// `agent`, `harness`, `claude` or `tool`.
    pub source: &'static str,
    /// When the agent saw it.
    pub at: Timestamp,
    /// Text.
    pub text: String,
    /// Chunks that were dropped before this one.
    pub dropped: i64,
}

/// Stores a command in the caller's transaction. False when its id was there before.
pub async fn insert(
    transaction: &Transaction<'_>,
    task: Uuid,
    id: Uuid,
    command: &Command,
) -> Result<bool, Error> {
    let (kind, payload) = command.to_columns();
    Ok(execute(
        transaction,
        "store a command",
        INSERT,
        &[&id, &task, &kind, &payload],
    )
    .await?
        > 0)
}

/// Stores what a person said in the caller's transaction.
pub async fn insert_word(
    transaction: &Transaction<'_>,
    task: Uuid,
    question: &str,
    text: &str,
    actor: &str,
    assumed: bool,
) -> Result<(), Error> {
    execute(
        transaction,
        "store a person's words",
        WORD,
        &[&task, &question, &text, &actor, &assumed],
    )
    .await
    .map(drop)
}

/// Closes all commands of a task in the caller's transaction, for a new worker: its welcome carries their words.
pub async fn all_heard(transaction: &Transaction<'_>, task: Uuid) -> Result<(), Error> {
    execute(transaction, "close a task's commands", ALL_HEARD, &[&task])
        .await
        .map(drop)
}

/// Takes a milestone's number in the caller's transaction. False when it is not the next one.
pub async fn advance(
    transaction: &Transaction<'_>,
    attempt: Uuid,
    seq: i64,
) -> Result<bool, Error> {
    Ok(query_opt(
        transaction,
        "number a milestone",
        ADVANCE,
        &[&attempt, &seq],
    )
    .await?
    .is_some())
}

impl Store {
    /// Commands that the task's worker has not applied.
    pub async fn pending_commands(&self, task: Uuid) -> Result<Vec<Pending>, Error> {
        let what = "list pending commands";
        let client = self.connection(what).await?;
        Ok(query(&client, what, PENDING, &[&task])
            .await?
            .iter()
            .map(|row| Pending {
                id: row.get("id"),
                what: Command::from_columns(row.get("kind"), &row.get("payload")),
            })
            .collect())
    }

    /// Notes that a command was applied.
    pub async fn command_done(&self, task: Uuid, id: Uuid) -> Result<(), Error> {
        let what = "note a command's end";
        let client = self.connection(what).await?;
        execute(&client, what, DONE, &[&id, &task]).await.map(drop)
    }

    /// What people said in the course of the task, oldest first.
    pub async fn human_words(&self, task: Uuid) -> Result<Vec<Word>, Error> {
        let what = "list a task's human words";
        let client = self.connection(what).await?;
        Ok(query(&client, what, WORDS, &[&task])
            .await?
            .iter()
            .map(|row| Word {
                question: row.get("question"),
                text: row.get("text"),
                assumed: row.get("assumed"),
                at: row.get("at"),
            })
            .collect())
    }

    /// The text of a plan.
    pub async fn plan_text(&self, task: Uuid, revision: u32) -> Result<Option<String>, Error> {
        let what = "read a plan";
        let client = self.connection(what).await?;
        let revision = i32::try_from(revision).unwrap_or(i32::MAX);
        Ok(query_opt(&client, what, PLAN, &[&task, &revision])
            .await?
            .map(|row| row.get("body")))
    }

    /// What a person wants changed in the newest plan; empty when nothing.
    pub async fn plan_feedback(&self, task: Uuid) -> Result<String, Error> {
        let what = "read a plan's feedback";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, FEEDBACK, &[&task])
            .await?
            .map(|row| row.get("text"))
            .unwrap_or_default())
    }

    /// Appends chunks to a task's log, in one statement.
    pub async fn append_logs(
        &self,
        task: Uuid,
        attempt: u32,
        chunks: &[Chunk],
    ) -> Result<(), Error> {
        let what = "append to a task's log";
        let client = self.connection(what).await?;
        let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
        let sources: Vec<&str> = chunks.iter().map(|chunk| chunk.source).collect();
        let times: Vec<Timestamp> = chunks.iter().map(|chunk| sane(chunk.at)).collect();
        // Postgres takes no NUL in text.
        let texts: Vec<String> = chunks
            .iter()
            .map(|chunk| chunk.text.replace('\0', "\u{fffd}"))
            .collect();
        let dropped: Vec<i64> = chunks.iter().map(|chunk| chunk.dropped).collect();
        execute(
            &client,
            what,
            APPEND_LOGS,
            &[&task, &attempt, &sources, &times, &texts, &dropped],
        )
        .await?;
        self.nudge().log_grew(task);
        Ok(())
    }
}
