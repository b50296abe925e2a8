//! Whether pushes may pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// What a closed gate says.
pub(super) const CLOSED: &str = "pushes are closed until the plan is approved";
/// What a gate says that is closed for a while.
const AWAY: &str =
    "touch with mainloop is lost, and nothing is pushed meanwhile; it is pushed when it is back";

/// Whether pushes may pass. Closed at first. A push of which not all was sent when it closes is cut.
#[derive(Clone, Debug, Default)]
pub struct PushGate(Arc<Mutex<Gate>>);

#[derive(Debug, Default)]
enum Gate {
    #[default]
    Closed,
    /// For as long as the plane is not heard of.
    Away,
    /// With what ends when it closes.
    Open(CancellationToken),
}

impl PushGate {
    /// Lets pushes pass.
    pub fn open(&self) {
        let mut gate = self.lock();
        if !matches!(*gate, Gate::Open(_)) {
            *gate = Gate::Open(CancellationToken::new());
        }
    }

    /// Refuses pushes, and cuts those under way.
    pub fn close(&self) {
        self.shut(Gate::Closed);
    }

    /// As [`Self::close`], for a while.
    pub fn suspend(&self) {
        self.shut(Gate::Away);
    }

    fn shut(&self, how: Gate) {
        if let Gate::Open(leave) = std::mem::replace(&mut *self.lock(), how) {
            leave.cancel();
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.leave().is_some()
    }

    /// Where it is open, what ends when it closes.
    pub(super) fn leave(&self) -> Option<CancellationToken> {
        match &*self.lock() {
            Gate::Open(leave) => Some(leave.clone()),
            Gate::Closed | Gate::Away => None,
        }
    }

    /// Why a push does not pass, or did not a moment ago.
    pub(super) fn words(&self) -> &'static str {
        match &*self.lock() {
            Gate::Closed => CLOSED,
            Gate::Away | Gate::Open(_) => AWAY,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
