//! Checks and logs as tokens of different rights see them.

use mainloop_github::{Checks, Conclusion, FailedCheck, Verdict, verdict};
use serde_json::{Value, json};

use crate::server::{Answer, Seen, Server, error, not_found, ok};

const CHECK_RUNS: &str = "GET /repos/o/r/commits/s1/check-runs";
const STATUSES: &str = "GET /repos/o/r/commits/s1/status";
const RUNS: &str = "GET /repos/o/r/actions/runs";

fn check_run(id: usize, name: &str, conclusion: &str) -> Value {
    json!({
        "id": id, "name": name, "status": "completed", "conclusion": conclusion,
        "html_url": format!("https://h/o/r/actions/runs/7/job/{id}"),
        "app": {"id": 1, "slug": "github-actions"}, "check_suite": {"id": 70},
        "output": {"title": null, "summary": null},
    })
}

fn workflow_run(conclusion: &str) -> Value {
    json!({
        "id": 7, "name": "ci", "status": "completed", "conclusion": conclusion, "html_url": "https://h/run/7",
        "workflow_id": 1, "event": "push", "check_suite_id": 70, "created_at": "2026-01-01T00:00:00Z",
    })
}

fn nothing(seen: &Seen) -> Answer {
    match seen.route().as_str() {
        CHECK_RUNS => ok(json!({"total_count": 0, "check_runs": []})),
        STATUSES => ok(json!({"state": "pending", "total_count": 0, "statuses": []})),
        RUNS => ok(json!({"total_count": 0, "workflow_runs": []})),
        _ => not_found(),
    }
}

async fn read(server: &Server) -> Checks {
    server.client().checks("s1").await.unwrap()
}

#[tokio::test]
async fn commit_without_checks_is_absent_though_its_combined_status_is_pending() {
    let server = Server::start(nothing).await;
    assert_eq!(verdict(&read(&server).await), Verdict::Absent);
}

#[tokio::test]
async fn every_page_counts_and_carries_the_token() {
    let server = Server::start(|seen| {
        if seen.route() != CHECK_RUNS {
            return nothing(seen);
        }
        let next = "<https://elsewhere.example/next>; rel=\"next\"".to_owned();
        match seen.page() {
            1 => Answer::With(
                200,
                vec![("link", next)],
                json!({"check_runs": [check_run(1, "a", "success")]}),
            ),
            2 => ok(json!({"check_runs": [check_run(2, "b", "failure")]})),
            page => panic!("page {page} was not offered"),
        }
    })
    .await;
    let Verdict::Failed { checks } = verdict(&read(&server).await) else {
        panic!("the failure on the second page was not seen");
    };
    assert_eq!((checks[0].name.as_str(), checks[0].job_id), ("b", Some(2)));
    for seen in server.log() {
        assert_eq!(
            seen.authorization.as_deref(),
            Some("Bearer token"),
            "{}",
            seen.path
        );
    }
}

#[tokio::test]
async fn statuses_and_check_runs_are_summed() {
    let server = Server::start(|seen| match seen.route().as_str() {
        CHECK_RUNS => ok(json!({"check_runs": [check_run(1, "a", "success")]})),
        STATUSES => ok(json!({"statuses": [
            {"context": "ext/lint", "state": "error", "target_url": "https://ci/1", "description": "2 problems"},
            {"context": "ext/doc", "state": "success", "target_url": null, "description": null},
        ]})),
        _ => nothing(seen),
    })
    .await;
    let checks = read(&server).await;
    assert!(checks.limited.is_empty());
    let Verdict::Failed { checks } = verdict(&checks) else {
        panic!("not failed");
    };
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0].name, "ext/lint");
    assert_eq!(checks[0].conclusion, Conclusion::Failure);
    assert_eq!(checks[0].summary.as_deref(), Some("2 problems"));
}

