//! Brings the schema up to date, forward only, one replica at a time.

use super::{Error, Store};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Held while migrating, so that two replicas that start together do not both try.
const LOCK: &str = "SELECT pg_advisory_lock(7224210)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(7224210)";

/// Applies what is missing; refuses data of a newer version.
pub async fn migrate(store: &Store) -> Result<(), Error> {
    let mut client = store.connection("migrate the database").await?;
    client
        .batch_execute(LOCK)
        .await
        .map_err(Error::on("lock the schema"))?;
    let result = run(&mut client).await;
    client
        .batch_execute(UNLOCK)
        .await
        .map_err(Error::on("unlock the schema"))?;
    result
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
