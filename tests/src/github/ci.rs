//! The emulated Actions: a push or a pull request starts the workflows of the pushed commit, and their steps really run.
//!
//! This file decides what runs and keeps its records; `ci::workflow` reads the files and `ci::runner` runs the steps.
//! A repository without workflow files gets no check at all, as on GitHub.

use std::time::Duration;

use super::problem::Problem;
use super::site::{CheckRun, CommitStatus, Job, Repo, Run, Site, Step, Suite, now};
use super::{git, render};

pub(super) mod runner;
pub(super) mod workflow;

use workflow::Workflow;

/// How the CI of one repository behaves.
#[derive(Clone, Debug, Default)]
pub struct CiPolicy {
    /// New runs stay queued until this is false again.
    pub hold: bool,
    /// New runs wait for a maintainer's approval, until [`super::GitHub::approve_runs`].
    pub approval: bool,
    /// Time between a run's start and its first step.
    pub delay: Duration,
    /// Nothing is run; every job ends like this.
    pub force: Option<Conclusion>,
    /// Commit statuses that some other service posts for each pushed commit: context and state.
    pub statuses: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Queued,
    InProgress,
    Completed,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    Success,
    Failure,
    Cancelled,
    TimedOut,
    ActionRequired,
    /// Of a workflow run and its suite only: there is no job, and no check run.
    StartupFailure,
    Skipped,
    Neutral,
}

impl Conclusion {
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::ActionRequired => "action_required",
            Self::StartupFailure => "startup_failure",
            Self::Skipped => "skipped",
            Self::Neutral => "neutral",
        }
    }

    /// What several come to: the worst of them, and only of skipped ones `skipped`.
    pub(super) fn of_all(all: impl Iterator<Item = Self>) -> Self {
        const WORST_FIRST: [Conclusion; 8] = [
            Conclusion::StartupFailure,
            Conclusion::ActionRequired,
            Conclusion::TimedOut,
            Conclusion::Cancelled,
            Conclusion::Failure,
            Conclusion::Success,
            Conclusion::Neutral,
            Conclusion::Skipped,
        ];
        let rank = |one: &Self| WORST_FIRST.iter().position(|other| other == one);
        all.min_by_key(rank).unwrap_or(Self::Success)
    }
}

/// Starts what the workflows of `sha` want for this event, and posts the other service's statuses. `activity` is what
/// happened to a pull request; empty for a push.
pub(super) fn trigger(
    site: &mut Site,
    name: &str,
    (event, activity): (&str, &str),
    login: &str,
    branch: &str,
    sha: &str,
) -> Result<(), Problem> {
    let repo = site.need_repo(name)?;
    let (target, dir, policy) = (
        repo.default_branch.clone(),
        repo.dir.clone(),
        repo.ci.clone(),
    );
    let pull = repo
        .pulls()
        .find(|(issue, pull)| issue.open && pull.head == branch);
    let tip = pull.and_then(|(_, pull)| repo.branch(&pull.base));
    if event != "push"
        && let Some(tip) = tip
        && !git::mergeable(&dir, tip, sha)?
    {
        // What a pull request's event checks is the merge, and there is none.
        return Ok(());
    }
    let draft = event != "push" && pull.is_some_and(|(_, pull)| pull.draft);
    let base = pull.map_or(target, |(_, pull)| pull.base.clone());
    // A pull request's event is matched against its base, a push against the branch itself.
    let matched = if event == "push" { branch } else { &base };
    let title = git::commit(&dir, sha)?
        .message
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let files = git::entries(&dir, sha, ".github/workflows/").unwrap_or_default();
    for (at, file) in files
        .iter()
        .filter(|file| matches!(file.name.rsplit_once('.'), Some((_, "yml" | "yaml"))))
        .enumerate()
    {
        let text = String::from_utf8_lossy(&git::blob(&dir, &file.sha)?).into_owned();
        let parsed = Workflow::parse(&text);
        if parsed
            .as_ref()
            .is_ok_and(|workflow| !workflow.wants(event, activity, matched))
            || parsed.is_err() && event != "push"
        {
            continue;
        }
        let broken = parsed.is_err() || policy.force == Some(Conclusion::StartupFailure);
        let workflow = parsed.ok();
        let waits = policy.approval && !broken;
        let (run_id, suite_id) = (site.id(), site.id());
        let mut jobs = Vec::new();
        for (key, job) in workflow
            .iter()
            .filter(|_| !broken && !waits)
            .flat_map(|workflow| &workflow.jobs)
        {
            let id = site.id();
            jobs.push(queued_job(id, key, job));
        }
        let repo = site.need_repo(name)?;
        let run = Run {
            id: run_id,
            workflow: repo.id * 1000 + at as u64,
            number: repo.runs.iter().filter(|run| run.path == file.name).count() as u64 + 1,
            name: workflow
                .and_then(|workflow| workflow.name)
                .unwrap_or_else(|| file.name.clone()),
            path: file.name.clone(),
            event: event.to_owned(),
            title: title.clone(),
            actor: login.to_owned(),
            head_branch: branch.to_owned(),
            head_sha: sha.to_owned(),
            suite: suite_id,
            draft,
            status: if broken || waits {
                Status::Completed
            } else {
                Status::Queued
            },
            conclusion: match (broken, waits) {
                (true, _) => Some(Conclusion::StartupFailure),
                (_, true) => Some(Conclusion::ActionRequired),
                (false, false) => None,
            },
            created_at: now(),
            updated_at: now(),
            jobs,
        };
        let checks: Vec<CheckRun> = run
            .jobs
            .iter()
            .map(|job| check_run(&run, job, render::job_html(site, repo, run.id, job.id)))
            .collect();
        let repo = site.repo_mut(name)?;
        repo.suites.push(Suite {
            id: suite_id,
            app: "github-actions".into(),
            head_sha: sha.into(),
            head_branch: branch.into(),
            created_at: now(),
            conclusion: run.conclusion,
        });
        repo.check_runs.extend(checks);
        repo.runs.push(run);
        if !broken && !waits {
            site.to_run.push((name.to_owned(), run_id));
        }
    }
    if event == "push" {
        for (context, state) in policy.statuses {
            post_status(site, name, sha, &context, &state)?;
        }
    }
    Ok(())
}

