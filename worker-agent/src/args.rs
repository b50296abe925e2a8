//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

/// The worker agent of mainloop. Started by the plane's launcher; `probe` is for people.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The trusted half of one attempt; started by the plane's launcher, with the attempt's token on standard input.
    #[command(hide = true)]
    Sidecar {
        /// The launcher's file.
        config: PathBuf,
    },
    /// The untrusted half, inside the sandbox; started by the sidecar.
    #[command(hide = true)]
    Harness(Harness),
    /// The way from the sidecar to the sandbox: takes limits and another user, then becomes the command.
    #[command(hide = true)]
    Enter(Enter),
    /// Try whether workers can run on this machine.
    Probe(Probe),
    /// Run a repository's own tests as a worker would, and say what they miss.
    Trial(Trial),
}

#[derive(Debug, Args)]
pub(crate) struct Trial {
    #[command(flatten)]
    pub(crate) probe: Probe,
    /// The folder of a clone, which is not written to, or a URL.
    #[arg(long)]
    pub(crate) repo: String,
    /// The test command, instead of the one that the repository names or that is guessed.
    #[arg(long)]
    pub(crate) command: Option<String>,
    /// A host that workers may reach.
    #[arg(long = "host")]
    pub(crate) hosts: Vec<String>,
    /// A network that they may reach although it is private.
    #[arg(long = "network")]
    pub(crate) networks: Vec<String>,
    /// A host that they may never reach.
    #[arg(long = "never")]
    pub(crate) never: Vec<String>,
    /// Seconds that setup commands may take.
    #[arg(long, default_value_t = 900)]
    pub(crate) setup_seconds: u64,
    /// The code host that `GITHUB_TOKEN` is for.
    #[arg(long)]
    pub(crate) code_host: Option<String>,
    /// Its token.
    #[arg(long, env = "GITHUB_TOKEN", hide = true, hide_env_values = true)]
    pub(crate) token: Option<SecretString>,
}

#[derive(Debug, Args)]
pub(crate) struct Enter {
    /// A control group to enter, by the file to write to.
    #[arg(long = "group")]
    pub(crate) groups: Vec<PathBuf>,
    /// The most bytes of one file.
    #[arg(long)]
    pub(crate) file_bytes: u64,
    /// The user to become.
    #[arg(long, requires = "gid")]
    pub(crate) uid: Option<u32>,
    /// Its group.
    #[arg(long, requires = "uid")]
    pub(crate) gid: Option<u32>,
    /// The command to become.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Harness {
    /// The sidecar's control socket.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// The socket of the sidecar's proxies.
    #[arg(long)]
    pub(crate) proxy: PathBuf,
    /// The folder that is the harness's own.
    #[arg(long)]
    pub(crate) work: PathBuf,
    /// The loopback port to listen on, 0 for a free one.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Become the leader of a session of its own.
    #[arg(long)]
    pub(crate) own_session: bool,
    /// How many processes and threads there may be.
    #[arg(long)]
    pub(crate) processes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Print the outcome as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The Claude Code binary that workers would run.
    #[arg(long, env = "MAINLOOP_CLAUDE")]
    pub(crate) claude: Option<PathBuf>,
    /// bubblewrap's binary, where it is not in the usual places.
    #[arg(long, env = "MAINLOOP_BWRAP")]
    pub(crate) bwrap: Option<PathBuf>,
    /// The folder that workers live in.
    #[arg(long, env = "MAINLOOP_WORKERS")]
    pub(crate) data: Option<PathBuf>,
    /// A TOML file with the user's `[toolchains]` and `[worker]`.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// What workers may take of the machine, as JSON; by the configuration's `[worker]` where absent.
    #[arg(long)]
    pub(crate) limits: Option<String>,
}
