//! A replica's lease, and what its gaps and steps of the clock do to timers.
//!
//! All times are by the database's clock. A step forward looks like a sleep: the lease has lapsed. A step back would leave
//! every timer as much later, so that all of them are moved with it.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Error, Store, execute, query_one};

/// A step back of less than this moves nothing: every timer may be so much later. In seconds.
const STEP: f64 = 5.0;

/// One replica at a time, so that a step is met once.
const BACK: &str = "SELECT extract(epoch FROM clock.seen - clock_timestamp())::float8 AS back FROM clock FOR UPDATE";

const SEEN: &str = "UPDATE clock SET seen = clock_timestamp()";

/// What is compared with the clock. Between the step and its notice a task may have changed: since when it was asked or busy
/// is not in the future then, and its timer stays. A wait or a limit that ends too early is one try more.
const MOVE_BACK: [&str; 5] = [
    "UPDATE task SET timer_at = CASE WHEN timer_kind = 'wait' OR CASE timer_kind WHEN 'deadline' THEN busy_since \
     ELSE coalesce(reminded_at, asked_at) END > clock_timestamp() THEN timer_at - make_interval(secs => $1) ELSE timer_at END, \
     wait_until = wait_until - make_interval(secs => $1), busy_since = least(busy_since, clock_timestamp()), \
     asked_at = least(asked_at, clock_timestamp()), reminded_at = least(reminded_at, clock_timestamp()), \
     step_at = least(step_at, clock_timestamp()), queued_at = least(queued_at, clock_timestamp()), \
     version = version + 1, updated_at = clock_timestamp() WHERE settled_at IS NULL",
    "UPDATE replica SET started_at = least(started_at, clock_timestamp()), lease_until = lease_until - make_interval(secs => $1)",
    "UPDATE hold SET until = until - make_interval(secs => $1)",
    "UPDATE pull_watch SET due_at = due_at - make_interval(secs => $1)",
    "UPDATE tidying SET due_at = due_at - make_interval(secs => $1)",
];

const LOST_BY_NOW: &str =
    "UPDATE attempt SET lost_at = least(lost_at, clock_timestamp()) WHERE state <> 'ended'";

/// `away` is how long the lease had lapsed, in seconds: below zero when it had not.
const HOLD: &str = "\
WITH before AS (SELECT lease_until FROM replica WHERE id = $1), \
held AS (INSERT INTO replica (id, host_id, lease_until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) \
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until, \
started_at = CASE WHEN replica.lease_until < clock_timestamp() THEN clock_timestamp() ELSE replica.started_at END \
RETURNING started_at) \
SELECT held.started_at, before.lease_until AS lapsed_at, \
extract(epoch FROM held.started_at - before.lease_until)::float8 AS away FROM held LEFT JOIN before ON true";

/// Nobody was away while another replica was there. What changed since the lease lapsed has left that time out itself.
const DEADLINES_LATER: &str = "\
UPDATE task SET timer_at = timer_at + make_interval(secs => $1), busy_since = busy_since + make_interval(secs => $1), \
version = version + 1, updated_at = clock_timestamp() \
WHERE timer_kind = 'deadline' AND busy_since <= $3 AND NOT EXISTS (\
SELECT 1 FROM replica WHERE id <> $2 AND lease_until > clock_timestamp())";

const DROP: &str = "DELETE FROM replica WHERE id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("lease::BACK", BACK),
    ("lease::SEEN", SEEN),
    ("lease::MOVE_BACK[0]", MOVE_BACK[0]),
    ("lease::MOVE_BACK[1]", MOVE_BACK[1]),
    ("lease::MOVE_BACK[2]", MOVE_BACK[2]),
    ("lease::MOVE_BACK[3]", MOVE_BACK[3]),
    ("lease::MOVE_BACK[4]", MOVE_BACK[4]),
    ("lease::LOST_BY_NOW", LOST_BY_NOW),
    ("lease::HOLD", HOLD),
    ("lease::DEADLINES_LATER", DEADLINES_LATER),
    ("lease::DROP", DROP),
];

/// A lease that is held.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Since when, without a gap.
    pub since: Timestamp,
    /// How long it had lapsed until now, in seconds, by which deadlines were moved unless another replica was there;
    /// unset when it had not, or is new.
    pub away: Option<f64>,
    /// By how many seconds the clock went back since a replica looked, with which all timers were moved; unset when it
    /// did not.
    pub back: Option<f64>,
}

impl Store {
    /// Holds this replica's lease for so many seconds from now.
    pub async fn hold_lease(&self, replica: Uuid, host: &str, seconds: f64) -> Result<Held, Error> {
        let what = "hold the replica's lease";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let back = move_back(&transaction).await?;
        let row = query_one(&transaction, what, HOLD, &[&replica, &host, &seconds]).await?;
        let away = row
            .get::<_, Option<f64>>("away")
            .filter(|away| *away >= 0.0);
        if let Some(away) = away {
            // The machine slept, or the database stood still: steps did not get on either.
            let what = "move deadlines";
            let lapsed_at: Timestamp = row.get("lapsed_at");
            let values: [&(dyn ToSql + Sync); 3] = [&away, &replica, &lapsed_at];
            execute(&transaction, what, DEADLINES_LATER, &values).await?;
        }
        transaction.commit().await.map_err(Error::on(what))?;
        Ok(Held {
            since: row.get("started_at"),
            away,
            back,
        })
    }

    /// Gives this replica's lease up.
    pub async fn drop_lease(&self, replica: Uuid) -> Result<(), Error> {
        let what = "give the replica's lease up";
        let client = self.connection(what).await?;
        execute(&client, what, DROP, &[&replica]).await.map(drop)
    }
}

/// Notes the time. Where it is earlier than it was, all timers are moved with it, and the result is by how many seconds.
async fn move_back(transaction: &Transaction<'_>) -> Result<Option<f64>, Error> {
    let what = "look at the clock";
    let back: f64 = query_one(transaction, what, BACK, &[]).await?.get("back");
    execute(transaction, what, SEEN, &[]).await?;
    if back < STEP {
        return Ok(None);
    }
    let what = "move timers";
    for statement in MOVE_BACK {
        execute(transaction, what, statement, &[&back]).await?;
    }
    execute(transaction, what, LOST_BY_NOW, &[]).await?;
    Ok(Some(back))
}
