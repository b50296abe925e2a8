//! The steps that the plane may assign. Each can run twice: what it leaves outside has a name or a mark by which the
//! second run finds it.

mod ci;
mod plan;
mod ready;
mod reason;
mod review;
mod work;

use jiff::Timestamp;
use mainloop_github::{
    Class, IssueThread, MarkerKind, NewPull, PullRef, PullState, drafts_unsupported, text,
};
use mainloop_proto::v1::{
    Assignment, BranchPushed, FailureReason, IssueChange, Link, PullRequestClosed,
    PullRequestOpened, assignment::Work, milestone::Fact,
};

use super::{claude::prompts, proxy::Denied, worker::Worker};
use crate::channel;

/// Label of a pull request that is not ready yet, where the code host has no drafts.
const UNFINISHED: &str = "work in progress";

/// Why a step stopped short. The plane decides by the reason what follows.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    /// A sentence for people.
    pub(crate) message: String,
    /// When the limit is over, if known.
    pub(crate) retry_at: Option<Timestamp>,
    /// It is told by what git printed in the harness.
    of_git: bool,
}

impl Failure {
    /// A reason, and what there is to say about it.
    pub(crate) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry_at: None,
            of_git: false,
        }
    }

    /// An order to the harness that was not carried out.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub(crate) fn git(error: channel::Error) -> Self {
        let reason = match &error {
            channel::Error::Failed(failure) => reason::of_git(&failure.what, &failure.detail),
            channel::Error::Closed(_) | channel::Error::Nonsense(_) => FailureReason::Git,
        };
        Self {
            of_git: true,
            ..Self::new(reason, error.to_string())
        }
    }

    /// A call to the code host that did not do what was asked.
    pub(crate) fn github(error: &mainloop_github::Error) -> Self {
        let (retry_at, hint) = match error.class() {
            Class::RateLimited { until } => (until, None),
            Class::Forbidden { hint } => (None, hint),
            _ => (None, None),
        };
        let said = super::chain(error);
        let message = hint.map_or_else(|| said.clone(), |hint| format!("{said}; {hint}"));
        Self {
            retry_at,
            ..Self::new(reason::of_github(error), message)
        }
    }

    /// With what the proxy saw the code host say to git. Where that was a no, git prints a part of it alone.
    pub(crate) fn with(self, denied: Option<&Denied>) -> Self {
        let Some(denied) = denied.filter(|_| self.of_git && reason::is_denied(self.reason)) else {
            return self;
        };
        let message = if self.message.contains(&denied.to_string()) {
            self.message
        } else {
            format!("{}: {denied}", self.message)
        };
        Self {
            reason: reason::of_denied(denied),
            message,
            ..self
        }
    }
}

impl From<mainloop_github::Error> for Failure {
    fn from(error: mainloop_github::Error) -> Self {
        Self::github(&error)
    }
}

/// Does what the plane assigned. Returns when its result is durable.
pub(crate) async fn perform(worker: &mut Worker, assignment: &Assignment) -> Result<(), Failure> {
    let done = assigned(worker, assignment).await;
    match done {
        // Of a repository that is gone, everything is.
        Err(failure) if failure.reason == FailureReason::PullGone => {
            Err(match worker.github.repository().await {
                Err(error) if error.class() == Class::NotFound => error.into(),
                _ => failure,
            })
        }
        other => other,
    }
}

async fn assigned(worker: &mut Worker, assignment: &Assignment) -> Result<(), Failure> {
    let version = assignment.phase_version;
    match &assignment.work {
        Some(Work::Plan(plan)) => plan::plan(worker, version, plan).await,
        Some(Work::Implement(implement)) => work::implement(worker, version, implement).await,
        Some(Work::AwaitCi(await_ci)) => ci::await_ci(worker, version, await_ci).await,
        Some(Work::FixCi(fix)) => work::fix_ci(worker, version, fix).await,
        Some(Work::MarkReady(ready)) => ready::mark_ready(worker, version, ready).await,
        Some(Work::AddressReview(review)) => review::address_review(worker, version, review).await,
        Some(Work::Rebase(rebase)) => review::rebase(worker, version, rebase).await,
        Some(Work::Wait(_) | Work::Stop(_)) | None => Ok(()),
    }
}

