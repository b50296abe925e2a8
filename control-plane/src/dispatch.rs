//! The loops that need no caller: claims, timers, leases and the rescue of lost attempts.
//!
//! Each reads the database, acts, and reads again: a nudge only makes it look earlier, and the next tick is the retry.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{Store, claims::Caps},
    errors,
    link::Lease,
    rpc::access::{Health, Workers},
};

/// The net under the nudges.
const CLAIM_POLL: Duration = Duration::from_secs(2);
/// How late a timer may be.
const TIMER_POLL: Duration = Duration::from_millis(500);
/// How often the lease is renewed: three times in its life.
const LEASE_POLL: Duration = Duration::from_secs(3);
/// How often attempts of hosts that are gone are looked for.
const STRAYS_POLL: Duration = Duration::from_mins(1);
/// How old such an attempt is at least: a plane that starts anew has long reconnected.
const STRAY_AFTER: Duration = Duration::from_mins(10);

/// Claims queued tasks whenever something changed, while workers can be made.
pub async fn claim(
    store: Store,
    host: String,
    caps: Caps,
    health: Health,
    stop: CancellationToken,
) {
    let mut starts = health.starts();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = starts.wait_for(|starts| starts.workers == Workers::Able) => {}
        }
        match store.claim(&host, caps).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "tasks claimed"),
            Err(error) => tracing::warn!(error = errors::chain(&error), "could not claim tasks"),
        }
        match store.holds().await {
            Ok(holds) => health.set_holds(holds),
            Err(error) => tracing::warn!(
                error = errors::chain(&error),
                "could not read which credentials are held"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = store.nudge().dispatch().notified() => {}
            () = tokio::time::sleep(CLAIM_POLL) => {}
        }
    }
}

/// Turns due timers into events. Deadlines are held for `lost_after` once the plane is back: its workers reconnect.
pub async fn timers(store: Store, lost_after: Duration, stop: CancellationToken) {
    let mut tick = interval(TIMER_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let due = match store.due_timers(lost_after.as_secs_f64()).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(error = errors::chain(&error), "could not read timers");
                continue;
            }
        };
        for task in due {
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = store.fire_timer(task).await {
                tracing::warn!(task.id = %task, error = errors::chain(&error), "could not apply a timer");
            }
        }
    }
}

/// Holds this replica's lease. In a task of its own: nothing may make it late.
pub async fn hold(
    store: Store,
    lease: Arc<Lease>,
    replica: Uuid,
    host: String,
    stop: CancellationToken,
) {
    let mut tick = interval(LEASE_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        lease.renew(&store, replica, &host).await;
    }
    if let Err(error) = store.drop_lease(replica).await {
        tracing::warn!(error = errors::chain(&error), "could not give the lease up");
    }
}

/// Ends attempts that have been lost for longer than `lost_after`.
pub async fn rescue(
    store: Store,
    lease: Arc<Lease>,
    replica: Uuid,
    lost_after: Duration,
    stop: CancellationToken,
) {
    let mut tick = interval(LEASE_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Who was away itself is no judge of who else is.
        if lease.is_valid()
            && let Err(error) = rescue_once(&store, replica, lost_after).await
        {
            tracing::warn!(
                error = errors::chain(&error),
                "could not look for lost attempts"
            );
        }
    }
}

async fn rescue_once(
    store: &Store,
    replica: Uuid,
    lost_after: Duration,
) -> Result<(), crate::db::Error> {
    let seconds = lost_after.as_secs_f64();
    store.orphans_lost(replica).await?;
    for (task, attempt) in store.expired_attempts(seconds).await? {
        if let Err(error) = store.end_expired(task, attempt, seconds).await {
            tracing::warn!(task.id = %task, error = errors::chain(&error), "could not end a lost attempt");
        }
    }
    Ok(())
}

/// Looks for attempts of hosts that nobody looks after: only the plane of such a host knows whether their workers are
/// gone, so that their tasks cannot go on. Says so, and says nothing when all is well again.
pub async fn strays(
    store: Store,
    host: String,
    stop: CancellationToken,
    tell: impl Fn(Option<String>),
) {
    let mut told = None;
    let mut tick = interval(STRAYS_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let strays = match store.strays(&host, STRAY_AFTER.as_secs_f64()).await {
            Ok(strays) => strays,
            Err(error) => {
                tracing::warn!(error = errors::chain(&error), "could not look for strays");
                continue;
            }
        };
        let problem = stray_problem(&strays);
        if problem != told {
            if let Some(problem) = &problem {
                tracing::warn!("{problem}");
            }
            tell(problem.clone());
            told = problem;
        }
    }
}

fn stray_problem(strays: &[(String, String)]) -> Option<String> {
    let tasks: Vec<String> = strays
        .iter()
        .map(|(task, host)| format!("{task} (host {host})"))
        .collect();
    (!tasks.is_empty()).then(|| {
        format!(
            "tasks cannot go on, because their workers are on a host that no plane looks after: {}; \
             start a plane with that host's data folder, or cancel them",
            tasks.join(", ")
        )
    })
}

#[cfg(test)]
pub(crate) mod tests;
