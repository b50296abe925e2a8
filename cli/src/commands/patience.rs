//! A plane that goes away in the middle of a command is waited for, for a bounded time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connect;
use crate::{
    args::Global,
    client::{Client, ConnectError},
    exit::Call,
};

/// How long it is waited for: a restart with a database's recovery fits well.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two tries.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What is left of it. A plane that takes connections and drops them again does not renew it; one that speaks does.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Since when the plane is away, and how often it was tried.
    away: Option<(Instant, usize)>,
}

impl Patience {
    /// True from the first try on, until the plane speaks.
    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// A new connection; the loss is the error where there is none to be had in time. `each` is called after each try.
    pub(super) async fn reconnect(
        &mut self,
        lost: Call,
        global: &Global,
        mut each: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Client> {
        let (since, mut tries) = self.away.unwrap_or((Instant::now(), 0));
        let mut refusal = None;
        while since.elapsed() < PATIENCE {
            sleep(PAUSES[tries.min(PAUSES.len() - 1)]).await;
            tries += 1;
            self.away = Some((since, tries));
            match connect(global).await {
                Ok(client) => return Ok(client),
                Err(error @ ConnectError::Unreachable { .. }) => refusal = Some(error),
                Err(error) => return Err(error.into()),
            }
            each()?;
        }
        Err(match refusal {
            Some(refusal) => refusal.into(),
            None => lost.into(),
        })
    }

    /// The plane speaks. True where it had been away.
    pub(super) fn back(&mut self) -> bool {
        self.away.take().is_some()
    }
}
