//! A gate that holds an answer until the test opens it: how tests order events without sleeping.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::WAIT_LIMIT;

/// Closed at first; clones are the same gate. Once opened it stays open.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    open: bool,
    arrivals: u32,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }

    /// Lets through everyone who waits and everyone who comes later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Returns when an answer has come to the gate (open or not), or fails after the wait limit.
    pub async fn reached(&self) -> Result<()> {
        let mut state = self.state.subscribe();
        let waited =
            tokio::time::timeout(WAIT_LIMIT, state.wait_for(|state| state.arrivals > 0)).await;
        if waited.is_err() {
            bail!("waited {WAIT_LIMIT:?} for an answer to reach its gate; none did");
        }
        Ok(())
    }

    pub(crate) async fn pass(&self) {
        self.state.send_modify(|state| state.arrivals += 1);
        // The sender lives in self, so that the wait cannot fail.
        let _ = self.state.subscribe().wait_for(|state| state.open).await;
    }
}
