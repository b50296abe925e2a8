//! The `mainloop` command against a world's plane, as a script runs it: not on a terminal.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{
    World,
    binaries::{self, binary},
    wait::PATIENCE,
};

/// How a command ended and what it printed.
pub struct Ran {
    /// Exit code, -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl World {
    /// Runs `mainloop` with these arguments.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Ran> {
        let output = Command::new(binary(binaries::CLI)?)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MAINLOOP_DATA_DIR", self.data())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .with_context(|| format!("mainloop {} did not end", arguments.join(" ")))??;
        Ok(Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
