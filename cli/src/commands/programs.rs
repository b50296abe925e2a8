//! The other two binaries: beside this one, else on PATH.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The control plane.
pub(super) const CONTROL_PLANE: &str = "mainloop-control-plane";
/// The worker agent.
pub(super) const WORKER_AGENT: &str = "mainloop-worker-agent";

/// The program's path, where it is installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let beside = env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