impl Worker {
    /// The task as prompts tell it; `planned` where a plan says what to do.
    async fn prompt_task(&mut self, version: i64, planned: bool) -> Result<prompts::Task, Failure> {
        let base = self.base().await?;
        let repository = self.task.repository.clone().unwrap_or_default();
        let mut references = Vec::new();
        if let Some(thread) = self.named_issue(version, planned).await? {
            let number = thread.number;
            let kind = if thread.is_pull {
                "pull request"
            } else {
                "issue"
            };
            references.push(prompts::Reference {
                what: format!("{kind} #{number}"),
                author: thread.author.clone(),
                text: format!("{}\n\n{}", thread.title, thread.body),
            });
            references.extend(thread.for_model().map(|comment| prompts::Reference {
                what: format!("comment on {kind} #{number}"),
                author: comment.author.clone(),
                text: comment.body.clone(),
            }));
        }
        Ok(prompts::Task {
            description: if self.task.description.is_empty() {
                self.task.title.clone()
            } else {
                self.task.description.clone()
            },
            repository: format!("{}/{}", repository.owner, repository.name),
            base_branch: base.branch,
            notes: base.notes,
            references,
            answers: self
                .words
                .iter()
                .map(|word| prompts::Answered {
                    question: word.question.clone(),
                    answer: word.text.clone(),
                    assumed: word.assumed,
                })
                .collect(),
        })
    }

    /// Reports where a person merged or closed the pull request meanwhile; whether that is so.
    async fn is_over(&mut self, version: i64, pull: &PullRef) -> bool {
        let merged = match pull.state {
            PullState::Open => return false,
            PullState::Closed => false,
            PullState::Merged { .. } => true,
        };
        self.hand_over();
        let fact = Fact::PullRequestClosed(PullRequestClosed { merged });
        self.link.report_durably(version, fact).await;
        true
    }

    /// The task's pull request as it is now.
    async fn pull(&self) -> Result<PullRef, Failure> {
        let number = self
            .pull_number()
            .ok_or_else(|| Failure::new(FailureReason::Internal, "the task has no pull request"))?;
        Ok(self.github.pull(number).await?)
    }

    /// Marks on the issue and on the pull request what policy assumed because nobody answered. An issue that was deleted
    /// meanwhile hears of nothing any more.
    async fn tell_assumed(&mut self) -> Result<(), Failure> {
        let assumed: Vec<(&str, &str)> = self
            .words
            .iter()
            .filter(|word| word.assumed)
            .map(|word| (word.question.as_str(), word.text.as_str()))
            .collect();
        if assumed.is_empty() {
            return Ok(());
        }
        let body = text::assumed_comment(assumed, &self.task.short_id);
        let marker = self.marker(MarkerKind::Assumed);
        let number = |link: &Option<Link>| {
            let number = u64::try_from(link.as_ref()?.number).ok()?;
            (number > 0).then_some(number)
        };
        if let Some(issue) = number(&self.task.issue) {
            self.link.writable().await;
            match self.github.ensure_comment(issue, &marker, &body).await {
                Err(error) if error.is_gone() => {
                    let version = self.link.assignment().borrow().phase_version;
                    self.issue_changed(version, IssueChange::Gone);
                    self.task.issue = None;
                }
                other => drop(other?),
            }
        }
        if let Some(pull) = number(&self.task.pull_request) {
            self.link.writable().await;
            self.github.ensure_comment(pull, &marker, &body).await?;
        }
        Ok(())
    }

