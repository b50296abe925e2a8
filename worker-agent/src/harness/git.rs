//! git as the harness runs it: no prompts, no hooks, no system configuration, http and nothing else.

use std::io;
use std::time::Duration;

use super::children::{Children, Finished};
use super::environment::Places;
use crate::channel::Failure;

/// For commands that only touch the work tree. Large repositories on slow disks need minutes for a checkout.
pub(super) const LOCAL: Duration = Duration::from_mins(10);
/// For a clone, a fetch or a push.
pub(super) const REMOTE: Duration = Duration::from_mins(30);

/// Options of every command; they win over the repository's own configuration.
const ALWAYS: [&str; 12] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "push.gpgSign=false",
];

/// Runs git in the work tree.
#[derive(Clone, Debug)]
pub(super) struct Git {
    children: Children,
    places: Places,
}

impl Git {
    pub(super) fn new(children: Children, places: Places) -> Self {
        Self { children, places }
    }

    /// Where the remote is reached.
    pub(super) fn url(&self, remote_path: &str) -> String {
        format!("http://127.0.0.1:{}{remote_path}", self.places.port)
    }

    /// Writes the configuration that every git in the sandbox reads, Claude's included.
    pub(super) fn configure(&self, name: &str, email: &str) -> io::Result<()> {
        let quoted = |text: &str| {
            let clean: String = text.chars().filter(|c| !c.is_control()).collect();
            format!("\"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let (name, email) = (quoted(name), quoted(email));
        // A local clone between folders of the sandbox is fine, and some tests do it; other transports lead nowhere.
        let text = format!(
            "[user]\n\tname = {name}\n\temail = {email}\n[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\
             [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[submodule]\n\trecurse = false\n\
             [advice]\n\tdetachedHead = false\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n\
             [commit]\n\tgpgSign = false\n[tag]\n\tgpgSign = false\n\
             [protocol]\n\tallow = never\n[protocol \"http\"]\n\tallow = always\n[protocol \"https\"]\n\tallow = always\n\
             [protocol \"file\"]\n\tallow = user\n"
        );
        std::fs::write(&self.places.git_config, text)
    }

    /// Runs git with `input` on its stdin, and returns how it went; fails only where it cannot run or not end.
    pub(super) async fn attempt(
        &self,
        args: &[&str],
        input: &[u8],
        limit: Duration,
    ) -> Result<Finished, Failure> {
        let mut command = self.places.command("git");
        // The remote is on the loopback, and only the loopback is spoken to.
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command
            .env("GIT_ALLOW_PROTOCOL", "http")
            .args(ALWAYS)
            .args(args);
        let done = self.children.run(&mut command, input, limit).await;
        done.map_err(|error| Failure::new(what(args), error.to_string()))
    }

    /// Runs git and wants it to succeed; returns its stdout without the last newline.
    pub(super) async fn run(&self, args: &[&str], limit: Duration) -> Result<String, Failure> {
        let done = self.attempt(args, b"", limit).await?;
        success(args, &done)?;
        Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
    }

    /// The commit that a revision names, if any.
    pub(super) async fn commit(&self, revision: &str) -> Result<Option<String>, Failure> {
        let wanted = format!("{revision}^{{commit}}");
        let done = self
            .attempt(
                &["rev-parse", "-q", "--verify", "--end-of-options", &wanted],
                b"",
                LOCAL,
            )
            .await?;
        let sha = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        Ok(done.exit.ok().then_some(sha))
    }
}

/// A failure where a command did not succeed.
pub(super) fn success(args: &[&str], done: &Finished) -> Result<(), Failure> {
    if done.exit.ok() {
        return Ok(());
    }
    let mut detail = done.stderr.trim().to_owned();
    if let Some(signal) = done.exit.signal {
        detail = format!("ended by signal {signal} {detail}");
    }
    Err(Failure {
        what: what(args),
        code: done.exit.code,
        detail,
    })
}

fn what(args: &[&str]) -> String {
    format!("git {}", args.join(" "))
}
