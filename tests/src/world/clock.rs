//! The database's clock, by which the plane decides, and which a test can set.

use std::path::Path;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use super::database;

/// Functions of this schema are found before those of PostgreSQL. Tables still belong to `public`.
const TAKE: &str = "\
CREATE SCHEMA set_by_test;
CREATE TABLE set_by_test.clock (ahead interval NOT NULL);
INSERT INTO set_by_test.clock VALUES ('0');
CREATE FUNCTION set_by_test.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
 'SELECT pg_catalog.clock_timestamp() + ahead FROM set_by_test.clock';
CREATE FUNCTION set_by_test.now() RETURNS timestamptz LANGUAGE sql STABLE AS
 'SELECT pg_catalog.now() + ahead FROM set_by_test.clock';
ALTER ROLE mainloop SET search_path = public, set_by_test, pg_catalog";

/// A clock that goes right until it is set.
pub struct Clock(Client);

impl Clock {
    /// Takes over the clock of the private server of a data folder, for connections that are made from now on.
    pub(super) async fn take(data: &Path) -> Result<Self> {
        let client = database::connect(data).await?;
        client
            .batch_execute(TAKE)
            .await
            .context("take the clock over")?;
        Ok(Self(client))
    }

    /// Sets it so far ahead of what is right, as PostgreSQL writes an interval.
    pub async fn set_ahead(&self, interval: &str) -> Result<()> {
        let set = format!("UPDATE set_by_test.clock SET ahead = '{interval}'");
        self.0.batch_execute(&set).await.context("set the clock")
    }
}
