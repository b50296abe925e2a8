//! The full-screen inbox.

use crate::client::Client;

/// Runs until the person quits.
pub(crate) async fn run(_client: Client) -> anyhow::Result<()> {
    Ok(())
}
