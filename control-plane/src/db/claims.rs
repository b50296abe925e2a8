//! Claims: which queued tasks get a slot, and timers that are due.

use mainloop_core::{Credential, Event, Step, Task, Timer, Wait, step};
use serde_json::json;
use uuid::Uuid;

use super::{Applied, Error, Occurrence, Store, execute, holds, inbox, query, transition};
use crate::texts;

/// One replica claims at a time, so that the caps hold exactly.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7224211)";

/// The heads of all lanes (a lane is a repository), each as deep as its cap leaves room, best first. Lanes are found
/// by a loose index scan, so that a full lane's backlog is never read. Nothing that needs a held credential.
const HEADS: &str = "\
WITH RECURSIVE lane AS (\
 (SELECT repository_url FROM task WHERE run = 'queued' ORDER BY repository_url LIMIT 1) \
 UNION ALL \
 SELECT (SELECT t.repository_url FROM task t WHERE t.run = 'queued' AND t.repository_url > lane.repository_url \
  ORDER BY t.repository_url LIMIT 1) FROM lane WHERE lane.repository_url IS NOT NULL), \
free AS (SELECT lane.repository_url, $1::bigint - (SELECT count(*) FROM task u WHERE u.run IN ('starting', 'live') \
  AND u.repository_url = lane.repository_url) AS slots FROM lane WHERE lane.repository_url IS NOT NULL) \
SELECT head.id FROM free CROSS JOIN LATERAL (\
 SELECT q.id, q.priority, q.queued_at FROM task q WHERE q.run = 'queued' AND q.repository_url = free.repository_url \
  AND NOT ($3 AND q.phase IN ('planning', 'implementing', 'fixing_ci', 'addressing_review')) AND NOT $4 \
  AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.task_id = q.id AND a.state <> 'ended') \
  ORDER BY q.priority DESC, q.queued_at, q.id LIMIT greatest(free.slots, 0)) AS head \
ORDER BY head.priority DESC, head.queued_at, head.id \
LIMIT greatest($2::bigint - (SELECT count(*) FROM task WHERE run IN ('starting', 'live')), 0)";

/// A step's deadline waits while its worker is out of touch (that has a limit of its own), and for a while after the
/// plane was: the worker may have finished long ago, and be about to say so.
const DUE: &str = "\
SELECT task.id FROM task CROSS JOIN (SELECT min(started_at) AS since FROM replica WHERE lease_until > clock_timestamp()) AS held \
WHERE task.timer_at <= clock_timestamp() AND (task.timer_kind <> 'deadline' OR held.since IS NOT NULL AND NOT EXISTS (\
SELECT 1 FROM attempt WHERE attempt.task_id = task.id AND attempt.n = task.attempt AND attempt.state <> 'ended' \
AND (attempt.lost_at IS NOT NULL OR attempt.created_at < held.since \
AND held.since > clock_timestamp() - make_interval(secs => $1)))) ORDER BY task.timer_at";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("claims::LOCK", LOCK),
    ("claims::HEADS", HEADS),
    ("claims::DUE", DUE),
];

/// How many workers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// On this plane.
    pub total: u32,
    /// On one repository.
    pub per_repository: u32,
}

/// Whether the next step of a task uses a credential.
pub fn needs(task: &Task, credential: Credential) -> bool {
    match (credential, step(task)) {
        (_, None) => false,
        (Credential::CodeHost, Some(_))
        | (
            Credential::Model,
            Some(Step::Plan | Step::Implement | Step::FixCi | Step::AddressReview | Step::Rebase),
        ) => true,
        (Credential::Model, Some(Step::AwaitCi | Step::MarkReady)) => false,
    }
}

impl Store {
    /// Claims as many queued tasks as the caps allow, for a host. Returns how many.
    pub async fn claim(&self, host: &str, caps: Caps) -> Result<usize, Error> {
        let what = "claim queued tasks";
        let mut client = self.connection(what).await?;
        // By itself: a task is locked before a hold.
        holds::passed(&client).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        execute(&transaction, what, LOCK, &[]).await?;
        let mut holds = holds::list(&transaction).await?;
        let is_closed = |credential| {
            holds
                .iter()
                .any(|hold| hold.credential == credential && hold.closed)
        };
        let heads = query(
            &transaction,
            what,
            HEADS,
            &[
                &i64::from(caps.per_repository),
                &i64::from(caps.total),
                &is_closed(Credential::Model),
                &is_closed(Credential::CodeHost),
            ],
        )
        .await?;
        let mut claimed = Vec::new();
        let mut trials = Vec::new();
        for head in heads {
            let id: Uuid = head.get("id");
            let Some((task, now)) = transition::lock_task(&transaction, id).await? else {
                continue;
            };
            let needed: Vec<Credential> = holds
                .iter()
                .filter(|hold| needs(&task.task, hold.credential))
                .map(|hold| hold.credential)
                .collect();
            // One of this round tries whether the limit is over.
            if holds
                .iter()
                .any(|hold| hold.closed && needed.contains(&hold.credential))
            {
                continue;
            }
            let mut occurrence = Occurrence::new(Event::Claimed, "plane");
            occurrence.detail = json!({ "host": host });
            let applied = transition::apply_in(&transaction, task, now, &occurrence).await?;
            if matches!(applied, Applied::Changed(_)) {
                claimed.push(id);
                for hold in &mut holds {
                    if needed.contains(&hold.credential) {
                        trials.push((hold.credential, id));
                        hold.closed = true;
                    }
                }
            }
        }
        // Last: whoever else changes a hold has locked its task before.
        for (credential, task) in trials {
            holds::try_with(&transaction, credential, task).await?;
        }
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        for id in &claimed {
            self.nudge().task_changed(*id);
        }
        Ok(claimed.len())
    }

    /// Tasks whose timer is due. Deadlines of workers that were there before the plane's absence are held for so many
    /// seconds after it. Not limited, so that one that cannot be moved on hides no other.
    pub async fn due_timers(&self, held: f64) -> Result<Vec<Uuid>, Error> {
        let what = "list due timers";
        let client = self.connection(what).await?;
        Ok(query(&client, what, DUE, &[&held])
            .await?
            .iter()
            .map(|row| row.get("id"))
            .collect())
    }

    /// Turns a task's timer into its event, if it is still due: what moved the task on has set it anew or cleared it.
    pub async fn fire_timer(&self, task: Uuid) -> Result<(), Error> {
        let what = "fire a timer";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some((row, now)) = transition::lock_task(&transaction, task).await? else {
            return Ok(());
        };
        let Some(timer) = row.timer.filter(|timer| timer.at() <= now) else {
            return Ok(());
        };
        let occurrence = match timer {
            Timer::Deadline(_)
                if row.task.wait == Wait::Ci && texts::none_has_begun(&row.checks) =>
            {
                Occurrence::new(Event::CiNotStarted, "plane")
            }
            Timer::Deadline(_) => Occurrence::new(Event::DeadlinePassed, "plane"),
            Timer::Wait(_) => Occurrence::new(Event::WaitElapsed, "plane"),
            Timer::Remind(_) => Occurrence::new(Event::Reminded, "plane"),
            Timer::Assume(_) => inbox::assume(&transaction, &row).await?,
        };
        transition::apply_in(&transaction, row, now, &occurrence).await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(task);
        Ok(())
    }
}
