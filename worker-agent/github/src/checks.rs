//! The checks of a commit, from the three places where GitHub keeps them: check runs, commit
//! statuses and workflow runs.
//!
//! Fine-grained personal tokens cannot read check runs. Then the jobs of the workflow runs stand
//! in for them, and [`Checks::limited`] says what may be missing: never is a source that could not
//! be read taken for one that is empty. What a page count cannot bound is an error.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::collections::{HashMap, HashSet};

use http::StatusCode;
use serde::Deserialize;

use crate::client::Client;
use crate::error::{Class, Error, Result, Thing};
use crate::transport::{PER_PAGE, escape};

/// A thousand checks on one commit.
const PAGES: usize = 10;

/// Everything that is known about one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// The commit.
    pub sha: String,
    /// One entry for each check, its newest run.
    pub items: Vec<Check>,
    /// What could not be read, for people; empty if all could. Where it is not, a verdict is one
    /// about what this token sees: `Absent` may mean that all checks are out of its sight.
    pub limited: Vec<String>,
}

/// What was seen of a commit's checks last: of check runs, statuses and workflow runs. Empty for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckTags(pub [String; 3]);

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name of the check run or job, context of a status.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// Where people read it.
    pub url: Option<String>,
    /// The Actions job behind it.
    pub job_id: Option<u64>,
    /// The check run behind it.
    pub check_run_id: Option<u64>,
    /// What the check itself said, in a line.
    pub summary: Option<String>,
}

impl Check {
    pub(crate) fn new(name: &str, state: State) -> Self {
        Self {
            name: name.to_owned(),
            state,
            url: None,
            job_id: None,
            check_run_id: None,
            summary: None,
        }
    }
}

/// How far a check is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not begun: queued, waiting, requested, pending.
    Queued,
    /// Not begun before a person acts: a deployment that waits for a review, say.
    Held,
    /// At work.
    Running,
    /// Ended.
    Done(Conclusion),
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Green.
    Success,
    /// Red.
    Failure,
    /// Neither, says the check.
    Neutral,
    /// Did not run, by its own conditions.
    Skipped,
    /// Stopped by a person or a newer run.
    Cancelled,
    /// Ran too long.
    TimedOut,
    /// Waits for a person, such as the approval of a first contributor's workflow.
    ActionRequired,
    /// The workflow could not begin; mostly its file is wrong.
    StartupFailure,
    /// Given up by GitHub.
    Stale,
    /// A word that we do not know; not success.
    Other(String),
}

impl Conclusion {
    fn parse(word: &str) -> Self {
        match word {
            "success" => Self::Success,
            "failure" | "error" => Self::Failure,
            "neutral" => Self::Neutral,
            "skipped" => Self::Skipped,
            "cancelled" => Self::Cancelled,
            "timed_out" => Self::TimedOut,
            "action_required" => Self::ActionRequired,
            "startup_failure" => Self::StartupFailure,
            "stale" => Self::Stale,
            other => Self::Other(other.to_owned()),
        }
    }

    /// For people.
    pub fn words(&self) -> &str {
        match self {
            Self::Success => "passed",
            Self::Failure => "failed",
            Self::Neutral => "neutral",
            Self::Skipped => "skipped",
            Self::Cancelled => "was cancelled",
            Self::TimedOut => "timed out",
            Self::ActionRequired => "waits for a person",
            Self::StartupFailure => "could not start",
            Self::Stale => "went stale",
            Self::Other(word) => word,
        }
    }
}

fn state(status: &str, conclusion: Option<&str>) -> State {
    match (status, conclusion) {
        (_, Some(word)) => State::Done(Conclusion::parse(word)),
        ("completed", None) => State::Done(Conclusion::Other("completed".to_owned())),
        ("in_progress", None) => State::Running,
        ("waiting" | "action_required", None) => State::Held,
        (_, None) => State::Queued,
    }
}

