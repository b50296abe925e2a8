//! Attempts: from the wish for a worker to its end.

use jiff::Timestamp;
use mainloop_core::Event;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Error, Occurrence, Store, execute, holds, query, query_one, query_opt,
    transition::{apply_in, lock_task},
};

const WANTED_HERE: &str = "\
SELECT attempt.id, attempt.task_id, attempt.n, attempt.state, attempt.end_reason, task.short_id, task.unsandboxed, task.policy \
FROM attempt JOIN task ON task.id = attempt.task_id WHERE attempt.host_id = $1 AND attempt.state <> 'ended' ORDER BY attempt.id";

const STARTED: &str = "\
UPDATE attempt SET state = 'started', token_hash = $2, started_at = clock_timestamp() WHERE id = $1 AND state = 'wanted'";

const ENDED: &str = "\
UPDATE attempt SET state = 'ended', ended_at = clock_timestamp(), lost_at = NULL, \
end_reason = CASE WHEN end_reason = '' THEN $2 ELSE end_reason END \
WHERE id = $1 AND state <> 'ended' RETURNING task_id";

const BY_TOKEN: &str = "\
SELECT attempt.id, attempt.task_id, attempt.n, attempt.state FROM attempt WHERE attempt.id = $1 AND attempt.token_hash = $2";

const CONNECT: &str = "\
UPDATE attempt SET state = CASE WHEN state = 'started' THEN 'live' ELSE state END, live_at = coalesce(live_at, clock_timestamp()), \
replica = $2, link_epoch = link_epoch + 1, lost_at = NULL WHERE id = $1 AND state IN ('started', 'live') \
RETURNING link_epoch, milestone, cost_micros";

const LOST: &str = "\
UPDATE attempt SET lost_at = clock_timestamp() WHERE id = $1 AND replica = $2 AND link_epoch = $3 AND lost_at IS NULL \
AND state = 'live'";

/// Not one's own: their sessions note themselves when they end.
const ORPHANED: &str = "\
UPDATE attempt SET lost_at = clock_timestamp() FROM (SELECT a.id FROM attempt a LEFT JOIN replica r ON r.id = a.replica \
WHERE a.state = 'live' AND a.lost_at IS NULL AND a.replica <> $1 AND (r.id IS NULL OR r.lease_until < clock_timestamp()) \
ORDER BY a.id FOR UPDATE OF a) AS gone WHERE attempt.id = gone.id";

/// An attempt counts as lost only while there was a plane to come back to: both times are long past.
macro_rules! expired {
    () => {
        "FROM attempt CROSS JOIN (SELECT min(started_at) AS since FROM replica WHERE lease_until > clock_timestamp()) AS held \
         WHERE attempt.state = 'live' AND attempt.lost_at < clock_timestamp() - make_interval(secs => $1) \
         AND held.since < clock_timestamp() - make_interval(secs => $1)"
    };
}

const EXPIRED: &str = concat!(
    "SELECT attempt.task_id, attempt.n ",
    expired!(),
    " ORDER BY attempt.lost_at"
);

/// Locked: an agent that connects now waits, and is told that the attempt is over.
const STILL_EXPIRED: &str = concat!(
    "SELECT attempt.n ",
    expired!(),
    " AND attempt.task_id = $2 AND attempt.n = $3 FOR UPDATE OF attempt"
);

const STRAYS: &str = "\
SELECT task.short_id, attempt.host_id FROM attempt JOIN task ON task.id = attempt.task_id WHERE attempt.state <> 'ended' \
AND attempt.host_id <> $1 AND attempt.created_at < clock_timestamp() - make_interval(secs => $2) AND NOT EXISTS (\
SELECT 1 FROM replica WHERE replica.host_id = attempt.host_id AND replica.lease_until > clock_timestamp()) \
ORDER BY attempt.id LIMIT 10";

const ENDED_AMONG: &str = "\
SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (\
SELECT 1 FROM attempt WHERE attempt.id = id.id AND attempt.state <> 'ended')";

const EARLIER_COST: &str = "SELECT coalesce(sum(cost_micros), 0)::bigint AS cost FROM attempt WHERE task_id = $1 AND n < $2";

/// The task is locked before its attempt, as every transition does.
const SPEND: &str = "\
WITH owner AS (SELECT task.id FROM task WHERE task.id = (SELECT task_id FROM attempt WHERE id = $1) FOR UPDATE), \
spent AS (UPDATE attempt SET cost_micros = greatest(cost_micros, $2), input_tokens = greatest(input_tokens, $3), \
output_tokens = greatest(output_tokens, $4) FROM owner WHERE attempt.id = $1 AND attempt.task_id = owner.id \
RETURNING attempt.task_id, attempt.n, attempt.cost_micros) \
UPDATE task SET cost_micros = spent.cost_micros + (SELECT coalesce(sum(a.cost_micros), 0) FROM attempt a \
WHERE a.task_id = spent.task_id AND a.n <> spent.n), version = version + 1, updated_at = clock_timestamp() \
FROM spent WHERE task.id = spent.task_id RETURNING task.id";