/// A maintainer approves the runs that wait for it.
pub(super) fn approve(site: &mut Site, name: &str) -> Result<(), Problem> {
    site.repo_mut(name)?.ci.approval = false;
    let waiting: Vec<(u64, String, String)> = site
        .need_repo(name)?
        .runs
        .iter()
        .filter(|run| run.conclusion == Some(Conclusion::ActionRequired) && run.jobs.is_empty())
        .map(|run| (run.id, run.head_sha.clone(), run.path.clone()))
        .collect();
    for (id, sha, path) in waiting {
        let text = site.need_repo(name)?.file(&sha, &path).unwrap_or_default();
        let workflow = Workflow::parse(&text).map_err(Problem::unprocessable)?;
        let mut jobs = Vec::new();
        for (key, job) in &workflow.jobs {
            let job_id = site.id();
            jobs.push(queued_job(job_id, key, job));
        }
        let repo = site.repo_mut(name)?;
        let Some(run) = repo.runs.iter_mut().find(|run| run.id == id) else {
            continue;
        };
        (run.status, run.conclusion, run.updated_at) = (Status::Queued, None, now());
        run.jobs = jobs;
        let run = run.clone();
        for suite in repo.suites.iter_mut().filter(|suite| suite.id == run.suite) {
            suite.conclusion = None;
        }
        let repo = site.need_repo(name)?;
        let checks: Vec<CheckRun> = run
            .jobs
            .iter()
            .map(|job| check_run(&run, job, render::job_html(site, repo, run.id, job.id)))
            .collect();
        site.repo_mut(name)?.check_runs.extend(checks);
        site.to_run.push((name.to_owned(), id));
    }
    Ok(())
}

fn queued_job(id: u64, key: &str, job: &workflow::Job) -> Job {
    let names = std::iter::once("Set up job".to_owned())
        .chain(job.steps.iter().map(workflow::Step::title))
        .chain(["Complete job".to_owned()]);
    let steps = names.map(|name| Step {
        name,
        status: Status::Queued,
        conclusion: None,
        started_at: None,
        completed_at: None,
    });
    Job {
        id,
        key: key.to_owned(),
        name: job.name.clone().unwrap_or_else(|| key.to_owned()),
        status: Status::Queued,
        conclusion: None,
        created_at: now(),
        started_at: None,
        completed_at: None,
        steps: steps.collect(),
        log: String::new(),
        needs: job.needs(),
    }
}

fn check_run(run: &Run, job: &Job, details_url: String) -> CheckRun {
    CheckRun {
        id: job.id,
        suite: run.suite,
        app: "github-actions".into(),
        name: job.name.clone(),
        head_sha: run.head_sha.clone(),
        status: Status::Queued,
        conclusion: None,
        started_at: None,
        completed_at: None,
        title: None,
        summary: None,
        annotations: Vec::new(),
        details_url,
    }
}

