//! Proposals: made once per request id, and confirmed in the same transaction when a person says so.

use mainloop_core::{Event, Gate, Task};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{
    Error, Occurrence, Store, TaskRow, execute, inbox, query_opt,
    read::{self, Seen},
    transition::{append_event, apply_in, lock_task, open_item},
};
use crate::{ids, task_columns};

const INSERT: &str = concat!(
    "INSERT INTO task (id, short_id, request_id, request_hash, created_by, repository_url, owner, name, base_ref, issue_number, \
     title, description, model, priority, labels, budget_micros, policy, unsandboxed, phase, run, wait, gate) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 'proposed', 'idle', 'human', 'spawn') \
     ON CONFLICT (created_by, request_id) DO NOTHING RETURNING ",
    task_columns!()
);

const MADE_BEFORE: &str =
    "SELECT id, request_hash FROM task WHERE created_by = $1 AND request_id = $2";

const SNAPSHOT: &str = "UPDATE task SET policy = $2, unsandboxed = $3 WHERE id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("create::INSERT", INSERT),
    ("create::MADE_BEFORE", MADE_BEFORE),
    ("create::SNAPSHOT", SNAPSHOT),
];

/// A proposal, complete and checked.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The caller's id of the request.
    pub request_id: Uuid,
    /// SHA-256 of what was asked.
    pub request_hash: Vec<u8>,
    /// Who asks.
    pub created_by: String,
    /// `https://host/owner/name`.
    pub repository_url: String,
    /// Account or organisation.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
    /// Branch to start from; empty for the default branch.
    pub base_ref: String,
    /// Issue or pull request to start from; 0 for none.
    pub issue_number: i32,
    /// One line.
    pub title: String,
    /// What is to be done.
    pub description: String,
    /// Model alias or name.
    pub model: String,
    /// -100 to 100.
    pub priority: i32,
    /// A JSON object of strings.
    pub labels: Value,
    /// What it may cost.
    pub budget_micros: i64,
    /// Starts it in the same transaction.
    pub confirm: bool,
}

/// What a task takes from the policy when it is proposed, and again when it is confirmed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Limits, models and what the worker needs.
    pub policy: Value,
    /// The worker runs without the sandbox.
    pub unsandboxed: bool,
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub enum Created {
    /// The task is new.
    New(Box<Seen>),
    /// The same request made it before.
    Existed(Box<Seen>),
    /// The request id was used for something else.
    Differs,
}

impl Store {
    /// Makes a proposal, or finds the one that the same request made.
    pub async fn create_task(
        &self,
        proposal: &Proposal,
        snapshot: &Snapshot,
    ) -> Result<Created, Error> {
        let mut attempts = 0;
        loop {
            match self.try_create(proposal, snapshot).await {
                Err(error) if attempts < 5 && (error.is_transient() || same_tail(&error)) => {
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    async fn try_create(&self, proposal: &Proposal, snapshot: &Snapshot) -> Result<Created, Error> {
        let what = "create a task";
        let id = Uuid::now_v7();
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let inserted = query_opt(
            &transaction,
            what,
            INSERT,
            &[
                &id,
                &ids::tail(id),
                &proposal.request_id,
                &proposal.request_hash,
                &proposal.created_by,
                &proposal.repository_url,
                &proposal.owner,
                &proposal.name,
                &proposal.base_ref,
                &proposal.issue_number,
                &proposal.title,
                &proposal.description,
                &proposal.model,
                &proposal.priority,
                &proposal.labels,
                &proposal.budget_micros,
                &snapshot.policy,
                &snapshot.unsandboxed,
            ],
        )
        .await?;
        let Some(inserted) = inserted else {
            let made = query_opt(
                &transaction,
                what,
                MADE_BEFORE,
                &[&proposal.created_by, &proposal.request_id],
            )
            .await?;
            let Some(made) = made else {
                return Ok(Created::Differs);
            };
            if made.get::<_, Vec<u8>>("request_hash") != proposal.request_hash {
                return Ok(Created::Differs);
            }
            let seen = read::by_id(&transaction, made.get("id")).await?;
            return Ok(seen.map_or(Created::Differs, |seen| Created::Existed(Box::new(seen))));
        };
        let row = TaskRow::try_from(&inserted)?;
        debug_assert_eq!(row.task, Task::proposed());
        append_event(
            &transaction,
            id,
            "created",
            "proposed",
            &proposal.created_by,
            0,
            &json!({}),
            false,
        )
        .await?;
        // What opens a proposal's item is no event of the workflow; the item says what the task says.
        let opening = Occurrence::new(Event::Confirmed, &proposal.created_by);
        open_item(&transaction, &row, &Gate::Spawn, &opening).await?;
        if proposal.confirm
            && let Some((row, now)) = lock_task(&transaction, id).await?
        {
            inbox::close(
                &transaction,
                id,
                mainloop_core::Choice::Approve,
                "",
                &proposal.created_by,
            )
            .await?;
            let confirmed = Occurrence::new(Event::Confirmed, &proposal.created_by);
            apply_in(&transaction, row, now, &confirmed).await?;
        }
        let seen = read::by_id(&transaction, id).await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(id);
        // A row that was inserted in this transaction can be read in it.
        Ok(seen.map_or(Created::Differs, |seen| Created::New(Box::new(seen))))
    }
}

/// Takes the policy as it is now into a locked task.
pub(super) async fn take_snapshot(
    transaction: &deadpool_postgres::Transaction<'_>,
    row: &mut TaskRow,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    execute(
        transaction,
        "snapshot the policy",
        SNAPSHOT,
        &[&row.id, &snapshot.policy, &snapshot.unsandboxed],
    )
    .await?;
    row.policy.clone_from(&snapshot.policy);
    row.unsandboxed = snapshot.unsandboxed;
    Ok(())
}

/// Two ids in billions have the same tail; another id has another one.
fn same_tail(error: &Error) -> bool {
    let Error::Postgres { source, .. } = error else {
        return false;
    };
    source.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && source.as_db_error().and_then(|error| error.constraint()) == Some("task_short_id_key")
}
