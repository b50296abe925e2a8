//! `mainloop doctor`: the agent's probe and the plane's check, as one list. It checks nothing itself: who needs a thing knows how
//! to try it.

use std::{
    path::PathBuf,
    process::{Output as Finished, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::programs;
use crate::{
    args::Doctor,
    exit::Exit,
    output::{Output, style::Style},
    text,
};

/// Longer than the slowest check, which starts a sandbox and the Claude Code CLI in it.
const PATIENCE: Duration = Duration::from_mins(2);

/// How to mend what the programs themselves lack.
const INSTALL: &str = "install the three programs of mainloop, of one version, in one folder";

/// What a program found.
#[derive(Debug, Deserialize)]
struct Found {
    checks: Vec<Check>,
    #[serde(default)]
    mounts_toml: String,
    /// What the plane wants the agent's probe to look at.
    #[serde(default)]
    probe: Vec<String>,
    /// And what the agent's trial of a repository is told as well.
    #[serde(default)]
    trial: Vec<String>,
}

/// One prerequisite.
#[derive(Debug, Deserialize, Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    fix: Option<String>,
}

/// All of it, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
    mounts_toml: String,
}

pub(super) async fn run(doctor: Doctor, output: &Output) -> anyhow::Result<Exit> {
    match doctor.repo {
        Some(repo) => try_repository(repo, doctor.command, output).await,
        None => look(output).await,
    }
}

/// Has the agent run a repository's tests by the plane's own settings.
async fn try_repository(
    repo: String,
    command: Option<String>,
    output: &Output,
) -> anyhow::Result<Exit> {
    let settings = ask(
        programs::CONTROL_PLANE,
        &["check", "--json"].map(String::from),
    )
    .await;
    let found = match settings {
        // What else is wrong here does not matter to it, unless the plane's settings do not read.
        Ok(Found { probe, trial, .. }) if !trial.is_empty() => {
            let mut arguments = vec!["trial".to_owned(), "--json".to_owned()];
            arguments.extend(probe.into_iter().chain(trial));
            arguments.extend(["--repo".to_owned(), repo]);
            arguments.extend(
                command
                    .into_iter()
                    .flat_map(|command| ["--command".to_owned(), command]),
            );
            follow(&arguments, output).await.map(with_tests)
        }
        Ok(Found { checks, .. }) if checks.iter().all(|check| check.ok) => Err(failed(
            programs::CONTROL_PLANE,
            "does not say how workers are set up".to_owned(),
            INSTALL,
        )),
        other => other,
    };
    let (checks, mounts_toml) = match found {
        Ok(found) => (found.checks, found.mounts_toml),
        Err(check) => (vec![check], String::new()),
    };
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        checks,
        mounts_toml,
    };
    print(
        &report,
        "The repository's tests pass in a worker's sandbox.",
        output,
    )?;
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

/// A trial without tests that ran and nothing that kept them from running is none.
fn with_tests(mut found: Found) -> Found {
    let has_tests = found.checks.iter().any(|check| check.name == "tests");
    if !has_tests && found.checks.iter().all(|check| check.ok) {
        let detail = "ended without having run the tests".to_owned();
        found
            .checks
            .push(failed(programs::WORKER_AGENT, detail, INSTALL));
    }
    found
}

/// Runs the agent for as long as it takes. What it says meanwhile is shown where people read. Ctrl-C reaches it, and what it
/// says then is waited for.
async fn follow(arguments: &[String], output: &Output) -> Result<Found, Check> {
    let name = programs::WORKER_AGENT;
    let program = program(name)?;
    let _interrupt = signal(SignalKind::interrupt());
    let said = if output.is_json() {
        Stdio::piped()
    } else {
        Stdio::inherit()
    };
    let done = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(said)
        .stdout(Stdio::piped())
        .spawn()
        .map(tokio::process::Child::wait_with_output);
    match done {
        Ok(done) => match done.await {
            Ok(done) => report(name, &done),
            Err(error) => Err(failed(name, format!("cannot run it: {error}"), INSTALL)),
        },
        Err(error) => Err(failed(name, format!("cannot run it: {error}"), INSTALL)),
    }
}

