//! `task …`, but for `task watch`.

use std::process::Command;

use insta::assert_snapshot;
use mainloop_proto::v1::{InboxGroup, LogSource, StreamTaskLogsResponse, TaskEvent, TaskState};

use crate::{
    fake::{Plane, World},
    run::{Running, addressed, against, json, piped},
    samples::{chunk, event, failed_task, ready_task, task},
};

const REPO: [&str; 2] = ["--repo", "https://github.com/acme/widgets"];

fn world() -> World {
    World {
        tasks: vec![
            ready_task(),
            failed_task(),
            task("p1", "Try it", TaskState::Proposed, InboxGroup::NeedsYou),
        ],
        ..World::default()
    }
}

fn create(plane: &Plane, arguments: &[&str]) -> String {
    against(plane, &[&["task", "create"], &REPO[..], arguments].concat())
}

#[test]
fn create_makes_a_proposal_and_says_what_it_may_cost() {
    let plane = Plane::start(world());
    assert_snapshot!(create(&plane, &["Retry on 503"]), @r"
    exit 0
    --- stdout
    task t1a2 proposed: Retry on 503
      repository  https://github.com/acme/widgets (main)
      model       sonnet
      cost        at most $5.00
    --- stderr
    next: mainloop task confirm t1a2
    next: mainloop task cancel t1a2
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"CreateTaskRequest { request_id: "", repository_url: "https://github.com/acme/widgets", base_ref: "", issue_number: 0, title: "", description: "Retry on 503", model: "", priority: 0, labels: {}, budget_micros: 0, confirm: false }"#);
}

#[test]
fn create_with_yes_starts_it() {
    let plane = Plane::start(world());
    let arguments = [
        "--base",
        "next",
        "--issue",
        "#7",
        "--title",
        "Retry",
        "--model",
        "opus",
        "--priority",
        "-5",
        "--budget",
        "2.50",
        "--label",
        "team=infra",
        "-y",
        "Retry on 503",
    ];
    assert_snapshot!(create(&plane, &arguments), @r"
    exit 0
    --- stdout
    task t1a2 started: Retry
      repository  https://github.com/acme/widgets (main)
      issue       #7
      model       sonnet
      cost        at most $2.50
    --- stderr
    next: mainloop task watch t1a2
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"CreateTaskRequest { request_id: "", repository_url: "https://github.com/acme/widgets", base_ref: "next", issue_number: 7, title: "Retry", description: "Retry on 503", model: "opus", priority: -5, labels: {"team": "infra"}, budget_micros: 2500000, confirm: true }"#);
}

#[test]
fn request_whose_answer_is_lost_is_sent_again_and_has_its_effect_once() {
    let plane = Plane::start(World {
        lost_answers: 1,
        ..world()
    });
    let created = create(&plane, &["-y", "Retry on 503"]);
    assert!(created.starts_with("exit 0\n"), "{created}");
    assert!(
        created.contains("this request had made the task before"),
        "{created}"
    );
    plane.world().lost_answers = 1;
    let said = against(&plane, &["task", "say", "p1", "mind the tests"]);
    assert!(said.starts_with("exit 0\n"), "{said}");
    assert_eq!(plane.world().asked.len(), 2, "{:?}", plane.world().asked);
}

#[test]
fn create_reads_a_description_from_stdin() {
    let plane = Plane::start(world());
    piped(
        &plane,
        &[&["task", "create"], &REPO[..], &["-"]].concat(),
        "Two\nlines\n",
    );
    let asked = plane.world().asked.join("\n");
    assert!(asked.contains(r#"description: "Two\nlines""#), "{asked}");
}

#[test]
fn create_takes_the_repository_of_the_folder_or_the_issue() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["task", "create", "x"]), @r"
    exit 2
    --- stderr
    error: this folder has no git remote `origin`
    hint: stand in a clone of the repository, or name it by --repo
    ");
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args(arguments)
            .current_dir(plane.folder())
            .status()
            .unwrap();
        assert!(done.success(), "git {arguments:?}");
    };
    git(&["init", "-q"]);
    git(&[
        "remote",
        "add",
        "origin",
        "git@git.example:acme/gadgets.git",
    ]);
    against(&plane, &["task", "create", "x"]);
    against(
        &plane,
        &[
            "task",
            "create",
            "--issue",
            "https://github.com/acme/widgets/issues/12",
        ],
    );
    let asked = plane.world().asked.clone();
    assert!(
        asked[0].contains(r#"repository_url: "https://git.example/acme/gadgets""#),
        "{asked:?}"
    );
    assert!(
        asked[1].contains(r#"repository_url: "https://github.com/acme/widgets""#),
        "{asked:?}"
    );
    assert!(asked[1].contains("issue_number: 12"), "{asked:?}");
    let other = ["--issue", "https://github.com/acme/other/issues/12"];
    assert_snapshot!(create(&plane, &other), @r"
    exit 2
    --- stderr
    error: the issue is of https://github.com/acme/other, not of https://github.com/acme/widgets
    ");
}

#[test]
fn create_as_json_is_the_response() {
    let plane = Plane::start(world());
    let made = json(&plane, &[&["task", "create"], &REPO[..], &["x"]].concat());
    assert_eq!(made[0]["task"]["shortId"], "t1a2");
    assert_eq!(made[0]["task"]["state"], "TASK_STATE_PROPOSED");
    assert_eq!(made[0]["task"]["budgetMicros"], "5000000");
}

#[test]
fn list_follows_pages_and_filters() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["task", "list"]), @r"
    exit 0
    --- stdout
    TASK  STATE             REPOSITORY    COST     TITLE
    r1    ready for review  acme/widgets  $0.0123  Retry on 503
    f1    failed            acme/widgets  $0.0123  Port to the new API
    p1    proposed          acme/widgets  $0.0123  Try it
    ");
    assert_snapshot!(against(&plane, &["task", "list", "--state", "ready", "-n", "1"]), @r"
    exit 0
    --- stdout
    TASK  STATE             REPOSITORY    COST     TITLE
    r1    ready for review  acme/widgets  $0.0123  Retry on 503
    ");
    assert_snapshot!(against(&plane, &["task", "list", "--group", "active"]), @r"
    exit 0
    --- stderr
    no tasks
    ");
    assert_eq!(json(&plane, &["task", "list"]).len(), 3);
}

#[test]
fn get_shows_a_task() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["task", "get", "r1"]), @r"
    exit 0
    --- stdout
    r1 Retry on 503
      state      ready for review
      on         https://github.com/acme/widgets (main)
      model      sonnet
      cost       $0.0123 of $5.00
      attempt    1
      branch     mainloop/r1-retry
      issue      https://github.com/acme/widgets/issues/1
      pull       https://github.com/acme/widgets/pull/2
      checks     ✓ build  - docs
      diff       3 files, +40 -2
      labels     team=infra
      by         ada at 2100-01-01 12:00

    Asked for
      Retry on 503

    Summary
      Retries with back-off.

    Plan
    # Plan

    Do it.
    ");
    assert_snapshot!(against(&plane, &["task", "get", "f1"]), @r"
    exit 0
    --- stdout
    f1 Port to the new API
      state      failed
      failed     no ci: the check `test` failed 3 times
      on         https://github.com/acme/widgets (main)
      model      sonnet
      cost       $0.0123 of $5.00
      attempt    1
      by         ada at 2100-01-01 12:00
    ");
    assert_eq!(
        json(&plane, &["task", "get", "r1"])[0]["task"]["pullRequest"]["number"],
        2
    );
}

#[test]
fn tasks_are_confirmed_cancelled_retried_and_guided() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["task", "confirm", "p1"]), @r"
    exit 0
    --- stdout
    task p1 is confirmed: Try it
    --- stderr
    next: mainloop task watch p1
    ");
    assert_snapshot!(against(&plane, &["task", "confirm", "r1"]), @r"
    exit 1
    --- stderr
    error: cannot confirm the task `r1`: the task was confirmed before
    hint: `mainloop task get r1` shows where it stands
    ");
    assert_snapshot!(against(&plane, &["task", "cancel", "p1", "no longer needed"]), @r"
    exit 0
    --- stdout
    task p1 is cancelled
    ");
    assert_snapshot!(against(&plane, &["task", "retry", "f1", "use the v2 endpoint"]), @r"
    exit 0
    --- stdout
    task f1 starts again: Port to the new API
    --- stderr
    next: mainloop task watch f1
    ");
    assert_snapshot!(against(&plane, &["task", "retry", "r1"]), @r"
    exit 1
    --- stderr
    error: cannot retry the task `r1`: the task has not failed
    hint: only a task that failed, is stuck or waits for a time can be retried
    ");
    assert_snapshot!(piped(&plane, &["task", "say", "r1", "-"], "look at util.rs\n"), @r"
    exit 0
    --- stdout
    task r1 will hear it: Retry on 503
    --- stderr
    next: mainloop task watch r1
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"
    ConfirmTaskRequest { task_id: "p1" }
    CancelTaskRequest { task_id: "p1", reason: "no longer needed" }
    RetryTaskRequest { task_id: "f1", guidance: "use the v2 endpoint", fresh: false }
    SayToTaskRequest { task_id: "r1", text: "look at util.rs", request_id: "" }
    "#);
}

#[test]
fn events_are_a_table() {
    let late = TaskEvent {
        ignored: true,
        ..event(3, "plan_ready", "plan is ready")
    };
    let plane = Plane::start(World {
        events: vec![
            event(1, "confirmed", "ada confirmed it"),
            event(2, "cancelled", "ada cancelled it"),
            late,
        ],
        ..world()
    });
    assert_snapshot!(against(&plane, &["task", "events", "r1"]), @r"
    exit 0
    --- stdout
    SEQ  TIME              KIND        BY      WHAT
    1    2100-01-01 12:00  confirmed   worker  ada confirmed it
    2    2100-01-01 12:00  cancelled   worker  ada cancelled it
    3    2100-01-01 12:00  plan_ready  worker  plan is ready (came too late, ignored)
    ");
    assert_eq!(json(&plane, &["task", "events", "r1"])[2]["ignored"], true);
}

#[test]
fn logs_say_who_wrote_what_and_what_was_dropped() {
    let plane = Plane::start(World {
        logs: vec![
            chunk(1, LogSource::Harness, "cloned\n"),
            chunk(
                2,
                LogSource::Claude,
                "I read \u{1b}[31mthe code\u{1b}[0m.\nNow the test.\n",
            ),
            StreamTaskLogsResponse {
                dropped: 4,
                ..chunk(7, LogSource::Tool, "cargo test")
            },
        ],
        ..world()
    });
    assert_snapshot!(against(&plane, &["task", "logs", "r1"]), @r"
    exit 0
    --- stdout
    setup  cloned
    claude I read the code.
    claude Now the test.
    … 4 pieces were dropped here
    tool   cargo test
    ");
    assert_snapshot!(against(&plane, &["task", "logs", "r1", "--tail", "1"]), @r"
    exit 0
    --- stdout
    … 4 pieces were dropped here
    tool   cargo test
    ");
    let running = Running::start(&mut addressed(
        &plane,
        &["task", "logs", "r1", "-f", "-o", "json"],
    ));
    running.wait_for(r#""source":"LOG_SOURCE_TOOL""#);
}

#[test]
fn open_prints_the_page() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["task", "open", "r1"]), @r"
    exit 0
    --- stdout
    https://github.com/acme/widgets/pull/2
    ");
    assert_snapshot!(against(&plane, &["task", "open", "r1", "--issue"]), @r"
    exit 0
    --- stdout
    https://github.com/acme/widgets/issues/1
    ");
    assert_snapshot!(against(&plane, &["task", "open", "f1"]), @r"
    exit 1
    --- stderr
    error: task f1 has no page yet
    hint: mainloop task watch f1
    ");
}
