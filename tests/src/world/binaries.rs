//! Finds the programs under test: those that were built beside the running one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The control plane.
pub const PLANE: &str = "mainloop-control-plane";
/// The worker agent.
pub const AGENT: &str = "mainloop-worker-agent";
/// The CLI.
pub const CLI: &str = "mainloop";

/// Path of one of mainloop's programs: beside the running program, or one folder above (where cargo puts tests).
///
/// Fails with the way to build it where it is in neither.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = [folder, folder.parent().unwrap_or(folder)];
    for place in places {
        let path = place.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "{name} is not built: neither {} nor {} has it; `make test` builds it first, or run `cargo build --bins`",
        places[0].display(),
        places[1].display()
    )
}
