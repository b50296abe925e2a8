//! The command line and the environment: the only place that reads either.

use std::{net::SocketAddr, path::PathBuf};

use clap::{
    ArgMatches, Args as Group, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource,
};
use secrecy::SecretString;

/// The control plane of mainloop.
#[derive(Debug, Parser)]
#[command(name = "mainloop-control-plane", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// The program's own; ends the program where they are wrong.
    pub fn read() -> Self {
        Self::of(&Self::command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if let Some((_, given)) = matches.subcommand() {
            refuse_environment(given)?;
        }
        Self::from_arg_matches(matches)
    }
}

/// Everybody on the machine can read a command line.
fn refuse_environment(given: &ArgMatches) -> Result<(), clap::Error> {
    let environment = Environment::augment_args(clap::Command::new("environment"));
    for argument in environment.get_arguments() {
        let id = argument.get_id().as_str();
        if given.value_source(id) == Some(ValueSource::CommandLine) {
            let name = argument.get_env().unwrap_or_default().display();
            return Err(Args::command().error(
                ErrorKind::UnknownArgument,
                format!("{name} is read from the environment alone, not from the command line"),
            ));
        }
    }
    Ok(())
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the plane until it is told to stop.
    Serve(Options),
    /// Check everything that `serve` needs, and say how to mend what is missing.
    Check {
        /// Print one JSON document instead of lines.
        #[arg(long)]
        json: bool,
        /// The same options as `serve` has.
        #[command(flatten)]
        options: Options,
    },
}

/// Options of `serve` and `check`.
#[derive(Clone, Debug, Group)]
pub struct Options {
    /// Folder of everything that is kept. Default: `/var/lib/mainloop` for root, else `$XDG_DATA_HOME/mainloop` or
    /// `~/.local/share/mainloop`.
    #[arg(long, env = "MAINLOOP_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL to use instead of a private one.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,
    /// Folder of the `postgres` and `initdb` programs for the private PostgreSQL. Default: searched for.
    #[arg(long, env = "MAINLOOP_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// Address for clients with tokens, beside the Unix socket. Any but a loopback one needs TLS.
    #[arg(long, env = "MAINLOOP_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Certificate chain for `--listen`, PEM.
    #[arg(
        long,
        env = "MAINLOOP_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        env = "MAINLOOP_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// Code host that tasks may name.
    #[arg(
        long,
        env = "MAINLOOP_GITHUB_URL",
        value_name = "URL",
        default_value = "https://github.com"
    )]
    pub github_url: String,
    /// Its REST API. Default: `https://api.github.com`, or `<code host>/api/v3`.
    #[arg(long, env = "MAINLOOP_GITHUB_API_URL", value_name = "URL")]
    pub github_api_url: Option<String>,
    /// File with the code host's token, instead of `GITHUB_TOKEN`.
    #[arg(long, env = "MAINLOOP_GITHUB_TOKEN_FILE", value_name = "FILE")]
    pub github_token_file: Option<PathBuf>,
    /// GitHub App to act as, instead of a token: its id or its client id. Its private key is read from
    /// `GITHUB_APP_PRIVATE_KEY`, or from a file.
    #[arg(long, env = "GITHUB_APP_ID", value_name = "ID")]
    pub github_app_id: Option<String>,
    /// File with the App's private key, PEM.
    #[arg(long, env = "GITHUB_APP_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub github_app_private_key_file: Option<PathBuf>,
    /// The Claude Code CLI that workers run. Default: `/var/lib/mainloop/claude/<version>/claude` for root, else
    /// `~/.cache/mainloop/claude/<version>/claude`.
    #[arg(long, env = "MAINLOOP_CLAUDE", value_name = "FILE")]
    pub claude: Option<PathBuf>,
    /// The worker agent. Default: beside this program.
    #[arg(long, env = "MAINLOOP_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Run workers without the sandbox. It shows in every task.
    #[arg(long)]
    pub no_sandbox: bool,
    /// Policy file. Default: `<data folder>/policy.toml` when it is there.
    #[arg(long, env = "MAINLOOP_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Workers at the same time. Default: policy's `slots.total`.
    #[arg(long, env = "MAINLOOP_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// How log lines look.
    #[arg(
        long,
        env = "MAINLOOP_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub log: LogFormat,
    /// What the environment alone says.
    #[command(flatten)]
    pub environment: Environment,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Values that never stand on a command line: secrets, and what the system sets. Each has a hidden option only because
/// that is how the parser reads the environment; [`Args::read`] refuses it.
#[derive(Clone, Debug, Group)]
#[expect(missing_docs, reason = "each is the variable of its name")]
pub struct Environment {
    #[arg(long, env = "GITHUB_TOKEN", hide = true, hide_env_values = true)]
    pub github_token: Option<SecretString>,
    #[arg(
        long,
        env = "GITHUB_APP_PRIVATE_KEY",
        hide = true,
        hide_env_values = true
    )]
    pub github_app_private_key: Option<SecretString>,
    #[arg(long, env = "ANTHROPIC_API_KEY", hide = true, hide_env_values = true)]
    pub anthropic_api_key: Option<SecretString>,
    #[arg(
        long,
        env = "ANTHROPIC_AUTH_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub anthropic_auth_token: Option<SecretString>,
    #[arg(
        long,
        env = "CLAUDE_CODE_OAUTH_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub claude_code_oauth_token: Option<SecretString>,
    #[arg(long, env = "ANTHROPIC_BASE_URL", hide = true)]
    pub anthropic_base_url: Option<String>,
    #[arg(long, env = "XDG_DATA_HOME", hide = true)]
    pub xdg_data_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,
    #[arg(long, env = "PATH", hide = true, default_value = "")]
    pub search_path: std::ffi::OsString,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_shows_no_secret_and_no_hidden_option() {
        let mut command = Args::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        assert!(
            !help.contains("github-token ")
                && !help.contains("app-private-key ")
                && !help.contains("anthropic"),
            "{help}"
        );
        assert!(help.contains("--github-token-file"), "{help}");
    }

    #[test]
    fn what_the_environment_says_is_refused_on_the_command_line() {
        for option in [
            "--github-token",
            "--github-app-private-key",
            "--anthropic-api-key",
            "--home",
        ] {
            for command in ["serve", "check"] {
                let arguments = ["plane", command, option, "sk-marker"];
                let matches = Args::command().try_get_matches_from(arguments).unwrap();
                let refused = Args::of(&matches).unwrap_err().to_string();
                assert!(refused.contains("environment alone"), "{refused}");
                assert!(!refused.contains("sk-marker"), "{refused}");
            }
        }
        let matches = Args::command().try_get_matches_from(["plane", "serve"]);
        assert!(Args::of(&matches.unwrap()).is_ok());
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let result = Args::try_parse_from(["plane", "serve", "--tls-cert", "cert.pem"]);
        assert!(result.unwrap_err().to_string().contains("--tls-key"));
    }
}