/// A replica that is gone is worth a row only until its attempts are marked; one that comes back makes its row anew.
const FORGET_REPLICAS: &str = "\
DELETE FROM replica WHERE id <> $1 AND lease_until < clock_timestamp() - interval '1 hour'";

const SERVER_VERSION: &str = "SELECT current_setting('server_version') AS version";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("attempts::WANTED_HERE", WANTED_HERE),
    ("attempts::STARTED", STARTED),
    ("attempts::ENDED", ENDED),
    ("attempts::BY_TOKEN", BY_TOKEN),
    ("attempts::CONNECT", CONNECT),
    ("attempts::LOST", LOST),
    ("attempts::ORPHANED", ORPHANED),
    ("attempts::EXPIRED", EXPIRED),
    ("attempts::STILL_EXPIRED", STILL_EXPIRED),
    ("attempts::STRAYS", STRAYS),
    ("attempts::ENDED_AMONG", ENDED_AMONG),
    ("attempts::EARLIER_COST", EARLIER_COST),
    ("attempts::SPEND", SPEND),
    ("attempts::FORGET_REPLICAS", FORGET_REPLICAS),
    ("attempts::SERVER_VERSION", SERVER_VERSION),
];

/// An attempt that is not over, as its launcher sees it.
#[derive(Clone, Debug)]
pub struct Open {
    /// Id.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// The task's short id.
    pub short_id: String,
    /// Number within the task.
    pub n: u32,
    /// Where it stands.
    pub state: State,
    /// Why it is to end; empty while it is not.
    pub end_reason: String,
    /// Runs without the sandbox.
    pub unsandboxed: bool,
    /// The task's policy snapshot.
    pub policy: serde_json::Value,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No process yet.
    Wanted,
    /// A process was made.
    Started,
    /// It said hello.
    Live,
    /// Its process is to be removed.
    Ending,
}

/// Who an attempt's token stands for.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Attempt.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// Its number.
    pub n: u32,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// Counts connections of the attempt; fences older ones.
    pub link_epoch: i64,
    /// Highest durable milestone.
    pub milestone: i64,
    /// What the attempt has cost so far.
    pub cost_micros: i64,
}

/// Spend of an attempt so far.
#[derive(Clone, Copy, Debug)]
pub struct Spend {
    /// Millionths of a US dollar.
    pub cost_micros: i64,
    /// Input tokens.
    pub input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
}

fn number(row: &Row) -> u32 {
    u32::try_from(row.get::<_, i32>("n")).unwrap_or_default()
}

impl Store {
    /// The attempts of a host that are not over.
    pub async fn open_attempts(&self, host: &str) -> Result<Vec<Open>, Error> {
        let what = "list a host's attempts";
        let client = self.connection(what).await?;
        query(&client, what, WANTED_HERE, &[&host])
            .await?
            .iter()
            .map(|row| {
                let state: &str = row.get("state");
                Ok(Open {
                    id: row.get("id"),
                    task_id: row.get("task_id"),
                    short_id: row.get("short_id"),
                    n: number(row),
                    state: match state {
                        "wanted" => State::Wanted,
                        "started" => State::Started,
                        "live" => State::Live,
                        "ending" => State::Ending,
                        other => {
                            return Err(Error::Row {
                                table: "attempt",
                                column: "state",
                                value: other.to_owned(),
                            });
                        }
                    },
                    end_reason: row.get("end_reason"),
                    unsandboxed: row.get("unsandboxed"),
                    policy: row.get("policy"),
                })
            })
            .collect()
    }

    /// Notes that a process is about to be made with this token. False when the attempt is no longer wanted.
    pub async fn attempt_started(&self, id: Uuid, token_hash: &[u8]) -> Result<bool, Error> {
        let what = "note an attempt's start";
        let client = self.connection(what).await?;
        Ok(execute(&client, what, STARTED, &[&id, &token_hash]).await? > 0)
    }

    /// Notes that no process of the attempt is left.
    pub async fn attempt_ended(&self, id: Uuid, why: &str) -> Result<(), Error> {
        let what = "note an attempt's end";
        let client = self.connection(what).await?;
        if let Some(row) = query_opt(&client, what, ENDED, &[&id, &why]).await? {
            self.nudge().task_changed(row.get("task_id"));
        }
        Ok(())
    }

