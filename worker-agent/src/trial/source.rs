//! The repository on the host: a bare clone, of which only git reads, and nothing is checked out.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use tokio::process::Command;

use super::{Options, findings, shown};
use crate::probe::{Check, bad};
use crate::sidecar::sandbox::Ids;

/// How long a clone may take.
const CLONE_WITHIN: Duration = Duration::from_mins(30);
/// How long git may take to read from it.
const READ_WITHIN: Duration = Duration::from_mins(1);

/// A bare clone.
#[derive(Debug)]
pub(super) struct Source {
    folder: PathBuf,
    from: String,
    head: String,
    /// Something of the user's folder is not in a commit.
    has_changes: bool,
}

impl Source {
    /// Clones what the options name into `folder`.
    pub(super) async fn clone(options: &Options, folder: &Path) -> Result<Self, Check> {
        let named = &options.repository;
        let local = Path::new(named);
        let is_local = local.is_dir();
        let is_remote = named.contains("://") || named.contains('@') && named.contains(':');
        if !is_local && !is_remote {
            let fix = "name the folder of a clone, or a URL such as https://github.com/owner/name";
            return Err(bad(
                "repository",
                format!("{named} is neither a folder nor a URL"),
                fix,
            ));
        }
        let from = if is_local {
            let path = local.canonicalize().unwrap_or_else(|_| local.to_owned());
            shown(&path)
        } else {
            named.clone()
        };
        let mut git = git(&[
            "clone",
            "-q",
            "--bare",
            "--no-local",
            "--single-branch",
            "--no-tags",
            "--",
        ]);
        git.arg(&from).arg(folder);
        if let Some((base, token)) = options.code_host.as_ref().filter(|_| !is_local) {
            let basic = STANDARD.encode(format!("x-access-token:{}", token.expose_secret()));
            // In the environment, where other users do not see it, and for this host alone.
            git.env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{base}/.extraHeader"))
                .env(
                    "GIT_CONFIG_VALUE_0",
                    format!("Authorization: Basic {basic}"),
                );
        }
        let fix = "see that git can clone it as this user, with `git clone`";
        let failed = |why: String| bad("repository", format!("{from}: {why}"), fix);
        run(&mut git, CLONE_WITHIN).await.map_err(failed)?;
        let head = match read(folder, &["rev-parse", "--short", "HEAD"]).await {
            Some(head) => head.trim().to_owned(),
            None => return Err(failed("it has no commit".to_owned())),
        };
        Ok(Self {
            folder: folder.to_owned(),
            has_changes: is_local && has_changes(local).await,
            from,
            head,
        })
    }

    /// What was cloned, for people.
    pub(super) fn words(&self) -> String {
        let changes = if self.has_changes {
            "; changes that are not committed are left out"
        } else {
            ""
        };
        format!("{} at {}{changes}", self.from, self.head)
    }

    /// A file of the commit, as text.
    pub(super) async fn file(&self, path: &str) -> Option<String> {
        read(&self.folder, &["show", &format!("HEAD:{path}")]).await
    }

    /// A test command by the files in the root, and the file that says so.
    pub(super) async fn guess(&self) -> Option<(String, &'static str)> {
        let names = read(&self.folder, &["ls-tree", "--name-only", "HEAD"]).await?;
        let names: Vec<&str> = names.lines().collect();
        let mut texts = Vec::new();
        for path in findings::READ {
            if names.contains(&path) {
                texts.push((path, self.file(path).await.unwrap_or_default()));
            }
        }
        findings::guess(&names, &texts)
    }

    /// Moves the clone to where the sandbox finds it, and gives it to the sandbox's user.
    pub(super) fn hand_over(&self, to: &Path, ids: Option<Ids>) -> io::Result<()> {
        std::fs::rename(&self.folder, to)?;
        match ids {
            Some(ids) => give(to, ids),
            None => Ok(()),
        }
    }
}

/// Nobody but git has written here.
fn give(path: &Path, ids: Ids) -> io::Result<()> {
    chown(path, Some(ids.uid), Some(ids.gid))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), ids)?;
        }
    }
    Ok(())
}

/// Whether a folder differs from its commit. Takes no lock and writes nothing.
async fn has_changes(folder: &Path) -> bool {
    let mut git = git(&["--no-optional-locks", "-c", "core.fsmonitor=false", "-C"]);
    git.arg(folder).args(["status", "--porcelain"]);
    run(&mut git, READ_WITHIN)
        .await
        .is_ok_and(|text| !text.is_empty())
}

async fn read(bare: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = git(&["--git-dir"]);
    git.arg(bare).args(arguments);
    run(&mut git, READ_WITHIN).await.ok()
}

fn git(arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.args(arguments.iter().map(OsStr::new))
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    git
}

/// What it printed, or what it said against it.
async fn run(git: &mut Command, within: Duration) -> Result<String, String> {
    let output: Output = match tokio::time::timeout(within, git.output()).await {
        Err(_) => return Err(format!("git did not end within {} s", within.as_secs())),
        Ok(Err(error)) => return Err(format!("git does not run: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = words
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    Err(words.join("; "))
}
