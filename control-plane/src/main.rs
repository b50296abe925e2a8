//! The `mainloop-control-plane` binary.

use std::{env::VarError, error::Error as _, io::IsTerminal, process::ExitCode};

use mainloop_control_plane::{
    app,
    args::{Args, Command, LogFormat, Options},
    check,
    config::Config,
    errors,
};
use tracing_subscriber::EnvFilter;

/// Exit code for a configuration that is refused, as for a command line that is.
const USAGE: u8 = 2;
/// Variable that says what is logged.
const FILTER: &str = "MAINLOOP_LOG";

fn main() -> ExitCode {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Args::read().command {
        Command::Serve(options) => {
            let config = match Config::load(&options) {
                Ok(config) => config,
                Err(error) => return refuse(&error),
            };
            log(config.log);
            let runtime = match tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => return refuse(&error),
            };
            let ended = runtime.block_on(app::serve(config));
            // A folder that is being removed or a name that is looked up is not waited for.
            runtime.shutdown_background();
            match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error @ app::Error::Missing(_)) => refuse(&error),
                Err(error) => {
                    tracing::error!("{}", errors::chain(&error));
                    ExitCode::FAILURE
                }
            }
        }
        Command::Check { json, options } => check(&options, json),
    }
}

/// Prints what was found; the exit code says whether all is well.
fn check(options: &Options, json: bool) -> ExitCode {
    use std::io::Write;

    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let report = runtime.block_on(check::run(options));
    let text = if json {
        serde_json::to_string(&report).expect("a report is plain data") + "\n"
    } else {
        report.to_string()
    };
    // A reader that went away has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn refuse(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    use std::io::Write;

    for line in errors::chain(error).lines() {
        // Nobody to tell when standard error is gone.
        let _ = writeln!(std::io::stderr(), "mainloop: {line}");
    }
    ExitCode::from(USAGE)
}

fn log(format: LogFormat) {
    let (filter, unread) = match EnvFilter::try_from_env(FILTER) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let usual = "info,octocrab=off,tokio_postgres=warn,refinery_core=warn";
            let unset = error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<VarError>);
            (EnvFilter::new(usual), (!unset).then_some(error))
        }
    };
    let builder = tracing_subscriber::fmt()
        // A log that cannot be written (its terminal is gone, its disk is full) is nothing to panic about.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    if let Some(error) = unread {
        tracing::warn!(error = errors::chain(&error), "{FILTER} is not used");
    }
}
