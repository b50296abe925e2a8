#![allow(clippy::unwrap_used)]

use mainloop_core::{Event, Run};
use serde_json::json;
use uuid::Uuid;

use crate::{
    db::{
        Applied, Occurrence, Store,
        claims::Caps,
        create::{Created, Proposal, Snapshot},
    },
    testing,
};

const CAPS: Caps = Caps {
    total: 3,
    per_repository: 2,
};

/// A confirmed task that waits for a slot.
pub(crate) async fn queued(store: &Store, repository: &str, priority: i32) -> Uuid {
    let proposal = Proposal {
        request_id: Uuid::new_v4(),
        request_hash: vec![1],
        created_by: "ada".to_owned(),
        repository_url: format!("https://github.com/acme/{repository}"),
        owner: "acme".to_owned(),
        name: repository.to_owned(),
        base_ref: String::new(),
        issue_number: 0,
        title: "A task".to_owned(),
        description: "Do it".to_owned(),
        model: "sonnet".to_owned(),
        priority,
        labels: json!({}),
        budget_micros: 5_000_000,
        confirm: true,
    };
    let snapshot = Snapshot {
        policy: json!({}),
        unsandboxed: false,
    };
    match store.create_task(&proposal, &snapshot).await.unwrap() {
        Created::New(seen) => seen.task.id,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn apply(store: &Store, task: Uuid, attempt: u32, event: Event) -> Applied {
    let mut occurrence = Occurrence::new(event, "worker");
    occurrence.attempt = attempt;
    store.apply(task, &occurrence).await.unwrap()
}

async fn run(store: &Store, task: Uuid) -> Run {
    store.task_for_link(task).await.unwrap().unwrap().task.run
}

#[tokio::test]
async fn caps_hold_and_higher_priority_comes_first() {
    let store = testing::store().await;
    let one = queued(&store, "one", 0).await;
    let urgent = queued(&store, "one", 10).await;
    let full = queued(&store, "one", 0).await;
    let other = queued(&store, "other", 0).await;
    let over = queued(&store, "other", 0).await;

    assert_eq!(store.claim("here", CAPS).await.unwrap(), 3);
    // Two of the first lane, the urgent one among them, and one of the other: then all three slots are taken.
    assert_eq!(run(&store, urgent).await, Run::Starting);
    assert_eq!(run(&store, one).await, Run::Starting);
    assert_eq!(run(&store, full).await, Run::Queued);
    assert_eq!(run(&store, other).await, Run::Starting);
    assert_eq!(run(&store, over).await, Run::Queued);
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);

    // A slot that becomes free goes to whoever its lane still has room for.
    apply(&store, other, 0, Event::CancelRequested).await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 1);
    assert_eq!(run(&store, over).await, Run::Starting);
    assert_eq!(run(&store, full).await, Run::Queued);
}

#[tokio::test]
async fn replicas_that_claim_at_once_do_not_exceed_the_caps() {
    let store = testing::store().await;
    for _ in 0..6 {
        queued(&store, "one", 0).await;
        queued(&store, "other", 0).await;
    }
    let claims = (0..8).map(|_| store.claim("here", CAPS));
    let claimed: usize = futures_util::future::join_all(claims)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(claimed, 3);
}

#[tokio::test]
async fn a_successor_waits_until_the_old_worker_is_gone() {
    let store = testing::store().await;
    let task = queued(&store, "one", 0).await;
    store.claim("here", CAPS).await.unwrap();
    let attempt = store.open_attempts("here").await.unwrap().remove(0);
    apply(
        &store,
        task,
        1,
        Event::AttemptLost {
            why: "killed".into(),
        },
    )
    .await;
    apply(&store, task, 0, Event::WaitElapsed).await;
    assert_eq!(run(&store, task).await, Run::Queued);
    // Its row is still open: the launcher has not confirmed that the process is gone.
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);
    store.attempt_ended(attempt.id, "gone").await.unwrap();
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 1);
}

#[tokio::test]
async fn what_an_older_attempt_says_changes_nothing_and_is_logged() {
    let store = testing::store().await;
    let task = queued(&store, "one", 0).await;
    store.claim("here", CAPS).await.unwrap();
    let first = store.open_attempts("here").await.unwrap().remove(0);
    apply(
        &store,
        task,
        1,
        Event::AttemptLost {
            why: "killed".into(),
        },
    )
    .await;
    store.attempt_ended(first.id, "gone").await.unwrap();
    apply(&store, task, 0, Event::WaitElapsed).await;
    store.claim("here", CAPS).await.unwrap();
    let before = store.task_for_link(task).await.unwrap().unwrap();
    assert_eq!(before.task.attempt, 2);
    let late = apply(&store, task, 1, Event::AttemptConnected).await;
    assert!(matches!(late, Applied::Ignored { .. }), "{late:?}");
    assert_eq!(run(&store, task).await, Run::Starting);
    let events = store
        .events(task, before.event_seq, i64::MAX, 10)
        .await
        .unwrap();
    assert!(events.iter().all(|event| event.ignored), "{events:?}");
    assert_eq!(events.len(), 1);
}
