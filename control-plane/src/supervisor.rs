//! The only place that starts tasks: each has a name, and what its end means is said where it is started.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the end of a task means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// A core service: the process stops in order.
    Fatal,
    /// One stream or job: a log line at most.
    Log,
}

/// Starts tasks and waits for them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tracker: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Supervisor {
    /// A supervisor with nothing to supervise yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when everything is to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when a core service ended although nothing asked it to.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Starts a task.
    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let handle = tokio::spawn(future);
        let watched = async move {
            let result = handle.await;
            match (result, on_exit) {
                (Ok(()), OnExit::Log) => {}
                (Ok(()), OnExit::Fatal) if stop.is_cancelled() => {}
                (Ok(()), OnExit::Fatal) => {
                    tracing::error!(task = name, "core service ended unexpectedly");
                    failed.cancel();
                }
                (Err(error), on_exit) => {
                    tracing::error!(task = name, %error, "task panicked");
                    if on_exit == OnExit::Fatal {
                        failed.cancel();
                    }
                }
            }
        };
        self.tracker.spawn(watched);
    }

    /// Asks everything to stop, and waits until it has.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
