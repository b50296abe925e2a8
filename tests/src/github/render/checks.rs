//! Check runs, suites, statuses, workflow runs and jobs.

use serde_json::{Value, json};

use super::super::ci::{Conclusion, Status};
use super::super::git::{self, GitError};
use super::super::site::{CheckRun, CommitStatus, Issue, Job, Pull, Repo, Run, Site, Suite};
use super::{extend, links, maybe_time, minimal_repo, node_id, repo_api, repo_html, time, user};

fn app(site: &Site, slug: &str) -> Value {
    let id = if slug == "github-actions" {
        15368
    } else {
        15000 + slug.len()
    };
    json!({
        "id": id, "slug": slug, "node_id": node_id("A", id as u64), "owner": user(site, "github"), "name": if slug == "github-actions" { "GitHub Actions" } else { slug },
        "description": null, "external_url": site.base, "html_url": format!("{}/apps/{slug}", site.base), "created_at": time(site.started),
        "updated_at": time(site.started), "permissions": {"checks": "write", "metadata": "read"}, "events": [],
    })
}

/// The open pull requests whose head is this commit.
fn pulls_of(site: &Site, repo: &Repo, sha: &str) -> Vec<Value> {
    let here = json!({"id": repo.id, "url": repo_api(site, repo), "name": repo.name});
    let render = |issue: &Issue, pull: &Pull| {
        json!({
            "id": pull.id, "number": issue.number, "url": format!("{}/pulls/{}", repo_api(site, repo), issue.number),
            "head": {"ref": pull.head, "sha": pull.head_sha, "repo": here}, "base": {"ref": pull.base, "sha": pull.base_sha, "repo": here},
        })
    };
    repo.pulls()
        .filter(|(issue, pull)| issue.open && pull.head_sha == sha)
        .map(|(issue, pull)| render(issue, pull))
        .collect()
}

pub(in super::super) fn check_run(site: &Site, repo: &Repo, run: &CheckRun) -> Value {
    let url = format!("{}/check-runs/{}", repo_api(site, repo), run.id);
    json!({
        "id": run.id, "node_id": node_id("CR", run.id), "name": run.name, "head_sha": run.head_sha, "external_id": "", "url": url, "html_url": run.details_url,
        "details_url": run.details_url, "status": run.status.name(), "conclusion": run.conclusion.map(Conclusion::name), "started_at": maybe_time(run.started_at),
        "completed_at": maybe_time(run.completed_at), "check_suite": {"id": run.suite}, "app": app(site, &run.app), "pull_requests": pulls_of(site, repo, &run.head_sha),
        "output": {"title": run.title, "summary": run.summary, "text": null, "annotations_count": run.annotations.len(), "annotations_url": format!("{url}/annotations")},
    })
}

pub(in super::super) fn annotation(
    site: &Site,
    repo: &Repo,
    run: &CheckRun,
    message: &str,
) -> Value {
    json!({
        "path": ".github", "blob_href": format!("{}/blob/{}/.github", repo_html(site, repo), run.head_sha), "start_line": 1, "end_line": 1, "start_column": null,
        "end_column": null, "annotation_level": "failure", "title": "", "message": message, "raw_details": "",
    })
}

/// Status and conclusion of a suite follow from its check runs.
fn suite_state(repo: &Repo, suite: &Suite) -> (Status, Option<Conclusion>) {
    let runs: Vec<_> = repo
        .check_runs
        .iter()
        .filter(|run| run.suite == suite.id)
        .collect();
    if suite.conclusion.is_some() {
        return (Status::Completed, suite.conclusion);
    }
    if runs.iter().any(|run| run.status != Status::Completed) {
        let started = runs.iter().any(|run| run.status != Status::Queued);
        return (
            if started {
                Status::InProgress
            } else {
                Status::Queued
            },
            None,
        );
    }
    if runs.is_empty() {
        return (Status::Queued, None);
    }
    (
        Status::Completed,
        Some(Conclusion::of_all(
            runs.iter().filter_map(|run| run.conclusion),
        )),
    )
}

pub(in super::super) fn suite(site: &Site, repo: &Repo, group: &Suite) -> Result<Value, GitError> {
    let (status, conclusion) = suite_state(repo, group);
    let url = format!("{}/check-suites/{}", repo_api(site, repo), group.id);
    Ok(json!({
        "id": group.id, "node_id": node_id("CS", group.id), "head_branch": group.head_branch, "head_sha": group.head_sha, "status": status.name(),
        "conclusion": conclusion.map(Conclusion::name), "url": url, "before": null, "after": group.head_sha, "pull_requests": pulls_of(site, repo, &group.head_sha),
        "app": app(site, &group.app), "created_at": time(group.created_at), "updated_at": time(group.created_at), "repository": minimal_repo(site, repo),
        "head_commit": simple_commit(repo, &group.head_sha)?, "latest_check_runs_count": repo.check_runs.iter().filter(|run| run.suite == group.id).count(),
        "check_runs_url": format!("{url}/check-runs"),
    }))
}