    /// Whose token this is, if the attempt is not over.
    pub async fn attempt_by_token(
        &self,
        id: Uuid,
        token_hash: &[u8],
    ) -> Result<Option<Identity>, Error> {
        let what = "check an attempt's token";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, BY_TOKEN, &[&id, &token_hash])
            .await?
            .filter(|row| row.get::<_, &str>("state") != "ended")
            .map(|row| Identity {
                id: row.get("id"),
                task_id: row.get("task_id"),
                n: number(&row),
            }))
    }

    /// Those of `attempts` that have ended.
    pub async fn ended_attempts(&self, attempts: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let what = "see which attempts have ended";
        let client = self.connection(what).await?;
        let rows = query(&client, what, ENDED_AMONG, &[&attempts]).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Takes a stream of the attempt over. None when it is to end or is over.
    pub async fn attempt_connected(
        &self,
        id: Uuid,
        replica: Uuid,
    ) -> Result<Option<Connected>, Error> {
        let what = "note an attempt's connection";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, CONNECT, &[&id, &replica])
            .await?
            .map(|row| Connected {
                link_epoch: row.get("link_epoch"),
                milestone: row.get("milestone"),
                cost_micros: row.get("cost_micros"),
            }))
    }

    /// Notes that the stream of an epoch ended; a newer one makes it void.
    pub async fn attempt_lost(&self, id: Uuid, replica: Uuid, epoch: i64) -> Result<(), Error> {
        let what = "note a lost stream";
        let client = self.connection(what).await?;
        execute(&client, what, LOST, &[&id, &replica, &epoch])
            .await
            .map(drop)
    }

    /// Marks attempts of other replicas that are gone as lost, from now on, and forgets those replicas in time.
    pub async fn orphans_lost(&self, replica: Uuid) -> Result<(), Error> {
        let what = "mark orphaned attempts";
        let client = self.connection(what).await?;
        execute(&client, what, ORPHANED, &[&replica]).await?;
        execute(&client, what, FORGET_REPLICAS, &[&replica])
            .await
            .map(drop)
    }

    /// Attempts that have been lost for longer than that, with a plane to come back to: `(task, number)`. Not limited,
    /// so that one that cannot be ended hides no other.
    pub async fn expired_attempts(&self, seconds: f64) -> Result<Vec<(Uuid, u32)>, Error> {
        let what = "list expired attempts";
        let client = self.connection(what).await?;
        Ok(query(&client, what, EXPIRED, &[&seconds])
            .await?
            .iter()
            .map(|row| (row.get("task_id"), number(row)))
            .collect())
    }

    /// Ends an expired attempt, unless it came back in the meantime.
    pub async fn end_expired(&self, task: Uuid, attempt: u32, seconds: f64) -> Result<(), Error> {
        let what = "end an expired attempt";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some((row, now)) = lock_task(&transaction, task).await? else {
            return Ok(());
        };
        let n = i32::try_from(attempt).unwrap_or(i32::MAX);
        let expired = query_opt(&transaction, what, STILL_EXPIRED, &[&seconds, &task, &n]).await?;
        if expired.is_none() {
            return Ok(());
        }
        let why = format!("not heard of for {seconds} s");
        let mut lost = Occurrence::new(Event::AttemptLost { why }, "plane");
        lost.attempt = attempt;
        apply_in(&transaction, row, now, &lost).await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(task);
        Ok(())
    }

    /// Attempts older than that, of hosts other than `host` that no replica looks after: `(short id, host)`, a few.
    pub async fn strays(&self, host: &str, seconds: f64) -> Result<Vec<(String, String)>, Error> {
        let what = "list attempts of hosts that are gone";
        let client = self.connection(what).await?;
        Ok(query(&client, what, STRAYS, &[&host, &seconds])
            .await?
            .iter()
            .map(|row| (row.get("short_id"), row.get("host_id")))
            .collect())
    }

    /// What the attempts before the `n`-th cost.
    pub async fn earlier_cost(&self, task: Uuid, n: u32) -> Result<i64, Error> {
        let what = "sum up earlier attempts";
        let client = self.connection(what).await?;
        let n = i32::try_from(n).unwrap_or(i32::MAX);
        Ok(query_one(&client, what, EARLIER_COST, &[&task, &n])
            .await?
            .get("cost"))
    }

    /// Stores what an attempt has cost; it never goes down.
    pub async fn attempt_spent(&self, id: Uuid, spend: Spend) -> Result<(), Error> {
        let what = "store an attempt's spend";
        let client = self.connection(what).await?;
        if let Some(row) = query_opt(
            &client,
            what,
            SPEND,
            &[
                &id,
                &spend.cost_micros,
                &spend.input_tokens,
                &spend.output_tokens,
            ],
        )
        .await?
        {
            self.nudge().events_grew(row.get("id"));
        }
        if spend.output_tokens > 0 {
            holds::model_answered(&client, id).await?;
        }
        Ok(())
    }

    /// The server's version.
    pub async fn server_version(&self) -> Result<String, Error> {
        let what = "ask for the server's version";
        let client = self.connection(what).await?;
        Ok(query_one(&client, what, SERVER_VERSION, &[])
            .await?
            .get("version"))
    }
}

/// When something happened by the agent's clock, kept within what the database takes.
pub fn sane(time: Timestamp) -> Timestamp {
    time.clamp(Timestamp::UNIX_EPOCH, Timestamp::MAX)
}
