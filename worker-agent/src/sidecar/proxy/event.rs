//! What the proxies saw, for the driver of the attempt.
//!
//! Owns the queue between the data path and the driver. Putting an event never waits: spending is one slot that is
//! overwritten and read a moment later, refusals are told once and dropped and counted when the driver does not keep up, and pushes are merged
//! with the push before them, so that none is lost and a harness that pushes in a loop cannot grow the queue. What a
//! harness provokes stays with the task for ever, so a loop of it may not become a loop of events.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::model::Usage;

/// Events that wait for the driver, at most. It reads in microseconds; what piles up beyond this is a harness that
/// provokes refusals, of which the first ones say enough.
const QUEUE: usize = 128;

/// Refusals of each kind that are told; each is told once, and more than these are dropped and counted.
const REFUSALS: usize = 128;

/// Longest text taken from the harness into an event, in bytes.
const TEXT: usize = 256;

/// How long spending waits for more of it: the replies of subagents end together, and telling the plane must not take the
/// processor from the last bytes of a reply.
const SPEND_PAUSE: Duration = Duration::from_millis(20);

/// One observation of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The code host reported that it took the push (`report-status` said `ok`).
    Pushed {
        /// The full ref, `refs/heads/...`.
        reference: String,
        /// Object id before the push; zeros where the branch is new.
        old: String,
        /// Object id after the push.
        new: String,
    },
    /// A push was refused, by this proxy or by the code host.
    PushRefused {
        /// The ref as the client named it, where it came so far.
        reference: Option<String>,
        /// Why.
        reason: String,
    },
    /// Another repository than the task's was asked for.
    RepositoryRefused {
        /// The path as the client named it, shortened.
        path: String,
    },
    /// The code host did not accept the token (401, or 403 on the repository).
    GitUnauthorized {
        /// The HTTP status.
        status: u16,
    },
    /// A host that is not allowed was asked for.
    HostRefused {
        /// `host:port`.
        host: String,
        /// Why.
        reason: String,
    },
    /// What the attempt has cost; the newest value replaces one that was not read yet.
    Spend {
        /// Micro-USD, with what earlier attempts had spent.
        total_micros: u64,
        /// Tokens counted by this process.
        usage: Usage,
    },
    /// A model request was turned away because the budget is used up.
    BudgetReached {
        /// Micro-USD spent.
        spent_micros: u64,
        /// The budget in micro-USD.
        budget_micros: u64,
    },
    /// A model request was turned away by policy.
    ModelRefused {
        /// Why.
        reason: String,
    },
    /// The model host limited the credential (429) or is overloaded (529).
    ModelLimited {
        /// The HTTP status, 429 or 529.
        status: u16,
        /// The `retry-after` header.
        retry_after: Option<Duration>,
        /// When the exhausted limit resets, by the `anthropic-ratelimit-*` headers.
        reset_at: Option<Timestamp>,
    },
    /// The model host did not accept the credential.
    ModelUnauthorized {
        /// The HTTP status, 401 or 403.
        status: u16,
    },
}

impl Event {
    /// For what the harness can provoke as often as it likes: what makes it different from others of its kind.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::PushRefused { reference, reason } => Some(format!("{reference:?} {reason}")),
            Self::RepositoryRefused { path } => Some(path.clone()),
            Self::HostRefused { host, .. } => Some(host.clone()),
            Self::ModelRefused { reason } => Some(reason.clone()),
            Self::GitUnauthorized { status } | Self::ModelUnauthorized { status } => {
                Some(status.to_string())
            }
            Self::BudgetReached { budget_micros, .. } => Some(budget_micros.to_string()),
            Self::Pushed { .. } | Self::Spend { .. } | Self::ModelLimited { .. } => None,
        }
    }
}

/// The driver's end of the queue.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// The next event; `None` when the proxy is gone and all was read. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            let woken = self.0.notify.notified();
            let due = {
                let mut state = self.0.lock();
                if let Some(event) = state.queue.pop_front() {
                    return Some(event);
                }
                let due = state.spend.as_ref().map(|(_, due)| *due);
                if state.sinks == 0 || due.is_some_and(|due| due <= Instant::now()) {
                    return state.spend.take().map(|(event, _)| event);
                }
                due
            };
            match due {
                // Either way it looks again.
                Some(due) => drop(tokio::time::timeout_at(due, woken).await),
                None => woken.await,
            }
        }
    }

    /// What is there now, spending that still waits among it.
    pub fn try_recv(&mut self) -> Option<Event> {
        let mut state = self.0.lock();
        state
            .queue
            .pop_front()
            .or_else(|| state.spend.take().map(|(event, _)| event))
    }

    /// How many events were dropped since this was asked last: too many of a kind, or the driver did not keep up.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.0.lock().dropped)
    }
}

/// The proxies' end of the queue.
#[derive(Debug)]
pub(super) struct Sink(Arc<Shared>);

