//! `task watch` where nobody looks: a line for each milestone.

use insta::assert_snapshot;
use mainloop_proto::v1::{InboxGroup, Task, TaskEvent, TaskState, WatchTaskResponse};

use crate::{
    fake::{Plane, World},
    run::{Running, addressed, against, json},
    samples::{event, failed_task, plan_item, question_item, ready_task, task},
};

fn change(task: &Task, event: Option<TaskEvent>) -> WatchTaskResponse {
    WatchTaskResponse {
        task: Some(task.clone()),
        event,
    }
}

fn working() -> Task {
    Task {
        id: ready_task().id,
        ..task(
            "r1",
            "Retry on 503",
            TaskState::Implementing,
            InboxGroup::Active,
        )
    }
}

#[test]
fn watch_ends_when_the_task_is_ready() {
    let plane = Plane::start(World {
        tasks: vec![ready_task()],
        events: vec![
            event(1, "planning_started", "planning started"),
            event(2, "plan_ready", "plan ready"),
            event(3, "ready", "ready for review"),
        ],
        watches: [vec![
            Ok(change(&working(), None)),
            Ok(change(
                &working(),
                Some(event(2, "plan_ready", "plan ready")),
            )),
            Ok(change(&ready_task(), None)),
        ]]
        .into(),
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["task", "watch", "r1"]), @r"
    exit 0
    --- stdout
    2100-01-01 12:00  planning started
    2100-01-01 12:00  plan ready
    2100-01-01 12:00  ready for review
    r1: ready for review, 3 files, +40 -2, cost $0.0123, took 1m 00s
      issue  https://github.com/acme/widgets/issues/1
      pull   https://github.com/acme/widgets/pull/2
    --- stderr
    next: mainloop task open r1
    ");
}

#[test]
fn watch_fails_with_the_task() {
    let plane = Plane::start(World {
        tasks: vec![failed_task()],
        watches: [vec![Ok(change(&failed_task(), None))]].into(),
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["task", "watch", "f1"]), @r"
    exit 1
    --- stdout
    f1: failed, the check `test` failed 3 times, cost $0.0123, took 2m 05s
    --- stderr
    next: mainloop task retry f1
    ");
}

#[test]
fn watch_says_what_it_needs_and_goes_on() {
    let asking = Task {
        open_items: vec!["q7@1".to_owned(), "k3f9@2".to_owned()],
        ..working()
    };
    let plane = Plane::start(World {
        tasks: vec![ready_task()],
        items: vec![plan_item(), question_item()],
        watches: [vec![
            Ok(change(&asking, None)),
            Ok(change(
                &asking,
                Some(event(1, "question_asked", "question asked")),
            )),
            Ok(change(&ready_task(), None)),
        ]]
        .into(),
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["task", "watch", "r1"]), @r"
    exit 0
    --- stdout
    2100-01-01 12:00  needs you: q7@1: How long may an entry live?  (mainloop show q7@1)
    2100-01-01 12:00  needs you: k3f9@2: Plan: retry on 503  (mainloop show k3f9@2)
    2100-01-01 12:00  question asked
    r1: ready for review, 3 files, +40 -2, cost $0.0123, took 1m 00s
      issue  https://github.com/acme/widgets/issues/1
      pull   https://github.com/acme/widgets/pull/2
    --- stderr
    next: mainloop task open r1
    ");
}

#[test]
fn until_a_state_ends_there_or_fails_at_the_end() {
    let script = || {
        vec![
            Ok(change(&working(), None)),
            Ok(change(&failed_task(), None)),
        ]
    };
    let plane = Plane::start(World {
        tasks: vec![ready_task()],
        watches: [script(), script()].into(),
        ..World::default()
    });
    let reached = against(&plane, &["task", "watch", "r1", "--until", "implementing"]);
    assert!(reached.starts_with("exit 0\n"), "{reached}");
    let missed = against(&plane, &["task", "watch", "r1", "--until", "completed"]);
    assert!(missed.starts_with("exit 1\n"), "{missed}");
}

#[test]
fn watch_survives_a_restart_of_the_plane_and_repeats_nothing() {
    let mut plane = Plane::start(World {
        tasks: vec![ready_task()],
        events: vec![event(1, "planning_started", "planning started")],
        watches: [vec![
            Ok(change(&working(), None)),
            Ok(change(
                &working(),
                Some(event(2, "plan_ready", "plan ready")),
            )),
        ]]
        .into(),
        ..World::default()
    });
    let running = Running::start(&mut addressed(&plane, &["task", "watch", "r1"]));
    running.wait_for("plan ready");
    plane
        .world()
        .events
        .push(event(2, "plan_ready", "plan ready"));
    plane
        .world()
        .events
        .push(event(3, "ready", "ready for review"));
    plane
        .world()
        .watches
        .push_back(vec![Ok(change(&ready_task(), None))]);
    plane.restart();
    let (code, stdout, stderr) = running.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_snapshot!(stdout, @r"
    2100-01-01 12:00  planning started
    2100-01-01 12:00  plan ready
    2100-01-01 12:00  ready for review
    r1: ready for review, 3 files, +40 -2, cost $0.0123, took 1m 00s
      issue  https://github.com/acme/widgets/issues/1
      pull   https://github.com/acme/widgets/pull/2
    ");
    assert_snapshot!(stderr, @r"
    the plane does not answer; waiting for it to come back (Ctrl-C stops watching, the task goes on)
    the plane is back
    next: mainloop task open r1
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"
    WatchTaskRequest { task_id: "r1", after_seq: 1 }
    WatchTaskRequest { task_id: "r1", after_seq: 3 }
    "#);
}

#[test]
fn watch_as_json_is_the_stream() {
    let plane = Plane::start(World {
        tasks: vec![ready_task()],
        events: vec![
            event(1, "planning_started", "planning started"),
            event(2, "ready", "ready"),
        ],
        watches: [vec![
            Ok(change(&working(), None)),
            Ok(change(
                &working(),
                Some(event(1, "planning_started", "planning started")),
            )),
            Ok(change(&ready_task(), None)),
        ]]
        .into(),
        ..World::default()
    });
    let lines = json(&plane, &["task", "watch", "r1"]);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["task"]["state"], "TASK_STATE_IMPLEMENTING");
    assert_eq!(lines[1]["event"]["kind"], "planning_started");
    assert_eq!(lines[3]["event"]["seq"], "2");
}
