//! Everything that the emulated site knows. Plain data: tests read it freely, requests change it one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;

use super::access::{Role, Token};
use super::apps::{App, Installation, Minted};
use super::ci::{CiPolicy, Conclusion, Status};
use super::faults::Fault;
use super::git;
use super::limits::Limits;
use super::problem::Problem;

pub struct Site {
    /// `http://127.0.0.1:port`, without a slash at its end.
    pub base: String,
    /// The origin of job logs: another one, as on GitHub, so that a client that takes its token there is found out.
    pub(super) blobs: String,
    pub users: BTreeMap<String, User>,
    /// By lower-case `owner/name`.
    pub repos: BTreeMap<String, Repo>,
    pub requests: Vec<Request>,
    /// What broke GitHub's published description, one line each.
    pub violations: Vec<String>,
    pub apps: BTreeMap<u64, App>,
    pub installations: BTreeMap<u64, Installation>,
    /// Every token that an App was ever given, oldest first.
    pub minted: Vec<Minted>,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) limits: Limits,
    pub(super) faults: Vec<Fault>,
    /// Workflow runs that wait for somebody to start them once the lock is released.
    pub(super) to_run: Vec<(String, u64)>,
    pub(super) next_id: u64,
    pub(super) dir: PathBuf,
    pub(super) started: Timestamp,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: u64,
    pub login: String,
    pub bot: bool,
}

/// A request that was answered, or whose connection was cut.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Who asked; empty without a valid token.
    pub login: String,
    pub status: u16,
    /// True where a fault made the answer or cut the connection.
    pub faulted: bool,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent settings")]
