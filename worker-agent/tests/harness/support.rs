//! A place for sandboxes, and what tests do with them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainloop_worker_agent::channel::{Error, Notice, Setup};
use mainloop_worker_agent::sidecar::sandbox::{
    Ids, Isolation, Limits, Sandbox, Toolchains, Worker, find_bubblewrap,
};
use tempfile::TempDir;

/// Longer than anything here takes, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that other users may pass through.
pub(crate) fn place() -> TempDir {
    let folder = tempfile::Builder::new().prefix("ml").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

/// A sandbox for the worker `name`; as root, under a uid of its own.
pub(crate) fn sandbox(place: &Path, name: &str) -> Sandbox {
    let root = nix::unistd::geteuid().is_root();
    Sandbox {
        isolation: Isolation::Bubblewrap {
            program: find_bubblewrap(None).expect("bubblewrap is installed"),
            tmp_bytes: 64 << 20,
        },
        agent: agent(place),
        claude: None,
        work: place.join(name).join("work"),
        run: place.join(name).join("run"),
        toolchains: Toolchains::default(),
        ids: root.then(|| Ids::for_worker(name)),
        name: place.join(name).display().to_string().replace('/', "-"),
        limits: Limits::default(),
    }
}

/// Runs a script inside; returns what it printed.
pub(crate) async fn script(worker: &mut Worker, script: &str) -> Result<String, Error> {
    while worker.notices.try_recv().is_ok() {}
    let setup = Setup {
        commands: vec![script.to_owned(), "echo script-is-over".to_owned()],
        env: [("MARK".to_owned(), "set".to_owned())].into(),
        timeout_seconds: PATIENCE.as_secs(),
    };
    worker.harness.setup(setup).await?;
    let mut printed = String::new();
    while let Ok(Some(notice)) = tokio::time::timeout(PATIENCE, worker.notices.recv()).await {
        match notice {
            Notice::SetupOutput(line) if line == "script-is-over" => return Ok(printed),
            Notice::SetupOutput(line) => {
                printed.push_str(&line);
                printed.push('\n');
            }
            other => panic!("unasked: {other:?}"),
        }
    }
    panic!("the script's output stopped after: {printed}");
}

/// Waits until `look` finds something; `what` and the last thing seen go into the failure.
pub(crate) async fn until<T, S: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> Result<T, S>,
) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > end => {
                panic!("{what}: not so, saw {seen:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The binary, copied to where every user can get to it.
pub(crate) fn agent(place: &Path) -> PathBuf {
    let path = place.join("agent");
    if !path.exists() {
        fs::copy(env!("CARGO_BIN_EXE_mainloop-worker-agent"), &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    path
}