impl Client {
    /// Reads all checks of commit `sha`. An error only where nothing at all can be read, or
    /// where GitHub cannot be reached.
    pub async fn checks(&self, sha: &str) -> Result<Checks> {
        let mut limited = Vec::new();
        let runs = readable(
            self.workflow_runs(sha).await,
            "Actions workflow runs",
            &mut limited,
        )?;
        let check_runs = readable(self.check_runs(sha).await, "check runs", &mut limited)?;
        let statuses = readable(self.statuses(sha).await, "commit statuses", &mut limited)?;
        if runs.is_none() && check_runs.is_none() && statuses.is_none() {
            return Err(Error::Api {
                operation: format!("read checks of {sha} in {}", self.repo),
                status: 403,
                message: limited.join("; "),
                documentation_url: None,
                thing: Thing::Other,
                class: Class::Forbidden {
                    hint: Some(
                        "the token needs read access to checks, statuses and actions".into(),
                    ),
                },
            });
        }
        let (runs, replaced) = newest_runs(runs.unwrap_or_default());
        let mut items = match check_runs {
            Some(list) => from_check_runs(list, &runs, &replaced),
            None => self.jobs_of(&runs).await?,
        };
        items.extend(
            statuses
                .unwrap_or_default()
                .into_iter()
                .map(RawStatus::into_check),
        );
        Ok(Checks {
            sha: sha.to_owned(),
            items,
            limited,
        })
    }

    /// As [`Self::checks`], unless the first pages are as `tags` stand for. GitHub lists the newest first.
    pub async fn checks_if_changed(
        &self,
        sha: &str,
        tags: &CheckTags,
    ) -> Result<Option<(Checks, CheckTags)>> {
        let operation = format!("look at checks of {sha} in {}", self.repo);
        let commit = escape(sha);
        let paths = [
            format!("/commits/{commit}/check-runs?filter=latest&per_page={PER_PAGE}&page=1"),
            format!("/commits/{commit}/status?per_page={PER_PAGE}&page=1"),
            format!("/actions/runs?head_sha={commit}&per_page={PER_PAGE}&page=1"),
        ];
        let mut seen = tags.clone();
        let mut changed = false;
        for (path, tag) in paths.iter().zip(&mut seen.0) {
            let known = (!tag.is_empty()).then_some(tag.as_str());
            let path = self.path(path);
            match self.transport.get_reply(&operation, &path, known).await {
                Ok(reply) if reply.status == StatusCode::NOT_MODIFIED => {}
                Ok(reply) => {
                    reply.header("etag").unwrap_or_default().clone_into(tag);
                    changed = true;
                }
                // What this token does not see never changes for it.
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(error),
            }
        }
        if !changed {
            return Ok(None);
        }
        Ok(Some((self.checks(sha).await?, seen)))
    }

    async fn check_runs(&self, sha: &str) -> Result<Vec<RawCheckRun>> {
        let path = self.path(&format!(
            "/commits/{}/check-runs?filter=latest",
            escape(sha)
        ));
        self.whole(&format!("read check runs of {sha}"), &path, "check_runs")
            .await
    }

    async fn statuses(&self, sha: &str) -> Result<Vec<RawStatus>> {
        let path = self.path(&format!("/commits/{}/status", escape(sha)));
        self.whole(&format!("read commit statuses of {sha}"), &path, "statuses")
            .await
    }

    async fn workflow_runs(&self, sha: &str) -> Result<Vec<RawRun>> {
        let path = self.path(&format!("/actions/runs?head_sha={}", escape(sha)));
        self.whole(
            &format!("read workflow runs of {sha}"),
            &path,
            "workflow_runs",
        )
        .await
    }