pub struct Repo {
    pub id: u64,
    pub owner: String,
    pub name: String,
    pub private: bool,
    pub archived: bool,
    /// What the API tells as its size.
    pub size_kib: u64,
    pub has_issues: bool,
    /// Draft pull requests can be opened; not so in private repositories of some plans.
    pub drafts: bool,
    /// Whether a pull request merges is told at the second look after something moved, as on GitHub.
    pub mergeable_late: bool,
    pub default_branch: String,
    pub collaborators: BTreeMap<String, Role>,
    pub labels: Vec<Label>,
    /// Issues and pull requests, which share their numbers.
    pub issues: BTreeMap<u64, Issue>,
    /// Numbers of issues that were deleted: none is given again.
    pub deleted: BTreeSet<u64>,
    pub refs: BTreeMap<String, String>,
    pub pushes: Vec<Push>,
    pub suites: Vec<Suite>,
    pub check_runs: Vec<CheckRun>,
    pub statuses: Vec<CommitStatus>,
    pub runs: Vec<Run>,
    pub ci: CiPolicy,
    pub created_at: Timestamp,
    pub pushed_at: Timestamp,
    pub(super) dir: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Label {
    pub id: u64,
    pub name: String,
    pub color: String,
    pub description: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Issue {
    pub id: u64,
    pub number: u64,
    pub title: String,
    pub body: Option<String>,
    pub author: String,
    pub open: bool,
    pub state_reason: Option<String>,
    pub labels: Vec<String>,
    pub assignees: Vec<String>,
    pub comments: Vec<Comment>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub closed_by: Option<String>,
    pub pull: Option<Pull>,
}

#[derive(Clone, Debug)]
pub struct Comment {
    pub id: u64,
    pub author: String,
    pub body: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a pull request has beyond an issue.
#[derive(Clone, Debug)]
pub struct Pull {
    pub id: u64,
    pub head: String,
    pub head_sha: String,
    pub base: String,
    /// The base branch when the pull request was opened or last pushed to.
    pub base_sha: String,
    pub draft: bool,
    pub merged: Option<Merged>,
    /// Base and head whose merge was tried last.
    pub(super) tried: Option<(String, String)>,
    /// Who was asked for a review, and has not given one since.
    pub asked: Vec<String>,
    pub reviews: Vec<Review>,
}

#[derive(Clone, Debug)]
pub struct Merged {
    pub at: Timestamp,
    pub by: String,
    pub sha: String,
}

#[derive(Clone, Debug)]
pub struct Review {
    pub id: u64,
    pub author: String,
    pub body: String,
    /// `APPROVED`, `CHANGES_REQUESTED`, `COMMENTED`.
    pub state: String,
    pub commit: String,
    pub at: Timestamp,
    pub comments: Vec<ReviewComment>,
}

#[derive(Clone, Debug)]
pub struct ReviewComment {
    pub id: u64,
    /// The first comment of its thread, where it is not that one.
    pub reply_to: Option<u64>,
    pub path: String,
    pub line: u64,
    pub body: String,
}

/// A ref that a push moved; `None` stands for a ref that was not there.
#[derive(Clone, Debug)]
pub struct Push {
    pub login: String,
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub forced: bool,
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Suite {
    pub id: u64,
    pub app: String,
    pub head_sha: String,
    pub head_branch: String,
    pub created_at: Timestamp,
    /// Set where the suite ended without any check run: a workflow that could not start.
    pub conclusion: Option<Conclusion>,
}

#[derive(Clone, Debug)]
pub struct CheckRun {
    pub id: u64,
    pub suite: u64,
    pub app: String,
    pub name: String,
    pub head_sha: String,
    pub status: Status,
    pub conclusion: Option<Conclusion>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub title: Option<String>,
    pub summary: Option<String>,
    pub annotations: Vec<String>,
    pub details_url: String,
}

#[derive(Clone, Debug)]
pub struct CommitStatus {
    pub id: u64,
    pub sha: String,
    pub context: String,
    /// `error`, `failure`, `pending`, `success`.
    pub state: String,
    pub description: Option<String>,
    pub target_url: Option<String>,
    pub author: String,
    pub at: Timestamp,
}

/// A run of a workflow.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: u64,
    pub workflow: u64,
    pub number: u64,
    pub name: String,
    pub path: String,
    pub event: String,
    pub title: String,
    pub actor: String,
    pub head_branch: String,
    pub head_sha: String,
    pub suite: u64,
    /// It is of a pull request that was a draft.
    pub draft: bool,
    pub status: Status,
    pub conclusion: Option<Conclusion>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub jobs: Vec<Job>,
}

/// A job of a workflow run. Its id is that of its check run.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: u64,
    pub key: String,
    pub name: String,
    pub status: Status,
    pub conclusion: Option<Conclusion>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub steps: Vec<Step>,
    pub log: String,
    pub(super) needs: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub status: Status,
    pub conclusion: Option<Conclusion>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

impl Site {
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The repository of that name. A lookup that fails is the caller's mistake, or a 404.
    pub fn repo(&self, name: &str) -> Option<&Repo> {
        self.repos.get(&name.to_lowercase())
    }

    pub(super) fn need_repo(&self, name: &str) -> Result<&Repo, Problem> {
        self.repo(name).ok_or_else(Problem::not_found)
    }

    pub(super) fn repo_mut(&mut self, name: &str) -> Result<&mut Repo, Problem> {
        self.repos
            .get_mut(&name.to_lowercase())
            .ok_or_else(Problem::not_found)
    }

    pub(super) fn add_user(&mut self, login: &str) {
        if !self.users.contains_key(login) {
            let id = self.id();
            self.users.insert(
                login.to_owned(),
                User {
                    id,
                    login: login.to_owned(),
                    bot: login.ends_with("[bot]"),
                },
            );
        }
    }

    /// Name and address that a commit made on the site carries.
    pub(super) fn signature(&self, login: &str) -> (String, String) {
        let id = self.users.get(login).map_or(0, |user| user.id);
        (
            login.to_owned(),
            format!("{id}+{login}@users.noreply.github.com"),
        )
    }
}

impl Repo {
    /// What `login` may do here: `None` where they cannot see it.
    pub(super) fn role(&self, login: &str) -> Option<Role> {
        if !login.is_empty() && login.eq_ignore_ascii_case(&self.owner) {
            return Some(Role::Admin);
        }
        let given = self.collaborators.get(login).copied();
        given.or((!self.private).then_some(Role::Read))
    }

    pub(super) fn can_push(&self, login: &str) -> bool {
        self.role(login).is_some_and(|role| role >= Role::Write)
    }

    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The commit at the tip of a branch.
    pub fn branch(&self, name: &str) -> Option<&str> {
        self.refs
            .get(&format!("refs/heads/{name}"))
            .map(String::as_str)
    }

    pub fn pulls(&self) -> impl Iterator<Item = (&Issue, &Pull)> {
        self.issues
            .values()
            .filter_map(|issue| issue.pull.as_ref().map(|pull| (issue, pull)))
    }

    /// The text of a file at a branch, tag or commit.
    pub fn file(&self, rev: &str, path: &str) -> Option<String> {
        let sha = git::resolve(&self.dir, rev)?;
        let entry = git::entry(&self.dir, &sha, path)?;
        git::blob(&self.dir, &entry.sha)
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The messages of the commits of a branch, newest first.
    pub fn messages(&self, rev: &str) -> Vec<String> {
        let sha = git::resolve(&self.dir, rev);
        let log = sha
            .and_then(|sha| git::log(&self.dir, &sha, 1000).ok())
            .unwrap_or_default();
        log.into_iter().map(|commit| commit.message).collect()
    }

    /// Whether a branch, tag or commit has this commit in its history.
    pub fn contains(&self, rev: &str, commit: &str) -> bool {
        git::resolve(&self.dir, rev)
            .and_then(|head| git::merge_base(&self.dir, &head, commit))
            .is_some_and(|base| base == commit)
    }

    pub fn job(&self, id: u64) -> Option<(&Run, &Job)> {
        self.runs.iter().find_map(|run| {
            run.jobs
                .iter()
                .find(|job| job.id == id)
                .map(|job| (run, job))
        })
    }

    pub(super) fn issue(&self, number: u64) -> Result<&Issue, Problem> {
        self.issues
            .get(&number)
            .ok_or_else(|| self.no_issue(number))
    }

    pub(super) fn issue_mut(&mut self, number: u64) -> Result<&mut Issue, Problem> {
        let missing = self.no_issue(number);
        self.issues.get_mut(&number).ok_or(missing)
    }

    fn no_issue(&self, number: u64) -> Problem {
        if self.deleted.contains(&number) {
            Problem::new(http::StatusCode::GONE, "This issue was deleted")
        } else {
            Problem::not_found()
        }
    }

    pub(super) fn pull(&self, number: u64) -> Result<(&Issue, &Pull), Problem> {
        let issue = self.issue(number)?;
        Ok((issue, issue.pull.as_ref().ok_or_else(Problem::not_found)?))
    }

    /// The comments in the reviews of a pull request, each with its author, oldest first.
    pub fn review_comments(&self, number: u64) -> Vec<(&str, &ReviewComment)> {
        let pull = self
            .issues
            .get(&number)
            .and_then(|issue| issue.pull.as_ref());
        let mut found: Vec<_> = pull
            .into_iter()
            .flat_map(|pull| &pull.reviews)
            .flat_map(|review| {
                review
                    .comments
                    .iter()
                    .map(|one| (review.author.as_str(), one))
            })
            .collect();
        found.sort_by_key(|(_, comment)| comment.id);
        found
    }

    pub(super) fn next_number(&self) -> u64 {
        let given = self.issues.last_key_value().map(|(number, _)| number);
        given
            .max(self.deleted.last())
            .map_or(1, |number| number + 1)
    }

    /// The check runs of a commit, newest first, as GitHub lists them.
    pub fn checks(&self, sha: &str) -> Vec<&CheckRun> {
        let mut runs: Vec<_> = self
            .check_runs
            .iter()
            .filter(|run| run.head_sha == sha)
            .collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.id));
        runs
    }
}

/// The current time in whole seconds, as the API gives times.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_else(|_| Timestamp::now())
}
