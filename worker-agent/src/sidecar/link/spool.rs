//! Milestones that are not durable yet.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mainloop_proto::v1::{Failure, FailureReason, Milestone, StepFailed, milestone::Fact};
use tokio::sync::{Notify, watch};

/// Milestones beyond which those that only people read are left out.
const NOTES: usize = 256;

/// Largest milestone. The plane ends the stream at a frame of more than 1 MiB, and would be sent it again for ever; the
/// rest is for what is around it.
const LARGEST: usize = (1 << 20) - 1024;
/// Bytes of a free text that are kept of a milestone that is larger.
const TEXT: usize = 64 * 1024;

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
            fact: Some(fitting(fact)),
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

/// A fact that the plane takes: long texts for people are cut, and what is too large without them is a failure of the
/// step, which ends it.
fn fitting(mut fact: Fact) -> Fact {
    if fact.encoded_len() <= LARGEST {
        return fact;
    }
    let texts = match &mut fact {
        Fact::WorkFinished(fact) => vec![&mut fact.summary],
        Fact::NothingToChange(fact) => vec![&mut fact.reason],
        Fact::ThreadAnswered(fact) => vec![&mut fact.text],
        Fact::ProgressNoted(fact) => vec![&mut fact.text],
        Fact::QuestionAsked(fact) => vec![&mut fact.context],
        Fact::BlockerReported(fact) => vec![&mut fact.what, &mut fact.detail],
        Fact::CiFailed(fact) => vec![&mut fact.log],
        Fact::StepFailed(fact) => fact
            .failure
            .iter_mut()
            .map(|failure| &mut failure.message)
            .collect(),
        _ => Vec::new(),
    };
    for text in texts {
        if text.len() > TEXT {
            text.truncate(text.floor_char_boundary(TEXT));
            text.push('…');
        }
    }
    let size = fact.encoded_len();
    if size <= LARGEST {
        return fact;
    }
    tracing::error!(size, "a milestone is too large to be sent");
    Fact::StepFailed(StepFailed {
        failure: Some(Failure {
            reason: FailureReason::Internal.into(),
            message: format!(
                "what the worker had to report has {size} bytes, and mainloop takes {LARGEST}"
            ),
        }),
        retry_time: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainloop_proto::v1::{PlanReady, PlanningStarted, ProgressNoted, PushHeld};
    use prost::Message as _;

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
    fn no_milestone_is_larger_than_the_plane_takes() {
        let long = || "é".repeat(LARGEST);
        for fact in [
            Fact::ProgressNoted(ProgressNoted { text: long() }),
            Fact::PlanReady(PlanReady {
                text: long(),
                ..PlanReady::default()
            }),
            Fact::PushHeld(PushHeld {
                paths: vec![long(); 3],
                ..PushHeld::default()
            }),
        ] {
            let spool = Spool::default();
            let cuts = matches!(fact, Fact::ProgressNoted(_));
            spool.push(1, fact);
            let milestone = spool.after(0).unwrap();
            assert!(milestone.encoded_len() <= 1 << 20);
            match milestone.fact.unwrap() {
                Fact::ProgressNoted(noted) => {
                    assert!(cuts && noted.text.ends_with("é…") && noted.text.len() > TEXT / 2);
                }
                Fact::StepFailed(failed) => {
                    let failure = failed.failure.unwrap();
                    assert_eq!(failure.reason(), FailureReason::Internal);
                }
                other => panic!("{other:?}"),
            }
        }
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
