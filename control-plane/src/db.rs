//! The store: Postgres is the only place where the state of tasks lives.
//!
//! Every statement is a constant beside the one function that runs it. No transaction stays open across an await on
//! anything but Postgres. Notifications go out after the commit and are only nudges: whoever misses one polls.

pub mod attempts;
pub mod claims;
pub mod commands;
pub mod create;
pub mod events;
pub mod holds;
pub mod inbox;
pub mod lease;
pub mod limits;
pub mod logs;
pub mod migrate;
pub mod nudge;
pub mod pool;
pub mod pulls;
pub mod read;
pub mod reviews;
pub mod rows;
pub mod say;
pub mod tidying;
pub mod tokens;
pub mod transition;
pub mod words;

use deadpool_postgres::GenericClient;
use thiserror::Error;
use tokio_postgres::{Row, error::SqlState, types::ToSql};

pub use nudge::Nudge;
pub use pool::Store;
pub use rows::TaskRow;
pub use transition::{Applied, Facts, Item, Occurrence};

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// No connection within the time limit.
    #[error("no database connection to {what}")]
    Pool {
        /// What it was for.
        what: &'static str,
        /// Why.
        #[source]
        source: deadpool_postgres::PoolError,
    },
    /// The server refused or broke off.
    #[error("could not {what}")]
    Postgres {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A row does not read as what it should be.
    #[error("column {column} of {table} holds {value:?}, which this version does not know")]
    Row {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
    /// The schema could not be brought up to date.
    #[error("could not migrate the database")]
    Migrate(#[source] refinery::Error),
    /// The data was written by a newer version.
    #[error(
        "the database has schema version {found}, this program knows {known}: use a newer mainloop"
    )]
    Newer {
        /// Version in the database.
        found: i32,
        /// Newest version that this program has.
        known: i32,
    },
}

impl Error {
    /// Names what was attempted.
    pub fn on(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Postgres { what, source }
    }

    /// Whether the database's disk has no room: nothing was stored, and nothing is lost.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Postgres { source, .. } if source.code() == Some(&SqlState::DISK_FULL))
    }

    /// Whether the server refuses the values themselves, and will do so every time.
    pub fn is_bad_value(&self) -> bool {
        match self {
            Self::Postgres { source, .. } => source
                .code()
                .is_some_and(|state| state.code().starts_with("22")),
            Self::Pool { .. } | Self::Row { .. } | Self::Migrate(_) | Self::Newer { .. } => false,
        }
    }

    /// Whether the whole transaction may simply be run again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Postgres { source, .. } => {
                source.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
                    || source.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)
                    || source.is_closed()
            }
            Self::Pool { .. } => true,
            Self::Row { .. } | Self::Migrate(_) | Self::Newer { .. } => false,
        }
    }
}

/// All statements by name, for the test that prepares them.
pub fn statements() -> Vec<(&'static str, &'static str)> {
    [
        attempts::STATEMENTS,
        claims::STATEMENTS,
        commands::STATEMENTS,
        create::STATEMENTS,
        events::STATEMENTS,
        holds::STATEMENTS,
        inbox::STATEMENTS,
        lease::STATEMENTS,
        logs::STATEMENTS,
        pulls::STATEMENTS,
        read::STATEMENTS,
        reviews::STATEMENTS,
        say::STATEMENTS,
        tidying::STATEMENTS,
        tokens::STATEMENTS,
        transition::STATEMENTS,
    ]
    .concat()
}

/// Runs a statement that returns no rows; how many it touched.
pub async fn execute(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, Error> {
    let statement = client.prepare_cached(sql).await.map_err(Error::on(what))?;
    client
        .execute(&statement, parameters)
        .await
        .map_err(Error::on(what))
}

/// Runs a statement that returns exactly one row.
pub async fn query_one(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Row, Error> {
    let statement = client.prepare_cached(sql).await.map_err(Error::on(what))?;
    client
        .query_one(&statement, parameters)
        .await
        .map_err(Error::on(what))
}

/// Runs a statement that returns at most one row.
pub async fn query_opt(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Error> {
    let statement = client.prepare_cached(sql).await.map_err(Error::on(what))?;
    client
        .query_opt(&statement, parameters)
        .await
        .map_err(Error::on(what))
}

/// Runs a statement that returns rows.
pub async fn query(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(sql).await.map_err(Error::on(what))?;
    client
        .query(&statement, parameters)
        .await
        .map_err(Error::on(what))
}

#[cfg(test)]
mod tests;
