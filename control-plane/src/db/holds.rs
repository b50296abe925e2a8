//! Credentials that are held: while a limit lasts, or until a person has mended them, no task is started that needs
//! one. When a limit is over one task tries first, and the others follow when it got through.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use mainloop_core::{Credential, Failure, Reason};
use uuid::Uuid;

use super::{Error, Store, execute, query};

/// A later word about the same credential counts; what waits for a person waits on.
const HOLD: &str = "\
INSERT INTO hold (credential, reason, why, task_id, until) VALUES ($1, $2, $3, $4, $5) \
ON CONFLICT (credential) DO UPDATE SET reason = excluded.reason, why = excluded.why, task_id = excluded.task_id, \
since = clock_timestamp(), until = excluded.until, trial = NULL WHERE hold.until IS NOT NULL OR excluded.until IS NULL";

const RELEASE: &str = "DELETE FROM hold WHERE credential = $1";

const GOT_THROUGH: &str = "DELETE FROM hold WHERE trial = $1";

const TRY: &str = "UPDATE hold SET trial = $2 WHERE credential = $1";

/// One that is over is closed while the task that tries it is at work.
const LIST: &str = "\
SELECT credential, reason, why, hold.until, (hold.until IS NULL OR hold.until > clock_timestamp() \
OR coalesce(task.run IN ('starting', 'live'), false)) AS closed \
FROM hold LEFT JOIN task ON task.id = hold.trial ORDER BY credential";

const RELEASE_MENDED: &str = "DELETE FROM hold WHERE until IS NULL";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("holds::HOLD", HOLD),
    ("holds::RELEASE", RELEASE),
    ("holds::GOT_THROUGH", GOT_THROUGH),
    ("holds::TRY", TRY),
    ("holds::LIST", LIST),
    ("holds::RELEASE_MENDED", RELEASE_MENDED),
];

/// A credential that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which.
    pub credential: Credential,
    /// Why.
    pub reason: Reason,
    /// What the service said.
    pub why: String,
    /// When the limit is over; unset until a person says that it is mended.
    pub until: Option<Timestamp>,
    /// Nothing that needs it is started; otherwise one task may try.
    pub closed: bool,
}

/// Holds a credential for what a task met.
pub(super) async fn hold(
    transaction: &Transaction<'_>,
    credential: Credential,
    task: Uuid,
    failure: &Failure,
    until: Option<Timestamp>,
) -> Result<(), Error> {
    execute(
        transaction,
        "hold a credential",
        HOLD,
        &[
            &credential.word(),
            &failure.reason.word(),
            &failure.message,
            &task,
            &until,
        ],
    )
    .await
    .map(drop)
}

/// A person says that it is mended.
pub(super) async fn release(
    transaction: &Transaction<'_>,
    credential: Credential,
) -> Result<(), Error> {
    execute(
        transaction,
        "release a credential",
        RELEASE,
        &[&credential.word()],
    )
    .await
    .map(drop)
}

/// The task that tried whether a limit is over got through.
pub(super) async fn got_through(transaction: &Transaction<'_>, task: Uuid) -> Result<(), Error> {
    execute(transaction, "release a credential", GOT_THROUGH, &[&task])
        .await
        .map(drop)
}

/// This task tries whether the limit is over.
pub(super) async fn try_with(
    transaction: &Transaction<'_>,
    credential: Credential,
    task: Uuid,
) -> Result<(), Error> {
    execute(
        transaction,
        "try a held credential",
        TRY,
        &[&credential.word(), &task],
    )
    .await
    .map(drop)
}

/// All that are held.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Hold>, Error> {
    query(client, "list held credentials", LIST, &[])
        .await?
        .iter()
        .map(|row| {
            let unknown = |column: &'static str, value: &str| Error::Row {
                table: "hold",
                column,
                value: value.to_owned(),
            };
            let credential: &str = row.get("credential");
            let reason: &str = row.get("reason");
            Ok(Hold {
                credential: Credential::ALL
                    .into_iter()
                    .find(|known| known.word() == credential)
                    .ok_or_else(|| unknown("credential", credential))?,
                reason: Reason::of_word(reason).ok_or_else(|| unknown("reason", reason))?,
                why: row.get("why"),
                until: row.get("until"),
                closed: row.get("closed"),
            })
        })
        .collect()
}

impl Store {
    /// Credentials that are held.
    pub async fn holds(&self) -> Result<Vec<Hold>, Error> {
        list(&self.connection("list held credentials").await?).await
    }

    /// Holds a credential for a limit that somebody else than a worker met, of which `task` was looked at.
    pub async fn hold_until(
        &self,
        credential: Credential,
        task: Uuid,
        failure: &Failure,
        until: Timestamp,
    ) -> Result<(), Error> {
        let what = "hold a credential";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        hold(&transaction, credential, task, failure, Some(until)).await?;
        transaction.commit().await.map_err(Error::on(what))
    }

    /// Releases what waited for a person: a plane that starts was given its credentials anew.
    pub async fn release_mended(&self) -> Result<(), Error> {
        let what = "release credentials";
        let client = self.connection(what).await?;
        execute(&client, what, RELEASE_MENDED, &[]).await.map(drop)
    }
}
