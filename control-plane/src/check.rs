//! `check`: everything that `serve` needs, tried once, each with how to mend it.
//!
//! Changes nothing and starts nothing. A check that cannot be made is a failed one, and the others are made all the
//! same. No secret stands in a report.

mod away;
mod here;

use std::{fmt, path::Path, process::Stdio, time::Duration};

use serde::Serialize;

use crate::{
    args::Options,
    config::{self, Config},
    errors,
};

/// How long a program may take to say its version.
const PROGRAM: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether all checks are well.
    pub ok: bool,
    /// In the order of a reader's interest.
    pub checks: Vec<Check>,
    /// Arguments with which the agent's probe looks at this plane's own settings.
    pub probe: Vec<String>,
    /// What its trial of a repository is told of this plane as well.
    pub trial: Vec<String>,
}

/// One thing that `serve` needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it will do.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// How to mend it; none where nothing is wrong.
    pub fix: Option<String>,
}

impl Check {
    fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            detail: detail.into(),
            fix: None,
        }
    }

    fn wrong(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            ok: false,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let word = if check.ok { "ok  " } else { "FAIL" };
            writeln!(formatter, "{word}  {}: {}", check.name, check.detail)?;
            if let Some(fix) = &check.fix {
                writeln!(formatter, "      {fix}")?;
            }
        }
        Ok(())
    }
}

/// Makes all checks.
pub async fn run(options: &Options) -> Report {
    let (checks, probe, trial) = match Config::load(options) {
        Ok(config) => (all(&config).await, probe(&config), trial(&config)),
        Err(error) => (vec![refused(&error)], Vec::new(), Vec::new()),
    };
    Report {
        ok: checks.iter().all(|check| check.ok),
        checks,
        probe,
        trial,
    }
}

/// What a trial of a repository is told of this plane's own settings, beside what the probe is told.
fn trial(config: &Config) -> Vec<String> {
    let policy = &config.policy;
    let mut arguments = Vec::new();
    let mut add = |option: &str, value: &str| {
        arguments.extend([option.to_owned(), value.to_owned()]);
    };
    for host in &policy.hosts {
        add("--host", host);
    }
    for network in &policy.allow_networks {
        add("--network", network);
    }
    if let Some(host) = config.code_host.api.host_str() {
        add("--never", host);
    }
    add("--setup-seconds", &policy.setup_seconds.to_string());
    let url = config.code_host.url.as_str();
    add("--code-host", url.trim_end_matches('/'));
    arguments
}

/// Arguments with which the agent's probe looks at this plane's own settings.
pub fn probe(config: &Config) -> Vec<String> {
    let mut arguments = vec!["--claude".to_owned(), config.claude.display().to_string()];
    if config.data_dir.is_dir() {
        arguments.extend(["--data".to_owned(), config.data_dir.display().to_string()]);
    }
    arguments.extend([
        "--limits".to_owned(),
        config.policy.limits_json().to_string(),
    ]);
    if let Some(file) = &config.policy_file {
        arguments.extend(["--config".to_owned(), file.display().to_string()]);
    }
    arguments
}

async fn all(config: &Config) -> Vec<Check> {
    let (database, git, claude, github, model) = tokio::join!(
        here::database(config),
        here::git(),
        here::claude(config),
        away::github(config),
        away::model(config),
    );
    let mut checks = vec![
        policy(config),
        here::data_dir(config),
        here::disk(config),
        database,
        git,
        claude,
        here::agent(config),
    ];
    checks.extend(github);
    checks.push(model);
    checks
}

fn policy(config: &Config) -> Check {
    let name = "policy";
    match &config.policy_file {
        Some(file) => Check::well(name, file.display().to_string()),
        None => Check::well(name, "the default one, for there is no policy file"),
    }
}

/// Nothing else can be looked at then.
fn refused(error: &config::Error) -> Check {
    let (name, fix) = match error {
        config::Error::Policy(_) => (
            "policy",
            "mend the file, or take it away to use the default policy",
        ),
        config::Error::NoDataDir
        | config::Error::RelativeDataDir(_)
        | config::Error::DatabaseUrl(_)
        | config::Error::Read { .. }
        | config::Error::OpenListen(_)
        | config::Error::BaseUrl(_)
        | config::Error::Ambiguous(..)
        | config::Error::HalfApp { .. }
        | config::Error::AppId
        | config::Error::AppKey(..) => ("configuration", "set it right, and run this again"),
    };
    Check::wrong(name, errors::chain(error), fix)
}

/// The first line that a program prints, with nothing of the plane's secrets in its environment.
async fn says(program: &Path, argument: &str) -> Result<String, String> {
    let run = tokio::process::Command::new(program)
        .arg(argument)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let output = match tokio::time::timeout(PROGRAM, run).await {
        Err(_) => return Err(format!("does not answer within {} s", PROGRAM.as_secs())),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(format!("ends with {} and no version", output.status)),
    }
}

#[cfg(test)]
mod tests;