/// Sets a job's state and that of its check run, and the run's from all its jobs.
pub(super) fn set_job(repo: &mut Repo, job: u64, status: Status, conclusion: Option<Conclusion>) {
    let Some(run) = repo
        .runs
        .iter_mut()
        .find(|run| run.jobs.iter().any(|one| one.id == job))
    else {
        return;
    };
    for one in run.jobs.iter_mut().filter(|one| one.id == job) {
        one.status = status;
        one.conclusion = conclusion;
        one.started_at = one.started_at.or((status != Status::Queued).then(now));
        one.completed_at = (status == Status::Completed).then(now);
        if status == Status::Completed {
            for step in one
                .steps
                .iter_mut()
                .filter(|step| step.status != Status::Completed)
            {
                step.status = Status::Completed;
                step.conclusion = Some(if conclusion == Some(Conclusion::Success) {
                    Conclusion::Success
                } else {
                    Conclusion::Skipped
                });
            }
        }
        for check in repo.check_runs.iter_mut().filter(|check| check.id == job) {
            check.status = status;
            check.conclusion = conclusion;
            check.started_at = one.started_at;
            check.completed_at = one.completed_at;
            if conclusion == Some(Conclusion::Failure) && check.annotations.is_empty() {
                let last = one.log.lines().rev().find_map(|line| {
                    line.split_once("##[error]")
                        .map(|(_, text)| text.to_owned())
                });
                check.annotations.extend(last);
            }
        }
    }
    run.updated_at = now();
    if run.jobs.iter().all(|job| job.status == Status::Completed) {
        run.status = Status::Completed;
        run.conclusion = Some(Conclusion::of_all(
            run.jobs.iter().filter_map(|job| job.conclusion),
        ));
    } else if status != Status::Queued {
        run.status = Status::InProgress;
    }
}

/// A commit status by some other service.
pub(super) fn post_status(
    site: &mut Site,
    name: &str,
    sha: &str,
    context: &str,
    state: &str,
) -> Result<(), Problem> {
    site.add_user("ci-service[bot]");
    let id = site.id();
    let status = CommitStatus {
        id,
        sha: sha.to_owned(),
        context: context.to_owned(),
        state: state.to_owned(),
        description: Some(format!("The check is {state}")),
        target_url: None,
        author: "ci-service[bot]".to_owned(),
        at: now(),
    };
    site.repo_mut(name)?.statuses.push(status);
    Ok(())
}

/// A check run by some App other than Actions; a second call for the same name updates it.
pub(super) fn post_check(
    site: &mut Site,
    name: &str,
    sha: &str,
    check: &str,
    conclusion: Option<Conclusion>,
) -> Result<u64, Problem> {
    const APP: &str = "quality-gate";
    let (id, suite_id) = (site.id(), site.id());
    let details_url = format!("{}/{name}/checks/{id}", site.base);
    let branch = site
        .need_repo(name)?
        .refs
        .iter()
        .find(|(_, tip)| *tip == sha)
        .and_then(|(name, _)| name.strip_prefix("refs/heads/"))
        .unwrap_or_default()
        .to_owned();
    let repo = site.repo_mut(name)?;
    let status = if conclusion.is_some() {
        Status::Completed
    } else {
        Status::InProgress
    };
    let known = repo
        .check_runs
        .iter()
        .position(|run| run.app == APP && run.name == check && run.head_sha == sha);
    let at = known.unwrap_or_else(|| {
        repo.suites.push(Suite {
            id: suite_id,
            app: APP.into(),
            head_sha: sha.into(),
            head_branch: branch,
            created_at: now(),
            conclusion: None,
        });
        repo.check_runs.push(CheckRun {
            id,
            suite: suite_id,
            app: APP.into(),
            name: check.to_owned(),
            head_sha: sha.to_owned(),
            status,
            conclusion: None,
            started_at: Some(now()),
            completed_at: None,
            title: None,
            summary: None,
            annotations: Vec::new(),
            details_url,
        });
        repo.check_runs.len() - 1
    });
    let run = &mut repo.check_runs[at];
    (run.status, run.conclusion, run.completed_at) =
        (status, conclusion, conclusion.map(|_| now()));
    run.title = conclusion.map(|conclusion| format!("{check}: {}", conclusion.name()));
    run.summary =
        conclusion.map(|conclusion| format!("The check ended with {}.", conclusion.name()));
    Ok(run.id)
}
