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

    use super::session;

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
}
