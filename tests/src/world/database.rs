//! A look into the plane's database.

use std::path::Path;

use anyhow::{Context, Result};
use tokio_postgres::{Client, Config, NoTls};

/// Connects to the private server of a data folder, as the plane does.
pub async fn connect(data: &Path) -> Result<Client> {
    let mut config = Config::new();
    config
        .host_path(data.join("postgres").join("s"))
        .port(5432)
        .user("mainloop")
        .dbname("mainloop");
    let (client, connection) = config
        .connect(NoTls)
        .await
        .context("connect to the plane's PostgreSQL")?;
    // Ends with its client.
    tokio::spawn(connection);
    Ok(client)
}
