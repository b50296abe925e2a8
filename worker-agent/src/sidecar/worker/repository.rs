//! The repository as the work needs it: its base, what its base commit says about itself, the work tree.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod left_out;

use std::collections::BTreeMap;

use mainloop_github::Class;
use mainloop_proto::v1::{FailureReason, ProgressNoted, Task, milestone::Fact};

use self::left_out::LeftOut;
use super::{Worker, claude::notice};
use crate::{
    channel::{self, AcceptError, Harness, Prepare, Prepared, Setup},
    sidecar::{
        claude::Guidance,
        sandbox::StartError,
        steps::Failure,
        wishes::{self, Wishes},
    },
};

/// Files of the base commit that tell Claude about the repository.
const GUIDANCE: [&str; 2] = ["CLAUDE.md", "AGENTS.md"];
/// What says which files Git LFS keeps, and which folders are other repositories.
const LEFT_OUT: [&str; 2] = [".gitattributes", ".gitmodules"];
/// Longest of these files, in bytes.
const MAX_FILE: usize = 256 * 1024;
/// Longest slug in a branch's name.
const MAX_SLUG: usize = 40;

/// Where the work starts from.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// The branch that the pull request goes to.
    pub(crate) branch: String,
    /// Instructions of the base commit.
    pub(crate) guidance: Vec<Guidance>,
    /// Environment that the repository asks for.
    pub(crate) env: BTreeMap<String, String>,
    /// Issues are on: without them the plan lives on the task alone.
    pub(crate) has_issues: bool,
    /// What of it is not there, for Claude.
    pub(crate) notes: Vec<String>,
    sha: String,
    setup: Vec<String>,
    is_set_up: bool,
}

