//! Making tasks, and starting them.

use deadpool_postgres::Transaction;
use mainloop_core::{Event, Gate, Task};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Applied, Error, Occurrence, Store, TaskRow, execute, inbox, query_one, query_opt,
    transition::{apply_in, lock_task, open_item},
};
use crate::{ids, task_columns};

const INSERT: &str = concat!(
    "INSERT INTO task (id, short_id, request_id, request_hash, created_by, repository_url, owner, name, base_ref, \
     issue_number, title, description, model, priority, labels, budget_micros, policy, unsandboxed, phase, run, wait, gate, event_seq) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 'proposed', 'idle', 'human', 'spawn', 1) \
     ON CONFLICT (created_by, request_id) DO NOTHING RETURNING ",
    task_columns!()
);

const EXISTING: &str =
    "SELECT id, request_hash FROM task WHERE created_by = $1 AND request_id = $2";

const EVENT: &str = "\
INSERT INTO event (task_id, seq, kind, text, actor, detail) VALUES ($1, 1, 'created', $2, $3, $4)";

const REFRESH_POLICY: &str = "UPDATE task SET policy = $2 WHERE id = $1 AND phase = 'proposed'";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("create::INSERT", INSERT),
    ("create::EXISTING", EXISTING),
    ("create::EVENT", EVENT),
    ("create::REFRESH_POLICY", REFRESH_POLICY),
];

/// A task to be made; its values were checked.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the migration")]
pub struct Proposal {
    pub request_id: Uuid,
    pub created_by: String,
    pub repository_url: String,
    pub owner: String,
    pub name: String,
    pub base_ref: String,
    pub issue_number: i32,
    pub title: String,
    pub description: String,
    pub model: String,
    pub priority: i32,
    pub labels: Value,
    pub budget_micros: i64,
    pub policy: Value,
    pub unsandboxed: bool,
    /// Confirmed in the same transaction.
    pub confirm: bool,
}

impl Proposal {
    /// What tells one request from another. Policy is not part of it: it is the plane's, and may change between two
    /// tries of one request.
    fn hash(&self) -> Vec<u8> {
        let content = json!([
            self.repository_url,
            self.base_ref,
            self.issue_number,
            self.title,
            self.description,
            self.model,
            self.priority,
            self.labels,
            self.budget_micros,
            self.confirm,
        ]);
        ids::hash(&content.to_string())
    }
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is a task now.
    New(Uuid),
    /// The same request had made this one.
    Existed(Uuid),
    /// The request's id was used for something else.
    Conflict(Uuid),
}

impl Store {
    /// Makes a task of a proposal, once for each request id of its caller.
    pub async fn create_task(&self, proposal: &Proposal) -> Result<Created, Error> {
        let what = "make a task";
        let hash = proposal.hash();
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let id = Uuid::now_v7();
        let inserted = query_opt(
            &transaction,
            what,
            INSERT,
            &[
                &id,
                &ids::tail(id),
                &proposal.request_id,
                &hash,
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
                &proposal.policy,
                &proposal.unsandboxed,
            ],
        )
        .await?;
        let Some(row) = inserted else {
            let row = query_one(
                &transaction,
                what,
                EXISTING,
                &[&proposal.created_by, &proposal.request_id],
            )
            .await?;
            let id = row.get("id");
            return Ok(if row.get::<_, Vec<u8>>("request_hash") == hash {
                Created::Existed(id)
            } else {
                Created::Conflict(id)
            });
        };
        let row = TaskRow::try_from(&row)?;
        debug_assert_eq!(row.task, Task::proposed());
        let actor = &proposal.created_by;
        let text = format!("proposed by {actor}");
        execute(&transaction, what, EVENT, &[&id, &text, actor, &json!({})]).await?;
        open_item(
            &transaction,
            &row,
            &Gate::Spawn,
            &Occurrence::new(Event::Confirmed, actor),
        )
        .await?;
        if proposal.confirm {
            confirm_in(&transaction, id, &proposal.policy, actor, "").await?;
        }
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(id);
        Ok(Created::New(id))
    }

    /// Starts a proposed task, under the policy of this moment.
    pub async fn confirm_task(
        &self,
        id: Uuid,
        policy: &Value,
        actor: &str,
    ) -> Result<Applied, Error> {
        let what = "confirm a task";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let applied = confirm_in(&transaction, id, policy, actor, "").await?;
        if matches!(applied, Applied::Changed(_)) {
            transaction.commit().await.map_err(Error::on(what))?;
            drop(client);
            self.nudge().task_changed(id);
        }
        Ok(applied)
    }
}

/// Confirms a task in the caller's transaction: its item is resolved, not withdrawn.
pub(super) async fn confirm_in(
    transaction: &Transaction<'_>,
    id: Uuid,
    policy: &Value,
    actor: &str,
    text: &str,
) -> Result<Applied, Error> {
    execute(
        transaction,
        "refresh a task's policy",
        REFRESH_POLICY,
        &[&id, policy],
    )
    .await?;
    let Some((task, now)) = lock_task(transaction, id).await? else {
        return Ok(Applied::Missing);
    };
    if matches!(task.task.phase, mainloop_core::Phase::Proposed) {
        inbox::resolve_open(transaction, id, inbox::Action::Approve, text, actor).await?;
    }
    apply_in(
        transaction,
        task,
        now,
        &Occurrence::new(Event::Confirmed, actor),
    )
    .await
}
