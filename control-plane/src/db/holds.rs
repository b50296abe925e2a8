//! Credentials that are held: while a limit lasts, or until a person has mended them, no task is started that needs
//! one. When a limit is over one task tries first, and the others follow when it got through.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use mainloop_core::{Credential, Failure, Reason, Task};
use uuid::Uuid;

use super::{Error, Store, claims::needs, execute, query, transition::lock_task};

/// A later word about the same credential counts; what waits for a person waits on.
const HOLD: &str = "\
INSERT INTO hold (credential, reason, why, task_id, until) VALUES ($1, $2, $3, $4, $5) \
ON CONFLICT (credential) DO UPDATE SET reason = excluded.reason, why = excluded.why, task_id = excluded.task_id, \
since = clock_timestamp(), until = excluded.until, trial = NULL WHERE hold.until IS NOT NULL OR excluded.until IS NULL";

const RELEASE: &str = "DELETE FROM hold WHERE credential = $1";

const GOT_THROUGH: &str = "DELETE FROM hold WHERE trial = $1";

/// The model did what the newest worker of a task asked.
const MODEL_ANSWERED: &str = "\
DELETE FROM hold USING attempt JOIN task ON task.id = attempt.task_id AND task.attempt = attempt.n \
WHERE attempt.id = $1 AND hold.trial = task.id AND hold.credential = 'model'";

const TRY: &str = "UPDATE hold SET trial = $2 WHERE credential = $1";

/// The task `task` that tries a hold met no limit for longer than Claude asks again by itself, or only waits for a person.
macro_rules! passed {
    () => {
        "(task.run = 'live' AND coalesce(task.step_at < clock_timestamp() - interval '4 minutes', true))"
    };
}

/// One that is over is closed while the task that tries it may still meet the limit.
const LIST: &str = concat!(
    "SELECT credential, reason, why, hold.until, coalesce(hold.until <= clock_timestamp(), false) AS over, \
     (hold.until IS NULL OR hold.until > clock_timestamp() \
     OR coalesce(task.run IN ('starting', 'live') AND NOT ",
    passed!(),
    ", false)) AS closed FROM hold LEFT JOIN task ON task.id = hold.trial ORDER BY credential"
);

const PASSED: &str = concat!(
    "DELETE FROM hold USING task WHERE task.id = hold.trial AND hold.until <= clock_timestamp() AND ",
    passed!()
);

const TRY_AT_ONCE: &str = "\
UPDATE hold SET until = least(until, clock_timestamp()), trial = NULL WHERE credential = $1 AND until IS NOT NULL";

/// Those who met the limits: where nobody else is queued, they try.
const WAKE: &str = "\
UPDATE task SET timer_at = least(timer_at, clock_timestamp()), wait_until = least(wait_until, clock_timestamp()), \
version = version + 1, updated_at = clock_timestamp() \
FROM hold WHERE hold.task_id = task.id AND hold.until > clock_timestamp() AND task.wait = 'until'";

const TRY_ALL: &str = "\
UPDATE hold SET until = least(until, clock_timestamp()), trial = NULL WHERE until IS NOT NULL";

const RELEASE_MENDED: &str = "DELETE FROM hold WHERE until IS NULL";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("holds::HOLD", HOLD),
    ("holds::RELEASE", RELEASE),
    ("holds::GOT_THROUGH", GOT_THROUGH),
    ("holds::MODEL_ANSWERED", MODEL_ANSWERED),
    ("holds::TRY", TRY),
    ("holds::LIST", LIST),
    ("holds::PASSED", PASSED),
    ("holds::TRY_AT_ONCE", TRY_AT_ONCE),
    ("holds::WAKE", WAKE),
    ("holds::TRY_ALL", TRY_ALL),
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
    /// The limit is over as far as is known: one task tries, or may.
    pub over: bool,
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

/// The model answered this attempt: if its task tried whether a limit is over, it is.
pub(super) async fn model_answered(
    client: &impl GenericClient,
    attempt: Uuid,
) -> Result<(), Error> {
    execute(client, "release a credential", MODEL_ANSWERED, &[&attempt])
        .await
        .map(drop)
}

/// Tasks that try whether a limit is over and met none for a while got through.
pub(super) async fn passed(client: &impl GenericClient) -> Result<(), Error> {
    execute(client, "release credentials", PASSED, &[])
        .await
        .map(drop)
}

/// A person does not wait for the end of the limits that this task needs: the next one that is started tries. What
/// waits for a person waits on.
pub(super) async fn try_at_once(transaction: &Transaction<'_>, task: &Task) -> Result<(), Error> {
    for hold in list(transaction).await? {
        if needs(task, hold.credential) {
            execute(
                transaction,
                "try a held credential at once",
                TRY_AT_ONCE,
                &[&hold.credential.word()],
            )
            .await?;
        }
    }
    Ok(())
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
                over: row.get("over"),
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
        // A task is locked before a hold, here as in every transition.
        lock_task(&transaction, task).await?;
        hold(&transaction, credential, task, failure, Some(until)).await?;
        transaction.commit().await.map_err(Error::on(what))
    }

    /// A plane that starts was given its credentials anew: what waited for a person is released, and whether the
    /// limits are over is tried at once.
    pub async fn release_holds(&self) -> Result<(), Error> {
        let what = "release credentials";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        for statement in [WAKE, TRY_ALL, RELEASE_MENDED] {
            execute(&transaction, what, statement, &[]).await?;
        }
        transaction.commit().await.map_err(Error::on(what))
    }
}

#[cfg(test)]
mod tests;
