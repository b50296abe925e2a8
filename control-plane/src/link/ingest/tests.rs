#![allow(clippy::unwrap_used)]

use mainloop_core::{Event, PhaseKind};
use mainloop_proto::v1::{
    CiPassed, Milestone, NothingToChange, PlanReady, ProgressNoted, milestone::Fact,
};
use uuid::Uuid;

use super::{Reading, reading};
use crate::{
    db::{Store, attempts::Identity, claims::Caps},
    dispatch::tests::{apply, queued, sql},
    testing,
};

/// A task in planning with a live worker.
async fn planning(store: &Store) -> Identity {
    let caps = Caps {
        total: 1,
        per_repository: 1,
    };
    let task = queued(store, "one", 0).await;
    store.claim("here", caps).await.unwrap();
    let open = store.open_attempts("here").await.unwrap().remove(0);
    assert!(store.attempt_started(open.id, &[7]).await.unwrap());
    store
        .attempt_connected(open.id, Uuid::now_v7())
        .await
        .unwrap()
        .unwrap();
    apply(store, task, 1, Event::AttemptConnected).await;
    Identity {
        id: open.id,
        task_id: task,
        n: 1,
    }
}

async fn version(store: &Store, task: Uuid) -> i64 {
    store
        .task_for_link(task)
        .await
        .unwrap()
        .unwrap()
        .task
        .phase_version
}

fn plan(seq: i64, phase_version: i64) -> Milestone {
    Milestone {
        seq,
        phase_version,
        time: None,
        fact: Some(Fact::PlanReady(PlanReady {
            text: "# The plan".to_owned(),
            hash: "h1".to_owned(),
            issue: None,
            revision: 1,
        })),
    }
}

#[tokio::test]
async fn a_milestone_that_comes_twice_counts_once() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let milestone = plan(1, version(&store, worker.task_id).await);
    assert_eq!(
        super::milestone(&store, worker, &milestone).await.unwrap(),
        1
    );
    let once = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(once.task.phase.kind(), PhaseKind::PlanReview);
    // Acknowledged again, so that it is not resent for ever.
    assert_eq!(
        super::milestone(&store, worker, &milestone).await.unwrap(),
        1
    );
    let twice = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(
        (twice.version, twice.event_seq),
        (once.version, once.event_seq)
    );
}

#[tokio::test]
async fn a_milestone_that_skips_one_is_not_taken() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let milestone = plan(2, version(&store, worker.task_id).await);
    assert_eq!(
        super::milestone(&store, worker, &milestone).await.unwrap(),
        0
    );
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::Planning);
}

#[tokio::test]
async fn a_milestone_of_a_step_that_was_left_is_logged_as_ignored() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let stale = plan(1, version(&store, worker.task_id).await - 1);
    assert_eq!(super::milestone(&store, worker, &stale).await.unwrap(), 1);
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::Planning);
    let last = store
        .events(worker.task_id, task.event_seq - 1, i64::MAX, 10)
        .await
        .unwrap()
        .remove(0);
    assert!(last.ignored, "{last:?}");
}

#[tokio::test]
async fn a_nul_in_what_claude_says_is_stored_without_it() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let nothing = Milestone {
        seq: 1,
        phase_version: version(&store, worker.task_id).await,
        time: None,
        fact: Some(Fact::NothingToChange(NothingToChange {
            reason: "it is\0 done".to_owned(),
            issue: None,
        })),
    };
    assert_eq!(super::milestone(&store, worker, &nothing).await.unwrap(), 1);
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::Completed);
    assert_eq!(task.milestone, "nothing to change: it is\u{fffd} done");
}

#[tokio::test]
async fn a_milestone_that_the_database_never_takes_is_acknowledged_and_logged_as_ignored() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let version = version(&store, worker.task_id).await;
    let mut bad = plan(1, version);
    if let Some(Fact::PlanReady(ready)) = &mut bad.fact {
        ready.hash = "h\0".to_owned();
    }
    assert_eq!(super::milestone(&store, worker, &bad).await.unwrap(), 1);
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::Planning);
    let last = store
        .events(worker.task_id, task.event_seq - 1, i64::MAX, 10)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((last.kind.as_str(), last.ignored), ("plan_ready", true));
    let good = plan(2, version);
    assert_eq!(super::milestone(&store, worker, &good).await.unwrap(), 2);
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::PlanReview);
}

#[tokio::test]
async fn a_note_is_an_event_and_nothing_else() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    let note = Milestone {
        seq: 1,
        phase_version: 0,
        time: None,
        fact: Some(Fact::ProgressNoted(ProgressNoted {
            text: "half way\0 there\nmore".to_owned(),
        })),
    };
    assert_eq!(super::milestone(&store, worker, &note).await.unwrap(), 1);
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    let last = store
        .events(worker.task_id, task.event_seq - 1, i64::MAX, 10)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (last.kind.as_str(), last.text.as_str()),
        ("progress", "half way\u{fffd} there")
    );
    assert_eq!(task.task.phase.kind(), PhaseKind::Planning);
}

#[tokio::test]
async fn notes_without_end_are_acknowledged_and_not_kept() {
    let store = testing::store().await;
    let worker = planning(&store).await;
    sql(
        &store,
        &format!("UPDATE attempt SET milestone = {}", super::NOTES - 2),
    )
    .await;
    let before = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    for seq in super::NOTES - 1..super::NOTES + 3 {
        let note = Milestone {
            seq,
            phase_version: 0,
            time: None,
            fact: Some(Fact::ProgressNoted(ProgressNoted {
                text: format!("note {seq}"),
            })),
        };
        assert_eq!(super::milestone(&store, worker, &note).await.unwrap(), seq);
    }
    let events = store
        .events(worker.task_id, before.event_seq, i64::MAX, 10)
        .await
        .unwrap();
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts, ["note 999", super::NOTES_END]);
    // What the workflow waits for is taken all the same.
    let plan = plan(super::NOTES + 3, version(&store, worker.task_id).await);
    super::milestone(&store, worker, &plan).await.unwrap();
    let task = store.task_for_link(worker.task_id).await.unwrap().unwrap();
    assert_eq!(task.task.phase.kind(), PhaseKind::PlanReview);
}

#[test]
fn what_the_token_cannot_read_is_part_of_what_passed() {
    let fact = Fact::CiPassed(CiPassed {
        sha: "0123456789".to_owned(),
        limited: vec!["the token cannot read check runs".to_owned()],
        ..CiPassed::default()
    });
    let milestone = Milestone {
        fact: Some(fact),
        ..Milestone::default()
    };
    let Reading::Workflow(occurrence) = reading(&milestone, None) else {
        panic!("it is not a note");
    };
    assert_eq!(
        occurrence.text,
        "CI passed (0123456) as far as it can be read: the token cannot read check runs"
    );
}