async fn look(output: &Output) -> anyhow::Result<Exit> {
    let mut checks = Vec::new();
    let mut mounts_toml = String::new();
    let mut probe = Vec::new();
    for (program, verb) in [
        (programs::CONTROL_PLANE, "check"),
        (programs::WORKER_AGENT, "probe"),
    ] {
        let mut arguments = vec![verb.to_owned(), "--json".to_owned()];
        arguments.append(&mut probe);
        match ask(program, &arguments).await {
            Ok(found) => {
                checks.extend(found.checks);
                mounts_toml.push_str(&found.mounts_toml);
                probe = found.probe;
            }
            Err(check) => checks.push(check),
        }
    }
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        checks,
        mounts_toml,
    };
    print(
        &report,
        "All is well: `mainloop up` starts a plane.",
        output,
    )?;
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

/// What the program says; where it says nothing, that is a failed check.
async fn ask(name: &str, arguments: &[String]) -> Result<Found, Check> {
    let program = program(name)?;
    let run = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let done = match timeout(PATIENCE, run).await {
        Err(_) => {
            let command = format!("{name} {}", arguments.join(" "));
            return Err(failed(
                name,
                format!("no answer within {} s", PATIENCE.as_secs()),
                &format!("run `{command}` to see where it stops"),
            ));
        }
        Ok(Err(error)) => return Err(failed(name, format!("cannot run it: {error}"), INSTALL)),
        Ok(Ok(done)) => done,
    };
    report(name, &done)
}

/// A check of a program that could not make its own.
fn failed(name: &str, detail: String, fix: &str) -> Check {
    Check {
        name: name.to_owned(),
        ok: false,
        detail,
        fix: Some(fix.to_owned()),
    }
}

fn program(name: &str) -> Result<PathBuf, Check> {
    let missing = || "found neither beside this program nor on PATH".to_owned();
    programs::find(name).ok_or_else(|| failed(name, missing(), INSTALL))
}

/// What a program that ended has printed.
fn report(name: &str, done: &Finished) -> Result<Found, Check> {
    serde_json::from_slice(&done.stdout).map_err(|_| {
        let words = text::one_line(&String::from_utf8_lossy(&done.stderr));
        let why = match text::truncate(&words, 300) {
            words if words.is_empty() => String::new(),
            words => format!(": {words}"),
        };
        let detail = format!("ended with {} and no report{why}", done.status);
        failed(name, detail, INSTALL)
    })
}

fn print(report: &Report, well: &str, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        output.line(serde_json::to_string(report)?)?;
        return Ok(());
    }
    let columns = report
        .checks
        .iter()
        .map(|check| text::width(&check.name))
        .max();
    for check in &report.checks {
        let (style, word) = if check.ok {
            (Style::Green, "ok  ")
        } else {
            (Style::Red, "FAIL")
        };
        let name = text::one_line(&check.name);
        let pad = " ".repeat(columns.unwrap_or(0).saturating_sub(text::width(&name)));
        let line = format!(
            "{}  {name}{pad}  {}",
            output.paint(style, word),
            text::one_line(&check.detail)
        );
        output.line(line.trim_end())?;
        let fix = check.fix.as_deref().map(text::sanitize).unwrap_or_default();
        if !check.ok {
            for line in fix.lines() {
                output.line(format!("      {} {line}", output.paint(Style::Cyan, "→")))?;
            }
        }
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    output.line("")?;
    if failed == 0 {
        output.line(well)?;
    } else {
        let noun = if failed == 1 { "check" } else { "checks" };
        output.line(format!(
            "{failed} {noun} failed; the arrows say how to mend them."
        ))?;
    }
    if !report.mounts_toml.is_empty() {
        output.line("\nToolchains found here. To give them to workers, put this into the plane's configuration:\n")?;
        output.line(text::sanitize(&report.mounts_toml).trim_end())?;
    }
    Ok(())
}
