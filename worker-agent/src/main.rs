//! The `mainloop-worker-agent` binary.

mod args;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mainloop_worker_agent::sidecar::sandbox::{Enter, Limits, Toolchains, enter};
use mainloop_worker_agent::{harness, probe, sidecar, trial};
use secrecy::ExposeSecret;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Cli, Command, Probe, Trial};

// One thread: it is enough for either half, and the sandbox's parent-death signal hangs on the thread that spawns.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(log_filter())
        .with(lines)
        .init();
    match run(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `MAINLOOP_LOG` as `level` and `target=level`, separated by commas. Not `EnvFilter`, whose filters by field bring a
/// regular expression engine with them.
fn log_filter() -> Targets {
    let told = std::env::var("MAINLOOP_LOG").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("octocrab", LevelFilter::OFF)
    })
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Sidecar { config } => {
            // Its memory holds credentials: no core dump, and nothing for other processes of this user to read.
            nix::sys::prctl::set_dumpable(false).context("close the sidecar's memory")?;
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)
                .context("forbid core dumps")?;
            // An error means that a provider is installed already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            sidecar::worker::run(&config).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Harness(args) => {
            let options = harness::Options {
                control: args.control,
                proxy: args.proxy,
                work: args.work,
                port: args.port,
                own_session: args.own_session,
                processes: args.processes,
            };
            harness::run(options).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Enter(args) => {
            let never = enter(&Enter {
                groups: args.groups,
                file_bytes: args.file_bytes,
                ids: args.uid.zip(args.gid),
                command: args.command,
            })?;
            match never {}
        }
        Command::Probe(args) => {
            let outcome = probe::run(&probe_options(&args)?).await;
            print(&outcome, args.json)
        }
        Command::Trial(args) => {
            // Its proxies make connections; an error means that a provider is installed already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let outcome = trial::run(&trial_options(&args)?, &show).await;
            print(&outcome, args.probe.json)
        }
    }
}

/// A line of a trial, for whoever waits. What commands print is made harmless.
fn show(line: &str) {
    // Nobody to tell where standard error is gone.
    let _ = writeln!(
        std::io::stderr(),
        "  {}",
        mainloop_github::text::visible(line)
    );
}

fn print(outcome: &probe::Outcome, json: bool) -> anyhow::Result<ExitCode> {
    let text = if json {
        serde_json::to_string_pretty(outcome)? + "\n"
    } else {
        plain(outcome)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if outcome.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn trial_options(args: &Trial) -> anyhow::Result<trial::Options> {
    let token = args
        .token
        .clone()
        .filter(|token| !token.expose_secret().trim().is_empty());
    Ok(trial::Options {
        probe: probe_options(&args.probe)?,
        repository: args.repo.clone(),
        command: args.command.clone(),
        hosts: args.hosts.clone(),
        networks: args.networks.clone(),
        never: args.never.clone(),
        setup_seconds: args.setup_seconds,
        code_host: args.code_host.clone().zip(token),
    })
}

fn probe_options(args: &Probe) -> anyhow::Result<probe::Options> {
    /// The part of the user's configuration that matters here.
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Config {
        toolchains: Toolchains,
        worker: Limits,
    }
    let config: Config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?
        }
        None => Config::default(),
    };
    Ok(probe::Options {
        agent: std::env::current_exe().context("find the agent's own binary")?,
        claude: args.claude.clone(),
        bubblewrap: args.bwrap.clone(),
        data: args.data.clone().unwrap_or_else(std::env::temp_dir),
        toolchains: config.toolchains,
        limits: match &args.limits {
            Some(text) => serde_json::from_str(text).context("read --limits")?,
            None => config.worker,
        },
    })
}

fn plain(outcome: &probe::Outcome) -> String {
    let mut lines = Vec::new();
    for check in &outcome.checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        lines.push(format!("{mark} {:<12} {}", check.name, check.detail));
        if !check.ok {
            lines.push(format!("     {:<12} {}", "fix:", check.fix));
        }
    }
    if !outcome.mounts_toml.is_empty() {
        lines.push(
            "\nToolchains found that workers do not see; for the configuration:\n".to_owned(),
        );
        lines.push(outcome.mounts_toml.clone());
    }
    lines.join("\n") + "\n"
}
