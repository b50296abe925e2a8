//! Will this machine do? Answered in the first seconds, before anything is started that stays.
//!
//! The plane and the agent look themselves, each at what it needs; here is added what only the demo needs.

use std::{fmt::Write as _, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::world::{
    binaries::{self, binary},
    plane::passed_on,
};

/// What the demo's processes take at the same time, with room to spare.
const MEMORY_MIB: u64 = 1024;
/// Longer than the slowest check, which starts a sandbox and the Claude Code CLI in it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Checks of the plane that are about its own settings and credentials: the demo brings its own.
const OTHERS: &[&str] = &["policy", "GitHub token", "model credential"];

/// One thing that was looked at.
struct Finding {
    name: String,
    seen: Result<String, Missing>,
}

/// What is missing, and how to mend it.
struct Missing {
    what: String,
    fix: String,
}

/// What a program of mainloop found.
#[derive(Deserialize)]
struct Report {
    checks: Vec<Check>,
    /// What the plane wants the agent's probe to look at.
    #[serde(default)]
    probe: Vec<String>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
    fix: Option<String>,
}

/// Looks at everything that the demo needs, and says it in one table. Fails where something is missing.
pub(super) async fn preflight(data: &Path) -> Result<String> {
    let mut findings = vec![system(), memory(), python()];
    findings.extend(programs(data).await?);
    let mut table = String::new();
    let mut missing = 0;
    for finding in &findings {
        match &finding.seen {
            Ok(seen) => {
                let _ = writeln!(table, "  ok    {:15} {seen}", finding.name);
            }
            Err(lack) => {
                missing += 1;
                let _ = writeln!(
                    table,
                    "  FAIL  {:15} {}\n        {:15} to mend it: {}",
                    finding.name, lack.what, "", lack.fix
                );
            }
        }
    }
    if missing > 0 {
        bail!("this machine will not do yet:\n{table}");
    }
    Ok(table)
}

fn missing(what: impl Into<String>, fix: impl Into<String>) -> Missing {
    Missing {
        what: what.into(),
        fix: fix.into(),
    }
}

fn system() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let seen = if cfg!(target_os = "linux") {
        Ok(format!(
            "Linux {}, {}",
            release.trim(),
            std::env::consts::ARCH
        ))
    } else {
        Err(missing(
            std::env::consts::OS,
            "run it in a Linux VM (on Windows: WSL2)",
        ))
    };
    Finding {
        name: "system".to_owned(),
        seen,
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024;
    let seen = if free >= MEMORY_MIB {
        Ok(format!("{free} MiB free"))
    } else {
        Err(missing(
            format!("{free} MiB free, {MEMORY_MIB} wanted"),
            "close something large",
        ))
    };
    Finding {
        name: "memory".to_owned(),
        seen,
    }
}

fn python() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("python3"))
        .find(|path| path.is_file());
    let seen = found
        .map(|path| path.display().to_string())
        .ok_or_else(|| missing("no python3 in PATH", "install python3"));
    Finding {
        name: "CI of the demo".to_owned(),
        seen,
    }
}

/// What the plane needs, and whether a sandbox starts with the Claude Code CLI in it.
async fn programs(data: &Path) -> Result<Vec<Finding>> {
    let folder = data.display().to_string();
    let plane = ask(binaries::PLANE, &["check", "--json", "--data-dir", &folder]).await?;
    let mut arguments = vec!["probe", "--json"];
    arguments.extend(plane.probe.iter().map(String::as_str));
    let agent = ask(binaries::AGENT, &arguments).await?;
    let mut findings: Vec<Finding> = plane
        .checks
        .into_iter()
        .filter(|check| !OTHERS.contains(&check.name.as_str()))
        .map(|check| Finding {
            name: check.name.clone(),
            seen: seen(check),
        })
        .collect();
    let wrong: Vec<Check> = agent.checks.into_iter().filter(|check| !check.ok).collect();
    if wrong.is_empty() {
        findings.push(Finding {
            name: "sandbox".to_owned(),
            seen: Ok("starts, with Claude Code in it".to_owned()),
        });
    }
    findings.extend(wrong.into_iter().map(|check| Finding {
        name: format!("sandbox: {}", check.name),
        seen: seen(check),
    }));
    Ok(findings)
}

fn seen(check: Check) -> Result<String, Missing> {
    if check.ok {
        return Ok(check.detail);
    }
    Err(missing(check.detail, check.fix.unwrap_or_default()))
}

/// What the program says of this machine, in the environment that the demo's plane gets.
async fn ask(name: &str, arguments: &[&str]) -> Result<Report> {
    let own = ["HOME", "MAINLOOP_CLAUDE"];
    let run = Command::new(binary(name)?)
        .args(arguments)
        .env_clear()
        .envs(passed_on())
        .envs(
            own.iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let command = format!("{name} {}", arguments.join(" "));
    let done = timeout(PATIENCE, run)
        .await
        .with_context(|| format!("no answer within {PATIENCE:?} of `{command}`"))?
        .with_context(|| format!("run `{command}`"))?;
    serde_json::from_slice(&done.stdout).with_context(|| {
        format!(
            "`{command}` ended with {} and no report: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sandbox_is_tried() -> Result<()> {
        let data = tempfile::tempdir()?;
        let table = preflight(data.path()).await?;
        for name in ["PostgreSQL", "Claude Code", "sandbox"] {
            assert!(
                table.contains(&format!("ok    {name} ")),
                "{name} in\n{table}"
            );
        }
        Ok(())
    }
}
