//! The `mainloop-worker-agent` binary.

mod args;

use std::process::ExitCode;

use clap::Parser;
use mainloop_worker_agent::harness;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

// One thread: it is enough for either half, and the sandbox's parent-death signal hangs on the thread that spawns.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Harness(args) => {
            let options = harness::Options {
                control: args.control,
                proxy: args.proxy,
                work: args.work,
                port: args.port,
                own_session: args.own_session,
            };
            harness::run(options).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