    /// The issue that a person named as the start. One that was deleted is missed only where it was all that said what
    /// to do.
    async fn named_issue(
        &mut self,
        version: i64,
        planned: bool,
    ) -> Result<Option<IssueThread>, Failure> {
        let Some(number) = self.issue_number().filter(|_| self.task.issue_number > 0) else {
            return Ok(None);
        };
        match self.github.issue(number).await {
            Ok(thread) => {
                if !thread.open {
                    self.issue_changed(version, IssueChange::Closed);
                }
                Ok(Some(thread))
            }
            Err(error) if error.is_gone() => {
                self.issue_changed(version, IssueChange::Gone);
                let is_said =
                    planned || !self.task.description.is_empty() || !self.words.is_empty();
                if is_said { Ok(None) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to report where somebody else pushed to the pull request. Its head is told a moment late after each push,
    /// so the branch itself decides.
    async fn moved(&mut self, pull: &PullRef, expected: &str) -> Result<Option<Fact>, Failure> {
        if pull.head_sha == expected {
            return Ok(None);
        }
        let branch = self.branch.clone();
        let head = self.github.branch_head(&branch).await?;
        let Some(sha) = head.filter(|head| head != expected) else {
            return Ok(None);
        };
        self.note(format!("somebody else pushed {sha} to {branch}"));
        self.head = Some(sha.clone());
        Ok(Some(Fact::BranchPushed(BranchPushed { branch, sha })))
    }

    /// Closes the pull requests of branches that the task has left. One that cannot be closed is in nobody's way.
    async fn close_superseded(&mut self) {
        for number in std::mem::take(&mut self.task.superseded_pull_requests) {
            let Ok(number) = u64::try_from(number) else {
                continue;
            };
            self.link.writable().await;
            if let Err(error) = self.close_if_open(number).await {
                self.note(format!(
                    "pull request #{number} of an earlier branch stays open: {}",
                    super::chain(&error)
                ));
            }
        }
    }

    async fn close_if_open(&self, number: u64) -> Result<(), mainloop_github::Error> {
        if self.github.pull(number).await?.state == PullState::Open {
            self.github.close_pull(number).await?;
        }
        Ok(())
    }

    /// The draft pull request of the task's branch: there, or made.
    async fn ensure_pull(&mut self, version: i64) -> Result<(), Failure> {
        if self.task.pull_request.is_some() {
            return Ok(());
        }
        let base = self.base().await?;
        let title = text::title(&self.task.title);
        let issue = self
            .task
            .issue
            .clone()
            .and_then(|issue| u64::try_from(issue.number).ok());
        let body = text::pull_body(&text::Pull {
            summary: &self.task.description,
            issue: issue.filter(|number| *number > 0).map(|number| {
                if self.policy.close_issue_on_merge {
                    text::IssueLink::Closes(number)
                } else {
                    text::IssueLink::PartOf(number)
                }
            }),
            task: &self.task.short_id,
        });
        let marker = self.marker(MarkerKind::Pull);
        let mut new = NewPull {
            head: &self.branch,
            base: &base.branch,
            title: &title,
            body: &body,
            draft: true,
        };
        self.link.writable().await;
        let pull = match self.github.ensure_draft_pull(&marker, &new).await {
            Err(error) if drafts_unsupported(&error) => {
                new.draft = false;
                let pull = self.github.ensure_draft_pull(&marker, &new).await?;
                // A label says what the draft would have said.
                self.github.add_label(pull.number, UNFINISHED).await?;
                pull
            }
            Err(error) if error.class() == Class::Validation => {
                return Err(self.refused_pull(&base.branch, error).await);
            }
            other => other?,
        };
        let link = Link {
            number: i32::try_from(pull.number).unwrap_or(i32::MAX),
            url: pull.url,
        };
        self.task.pull_request = Some(link.clone());
        let fact = PullRequestOpened {
            pull_request: Some(link),
            head_sha: pull.head_sha,
            existed: false,
        };
        self.link.report(version, Fact::PullRequestOpened(fact));
        Ok(())
    }

    /// Why GitHub opens no pull request: a base branch that is gone has a name of its own.
    async fn refused_pull(&self, base: &str, error: mainloop_github::Error) -> Failure {
        match self.github.branch_head(base).await {
            Ok(None) => Failure::new(
                FailureReason::BaseGone,
                format!("the repository no longer has a branch {base}"),
            ),
            _ => error.into(),
        }
    }

    /// As [`Self::ensure_pull`], at a push in mid-turn: what fails here is tried again at the end of the turn.
    pub(crate) async fn open_pull(&mut self, version: i64) -> Result<(), Failure> {
        self.renew();
        if let Err(failure) = self.ensure_pull(version).await {
            self.note(format!(
                "the pull request could not be opened yet: {}",
                failure.message
            ));
        }
        Ok(())
    }
}
