//! The work tree: cloned, put on the task's branch, committed and pushed. Never pushes with force.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

use super::children::Children;
use super::environment::Places;
use super::git::{Git, LOCAL, REMOTE, success};
use crate::channel::{Diffstat, Failure, FileChange, MergeState, Prepare, Prepared, Published};

/// The base as it was before the last push.
const BASE: &str = "refs/mainloop/base";

/// The repository of one task.
#[derive(Debug)]
pub(super) struct Workspace {
    git: Git,
    places: Places,
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    branch: String,
    base_branch: String,
    base_sha: String,
    /// The head that the remote has, as far as is known here.
    pushed: Option<String>,
}

impl Task {
    /// The base branch as it was fetched last.
    fn base_ref(&self) -> String {
        format!("refs/remotes/origin/{}", self.base_branch)
    }
}

impl Workspace {
    pub(super) fn new(children: Children, places: Places) -> Self {
        Self {
            git: Git::new(children, places.clone()),
            places,
            task: None,
        }
    }

    /// See [`Prepare`].
    pub(super) async fn prepare(&mut self, order: &Prepare) -> Result<Prepared, Failure> {
        let git = &self.git;
        let configured = git.configure(&order.committer_name, &order.committer_email);
        configured.map_err(|error| Failure::new("write git's configuration", error.to_string()))?;
        self.clear_locks();

        if !self.places.repository.join(".git").is_dir() {
            git.run(&["init", "-q"], LOCAL).await?;
        }
        let url = git.url(&order.remote_path);
        git.run(&["config", "remote.origin.url", &url], LOCAL)
            .await?;
        git.run(&["config", "remote.origin.tagOpt", "--no-tags"], LOCAL)
            .await?;
        let base = format!("+refs/heads/{0}:refs/remotes/origin/{0}", order.base_branch);
        git.run(
            &["config", "--replace-all", "remote.origin.fetch", &base],
            LOCAL,
        )
        .await?;
        let fetch = [
            "fetch",
            "-q",
            "--no-tags",
            "--no-recurse-submodules",
            "--prune",
            "origin",
            &base,
        ];
        git.run(&fetch, REMOTE).await?;

        let base_ref = format!("refs/remotes/origin/{}", order.base_branch);
        let base_sha = self
            .base_commit(order.base_sha.as_deref().unwrap_or(&base_ref))
            .await?;
        let pushed = self.fetch_pushed(&order.branch).await?;
        let start = match &pushed {
            Some(head) if order.resume_pushed => head.clone(),
            _ => base_sha.clone(),
        };

        // Whatever an earlier step left half-way is dropped: a merge, a rebase, uncommitted files.
        git.attempt(&["reset", "-q", "--hard"], b"", LOCAL).await?;
        let checkout = [
            "checkout",
            "-q",
            "--force",
            "--no-track",
            "-B",
            &order.branch,
            &start,
        ];
        git.run(&checkout, LOCAL).await?;
        git.run(&["clean", "-q", "-f", "-d"], LOCAL).await?;
        self.task = Some(Task {
            branch: order.branch.clone(),
            base_branch: order.base_branch.clone(),
            base_sha: base_sha.clone(),
            pushed: pushed.clone(),
        });
        Ok(Prepared {
            base_sha,
            head_sha: start,
            resumed: pushed.is_some() && order.resume_pushed,
        })
    }

    /// Commits what is uncommitted, and pushes.
    pub(super) async fn publish(&mut self, message: &str) -> Result<Published, Failure> {
        self.gather().await?;
        // Whoever committed has chosen what belongs to the change: files that were left untracked do not, such as what a
        // test run wrote. Where nothing was committed, everything that git does not ignore is the work.
        let head = self.branch_head(&self.task()?.branch.clone()).await;
        let committed_before = head.as_ref() != Some(&self.task()?.base_sha);
        let scope = if committed_before {
            "--update"
        } else {
            "--all"
        };
        self.git.run(&["add", scope], LOCAL).await?;
        let staged = self
            .git
            .attempt(&["diff", "--cached", "--quiet"], b"", LOCAL)
            .await?;
        let committed = staged.exit.code == Some(1);
        if committed {
            let commit = ["commit", "-q", "--no-verify", "--file=-"];
            let done = self.git.attempt(&commit, message.as_bytes(), LOCAL).await?;
            success(&commit, &done)?;
        }
        let (head_sha, pushed) = self.push().await?;
        Ok(Published {
            head_sha,
            committed,
            pushed,
        })
    }

