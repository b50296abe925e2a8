//! `mainloop`: the command line and the full-screen inbox, a gRPC client like any other.
//!
//! It holds no state and makes no decision of its own. What it prints from the plane is text of strangers and has passed
//! `text::sanitize`. When it dies, nothing is lost: tasks live in the plane, and every command can be typed again.

mod address;
mod args;
mod client;
mod commands;
mod exit;
mod format;
mod item;
mod output;
mod repository;
mod terminal;
mod text;
mod tui;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Args, output::Output};

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.global.output);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot start the runtime");
            return exit::report(&output, &error);
        }
    };
    match runtime.block_on(commands::run(args, &output)) {
        Ok(code) => code,
        Err(error) => exit::report(&output, &error),
    }
}