impl Sink {
    /// Puts an event without waiting; see the module for what happens when the queue is full.
    pub(super) fn put(&self, event: Event) {
        self.0.lock().put(event);
        self.0.notify.notify_one();
    }
}

impl Clone for Sink {
    fn clone(&self) -> Self {
        self.0.lock().sinks += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.lock().sinks -= 1;
        self.0.notify.notify_one();
    }
}

/// Makes the queue.
pub(super) fn channel() -> (Sink, Events) {
    let shared = Arc::new(Shared::default());
    shared.lock().sinks = 1;
    (Sink(Arc::clone(&shared)), Events(shared))
}

/// Shortens text of the harness for an event and drops control characters.
pub(super) fn clip(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > TEXT {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    notify: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    /// The newest, and when it may be read.
    spend: Option<(Event, Instant)>,
    told: HashMap<Discriminant<Event>, HashSet<String>>,
    sinks: usize,
    dropped: u64,
}

impl State {
    fn put(&mut self, event: Event) {
        if matches!(event, Event::Spend { .. }) {
            let due = self
                .spend
                .take()
                .map_or_else(|| Instant::now() + SPEND_PAUSE, |(_, due)| due);
            self.spend = Some((event, due));
            return;
        }
        if let Some(refusal) = event.refusal() {
            let told = self.told.entry(discriminant(&event)).or_default();
            if told.contains(&refusal) {
                return;
            }
            if told.len() >= REFUSALS {
                self.dropped += 1;
                return;
            }
            told.insert(refusal);
        }
        if self.queue.len() < QUEUE {
            self.queue.push_back(event);
        } else if let Event::Pushed { new, .. } = &event {
            self.merge_push(new.clone(), event);
        } else {
            self.dropped += 1;
        }
    }

    /// A push into a full queue: two pushes to the one branch, read late, are one push from the first old to the last new id.
    fn merge_push(&mut self, latest: String, event: Event) {
        let last = self.queue.iter_mut().rev().find_map(|queued| match queued {
            Event::Pushed { new, .. } => Some(new),
            _ => None,
        });
        if let Some(new) = last {
            *new = latest;
        } else {
            self.queue.pop_front();
            self.dropped += 1;
            self.queue.push_back(event);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt as _;

    use super::*;

    fn push(old: &str, new: &str) -> Event {
        Event::Pushed {
            reference: "refs/heads/b".into(),
            old: old.into(),
            new: new.into(),
        }
    }

    #[tokio::test]
    async fn pushes_survive_a_flood_of_refusals() {
        let (sink, mut events) = channel();
        for n in 0..QUEUE {
            let reason = n.to_string();
            sink.put(Event::ModelRefused {
                reason: reason.clone(),
            });
            sink.put(Event::RepositoryRefused { path: reason });
        }
        sink.put(push("a", "b"));
        sink.put(push("b", "c"));
        drop(sink);
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            seen.push(event);
        }
        assert_eq!(seen.len(), QUEUE);
        assert_eq!(seen.last(), Some(&push("a", "c")));
        assert_eq!(events.take_dropped(), QUEUE as u64 + 1);
    }

    #[tokio::test]
    async fn what_a_loop_provokes_is_told_once_and_bounded() {
        let (sink, mut events) = channel();
        for n in 0..REFUSALS * 3 {
            for _ in 0..2 {
                sink.put(Event::PushRefused {
                    reference: None,
                    reason: n.to_string(),
                });
            }
        }
        drop(sink);
        let mut told = 0;
        while events.recv().await.is_some() {
            told += 1;
        }
        assert_eq!(told, REFUSALS);
    }

    #[tokio::test]
    async fn spending_is_one_slot_and_hosts_are_told_once() {
        let (sink, mut events) = channel();
        for total_micros in 0..10 {
            sink.put(Event::Spend {
                total_micros,
                usage: Usage::default(),
            });
            sink.put(Event::HostRefused {
                host: "x:443".into(),
                reason: "not listed".into(),
            });
        }
        assert!(matches!(
            events.recv().await,
            Some(Event::HostRefused { .. })
        ));
        assert!(matches!(
            events.recv().await,
            Some(Event::Spend {
                total_micros: 9,
                ..
            })
        ));
        drop(sink);
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn spending_is_read_a_moment_later_and_at_the_end_at_once() {
        let spend = |total_micros| Event::Spend {
            total_micros,
            usage: Usage::default(),
        };
        let (sink, mut events) = channel();
        sink.put(spend(1));
        assert_eq!(events.recv().now_or_never(), None);
        sink.put(spend(2));
        assert_eq!(events.recv().await, Some(spend(2)));
        sink.put(spend(3));
        assert_eq!(events.try_recv(), Some(spend(3)));
        sink.put(spend(4));
        drop(sink);
        assert_eq!(events.recv().now_or_never(), Some(Some(spend(4))));
    }

    #[test]
    fn text_is_clipped_at_a_character() {
        let long = clip(&"é\n".repeat(TEXT));
        assert!(long.len() <= TEXT + '…'.len_utf8());
        assert!(!long.contains('\n'));
    }
}
