//! Nudges: who should look at the database again. Losing one costs a poll interval, never a change.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

/// Changes that a slow watcher may be behind before it is told to read the table anew.
const BEHIND: usize = 1024;

/// Wakes the loops of this replica after a commit. Other replicas hear it through `NOTIFY`.
#[derive(Clone, Debug)]
pub struct Nudge {
    /// Tells this replica's notifications from those of others.
    origin: Arc<str>,
    changed: broadcast::Sender<Uuid>,
    /// The same, and tasks whose log alone grew: workers write logs all the time, and few follow them.
    touched: broadcast::Sender<Uuid>,
    outgoing: broadcast::Sender<Uuid>,
    dispatch: Arc<Notify>,
    launcher: Arc<Notify>,
}

impl Nudge {
    pub(super) fn new() -> Self {
        Self {
            origin: Uuid::new_v4().to_string().into(),
            changed: broadcast::channel(BEHIND).0,
            touched: broadcast::channel(BEHIND).0,
            outgoing: broadcast::channel(BEHIND).0,
            dispatch: Arc::new(Notify::new()),
            launcher: Arc::new(Notify::new()),
        }
    }

    /// A task changed in a transaction of this replica that is now committed.
    pub fn task_changed(&self, task: Uuid) {
        self.heard(task);
        // Without a notifier (tests) nobody listens, which is fine.
        let _ = self.outgoing.send(task);
    }

    /// Who this replica is to those that hear of its changes.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Only the events of a task grew: its watchers want to know, and no loop has anything to do.
    pub fn events_grew(&self, task: Uuid) {
        let _ = self.changed.send(task);
        let _ = self.outgoing.send(task);
    }

    /// A task changed, as another replica says.
    pub fn heard(&self, task: Uuid) {
        let _ = self.changed.send(task);
        let _ = self.touched.send(task);
        self.dispatch.notify_one();
        self.launcher.notify_one();
    }

    /// Only the log of a task grew.
    pub fn log_grew(&self, task: Uuid) {
        let _ = self.touched.send(task);
    }

    /// Ids of tasks that changed. A receiver that lags reads the table anew.
    pub fn subscribe(&self) -> broadcast::Receiver<Uuid> {
        self.changed.subscribe()
    }

    /// Ids of tasks that changed or whose log grew.
    pub fn subscribe_to_logs(&self) -> broadcast::Receiver<Uuid> {
        self.touched.subscribe()
    }

    /// Ids that other replicas are to hear.
    pub fn outgoing(&self) -> broadcast::Receiver<Uuid> {
        self.outgoing.subscribe()
    }

    /// Wakes the dispatcher.
    pub fn dispatch(&self) -> &Notify {
        &self.dispatch
    }

    /// Wakes the launcher.
    pub fn launcher(&self) -> &Notify {
        &self.launcher
    }
}
