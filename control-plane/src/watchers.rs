//! Carries nudges between replicas over Postgres: `NOTIFY` for what changed here, `LISTEN` for what changed elsewhere.
//!
//! Nothing depends on a notification: whoever misses one polls. So a lost connection costs a poll interval, and a
//! burst is folded into one notification per task.

use std::{collections::HashSet, future::poll_fn, pin::pin, time::Duration};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{Error, Store, query},
    errors,
};

/// Wait after the first failure to connect; doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

const LISTEN: &str = "LISTEN task_changed";

/// The payload is the task and who says so: a replica knows its own changes before it hears of them.
const NOTIFY: &str = "\
SELECT pg_notify('task_changed', id::text || ' ' || $2::text) FROM unnest($1::uuid[]) AS id";

/// All statements of this file that are prepared.
pub const STATEMENTS: &[(&str, &str)] = &[("watchers::NOTIFY", NOTIFY)];

/// Hears of changes until `stop`, and connects again whenever the connection ends.
pub async fn listen(store: Store, stop: CancellationToken) {
    let mut wait = BACKOFF;
    loop {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = listen_once(&store, &mut wait) => result,
        };
        match result {
            Ok(()) => tracing::warn!("the listening connection ended; connecting again"),
            Err(error) => tracing::warn!(
                error = errors::chain(&error),
                "could not listen to the database; trying again"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACKOFF_MAX),
        }
    }
}

/// Listens on one connection until it ends.
async fn listen_once(store: &Store, wait: &mut Duration) -> Result<(), Error> {
    let (client, mut connection) = store.listen_connection().await?;
    let mut listening = pin!(client.batch_execute(LISTEN));
    let mut ready = false;
    loop {
        // The connection must be driven for the statement to get through.
        let message = tokio::select! {
            result = &mut listening, if !ready => {
                result.map_err(Error::on("listen to the database"))?;
                ready = true;
                *wait = BACKOFF;
                // What changed before was not heard: the loops look once.
                store.nudge().dispatch().notify_one();
                store.nudge().launcher().notify_one();
                continue;
            }
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some((id, origin)) = notification.payload().split_once(' ')
                    && origin != store.nudge().origin()
                    && let Ok(id) = id.parse::<Uuid>()
                {
                    store.nudge().heard(id);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Error::on("listen to the database")(error)),
            None => return Ok(()),
        }
    }
}

/// Tells other replicas of what changed here, until `stop`. All that came up in the meantime goes out together.
pub async fn notify(store: Store, stop: CancellationToken) {
    let mut outgoing = store.nudge().outgoing();
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            first = outgoing.recv() => first,
        };
        let mut ids = match first {
            Ok(id) => HashSet::from([id]),
            // What was lost is found by polling.
            Err(RecvError::Lagged(_)) => HashSet::new(),
            Err(RecvError::Closed) => return,
        };
        loop {
            match outgoing.try_recv() {
                Ok(id) => {
                    ids.insert(id);
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let ids: Vec<Uuid> = ids.into_iter().collect();
        if let Err(error) = send(&store, &ids).await {
            tracing::debug!(
                error = errors::chain(&error),
                "could not notify other replicas"
            );
        }
    }
}

async fn send(store: &Store, ids: &[Uuid]) -> Result<(), Error> {
    let what = "notify other replicas";
    let client = store.connection(what).await?;
    query(&client, what, NOTIFY, &[&ids, &store.nudge().origin()])
        .await
        .map(drop)
}
