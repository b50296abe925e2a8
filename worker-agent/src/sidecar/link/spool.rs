//! Milestones that are not durable yet.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mainloop_proto::v1::{Milestone, milestone::Fact};
use tokio::sync::{Notify, watch};

/// Milestones beyond which those that only people read are left out.
const NOTES: usize = 256;

/// Numbered from 1, kept until acknowledged. Its size is bounded by the worker, which waits for the milestones that end
/// its steps, and for notes by itself.
#[derive(Debug)]
pub(super) struct Spool {
    state: Mutex<State>,
    grew: Notify,
    acknowledged: watch::Sender<u64>,
    dropped_logs: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: VecDeque<Milestone>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            grew: Notify::new(),
            acknowledged: watch::Sender::new(0),
            dropped_logs: AtomicU64::new(0),
        }
    }
}

impl Spool {
    pub(super) fn push(&self, phase_version: i64, fact: Fact) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let seq = state.last;
        state.waiting.push_back(Milestone {
            seq: i64::try_from(seq).unwrap_or(i64::MAX),
            phase_version,
            time: Some(super::now()),
            fact: Some(fact),
        });
        drop(state);
        self.grew.notify_one();
        seq
    }

    /// A milestone that is left out, and counted like a line of the log, while too many wait.
    pub(super) fn push_note(&self, phase_version: i64, fact: Fact) {
        if self.lock().waiting.len() < NOTES {
            self.push(phase_version, fact);
        } else {
            self.count_dropped();
        }
    }

    /// The oldest that waits behind a number.
    pub(super) fn after(&self, seq: i64) -> Option<Milestone> {
        let state = self.lock();
        let at = state.waiting.partition_point(|waiting| waiting.seq <= seq);
        state.waiting.get(at).cloned()
    }

    /// The plane has everything up to this number.
    pub(super) fn acknowledge(&self, seq: i64) {
        let mut state = self.lock();
        let done = state.waiting.partition_point(|waiting| waiting.seq <= seq);
        state.waiting.drain(..done);
        drop(state);
        let seq = u64::try_from(seq).unwrap_or(0);
        self.acknowledged
            .send_if_modified(|known| std::mem::replace(known, seq.max(*known)) < seq);
    }

    /// Returns when a number is durable.
    pub(super) async fn durable(&self, seq: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        // The sender lives as long as this spool.
        let _ = acknowledged.wait_for(|known| *known >= seq).await;
    }

    pub(super) fn last(&self) -> u64 {
        self.lock().last
    }

    pub(super) fn acknowledged(&self) -> i64 {
        i64::try_from(*self.acknowledged.borrow()).unwrap_or(i64::MAX)
    }

    pub(super) async fn grew(&self) {
        self.grew.notified().await;
    }

    pub(super) fn count_dropped(&self) {
        self.dropped_logs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped_logs.swap(0, Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainloop_proto::v1::PlanningStarted;

    use super::*;

    #[tokio::test]
    async fn what_is_not_acknowledged_is_kept_and_sent_again() {
        let spool = Spool::default();
        for _ in 0..3 {
            spool.push(1, Fact::PlanningStarted(PlanningStarted {}));
        }
        spool.acknowledge(2);
        assert_eq!(spool.after(0).map(|milestone| milestone.seq), Some(3));
        assert_eq!(spool.after(3), None);
        // An older acknowledgement changes nothing.
        spool.acknowledge(1);
        assert_eq!(spool.acknowledged(), 2);
        spool.acknowledge(3);
        spool.durable(3).await;
        assert_eq!(spool.after(0), None);
    }

    #[test]
    fn notes_are_left_out_while_too_many_wait_and_results_never() {
        let spool = Spool::default();
        let fact = || Fact::PlanningStarted(PlanningStarted {});
        for _ in 0..NOTES + 3 {
            spool.push_note(1, fact());
        }
        let kept = i64::try_from(NOTES).unwrap();
        assert_eq!(spool.after(kept), None);
        assert_eq!(spool.take_dropped(), 3);
        spool.push(1, fact());
        assert_eq!(spool.after(kept).map(|m| m.seq), Some(kept + 1));
        spool.acknowledge(kept);
        spool.push_note(1, fact());
        assert_eq!(spool.take_dropped(), 0);
    }
}
