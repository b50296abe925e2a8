//! Check runs, suites, commit statuses, workflow runs, jobs and their logs.

use super::super::call::{Call, Reply};
use super::super::exchange::fingerprint;
use super::super::problem::Problem;
use super::super::site::{CheckRun, CommitStatus, Job, Repo, Run, Site, now};
use super::super::{git, render};

type Result = std::result::Result<Reply, Problem>;

fn sha(repo: &Repo, call: &Call) -> std::result::Result<String, Problem> {
    let rev = call.param("ref");
    git::resolve(&repo.dir, rev)
        .ok_or_else(|| Problem::unprocessable(format!("No commit found for SHA: {rev}")))
}

pub(super) fn runs_for_ref(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let sha = sha(repo, call)?;
    let mut runs = repo.checks(&sha);
    if call.filter("filter") != Some("all") {
        // The newest of each name within a suite: two events of one workflow are two suites, and both are listed.
        let mut seen = std::collections::BTreeSet::new();
        runs.retain(|run| seen.insert((run.suite, run.name.clone())));
    }
    runs.retain(|run| {
        call.filter("check_name")
            .is_none_or(|name| name == run.name)
            && call
                .filter("status")
                .is_none_or(|status| status == run.status.name())
    });
    Ok(Reply::Counted(
        "check_runs",
        runs.into_iter()
            .map(|run| render::check_run(site, repo, run))
            .collect(),
    ))
}

pub(super) fn suites_for_ref(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let sha = sha(repo, call)?;
    let suites = repo.suites.iter().filter(|suite| suite.head_sha == sha);
    Ok(Reply::Counted(
        "check_suites",
        suites
            .map(|suite| render::suite(site, repo, suite))
            .collect::<std::result::Result<_, _>>()?,
    ))
}

fn check<'a>(repo: &'a Repo, call: &Call) -> std::result::Result<&'a CheckRun, Problem> {
    let id = call.number("check_run_id")?;
    repo.check_runs
        .iter()
        .find(|run| run.id == id)
        .ok_or_else(Problem::not_found)
}

pub(super) fn get(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::ok(render::check_run(site, repo, check(repo, call)?)))
}

pub(super) fn annotations(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let run = check(repo, call)?;
    Ok(Reply::List(
        run.annotations
            .iter()
            .map(|message| render::annotation(site, repo, run, message))
            .collect(),
    ))
}

pub(super) fn combined_status(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::ok(render::combined_status(
        site,
        repo,
        &sha(repo, call)?,
    )))
}

pub(super) fn statuses(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let sha = sha(repo, call)?;
    let found = repo
        .statuses
        .iter()
        .rev()
        .filter(|status| status.sha == sha);
    Ok(Reply::List(
        found
            .map(|status| render::status(site, repo, status))
            .collect(),
    ))
}

pub(super) fn create_status(site: &mut Site, call: &Call) -> Result {
    let id = site.id();
    let repo = site.repo_mut(&call.repo())?;
    let Some(sha) = git::resolve(&repo.dir, call.param("sha")) else {
        return Err(Problem::unprocessable(format!(
            "No commit found for SHA: {}",
            call.param("sha")
        )));
    };
    let status = CommitStatus {
        id,
        sha,
        context: call.text("context").unwrap_or("default").to_owned(),
        state: call.text("state").unwrap_or_default().to_owned(),
        description: call.text("description").map(str::to_owned),
        target_url: call.text("target_url").map(str::to_owned),
        author: call.login().to_owned(),
        at: now(),
    };
    repo.statuses.push(status.clone());
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::created(render::status(site, repo, &status)))
}

pub(super) fn workflow_runs(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let matches = |run: &&Run| {
        call.filter("head_sha")
            .is_none_or(|sha| sha == run.head_sha)
            && call
                .filter("branch")
                .is_none_or(|branch| branch == run.head_branch)
            && call.filter("event").is_none_or(|event| event == run.event)
            && call.filter("actor").is_none_or(|actor| actor == run.actor)
            && call.filter("status").is_none_or(|status| {
                status == run.status.name() || run.conclusion.is_some_and(|c| c.name() == status)
            })
    };
    let found = repo
        .runs
        .iter()
        .rev()
        .filter(matches)
        .map(|run| render::run(site, repo, run));
    Ok(Reply::Counted(
        "workflow_runs",
        found.collect::<std::result::Result<_, _>>()?,
    ))
}

fn find_run<'a>(repo: &'a Repo, call: &Call) -> std::result::Result<&'a Run, Problem> {
    let id = call.number("run_id")?;
    repo.runs
        .iter()
        .find(|run| run.id == id)
        .ok_or_else(Problem::not_found)
}

pub(super) fn workflow_run(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::ok(render::run(site, repo, find_run(repo, call)?)?))
}

pub(super) fn jobs(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let run = find_run(repo, call)?;
    Ok(Reply::Counted(
        "jobs",
        run.jobs
            .iter()
            .map(|job| render::job(site, repo, run, job))
            .collect(),
    ))
}

fn find_job<'a>(repo: &'a Repo, call: &Call) -> std::result::Result<(&'a Run, &'a Job), Problem> {
    repo.job(call.number("job_id")?)
        .ok_or_else(Problem::not_found)
}

pub(super) fn job(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (run, job) = find_job(repo, call)?;
    Ok(Reply::ok(render::job(site, repo, run, job)))
}

/// A redirect to another place, which wants no credential and would refuse one. The log exists once the job is over.
pub(super) fn job_log(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (_, job) = find_job(repo, call)?;
    if job.completed_at.is_none() || job.log.is_empty() {
        return Err(Problem::not_found());
    }
    let signature = fingerprint(job.log.as_bytes());
    let path = format!("{}/jobs/{}?sig={signature:x}", repo.full_name(), job.id);
    Ok(Reply::Redirect(format!("{}/{path}", site.blobs)))
}
