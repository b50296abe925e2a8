//! What can be typed, with its help.

pub(crate) mod task;

use std::{env, ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand, builder::styling};
use secrecy::SecretString;

use crate::{
    address::Address,
    client::{ConnectError, Target, token_from_file},
    item::ItemRef,
    output::Format,
    words,
};

/// How help is coloured on a terminal.
const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Cyan.on_default().bold())
    .usage(styling::AnsiColor::Cyan.on_default().bold())
    .literal(styling::Style::new().bold());

const AFTER_HELP: &str = "\
A first task:
  mainloop up                             start a plane on this machine (leave it running)
  mainloop task create \"Fix the retries\"  propose a task on the repository you stand in
  mainloop task watch ID                  follow it; it says when it needs you
  mainloop inbox                          everything that needs you, on one screen

Environment:
  MAINLOOP_ADDRESS   the plane: unix:/path or http(s)://host:port
  MAINLOOP_TOKEN     a token, or MAINLOOP_TOKEN_FILE for a file with it; not for the local socket
  MAINLOOP_DATA_DIR  where the local plane keeps its data and its socket
  NO_COLOR           no colour

Exit codes:
  0 done  1 failed  2 wrong usage or values  3 not found  4 not allowed  5 plane does not answer";

/// Hands coding tasks to workers, and asks you only where a person is needed.
#[derive(Debug, Parser)]
#[command(name = "mainloop", version, styles = STYLES, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The plane: `unix:/path` or `http(s)://host:port` [default: the socket of the local plane]
    #[arg(
        long,
        global = true,
        env = "MAINLOOP_ADDRESS",
        hide_env = true,
        value_name = "ADDRESS"
    )]
    pub(crate) address: Option<Address>,
    /// File that holds your token
    #[arg(
        long,
        global = true,
        env = "MAINLOOP_TOKEN_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// How data is printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "text",
        hide_possible_values = true,
        value_name = "text|json"
    )]
    pub(crate) output: Format,
}