#[tokio::test]
async fn token_without_checks_reads_jobs_and_says_what_it_misses() {
    let server = Server::start(|seen| match seen.route().as_str() {
        CHECK_RUNS => Answer::With(
            403,
            vec![("x-accepted-github-permissions", "checks=read".into())],
            json!({"message": "Resource not accessible by personal access token"}),
        ),
        RUNS => ok(json!({"workflow_runs": [workflow_run("failure")]})),
        "GET /repos/o/r/actions/runs/7/jobs" => ok(json!({"jobs": [
            {"id": 9, "name": "test", "status": "completed", "conclusion": "failure", "html_url": "https://h/job/9",
             "steps": [{"name": "Set up job", "conclusion": "success"}, {"name": "Run make test", "conclusion": "failure"}]},
            {"id": 10, "name": "lint", "status": "completed", "conclusion": "success", "html_url": null},
        ]})),
        _ => nothing(seen),
    })
    .await;
    let checks = read(&server).await;
    assert_eq!(
        checks.limited,
        ["the token cannot read check runs (the token needs the permission checks=read)"]
    );
    let Verdict::Failed { checks } = verdict(&checks) else {
        panic!("not failed");
    };
    assert_eq!(checks.len(), 1);
    assert_eq!(
        (checks[0].name.as_str(), checks[0].job_id),
        ("test", Some(9))
    );
    assert_eq!(
        checks[0].summary.as_deref(),
        Some("failing step: Run make test")
    );
}

#[tokio::test]
async fn token_that_reads_nothing_gets_an_error_and_no_verdict() {
    let server =
        Server::start(|_| error(403, "Resource not accessible by personal access token")).await;
    let denied = server.client().checks("s1").await.unwrap_err();
    assert!(denied.is_denied(), "{denied}");
    assert!(denied.to_string().contains("commit statuses"), "{denied}");
}

#[tokio::test]
async fn outage_of_one_source_is_an_error_and_no_verdict() {
    let server = Server::start(|seen| match seen.route().as_str() {
        STATUSES => error(500, "oops"),
        _ => nothing(seen),
    })
    .await;
    assert!(server.client().checks("s1").await.is_err());
}

fn failed(job_id: Option<u64>, check_run_id: Option<u64>) -> FailedCheck {
    FailedCheck {
        name: "test".into(),
        conclusion: Conclusion::Failure,
        url: Some("https://h/job/9".into()),
        job_id,
        check_run_id,
        summary: Some("it broke".into()),
    }
}

#[tokio::test]
async fn log_is_fetched_from_the_other_host_without_the_token() {
    let blob = Server::start(|_| {
        Answer::Text("2026-01-01T00:00:00.0000000Z ##[group]Run make\n2026-01-01T00:00:00.0000000Z boom\n2026-01-01T00:00:01.0000000Z ##[error]Process completed with exit code 2.\n".into())
    })
    .await;
    let to = format!(
        "{}/blob?sig=1",
        blob.origin.replace("127.0.0.1", "localhost")
    );
    let server =
        Server::start(move |_| Answer::With(302, vec![("location", to.clone())], Value::Null))
            .await;
    let log = server
        .client()
        .failure_log(&failed(Some(9), None), 1_000)
        .await
        .unwrap();
    assert_eq!(
        log,
        "Run make\nboom\nError: Process completed with exit code 2."
    );
    assert_eq!(blob.log().len(), 1);
    assert_eq!(blob.log()[0].authorization, None);
    assert_eq!(
        server.log()[0].authorization.as_deref(),
        Some("Bearer token")
    );
}

#[tokio::test]
async fn log_that_is_gone_is_replaced_by_output_and_annotations() {
    let server = Server::start(|seen| match seen.route().as_str() {
        "GET /repos/o/r/check-runs/9" => ok(json!({"output": {
            "title": "2 errors", "summary": "see \u{1b}below", "text": null, "annotations_count": 1,
        }})),
        "GET /repos/o/r/check-runs/9/annotations" => ok(json!([
            {"path": "src/a.rs", "start_line": 3, "annotation_level": "failure", "message": "no such name"},
        ])),
        _ => error(410, "Server Error: logs are gone"),
    })
    .await;
    let log = server
        .client()
        .failure_log(&failed(Some(9), Some(9)), 1_000)
        .await
        .unwrap();
    assert_eq!(
        log,
        "2 errors\nsee below\nsrc/a.rs:3: failure: no such name"
    );
}

#[tokio::test]
async fn check_without_any_log_tells_what_it_said() {
    let server = Server::start(|_| not_found()).await;
    let log = server
        .client()
        .failure_log(&failed(None, None), 1_000)
        .await
        .unwrap();
    assert_eq!(log, "it broke\nsee https://h/job/9");
}