    /// The head of the task's branch, where it differs from what was pushed; a branch without a commit of its own
    /// does not.
    pub(super) async fn moved(&self) -> Option<String> {
        let task = self.task.as_ref()?;
        let head = self.branch_head(&task.branch).await?;
        let known =
            task.pushed.as_ref() == Some(&head) || (task.pushed.is_none() && task.base_sha == head);
        (!known).then_some(head)
    }

    /// Pushes the task's branch if the remote does not have it; returns the head and whether there was something.
    pub(super) async fn push(&mut self) -> Result<(String, bool), Failure> {
        let task = self.task()?;
        let full = format!("refs/heads/{}", task.branch);
        let head = self.git.commit(&full).await?;
        let head =
            head.ok_or_else(|| Failure::new("push", format!("branch {} is gone", task.branch)))?;
        if task.pushed.as_ref() == Some(&head) || (task.pushed.is_none() && task.base_sha == head) {
            return Ok((head, false));
        }
        self.fetch_base(&task.base_branch).await?;
        // The commit, not the branch: what is pushed is what is reported, whatever is committed meanwhile.
        let refspec = format!("{head}:{full}");
        let push = [
            "push",
            "-q",
            "--no-verify",
            "--no-signed",
            "--recurse-submodules=no",
            "origin",
            &refspec,
        ];
        self.git.run(&push, REMOTE).await?;
        if let Some(task) = &mut self.task {
            task.pushed = Some(head.clone());
        }
        Ok((head, true))
    }

    /// Fetches what the base has by now. A push leaves out what the remote's branches have as far as it is here, so it
    /// would bring the whole history where the base has moved. The ref is our own: what the work is merged with and
    /// compared with does not move in the middle of it.
    async fn fetch_base(&self, branch: &str) -> Result<(), Failure> {
        let base = format!("+refs/heads/{branch}:{BASE}");
        let fetch = [
            "fetch",
            "-q",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            // Nor the ref that is configured.
            "--refmap=",
            "origin",
            &base,
        ];
        let done = self.git.attempt(&fetch, b"", REMOTE).await?;
        if let Err(error) = success(&fetch, &done) {
            // A base that is gone keeps nobody from pushing, and the push fails for what else is wrong.
            tracing::debug!(%error, "the base was not fetched before the push");
        }
        Ok(())
    }

    /// How the task's branch differs from where it left the base.
    pub(super) async fn diffstat(&self) -> Result<Diffstat, Failure> {
        let task = self.task()?;
        let range = format!("{}...refs/heads/{}", task.base_sha, task.branch);
        let diff = |form: &[&'static str]| {
            let mut args = vec!["diff"];
            args.extend(form);
            args.extend([
                "--no-renames",
                "--no-ext-diff",
                "--no-textconv",
                &range,
                "--",
            ]);
            args.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let run = async |args: Vec<String>| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.git.run(&args, LOCAL).await
        };
        let mut stat = parse_numstat(&run(diff(&["--numstat", "-z"])).await?);
        // The list of a large change is cut; people approve on the sums.
        (stat.files, stat.added, stat.removed) =
            parse_shortstat(&run(diff(&["--shortstat"])).await?);
        Ok(stat)
    }

