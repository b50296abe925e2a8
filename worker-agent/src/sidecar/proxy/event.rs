//! What the proxies saw, for the driver of the attempt.
//!
//! Owns the queue between the data path and the driver. Putting an event never waits: spending is one slot that is
//! overwritten, refusals are dropped and counted when the driver does not keep up, and pushes are merged with the
//! push before them, so that none is lost and a harness that pushes in a loop cannot grow the queue.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::model::Usage;

/// Events that wait for the driver, at most. It reads in microseconds; what piles up beyond this is a harness that
/// provokes refusals, of which the first ones say enough.
const QUEUE: usize = 128;

/// Names of refused hosts that are remembered, so that each is told once.
const REFUSED_HOSTS: usize = 256;

/// Longest text taken from the harness into an event, in bytes.
const TEXT: usize = 256;

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
    /// A host that is not allowed was asked for. Each host is told once.
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

/// The driver's end of the queue.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// The next event; `None` when the proxy is gone and all was read. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            let woken = self.0.notify.notified();
            {
                let mut state = self.0.lock();
                if let Some(event) = state.queue.pop_front().or_else(|| state.spend.take()) {
                    return Some(event);
                }
                if state.sinks == 0 {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// How many events were dropped because the driver did not keep up.
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
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
    spend: Option<Event>,
    hosts: HashSet<String>,
    sinks: usize,
    dropped: u64,
}

impl State {
    fn put(&mut self, event: Event) {
        match &event {
            Event::Spend { .. } => {
                self.spend = Some(event);
                return;
            }
            Event::HostRefused { host, .. } => {
                if self.hosts.contains(host) {
                    return;
                }
                if self.hosts.len() >= REFUSED_HOSTS {
                    self.dropped += 1;
                    return;
                }
                self.hosts.insert(host.clone());
            }
            _ => {}
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
        for n in 0..QUEUE * 2 {
            sink.put(Event::ModelRefused {
                reason: n.to_string(),
            });
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
        assert_eq!(events.dropped(), QUEUE as u64 + 1);
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

    #[test]
    fn text_is_clipped_at_a_character() {
        let long = clip(&"é\n".repeat(TEXT));
        assert!(long.len() <= TEXT + '…'.len_utf8());
        assert!(!long.contains('\n'));
    }
}