/// The branch of a task that has pushed nothing yet.
pub(super) fn branch(task: &Task) -> String {
    let mut slug = String::new();
    for character in task.title.chars() {
        if slug.len() >= MAX_SLUG {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    let name = if slug.is_empty() {
        format!("mainloop/{}", task.short_id)
    } else {
        format!("mainloop/{}-{slug}", task.short_id)
    };
    match task.generation {
        0 | 1 => name,
        again => format!("{name}-{again}"),
    }
}

/// A repository that is not found is told from other things that are not.
fn absent(error: mainloop_github::Error) -> Failure {
    let is_absent = error.class() == Class::NotFound;
    let failure = Failure::from(error);
    if is_absent {
        Failure::new(FailureReason::RepositoryAbsent, failure.message)
    } else {
        failure
    }
}

impl Worker {
    /// The base, read through GitHub's API once in the attempt.
    pub(crate) async fn base(&mut self) -> Result<Base, Failure> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let repository = self.github.repository().await.map_err(absent)?;
        if repository.archived {
            return Err(Failure::new(
                FailureReason::RepositoryArchived,
                "it is read-only",
            ));
        }
        self.fits(repository.size_kib)?;
        let is_default = self.task.base_ref.is_empty();
        let branch = if is_default {
            repository.default_branch
        } else {
            self.task.base_ref.clone()
        };
        let Some(sha) = self.github.branch_head(&branch).await? else {
            return Err(if is_default {
                Failure::new(
                    FailureReason::RepositoryEmpty,
                    format!("its branch {branch} has no commit"),
                )
            } else {
                Failure::new(
                    FailureReason::BaseGone,
                    format!("the repository has no branch {branch}"),
                )
            });
        };
        let mut guidance = Vec::new();
        for path in GUIDANCE {
            if let Some(text) = self.text_at(path, &sha).await? {
                guidance.push(Guidance {
                    path: path.to_owned(),
                    text,
                });
            }
        }
        let wishes = match self.text_at(wishes::FILE, &sha).await? {
            Some(text) => Wishes::parse(&text)
                .map_err(|message| Failure::new(FailureReason::Setup, message))?,
            None => Wishes::default(),
        };
        let [attributes, modules] = LEFT_OUT;
        let left_out = LeftOut::of(
            &self.text_at(attributes, &sha).await?.unwrap_or_default(),
            &self.text_at(modules, &sha).await?.unwrap_or_default(),
        );
        for text in left_out.for_people() {
            let version = self.link.assignment().borrow().phase_version;
            let fact = ProgressNoted { text };
            self.link.note(version, Fact::ProgressNoted(fact));
        }
        let base = Base {
            branch,
            guidance,
            env: wishes.env,
            has_issues: repository.has_issues,
            notes: left_out.for_claude(),
            sha,
            setup: wishes.setup,
            is_set_up: false,
        };
        if let Some(screen) = self.host.screen() {
            screen.set_base(&base.branch, &base.sha);
        }
        self.base = Some(base.clone());
        Ok(base)
    }

    /// Whether policy lets a repository of this size be cloned.
    fn fits(&self, size_kib: u64) -> Result<(), Failure> {
        let size = size_kib >> 10;
        let limit = u64::try_from(self.policy.max_repository_mib).unwrap_or_default();
        if limit == 0 || size <= limit {
            return Ok(());
        }
        Err(Failure::new(
            FailureReason::RepositoryTooLarge,
            format!("it has {size} MiB, and policy lets workers clone {limit} MiB"),
        ))
    }

    async fn text_at(&self, path: &str, sha: &str) -> Result<Option<String>, Failure> {
        match self.github.file_at(path, sha, MAX_FILE).await {
            Ok(bytes) => Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
            Err(error @ mainloop_github::Error::TooLarge { .. }) => {
                self.note(format!("{path} is left out: {error}"));
                Ok(None)
            }
            // A token that may not read contents cannot clone either, which is reported there.
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A harness whose work tree stands on the task's branch as it was pushed, else on the base, and is set up.
    pub(crate) async fn work_tree(&mut self) -> Result<(Harness, Prepared), Failure> {
        let base = self.base().await?;
        let was_there = self.host.held().is_some();
        let harness = match self.host.harness().await {
            Ok(harness) => {
                if let Some(held) = self.host.held().filter(|_| !was_there) {
                    self.note(format!("limits: {held}"));
                }
                harness
            }
            Err(error) => return Err(self.not_started(&error).await),
        };
        let repository = self.task.repository.clone().unwrap_or_default();
        let prepare = Prepare {
            remote_path: format!("/git/{}/{}.git", repository.owner, repository.name),
            base_branch: base.branch.clone(),
            base_sha: Some(base.sha.clone()),
            branch: self.branch.clone(),
            resume_pushed: true,
            committer_name: self.policy.committer_name.clone(),
            committer_email: self.policy.committer_email.clone(),
        };
        self.note(format!("preparing {} on {}", self.branch, base.branch));
        if let Some(screen) = self.host.screen() {
            screen.see_base().await;
        }
        let prepared = harness.prepare(prepare).await.map_err(Failure::git)?;
        if !base.is_set_up {
            if !base.setup.is_empty() {
                self.note(format!("running {} setup commands", base.setup.len()));
                let setup = Setup {
                    commands: base.setup.clone(),
                    env: base.env.clone(),
                    timeout_seconds: u64::try_from(self.policy.setup_seconds).unwrap_or(900),
                };
                self.set_up(&harness, setup).await?;
            }
            if let Some(base) = &mut self.base {
                base.is_set_up = true;
            }
        }
        Ok((harness, prepared))
    }

    /// Runs the repository's commands, and shows what they print while they do.
    async fn set_up(&mut self, harness: &Harness, setup: Setup) -> Result<(), Failure> {
        let done = harness.setup(setup);
        tokio::pin!(done);
        loop {
            tokio::select! {
                // Lines first, so that none is left when it is done.
                biased;
                Some(notice) = notice(&mut self.host.notices) => self.noticed(notice),
                done = &mut done => return done.map_err(|error| match error {
                    channel::Error::Failed(failure) => Failure::new(
                        FailureReason::Setup,
                        format!("a setup command of {} failed: {failure}", wishes::FILE),
                    ),
                    other => Failure::git(other),
                }),
            }
        }
    }

    /// A machine that is overloaded or full for a while is no reason to give the task up.
    async fn not_started(&self, error: &StartError) -> Failure {
        let told = format!(
            "the sandbox did not start: {}",
            crate::sidecar::chain(error)
        );
        match error {
            StartError::Silent { .. }
            | StartError::Spawn { .. }
            | StartError::Channel(
                AcceptError::Bind { .. } | AcceptError::Accept(_) | AcceptError::NoHello(_),
            ) => Failure::new(FailureReason::Sandbox, told),
            StartError::Host(_)
            | StartError::Ended { .. }
            | StartError::Channel(AcceptError::Stranger { .. } | AcceptError::Version { .. }) => {
                let mend = self.host.diagnose().await;
                Failure::new(FailureReason::Sandbox, format!("{told}{mend}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names_are_safe_and_bounded() {
        let name = |title: &str| {
            branch(&Task {
                short_id: "k3f9".to_owned(),
                title: title.to_owned(),
                ..Task::default()
            })
        };
        for (title, expected) in [
            ("Add a greeting", "mainloop/k3f9-add-a-greeting"),
            ("  ../../etc: \"quoted\" ", "mainloop/k3f9-etc-quoted"),
            ("日本語", "mainloop/k3f9"),
            (
                "a very long title that goes on and on and on and on",
                "mainloop/k3f9-a-very-long-title-that-goes-on-and-on-an",
            ),
        ] {
            assert_eq!(name(title), expected);
        }
    }
}