    /// Merges the base branch, as it was fetched last, into the task's branch. A conflict is left in the work tree, and
    /// the files that have one are returned.
    pub(super) async fn merge_base(&mut self) -> Result<Vec<String>, Failure> {
        let task = self.task()?;
        let base = task.base_ref();
        let message = format!("Merge {} into {}", task.base_branch, task.branch);
        // What setup commands changed of tracked files, or left beside them, would be in the way of the base.
        self.git.run(&["reset", "-q", "--hard"], LOCAL).await?;
        self.git.run(&["clean", "-q", "-f", "-d"], LOCAL).await?;
        let merge = [
            "merge",
            "-q",
            "--no-verify",
            "--no-gpg-sign",
            "-m",
            &message,
            &base,
        ];
        let done = self.git.attempt(&merge, b"", LOCAL).await?;
        if done.exit.ok() {
            return Ok(Vec::new());
        }
        let conflicts = self.unresolved().await?;
        if conflicts.is_empty() {
            // It did not begin, or ended for another reason.
            self.git.attempt(&["merge", "--abort"], b"", LOCAL).await?;
            success(&merge, &done)?;
        }
        Ok(conflicts)
    }

    /// How far the merge of [`Self::merge_base`] is.
    pub(super) async fn merge_state(&self) -> Result<MergeState, Failure> {
        let task = self.task()?;
        let (base, branch) = (task.base_ref(), format!("refs/heads/{}", task.branch));
        let contains = self
            .git
            .attempt(&["merge-base", "--is-ancestor", &base, &branch], b"", LOCAL)
            .await?;
        Ok(MergeState {
            unresolved: self.unresolved().await?,
            contains_base: contains.exit.ok(),
        })
    }

    async fn unresolved(&self) -> Result<Vec<String>, Failure> {
        let list = ["diff", "--name-only", "--diff-filter=U", "-z"];
        let names = self.git.run(&list, LOCAL).await?;
        Ok(names
            .split('\0')
            .filter(|name| !name.is_empty())
            .take(MergeState::MAX_PATHS)
            .map(str::to_owned)
            .collect())
    }

    /// The commit to start from, fetched by its name where the base branch does not contain it.
    async fn base_commit(&self, wanted: &str) -> Result<String, Failure> {
        if let Some(sha) = self.git.commit(wanted).await? {
            return Ok(sha);
        }
        self.git
            .run(
                &[
                    "fetch",
                    "-q",
                    "--no-tags",
                    "--no-recurse-submodules",
                    "origin",
                    wanted,
                ],
                REMOTE,
            )
            .await?;
        let sha = self.git.commit(wanted).await?;
        sha.ok_or_else(|| {
            Failure::new(
                "find the base commit",
                format!("{wanted} is not in the repository"),
            )
        })
    }

    /// The head of the task's branch on the remote, fetched.
    async fn fetch_pushed(&self, branch: &str) -> Result<Option<String>, Failure> {
        let full = format!("refs/heads/{branch}");
        let listed = self
            .git
            .run(&["ls-remote", "origin", &full], REMOTE)
            .await?;
        if listed.is_empty() {
            return Ok(None);
        }
        let local = format!("refs/remotes/origin/{branch}");
        let refspec = format!("+{full}:{local}");
        self.git
            .run(
                &[
                    "fetch",
                    "-q",
                    "--no-tags",
                    "--no-recurse-submodules",
                    "origin",
                    &refspec,
                ],
                REMOTE,
            )
            .await?;
        self.git.commit(&local).await
    }

    /// Brings work that was committed elsewhere (on another branch, or on none) onto the task's branch, where that
    /// only moves the branch forward.
    async fn gather(&self) -> Result<(), Failure> {
        let task = self.task()?;
        let full = format!("refs/heads/{}", task.branch);
        let on = self
            .git
            .attempt(&["symbolic-ref", "-q", "HEAD"], b"", LOCAL)
            .await?;
        if String::from_utf8_lossy(&on.stdout).trim() == full {
            return Ok(());
        }
        let ahead = self
            .git
            .attempt(&["merge-base", "--is-ancestor", &full, "HEAD"], b"", LOCAL)
            .await?;
        if !ahead.exit.ok() {
            let detail = format!(
                "the work tree is not on branch {}, and its head does not contain it",
                task.branch
            );
            return Err(Failure::new("publish", detail));
        }
        // Keeps the work tree as it is.
        self.git.run(&["update-ref", &full, "HEAD"], LOCAL).await?;
        self.git
            .run(&["symbolic-ref", "HEAD", &full], LOCAL)
            .await?;
        Ok(())
    }

