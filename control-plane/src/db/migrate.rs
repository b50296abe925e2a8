//! Brings the schema up to date, forward only, one replica at a time.

use deadpool_postgres::{ClientWrapper, Object};

use super::{Error, Store};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// A migration, and the wait for another replica's, take as long as they take.
const UNLIMITED: &str = "SET statement_timeout = 0";
/// Held while migrating, so that two replicas that start together do not both try. It ends with the session.
const LOCK: &str = "SELECT pg_advisory_lock(7224210)";

/// Applies what is missing; refuses data of a newer version.
pub async fn migrate(store: &Store) -> Result<(), Error> {
    let mut session = session(store).await?;
    session
        .batch_execute(LOCK)
        .await
        .map_err(Error::on("lock the schema"))?;
    run(&mut session).await
}

/// A session without a limit on statements, which never goes back to the pool.
async fn session(store: &Store) -> Result<ClientWrapper, Error> {
    let what = "migrate the database";
    let session = Object::take(store.connection(what).await?);
    session
        .batch_execute(UNLIMITED)
        .await
        .map_err(Error::on(what))?;
    Ok(session)
}

async fn run(client: &mut tokio_postgres::Client) -> Result<(), Error> {
    let runner = embedded::migrations::runner();
    let known = runner
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0);
    let applied = runner
        .get_last_applied_migration_async(client)
        .await
        .ok()
        .flatten();
    if let Some(found) = applied.map(|migration| migration.version())
        && found > known
    {
        return Err(Error::Newer { found, known });
    }
    runner
        .set_abort_divergent(true)
        .run_async(client)
        .await
        .map(drop)
        .map_err(Error::Migrate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainloop_core::Timer;
    use refinery::Target;

    use super::{embedded, migrate, session};
    use crate::{db::Store, dispatch::tests::sql};

    #[tokio::test]
    async fn migrations_have_no_time_limit_and_leave_the_pool_with_its_own() {
        let store = crate::testing::store().await;
        let limit = async |client: &tokio_postgres::Client| -> String {
            let row = client.query_one("SHOW statement_timeout", &[]).await;
            row.unwrap().get(0)
        };
        assert_eq!(limit(&session(&store).await.unwrap()).await, "0");
        let pooled = store.connection("look").await.unwrap();
        assert_eq!(limit(&pooled).await, "30s");
    }

    /// A database as version 8 left it.
    async fn at_eight() -> Store {
        let store = crate::testing::empty_store().await;
        let mut session = session(&store).await.unwrap();
        embedded::migrations::runner()
            .set_target(Target::Version(8))
            .run_async(&mut *session)
            .await
            .unwrap();
        store
    }

    #[tokio::test]
    async fn pull_requests_from_before_are_watched_and_reminders_are_known() {
        let store = at_eight().await;
        sql(
            &store,
            "INSERT INTO task (id, short_id, request_id, request_hash, created_by, repository_url, owner, name, base_ref, \
             title, description, model, priority, budget_micros, policy, phase, run, wait, gate, gate_ref, timer_at, \
             timer_kind, plan_revision, plan_hash, plan_approved, pull_number, settled_at, asked_at, reminded, recommends) \
             SELECT gen_random_uuid(), n::text, gen_random_uuid(), '', 'ada', '', 'ada', 'calc', '', '', '', '', 0, 1, '{}', \
             phase, 'idle', wait, gate, ref, CASE WHEN wait = 'human' THEN '2030-01-01'::timestamptz END, \
             CASE WHEN wait = 'human' THEN 'assume' END, 1, 'h', true, pull, \
             CASE WHEN phase = 'cancelled' THEN now() END, CASE WHEN wait = 'human' THEN now() END, wait = 'human', \
             wait = 'human' FROM (VALUES (1, 'implementing', 'human', 'question', 'q', 7), \
             (2, 'implementing', 'human', 'question', 'q', NULL), (3, 'cancelled', 'none', NULL, NULL, 9)) \
             AS old (n, phase, wait, gate, ref, pull)",
        )
        .await;
        migrate(&store).await.unwrap();
        let watched = store
            .due_pulls(std::time::Duration::from_secs(1), &[], 8)
            .await
            .unwrap();
        let numbers: Vec<u32> = watched.iter().map(|one| one.number).collect();
        assert_eq!(numbers, [7]);
        let task = store.task_for_link(watched[0].task).await.unwrap().unwrap();
        assert!(task.task.asked.unwrap().reminded.is_some());
        assert!(matches!(task.timer, Some(Timer::Assume(_))));
    }
}