fn simple_commit(repo: &Repo, sha: &str) -> Result<Value, GitError> {
    let commit = git::commit(&repo.dir, sha)?;
    let who = |of: &git::Signature| json!({"name": of.name, "email": of.email});
    Ok(json!({
        "id": commit.sha, "tree_id": commit.tree, "message": commit.message, "timestamp": commit.committer.date, "author": who(&commit.author),
        "committer": who(&commit.committer),
    }))
}

pub(in super::super) fn status(site: &Site, repo: &Repo, status: &CommitStatus) -> Value {
    let creator = user(site, &status.author);
    json!({
        "id": status.id, "node_id": node_id("SC", status.id), "url": format!("{}/statuses/{}", repo_api(site, repo), status.sha), "avatar_url": creator["avatar_url"],
        "state": status.state, "description": status.description, "target_url": status.target_url, "context": status.context,
        "created_at": time(status.at), "updated_at": time(status.at), "creator": creator,
    })
}

/// The newest status of each context, and what they come to.
pub(in super::super) fn combined_status(site: &Site, repo: &Repo, sha: &str) -> Value {
    let mut newest: Vec<&CommitStatus> = Vec::new();
    for status in repo
        .statuses
        .iter()
        .filter(|status| status.sha == sha)
        .rev()
    {
        if !newest.iter().any(|known| known.context == status.context) {
            newest.push(status);
        }
    }
    let any = |state: &str| newest.iter().any(|status| status.state == state);
    let state = if any("failure") || any("error") {
        "failure"
    } else if newest.is_empty() || any("pending") {
        "pending"
    } else {
        "success"
    };
    let url = format!("{}/commits/{sha}", repo_api(site, repo));
    json!({
        "state": state, "sha": sha, "total_count": newest.len(), "commit_url": url, "url": format!("{url}/status"), "repository": minimal_repo(site, repo),
        "statuses": newest.iter().map(|one| status(site, repo, one)).collect::<Vec<_>>(),
    })
}

pub(in super::super) fn run(site: &Site, repo: &Repo, run: &Run) -> Result<Value, GitError> {
    let url = format!("{}/actions/runs/{}", repo_api(site, repo), run.id);
    let mut value = json!({
        "id": run.id, "node_id": node_id("WFR", run.id), "name": run.name, "path": run.path, "head_branch": run.head_branch, "head_sha": run.head_sha,
        "display_title": run.title, "run_number": run.number, "run_attempt": 1, "event": run.event, "status": run.status.name(),
        "conclusion": run.conclusion.map(Conclusion::name), "workflow_id": run.workflow, "check_suite_id": run.suite,
        "check_suite_node_id": node_id("CS", run.suite), "html_url": format!("{}/actions/runs/{}", repo_html(site, repo), run.id),
        "created_at": time(run.created_at), "updated_at": time(run.updated_at), "run_started_at": time(run.created_at),
        "actor": user(site, &run.actor), "triggering_actor": user(site, &run.actor), "head_commit": simple_commit(repo, &run.head_sha)?,
        "repository": minimal_repo(site, repo), "head_repository": minimal_repo(site, repo), "pull_requests": pulls_of(site, repo, &run.head_sha),
        "check_suite_url": format!("{}/check-suites/{}", repo_api(site, repo), run.suite), "previous_attempt_url": null, "referenced_workflows": [],
        "workflow_url": format!("{}/actions/workflows/{}", repo_api(site, repo), run.workflow),
    });
    extend(
        &mut value,
        links(
            &url,
            &[
                ("url", ""),
                ("jobs_url", "/jobs"),
                ("logs_url", "/logs"),
                ("cancel_url", "/cancel"),
                ("rerun_url", "/rerun"),
                ("artifacts_url", "/artifacts"),
            ],
        ),
    );
    Ok(value)
}

pub(in super::super) fn job_html(site: &Site, repo: &Repo, run: u64, job: u64) -> String {
    format!("{}/actions/runs/{run}/job/{job}", repo_html(site, repo))
}

pub(in super::super) fn job(site: &Site, repo: &Repo, run: &Run, job: &Job) -> Value {
    let api = repo_api(site, repo);
    let steps: Vec<Value> = job
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| {
            json!({
                "name": step.name, "number": at + 1, "status": step.status.name(), "conclusion": step.conclusion.map(Conclusion::name),
                "started_at": maybe_time(step.started_at), "completed_at": maybe_time(step.completed_at),
            })
        })
        .collect();
    json!({
        "id": job.id, "node_id": node_id("CR", job.id), "run_id": run.id, "run_attempt": 1, "run_url": format!("{api}/actions/runs/{}", run.id),
        "workflow_name": run.name, "head_branch": run.head_branch, "head_sha": run.head_sha, "name": job.name, "url": format!("{api}/actions/jobs/{}", job.id),
        "html_url": job_html(site, repo, run.id, job.id), "check_run_url": format!("{api}/check-runs/{}", job.id), "status": job.status.name(),
        "conclusion": job.conclusion.map(Conclusion::name), "created_at": time(job.created_at), "started_at": time(job.started_at.unwrap_or(job.created_at)),
        "completed_at": maybe_time(job.completed_at), "labels": ["ubuntu-latest"], "runner_id": 1, "runner_name": "emulator", "runner_group_id": 1,
        "runner_group_name": "Default", "steps": steps,
    })
}
