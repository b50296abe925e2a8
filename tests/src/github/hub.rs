//! The lock around the site, and who is told when it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ci::runner;
use super::site::Site;

/// The site behind its lock, and who is told when it changes.
pub(super) struct Hub {
    site: Mutex<Site>,
    changed: watch::Sender<u64>,
    runtime: tokio::runtime::Handle,
    pub(super) stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// The emulator is being stopped.
#[derive(Debug)]
pub(super) struct Stopped;

impl Hub {
    pub(super) fn new(site: Site, dir: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self {
            site: Mutex::new(site),
            changed: watch::Sender::new(0),
            runtime,
            stop: CancellationToken::new(),
            _dir: dir,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Site> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction: changes the site, starts the workflow runs that came of it, wakes those who wait.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Site) -> T) -> T {
        let (out, runs) = {
            let mut site = self.lock();
            (change(&mut site), std::mem::take(&mut site.to_run))
        };
        for (repo, run) in runs {
            let hub = self.clone();
            self.runtime.spawn(async move {
                let run = Box::pin(runner::run(hub.clone(), repo, run));
                hub.stop.run_until_cancelled(run).await
            });
        }
        self.changed.send_modify(|version| *version += 1);
        out
    }

    /// Waits until `look` finds something. It looks first at the present state, and again after each change.
    pub(super) async fn wait<T>(&self, look: impl Fn(&Site) -> Option<T>) -> Result<T, Stopped> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let found = look(&self.lock());
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped),
                seen = changes.changed() => seen.map_err(|_| Stopped)?,
            }
        }
    }
}
