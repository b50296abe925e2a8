//! Whether workers can be sandboxed on this host, tried with the production flags before anything is claimed.
//!
//! While it fails, nothing is claimed: no attempt is spent on what a person has to mend.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::rpc::access::{Health, Workers};

/// How long the probe may take; it starts a sandbox and a few programs.
const PROBE: Duration = Duration::from_secs(90);
/// How soon it is tried again after it failed.
const AGAIN: Duration = Duration::from_secs(15);

/// What to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `mainloop-worker-agent` binary.
    pub agent: PathBuf,
    /// What its probe is told of this plane.
    pub arguments: Vec<String>,
}

/// What `probe --json` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Outcome {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
    fix: String,
}

/// Tries until it works. Tasks stay queued until then.
pub async fn keep(options: Options, health: Health, stop: CancellationToken) {
    loop {
        let problem = tokio::select! {
            () = stop.cancelled() => return,
            problem = problem(&options) => problem,
        };
        let Some(problem) = problem else {
            return health.set_workers(Workers::Able);
        };
        tracing::warn!("{problem}");
        health.set_workers(Workers::Unable(problem));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// What is wrong and how to mend it, as one sentence; nothing when workers can be sandboxed.
async fn problem(options: &Options) -> Option<String> {
    let run = Command::new(&options.agent)
        .arg("probe")
        .arg("--json")
        .args(&options.arguments)
        .env_clear()
        .envs(super::process::environment())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let agent = options.agent.display();
    let output = match tokio::time::timeout(PROBE, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Some(format!("{agent} could not be run: {error}")),
        Err(_) => {
            return Some(format!(
                "workers cannot start here: `{agent} probe` did not end within {} s",
                PROBE.as_secs()
            ));
        }
    };
    let Ok(outcome) = serde_json::from_slice::<Outcome>(&output.stdout) else {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.lines().last().unwrap_or("it said nothing");
        return Some(format!(
            "workers cannot start here: `{agent} probe` ended with {}: {words}",
            output.status
        ));
    };
    let check = outcome.checks.iter().find(|check| !check.ok)?;
    Some(format!(
        "workers cannot start here: {}: {}; to mend it, {}",
        check.name,
        check.detail.trim_end_matches('.'),
        check.fix
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing;

    fn agent(folder: &std::path::Path, script: &str) -> PathBuf {
        let path = folder.join("agent");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    fn options(agent: PathBuf) -> Options {
        Options {
            agent,
            arguments: vec!["--claude".to_owned(), "/claude".to_owned()],
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_with_the_way_to_mend_it() {
        let folder = testing::folder();
        for (script, wanted) in [
            (
                r#"echo '{"ok":true,"checks":[{"name":"bubblewrap","ok":true,"detail":"there","fix":""}]}'"#,
                None,
            ),
            (
                r#"echo '{"ok":false,"checks":[{"name":"namespaces","ok":false,"detail":"no permission","fix":"allow them"}]}'; exit 1"#,
                Some("namespaces: no permission; to mend it, allow them"),
            ),
            ("echo broken >&2; exit 3", Some("exit status: 3: broken")),
        ] {
            let found = problem(&options(agent(folder.path(), script))).await;
            match wanted {
                None => assert_eq!(found, None),
                Some(words) => assert!(found.as_ref().unwrap().contains(words), "{found:?}"),
            }
        }
        let found = problem(&options(folder.path().join("none"))).await.unwrap();
        assert!(found.contains("could not be run"), "{found}");
    }

    #[tokio::test]
    async fn tasks_stay_queued_and_say_why_until_it_works() {
        let folder = testing::folder();
        let broken = r#"echo '{"ok":false,"checks":[{"name":"bubblewrap","ok":false,"detail":"bwrap was not found","fix":"install it"}]}'"#;
        let options = options(agent(folder.path(), broken));
        let health = Health::default();
        let mut starts = health.starts();
        let stop = CancellationToken::new();
        let keeping = keep(options, health, stop.clone());
        let looking = async {
            let known = testing::soon(
                "an outcome",
                starts.wait_for(|starts| starts.workers != Workers::Unknown),
            );
            let Workers::Unable(why) = known.await.unwrap().workers.clone() else {
                panic!("it cannot work");
            };
            stop.cancel();
            why
        };
        let ((), why) = tokio::join!(keeping, looking);
        assert!(why.contains("bwrap was not found"), "{why}");
    }
}