    /// Where check runs may not be read: each job of each run, and the run itself where it has
    /// no jobs yet.
    async fn jobs_of(&self, runs: &[RawRun]) -> Result<Vec<Check>> {
        let mut items = Vec::new();
        for run in runs {
            let path = self.path(&format!("/actions/runs/{}/jobs?filter=latest", run.id));
            let operation = format!("read jobs of workflow run {}", run.id);
            let jobs: Vec<RawJob> = self.whole(&operation, &path, "jobs").await?;
            let listed: Vec<Check> = jobs.into_iter().map(RawJob::into_check).collect();
            items.extend(run.unless_told_by(&listed));
            items.extend(listed);
        }
        Ok(items)
    }

    /// All pages; a list that is cut could hide the one that failed.
    async fn whole<T: serde::de::DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        key: &str,
    ) -> Result<Vec<T>> {
        let pages = self
            .transport
            .pages(operation, path, Some(key), PAGES)
            .await?;
        if pages.cut {
            return Err(Error::Config(format!(
                "{operation}: more than {PAGES} pages"
            )));
        }
        Ok(pages.items)
    }
}

/// A source that this token may not read is noted; every other error stays one.
fn readable<T>(answer: Result<T>, what: &str, limited: &mut Vec<String>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_denied() => {
            let hint = match error.class() {
                Class::Forbidden { hint: Some(hint) } => format!(" ({hint})"),
                _ => String::new(),
            };
            limited.push(format!("the token cannot read {what}{hint}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// One run per workflow and event, the newest: a commit that was pushed again or whose pull
/// request was opened anew has several, and the older ones are history. Also the check suites
/// of those that were replaced.
fn newest_runs(mut runs: Vec<RawRun>) -> (Vec<RawRun>, HashSet<u64>) {
    runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
    let mut seen = HashSet::new();
    let mut replaced = HashSet::new();
    runs.retain(|run| {
        let newest = seen.insert((run.workflow_id, run.event.clone()));
        if !newest {
            replaced.extend(run.check_suite_id);
        }
        newest
    });
    (runs, replaced)
}

/// Check runs but those of replaced suites, the newest per app and name; two workflows may well
/// have a job of the same name, and both count.
fn from_check_runs(list: Vec<RawCheckRun>, runs: &[RawRun], replaced: &HashSet<u64>) -> Vec<Check> {
    let mut newest: HashMap<(Option<u64>, String, Option<u64>), RawCheckRun> = HashMap::new();
    for run in list {
        let suite = run.check_suite.as_ref().map(|s| s.id);
        let actions = run.is_actions();
        if suite.is_some_and(|s| replaced.contains(&s)) {
            continue;
        }
        let key = (
            run.app.as_ref().map(|a| a.id),
            run.name.clone(),
            suite.filter(|_| actions),
        );
        match newest.get(&key) {
            Some(other) if other.id >= run.id => {}
            _ => {
                newest.insert(key, run);
            }
        }
    }
    let mut by_suite: HashMap<u64, Vec<Check>> = HashMap::new();
    let mut items = Vec::new();
    let mut list: Vec<RawCheckRun> = newest.into_values().collect();
    list.sort_by_key(|run| run.id);
    for raw in list {
        let suite = raw.check_suite.as_ref().map(|s| s.id);
        let check = raw.into_check();
        if let Some(suite) = suite {
            by_suite.entry(suite).or_default().push(check.clone());
        }
        items.push(check);
    }
    for run in runs {
        let told = run.check_suite_id.and_then(|id| by_suite.get(&id));
        items.extend(run.unless_told_by(told.map_or(&[][..], Vec::as_slice)));
    }
    items
}

#[derive(Deserialize)]
struct RawCheckRun {
    id: u64,
    name: String,
    status: String,
    conclusion: Option<String>,
    html_url: Option<String>,
    details_url: Option<String>,
    app: Option<RawApp>,
    check_suite: Option<RawSuite>,
    output: Option<RawOutput>,
}

#[derive(Deserialize)]
struct RawApp {
    id: u64,
    #[serde(default)]
    slug: Option<String>,
}

#[derive(Deserialize)]
struct RawSuite {
    id: u64,
}

#[derive(Deserialize)]
struct RawOutput {
    title: Option<String>,
    summary: Option<String>,
}

impl RawCheckRun {
    fn is_actions(&self) -> bool {
        self.app
            .as_ref()
            .is_some_and(|a| a.slug.as_deref() == Some("github-actions"))
    }

    fn into_check(self) -> Check {
        let from_url = [self.details_url.as_deref(), self.html_url.as_deref()]
            .into_iter()
            .flatten()
            .find_map(job_in_url);
        // For Actions the check run's id is the job's.
        let job_id = from_url.or_else(|| self.is_actions().then_some(self.id));
        Check {
            state: state(&self.status, self.conclusion.as_deref()),
            url: self.html_url.or(self.details_url),
            job_id,
            check_run_id: Some(self.id),
            summary: self
                .output
                .and_then(|o| o.title.or(o.summary))
                .and_then(|text| first_line(&text)),
            name: self.name,
        }
    }
}

/// The job in `.../actions/runs/1/job/2`.
fn job_in_url(url: &str) -> Option<u64> {
    let (_, rest) = url.split_once("/actions/runs/")?;
    let (_, job) = rest.split_once("/job/")?;
    let end = job.find(|c: char| !c.is_ascii_digit()).unwrap_or(job.len());
    job[..end].parse().ok()
}

fn first_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty())?;
    Some(crate::text::bound(&crate::text::clean_inbound(line), 200))
}

#[derive(Deserialize)]
struct RawStatus {
    context: String,
    state: String,
    target_url: Option<String>,
    description: Option<String>,
}

impl RawStatus {
    fn into_check(self) -> Check {
        Check {
            state: match self.state.as_str() {
                "pending" => State::Running,
                word => State::Done(Conclusion::parse(word)),
            },
            url: self.target_url,
            summary: self.description.as_deref().and_then(first_line),
            ..Check::new(&self.context, State::Queued)
        }
    }
}

#[derive(Deserialize)]
struct RawRun {
    id: u64,
    name: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    html_url: String,
    workflow_id: u64,
    #[serde(default)]
    event: String,
    check_suite_id: Option<u64>,
    created_at: jiff::Timestamp,
}

impl RawRun {
    /// The run as a check of its own, where its jobs do not say the same: it waits for a runner
    /// or for jobs still to come, or it ended badly without a job that did.
    fn unless_told_by(&self, jobs: &[Check]) -> Option<Check> {
        let state = state(
            self.status.as_deref().unwrap_or("queued"),
            self.conclusion.as_deref(),
        );
        let told = match &state {
            State::Queued | State::Held | State::Running => jobs
                .iter()
                .any(|j| matches!(j.state, State::Queued | State::Held | State::Running)),
            State::Done(Conclusion::Success | Conclusion::Skipped | Conclusion::Neutral) => true,
            State::Done(_) => jobs.iter().any(|j| {
                !matches!(
                    j.state,
                    State::Done(Conclusion::Success | Conclusion::Skipped | Conclusion::Neutral)
                )
            }),
        };
        (!told).then(|| Check {
            state,
            url: Some(self.html_url.clone()),
            ..Check::new(self.name.as_deref().unwrap_or("workflow"), State::Queued)
        })
    }
}

#[derive(Deserialize)]
struct RawJob {
    id: u64,
    name: String,
    status: String,
    conclusion: Option<String>,
    html_url: Option<String>,
    #[serde(default)]
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
struct RawStep {
    name: String,
    conclusion: Option<String>,
}

impl RawJob {
    fn into_check(self) -> Check {
        let failed = self
            .steps
            .iter()
            .find(|s| matches!(s.conclusion.as_deref(), Some("failure" | "timed_out")));
        Check {
            state: state(&self.status, self.conclusion.as_deref()),
            url: self.html_url,
            job_id: Some(self.id),
            summary: failed.map(|s| format!("failing step: {}", s.name)),
            ..Check::new(&self.name, State::Queued)
        }
    }
}

#[cfg(test)]
mod tests;
