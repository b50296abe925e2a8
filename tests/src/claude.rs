//! Finds the Claude Code CLI that tests and the demo run.
//!
//! Tests drive the real CLI, never a stand-in; where it is missing they fail and say how to install it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The version whose behaviour the driver was written against.
pub const CLAUDE_VERSION: &str = include_str!("../../scripts/claude-version").trim_ascii();

/// Path of the Claude Code CLI: `MAINLOOP_CLAUDE`, else where `make claude` puts it (below `/var/lib/mainloop` for root and
/// `~/.cache/mainloop` for others).
///
/// Fails with the way to install it when there is no file.
pub fn claude_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MAINLOOP_CLAUDE") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("MAINLOOP_CLAUDE names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let path = cache_folder()?
        .join("claude")
        .join(CLAUDE_VERSION)
        .join("claude");
    if !path.is_file() {
        bail!(
            "no Claude Code {CLAUDE_VERSION} at {}: run `make claude`, or set MAINLOOP_CLAUDE",
            path.display()
        );
    }
    Ok(path)
}

fn cache_folder() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/mainloop"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache").join("mainloop"))
}
