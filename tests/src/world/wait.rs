//! The one way to wait for what has no event to wait on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longer than anything takes on a machine under load.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Looks until `look` finds something. Fails after `limit` with `what` was awaited and what was seen last.
pub async fn until<T, S: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > end => bail!("waited {limit:?} for {what}; saw {seen}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
