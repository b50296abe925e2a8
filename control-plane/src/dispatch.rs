//! The loops that need no caller: claims, timers, leases and the rescue of lost attempts.
//!
//! Each reads the database, acts, and reads again: a nudge only makes it look earlier, and the next tick is the retry.

use std::{sync::Arc, time::Duration};

use mainloop_core::Event;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{Occurrence, Store, claims::Caps},
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

/// Turns due timers into events.
pub async fn timers(store: Store, stop: CancellationToken) {
    let mut tick = interval(TIMER_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let due = match store.due_timers().await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(error = errors::chain(&error), "could not read timers");
                continue;
            }
        };
        for (task, event) in due {
            if let Err(error) = store.apply(task, &Occurrence::new(event, "plane")).await {
                tracing::warn!(task.id = %task, error = errors::chain(&error), "could not apply a timer");
            }
        }
    }
}

/// Holds this replica's lease, and ends attempts that have been lost for longer than `lost_after`.
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
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        lease.renew(&store, replica).await;
        if let Err(error) = rescue_once(&store, lost_after).await {
            tracing::warn!(
                error = errors::chain(&error),
                "could not look for lost attempts"
            );
        }
    }
    if let Err(error) = store.drop_lease(replica).await {
        tracing::warn!(error = errors::chain(&error), "could not give the lease up");
    }
}

async fn rescue_once(store: &Store, lost_after: Duration) -> Result<(), crate::db::Error> {
    store.orphans_lost().await?;
    for (task, attempt) in store.expired_attempts(lost_after.as_secs_f64()).await? {
        let mut lost = Occurrence::new(
            Event::AttemptLost {
                why: format!("not heard of for {} s", lost_after.as_secs()),
            },
            "plane",
        );
        lost.attempt = attempt;
        store.apply(task, &lost).await?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
