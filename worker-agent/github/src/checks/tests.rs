#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn run(id: u64, workflow: u64, event: &str, conclusion: &Value, suite: u64) -> Value {
    json!({
        "id": id, "name": format!("wf{workflow}"), "status": if conclusion.is_null() { "in_progress" } else { "completed" },
        "conclusion": conclusion, "html_url": "https://h/run", "workflow_id": workflow, "event": event,
        "check_suite_id": suite, "created_at": "2026-01-01T00:00:00Z",
    })
}

fn check(id: u64, name: &str, conclusion: &str, suite: u64, app: &str) -> Value {
    json!({
        "id": id, "name": name, "status": "completed", "conclusion": conclusion,
        "app": {"id": if app == "github-actions" { 1 } else { 2 }, "slug": app},
        "check_suite": {"id": suite},
    })
}

fn names(checks: &[Value], runs: &[Value]) -> Vec<(String, State)> {
    let runs = runs
        .iter()
        .map(|r| serde_json::from_value(r.clone()).unwrap());
    let checks = checks
        .iter()
        .map(|c| serde_json::from_value(c.clone()).unwrap());
    let (runs, replaced) = newest_runs(runs.collect());
    let mut seen: Vec<_> = from_check_runs(checks.collect(), &runs, &replaced)
        .into_iter()
        .map(|c| (c.name, c.state))
        .collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    seen
}

fn done(name: &str, conclusion: Conclusion) -> (String, State) {
    (name.to_owned(), State::Done(conclusion))
}

const GA: &str = "github-actions";

#[test]
fn same_job_name_in_two_workflows_counts_twice() {
    let seen = names(
        &[
            check(1, "test", "failure", 10, GA),
            check(2, "test", "success", 20, GA),
        ],
        &[
            run(1, 1, "push", &json!("failure"), 10),
            run(2, 2, "push", &json!("success"), 20),
        ],
    );
    assert_eq!(
        seen,
        [
            done("test", Conclusion::Failure),
            done("test", Conclusion::Success)
        ]
    );
}

#[test]
fn newer_run_of_a_workflow_replaces_the_older() {
    let seen = names(
        &[
            check(1, "test", "cancelled", 10, GA),
            check(2, "test", "success", 20, GA),
        ],
        &[
            run(1, 1, "push", &json!("cancelled"), 10),
            run(2, 1, "push", &json!("success"), 20),
        ],
    );
    assert_eq!(seen, [done("test", Conclusion::Success)]);
}

#[test]
fn other_apps_count_by_their_newest_run() {
    let seen = names(
        &[
            check(1, "scan", "failure", 10, "scanner"),
            check(2, "scan", "success", 20, "scanner"),
        ],
        &[],
    );
    assert_eq!(seen, [done("scan", Conclusion::Success)]);
}

#[test]
fn run_without_a_job_that_tells_it_is_a_check_of_its_own() {
    let startup = names(&[], &[run(1, 1, "push", &json!("startup_failure"), 10)]);
    assert_eq!(startup, [done("wf1", Conclusion::StartupFailure)]);
    let more_to_come = names(
        &[check(1, "build", "success", 10, GA)],
        &[run(1, 1, "push", &Value::Null, 10)],
    );
    assert_eq!(
        more_to_come,
        [
            done("build", Conclusion::Success),
            ("wf1".into(), State::Running)
        ]
    );
    let told = names(
        &[check(1, "build", "failure", 10, GA)],
        &[run(1, 1, "push", &json!("failure"), 10)],
    );
    assert_eq!(told, [done("build", Conclusion::Failure)]);
}

#[test]
fn job_is_read_from_the_url() {
    assert_eq!(
        job_in_url("https://h/o/r/actions/runs/12/job/34?pr=1"),
        Some(34)
    );
    assert_eq!(job_in_url("https://ci.example/build/34"), None);
}
