//! The arguments of `mainloop task …`.

use clap::Subcommand;
use mainloop_proto::v1::{InboxGroup, TaskState};

use crate::{format, repository::Issue, words};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Propose a task; a yes starts it
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List tasks, newest first
    List(List),
    /// Show a task
    Get(Id),
    /// Follow a task as it happens, until it is ready for review or over
    Watch(Watch),
    /// Print what the worker said and did
    Logs(Logs),
    /// Print a task's history: every state, milestone, decision and command
    Events(Id),
    /// Start a proposed task
    Confirm(Id),
    /// End a task, in any state
    Cancel {
        /// Id of the task
        task: String,
        /// Why, for its history
        reason: Option<String>,
    },
    /// Start a task again that failed or is stuck, or at once where it waits; its issue, branch and pull request are used again
    Retry {
        /// Id of the task
        task: String,
        /// What the worker should do differently; `-` reads it from stdin
        guidance: Option<String>,
        /// On a new branch from the base; the pull request before is closed
        #[arg(long)]
        fresh: bool,
    },
    /// Give the running worker guidance
    #[command(
        after_help = "Example:\n  mainloop task say k3f9 \"the fixture lives in tests/data\""
    )]
    Say {
        /// Id of the task
        task: String,
        /// Your words; `-` reads them from stdin
        text: String,
    },
    /// Open a task's pull request, or its issue, in the browser
    Open {
        /// Id of the task
        task: String,
        /// The issue, even where there is a pull request
        #[arg(long)]
        issue: bool,
    },
}

const CREATE_HELP: &str = "\
On a terminal, the proposal is shown with what it may cost at most, and a yes starts it. Elsewhere,
and after a no, it stays a proposal until somebody confirms it; -y confirms at once.

Examples:
  mainloop task create \"Retry on 503 in the fetcher, with a test\"
  mainloop task create --issue 42
  mainloop task create --issue https://github.com/acme/widgets/issues/42 -y
  mainloop task create --repo git@github.com:acme/widgets.git --base v2 --budget 3 \"Backport it\"
  mainloop task create --label team=infra - < description.md";

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What is to be done; `-` reads it from stdin
    #[arg(required_unless_present = "issue")]
    pub(crate) description: Option<String>,
    /// The repository's address, https or ssh [default: the origin of the folder you stand in]
    #[arg(long, value_name = "URL")]
    pub(crate) repo: Option<String>,
    /// Branch to start from and to go to [default: the repository's]
    #[arg(long, value_name = "REF")]
    pub(crate) base: Option<String>,
    /// Issue or pull request to start from
    #[arg(long, value_name = "N|URL")]
    pub(crate) issue: Option<Issue>,
    /// One line [default: made from the description]
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// Model [default: the plane's]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// -100 to 100; higher is started first
    #[arg(long, value_parser = clap::value_parser!(i32).range(-100..=100), allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    pub(crate) priority: i32,
    /// What it may cost at most, in US dollars [default: the plane's]
    #[arg(long, value_name = "USD", value_parser = format::parse_money)]
    pub(crate) budget: Option<i64>,
    /// A label for filters; repeat for several
    #[arg(long, value_name = "K=V", value_parser = parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Start it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only tasks in this state; repeat for several
    #[arg(long, value_parser = words::parse_state)]
    pub(crate) state: Vec<TaskState>,
    /// Only tasks in this group: active, needs-you, completed, failed; repeat for several
    #[arg(long, value_parser = words::parse_group)]
    pub(crate) group: Vec<InboxGroup>,
    /// Only tasks on this repository
    #[arg(long, value_name = "URL")]
    pub(crate) repo: Option<String>,
    /// Only tasks with this label; repeat for several
    #[arg(long, value_name = "K=V", value_parser = parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// At most so many
    #[arg(short = 'n', long, default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Id {
    /// Id of the task
    pub(crate) task: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Id of the task
    pub(crate) task: String,
    /// End when the task is in this state, such as `completed` to wait for the merge
    #[arg(long, value_name = "STATE", value_parser = words::parse_state)]
    pub(crate) until: Option<TaskState>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Id of the task
    pub(crate) task: String,
    /// Go on until the task is over
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the newest so many pieces
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) tail: Option<i32>,
}

/// Reads `key=value`.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not a label such as team=infra")),
    }
}