    /// A step that was killed in git leaves its locks; no git runs now.
    fn clear_locks(&self) {
        for lock in [
            "index.lock",
            "HEAD.lock",
            "config.lock",
            "packed-refs.lock",
            "shallow.lock",
        ] {
            let _ = std::fs::remove_file(self.places.repository.join(".git").join(lock));
        }
    }

    /// Reads the ref's file, as this is asked once a second; git is asked where there is none (packed, reftable).
    async fn branch_head(&self, branch: &str) -> Option<String> {
        let loose = self.places.repository.join(".git/refs/heads").join(branch);
        match std::fs::read_to_string(loose) {
            Ok(sha) => Some(sha.trim().to_owned()),
            Err(_) => self
                .git
                .commit(&format!("refs/heads/{branch}"))
                .await
                .ok()
                .flatten(),
        }
    }

    fn task(&self) -> Result<&Task, Failure> {
        let missing = || Failure::new("use the work tree", "it is not prepared");
        self.task.as_ref().ok_or_else(missing)
    }
}

/// `2 files changed, 3 insertions(+), 1 deletion(-)`, without the parts that are none; empty where nothing changed.
fn parse_shortstat(text: &str) -> (u64, u64, u64) {
    let count = |what: &str| {
        let part = text.split(',').find(|part| part.contains(what))?;
        part.split_whitespace().next()?.parse().ok()
    };
    let count = |what| count(what).unwrap_or(0);
    (count("changed"), count("insertion"), count("deletion"))
}

fn parse_numstat(text: &str) -> Diffstat {
    let mut stat = Diffstat::default();
    for entry in text.split('\0').filter(|entry| !entry.is_empty()) {
        let mut fields = entry.splitn(3, '\t');
        let (Some(added), Some(removed), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (added, removed) = (added.parse().ok(), removed.parse().ok());
        stat.files += 1;
        stat.added = stat.added.saturating_add(added.unwrap_or(0));
        stat.removed = stat.removed.saturating_add(removed.unwrap_or(0));
        if stat.paths.len() < Diffstat::MAX_PATHS {
            stat.paths.push(FileChange {
                path: path.to_owned(),
                added,
                removed,
            });
        }
    }
    stat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numstat_counts_lines_and_knows_binary_files() {
        let stat = parse_numstat("3\t1\tsrc/a b.rs\0-\t-\tlogo.png\0");
        assert_eq!((stat.files, stat.added, stat.removed), (2, 3, 1));
        assert_eq!(stat.paths[0].path, "src/a b.rs");
        assert_eq!(stat.paths[1].added, None);
    }

    #[test]
    fn numbers_that_no_diff_has_do_not_overflow() {
        let most = format!("{0}\t{0}\ta\0", u64::MAX);
        let stat = parse_numstat(&most.repeat(2));
        assert_eq!((stat.added, stat.removed), (u64::MAX, u64::MAX));
    }

    #[test]
    fn sums_are_read_from_the_short_form() {
        for (text, sums) in [
            (
                " 2 files changed, 3 insertions(+), 1 deletion(-)\n",
                (2, 3, 1),
            ),
            (" 1 file changed, 1 insertion(+)\n", (1, 1, 0)),
            (" 20000 files changed, 7 deletions(-)\n", (20000, 0, 7)),
            ("", (0, 0, 0)),
        ] {
            assert_eq!(parse_shortstat(text), sums, "{text}");
        }
    }
}
