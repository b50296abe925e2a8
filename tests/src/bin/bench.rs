//! `make bench`.

use std::process::ExitCode;

use clap::Parser as _;
use mainloop_tests::bench;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    // The plane that the bench starts runs this very program as its agent.
    if let Some(played) = bench::play(std::env::args_os().skip(1)) {
        return ended(played);
    }
    let options = bench::Options::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(error.into())),
    };
    ended(runtime.block_on(async {
        tokio::select! {
            result = bench::run(options) => result,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        }
    }))
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns at Ctrl-C, or when asked to terminate.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
