//! The limit of everything durable: one commit of a task's row and an event's, on the plane's own PostgreSQL.
//!
//! The rows go into a schema of the bench's own, on one connection, with prepared statements, as the plane writes them:
//! begin, a row, another row, commit, each a message of its own.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::world::database;

const SCHEMA: &str = "\
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS bench.task (id uuid PRIMARY KEY, state text NOT NULL, description text NOT NULL,
 updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS bench.event (task_id uuid NOT NULL, seq bigint NOT NULL, text text NOT NULL,
 at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (task_id, seq))";

const TASK: &str = "INSERT INTO bench.task (id, state, description) VALUES ($1, 'queued', $2)";

const EVENT: &str = "INSERT INTO bench.event (task_id, seq, text) VALUES ($1, 1, $2)";

/// A connection that commits.
pub(super) struct Commits {
    client: Client,
    task: Statement,
    event: Statement,
}

impl Commits {
    /// Connects to the private server of a data folder.
    pub(super) async fn on(data: &Path) -> Result<Self> {
        let client = database::connect(data).await?;
        client
            .batch_execute(SCHEMA)
            .await
            .context("make the bench's tables")?;
        let task = client.prepare(TASK).await.context("prepare a task's row")?;
        let event = client
            .prepare(EVENT)
            .await
            .context("prepare an event's row")?;
        Ok(Self {
            client,
            task,
            event,
        })
    }

    /// Commits once, and tells how long that took.
    pub(super) async fn once(&mut self) -> Result<Duration> {
        let id = Uuid::now_v7();
        let text = "x".repeat(200);
        let began = Instant::now();
        let what = "commit a task and an event";
        let transaction = self.client.transaction().await.context(what)?;
        transaction
            .execute(&self.task, &[&id, &text])
            .await
            .context(what)?;
        transaction
            .execute(&self.event, &[&id, &text])
            .await
            .context(what)?;
        transaction.commit().await.context(what)?;
        Ok(began.elapsed())
    }
}