impl Global {
    /// The plane and the credential: the file's token, else the environment's, else none.
    pub(crate) fn target(&self) -> Result<Target, ConnectError> {
        let token = match &self.token_file {
            Some(path) => Some(token_from_file(path.clone())?),
            None => env::var("MAINLOOP_TOKEN")
                .ok()
                .filter(|token| !token.trim().is_empty())
                .map(|token| SecretString::from(token.trim())),
        };
        Ok(Target {
            address: self.address.clone().unwrap_or_else(Address::local),
            token,
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a plane on this machine, with a database of its own
    Up(Up),
    /// Propose, start, watch and steer tasks
    #[command(subcommand)]
    Task(task::Command),
    /// What needs you, what goes on, what is done: full screen on a terminal, a list elsewhere
    Inbox(Inbox),
    /// Show an inbox item with all that you need to decide: the plan and how it changed, the question and its options
    Show(Show),
    /// Say yes: start the task, implement the plan
    #[command(after_help = "Example:\n  mainloop approve k3f9@2")]
    Approve(Approve),
    /// Say no: decline the task or the plan, give up on a blocked task
    Reject(Resolve),
    /// Have the plan made again, with your words
    #[command(after_help = "Example:\n  mainloop revise k3f9@1 \"keep the old flag as an alias\"")]
    Revise(Resolve),
    /// Answer a question, or give a blocked worker the insight to go on with
    #[command(after_help = ANSWER_HELP)]
    Answer(Answer),
    /// Choose another way on for a task that is stuck: try again, more turns, afresh, more money, by hand
    #[command(after_help = RESOLVE_HELP)]
    Resolve(Way),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// Who you are to the plane, and what you may do
    Whoami,
    /// How the plane is
    Status,
    /// Check everything that a plane and its workers need on this machine, and say how to mend what is missing
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  mainloop completions bash > ~/.local/share/bash-completion/completions/mainloop"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const DOCTOR_HELP: &str = "\
With --repo it runs the repository's tests as a worker would: in the sandbox, with the mounts, limits
and hosts of the plane's policy, on a clone of its own. The command is --command, or `test` in the
repository's .mainloop.toml, or a guess by its files; the setup commands of .mainloop.toml run before.

Examples:
  mainloop doctor
  mainloop doctor --repo .
  mainloop doctor --repo https://github.com/acme/widgets --command \"npm ci && npm test\"";

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Run this repository's tests as a worker would: the folder of a clone, which is not written to, or a URL
    #[arg(long, value_name = "FOLDER|URL")]
    pub(crate) repo: Option<String>,
    /// The command that runs its tests
    #[arg(long, value_name = "COMMAND", requires = "repo")]
    pub(crate) command: Option<String>,
}

const ANSWER_HELP: &str = "\
A number picks that option of the question; several are separated by commas where several may be
chosen. Anything else is your answer in your own words. Where an item asks several questions, give
one answer for each, in their order.

Examples:
  mainloop answer k3f9@1 2
  mainloop answer k3f9@1 \"neither: use the existing helper in util.rs\"
  mainloop answer k3f9@1 1 \"no limit\"";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything after `up` goes to the plane: `mainloop-control-plane serve --help` lists what it takes.\n\nExamples:\n  mainloop up\n  mainloop up --data-dir ~/.mainloop --listen 127.0.0.1:50051"
)]
pub(crate) struct Up {
    /// Flags for the plane
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PLANE FLAGS"
    )]
    pub(crate) flags: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inbox {
    /// Go on with what changes; on a terminal it always does
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Item, such as `k3f9`; `k3f9@2` is refused unless 2 is the newest revision
    pub(crate) item: ItemRef,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// Item with the revision that you saw, such as `k3f9@2`; no other is approved
    pub(crate) item: ItemRef,
    /// Your words; `-` reads them from stdin
    pub(crate) text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// Item with the revision that you saw, such as `k3f9@2`; without it the newest is meant, and named in the answer
    pub(crate) item: ItemRef,
    /// Your words; `-` reads them from stdin
    pub(crate) text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Answer {
    /// Item with the revision that you saw, such as `k3f9@1`; without it the newest is meant, and named in the answer
    pub(crate) item: ItemRef,
    /// The number of an option, or your own words; asked for on a terminal when left out
    #[arg(value_name = "ANSWER")]
    pub(crate) answers: Vec<String>,
    /// Take answers as they are written, numbers too
    #[arg(long)]
    pub(crate) verbatim: bool,
}

const RESOLVE_HELP: &str = "\
`mainloop show ITEM` lists what the item takes.

Examples:
  mainloop resolve k3f9@1 --retry
  mainloop resolve k3f9@1 --more-attempts=2 \"the fixture lives in tests/data\"
  mainloop resolve k3f9@1 --start-afresh \"use the existing parser instead\"
  mainloop resolve k3f9@1 --top-up=3
  mainloop resolve k3f9@1 --take-over";

#[derive(Debug, clap::Args)]
pub(crate) struct Way {
    /// Item with the revision that you saw, such as `k3f9@2`; without it the newest is meant, and named in the answer
    pub(crate) item: ItemRef,
    /// What the worker should know; `-` reads it from stdin
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Choice {
    /// The same once more: what was in the way is mended
    #[arg(long)]
    pub(crate) retry: bool,
    /// Go on mending checks for so many more turns [default: as many as policy says]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, value_parser = clap::value_parser!(u32).range(1..=100))]
    #[expect(clippy::option_option, reason = "a flag whose value may be left out")]
    pub(crate) more_attempts: Option<Option<u32>>,
    /// Do it again on a new branch; the pull request before is closed
    #[arg(long)]
    pub(crate) start_afresh: bool,
    /// Let the task cost so much more [default: the default budget]
    #[arg(long, value_name = "USD", num_args = 0..=1, require_equals = true, value_parser = crate::format::parse_money)]
    #[expect(clippy::option_option, reason = "a flag whose value may be left out")]
    pub(crate) top_up: Option<Option<i64>>,
    /// Go on by hand: the task is over, branch and pull request stay
    #[arg(long)]
    pub(crate) take_over: bool,
}

impl Choice {
    /// The one that was chosen.
    pub(crate) fn action(&self) -> mainloop_proto::v1::InboxAction {
        use mainloop_proto::v1::InboxAction as Action;

        if self.more_attempts.is_some() {
            Action::MoreAttempts
        } else if self.start_afresh {
            Action::StartAfresh
        } else if self.top_up.is_some() {
            Action::TopUp
        } else if self.take_over {
            Action::TakeOver
        } else {
            Action::Retry
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is printed this once, alone on stdout
    #[command(
        after_help = "Example:\n  mainloop token create ci --scope read --scope submit --ttl 30d > token"
    )]
    Create {
        /// A name for people
        name: String,
        /// What it may do: read, submit, approve, admin; repeat for several
        #[arg(long, required = true, value_parser = words::parse_scope, value_name = "SCOPE")]
        scope: Vec<mainloop_proto::v1::Scope>,
        /// How long it is valid, such as 12h or 30d; for ever when left out
        #[arg(long, value_parser = crate::format::parse_duration, value_name = "DURATION")]
        ttl: Option<i64>,
    },
    /// List tokens, without their secrets
    List {
        /// Revoked and expired ones as well
        #[arg(long)]
        all: bool,
    },
    /// End a token at once
    Revoke {
        /// Id or name
        token: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn definitions_are_consistent() {
        Args::command().debug_assert();
    }
}
