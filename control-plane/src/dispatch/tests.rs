#![allow(clippy::unwrap_used)]

use mainloop_core::{Choice, Event, Run};
use serde_json::json;
use uuid::Uuid;

use crate::{
    db::{
        Applied, Item, Occurrence, Store,
        claims::Caps,
        commands::Command,
        create::{Created, Proposal, Snapshot},
        inbox::ItemFilter,
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
async fn what_a_cancelled_task_leaves_is_closed_once_its_worker_is_gone_unless_policy_leaves_it() {
    let store = testing::store().await;
    let tidied = queued(&store, "one", 0).await;
    let left = queued(&store, "other", 0).await;
    sql(
        &store,
        &format!(r#"UPDATE task SET policy = '{{"on_cancel":"leave"}}' WHERE id = '{left}'"#),
    )
    .await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 2);
    for task in [tidied, left] {
        apply(&store, task, 0, Event::CancelRequested).await;
    }
    assert!(
        store.untidy().await.unwrap().is_empty(),
        "the worker may be making what is to be closed"
    );
    for attempt in store.open_attempts("here").await.unwrap() {
        store.attempt_ended(attempt.id, "gone").await.unwrap();
    }
    let due = store.untidy().await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].task.id, due[0].last), (tidied, false));
    assert!(store.untidy().await.unwrap().is_empty(), "it was taken");
    sql(&store, "UPDATE tidying SET due_at = now(), errors = 9").await;
    assert!(store.untidy().await.unwrap()[0].last);
    store
        .tidied(tidied, "closed issue #1", &json!({}))
        .await
        .unwrap();
    sql(&store, "UPDATE tidying SET due_at = now()").await;
    assert!(store.untidy().await.unwrap().is_empty());
    let seen = store.task_for_link(tidied).await.unwrap().unwrap();
    let events = store.events(tidied, 0, i64::MAX, 100).await.unwrap();
    assert_eq!(events.last().unwrap().kind, "tidied");
    assert_eq!(seen.event_seq, events.last().unwrap().seq);
}

#[tokio::test]
async fn a_question_is_reminded_of_and_assumed_when_policy_says_so() {
    let store = testing::store().await;
    let task = queued(&store, "one", 0).await;
    let limits = r#"{"limits":{"remind_seconds":60,"unanswered":"assume","assume_seconds":60}}"#;
    sql(&store, &format!("UPDATE task SET policy = '{limits}'")).await;
    store.claim("here", CAPS).await.unwrap();
    apply(&store, task, 1, Event::AttemptConnected).await;
    let mut asked = Occurrence::new(
        Event::QuestionAsked {
            id: "q1".to_owned(),
            recommends: true,
        },
        "worker",
    );
    asked.attempt = 1;
    asked.item = Some(Item {
        title: "Question".to_owned(),
        body: String::new(),
        questions: json!([
            { "text": "Which?", "options": [{ "label": "This" }, { "label": "That" }] },
            { "text": "When?", "options": [{ "label": "Now" }] },
        ]),
    });
    store.apply(task, &asked).await.unwrap();
    // A machine that slept through both: the answer is as far from the reminder as ever.
    sql(
        &store,
        "UPDATE task SET timer_at = now() - interval '1 hour', asked_at = now() - interval '2 hours'",
    )
    .await;
    assert_eq!(store.due_timers(LOST).await.unwrap(), [task]);
    store.fire_timer(task).await.unwrap();
    assert!(store.due_timers(LOST).await.unwrap().is_empty());
    sql(&store, "UPDATE task SET timer_at = now()").await;
    assert_eq!(store.due_timers(LOST).await.unwrap(), [task]);
    store.fire_timer(task).await.unwrap();
    let words = store.human_words(task).await.unwrap();
    let words: Vec<_> = words
        .iter()
        .map(|word| (word.question.as_str(), word.text.as_str(), word.assumed))
        .collect();
    assert_eq!(words, [("Which?", "This", true), ("When?", "Now", true)]);
    let told = store.pending_commands(task).await.unwrap().remove(0);
    assert_eq!(
        told.what,
        Command::Answer {
            question_id: "q1".to_owned(),
            answers: vec!["This".to_owned(), "Now".to_owned()],
            text: String::new(),
            assumed: true,
            approved: false,
        }
    );
    let items = store
        .list_items(
            &ItemFilter {
                closed: true,
                task: Some(task),
            },
            (jiff::Timestamp::MAX, ""),
            10,
        )
        .await
        .unwrap();
    assert_eq!(items[0].item.actor, "policy");
    assert_eq!(items[0].item.action, Some(Choice::Answer));
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

/// How long a lost attempt is waited for.
const LOST: f64 = 60.0;

/// Runs SQL as the passing of time would have it.
pub(crate) async fn sql(store: &Store, sql: &str) {
    let client = store.connection("prepare a test").await.unwrap();
    client.batch_execute(sql).await.unwrap();
}

/// A task whose worker is live, and its attempt.
pub(crate) async fn live(store: &Store, replica: Uuid) -> (Uuid, Uuid) {
    let task = queued(store, "one", 0).await;
    store.claim("here", CAPS).await.unwrap();
    let attempt = store.open_attempts("here").await.unwrap().remove(0).id;
    assert!(store.attempt_started(attempt, &[7]).await.unwrap());
    let connected = store.attempt_connected(attempt, replica).await.unwrap();
    assert!(connected.is_some());
    apply(store, task, 1, Event::AttemptConnected).await;
    (task, attempt)
}

async fn expired(store: &Store) -> usize {
    store.expired_attempts(LOST).await.unwrap().len()
}

#[tokio::test]
async fn the_absence_of_the_plane_is_not_counted_as_that_of_its_workers() {
    let store = testing::store().await;
    let (task, _) = live(&store, Uuid::now_v7()).await;
    sql(
        &store,
        "UPDATE attempt SET lost_at = now() - interval '1 hour'",
    )
    .await;
    // No plane is there, and then one that has just started.
    assert_eq!(expired(&store).await, 0);
    let replica = Uuid::now_v7();
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert_eq!(expired(&store).await, 0);
    store.end_expired(task, 1, LOST).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Live);

    sql(
        &store,
        "UPDATE replica SET started_at = now() - interval '61 s'",
    )
    .await;
    assert_eq!(expired(&store).await, 1);
    // It came back between the look and the act.
    sql(&store, "UPDATE attempt SET lost_at = NULL").await;
    store.end_expired(task, 1, LOST).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Live);
    sql(
        &store,
        "UPDATE attempt SET lost_at = now() - interval '1 hour'",
    )
    .await;
    store.end_expired(task, 1, LOST).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Idle);
}

#[tokio::test]
async fn a_lease_that_lapsed_begins_anew_and_loses_none_of_its_own() {
    let store = testing::store().await;
    let replica = Uuid::now_v7();
    let first = store.hold_lease(replica, "here", 10.0).await.unwrap();
    let (task, _) = live(&store, replica).await;
    let held = store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert_eq!((held.since, held.away), (first.since, None));

    sql(
        &store,
        "UPDATE replica SET lease_until = now() - interval '5 s'",
    )
    .await;
    let lost = "UPDATE attempt SET lost_at = lost_at - interval '1 hour' WHERE lost_at IS NOT NULL";
    store.orphans_lost(replica).await.unwrap();
    sql(&store, lost).await;
    let held = store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert!(held.since > first.since, "{held:?}");
    assert!(held.away.is_some_and(|away| away >= 5.0), "{held:?}");
    sql(
        &store,
        "UPDATE replica SET started_at = now() - interval '61 s'",
    )
    .await;
    assert_eq!(expired(&store).await, 0);

    // Another replica takes them for lost, and forgets in time who held them.
    sql(
        &store,
        "UPDATE replica SET lease_until = now() - interval '2 hours'",
    )
    .await;
    let other = Uuid::now_v7();
    store.orphans_lost(other).await.unwrap();
    sql(&store, lost).await;
    store.hold_lease(other, "there", 10.0).await.unwrap();
    sql(
        &store,
        "UPDATE replica SET started_at = now() - interval '61 s'",
    )
    .await;
    assert_eq!(store.expired_attempts(LOST).await.unwrap(), [(task, 1)]);
    let again = store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert_eq!(again.away, None);
}

#[tokio::test]
async fn a_timer_that_was_set_anew_does_not_fire() {
    let store = testing::store().await;
    let (task, _) = live(&store, Uuid::now_v7()).await;
    store.fire_timer(task).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Live);
    sql(&store, "UPDATE task SET timer_at = now()").await;
    store.fire_timer(task).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Idle);
    // The wait that came of it is not over.
    store.fire_timer(task).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Idle);
    sql(&store, "UPDATE task SET timer_at = now()").await;
    store.fire_timer(task).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Queued);
}

#[tokio::test]
async fn deadlines_wait_for_workers_that_are_about_to_come_back() {
    let store = testing::store().await;
    let replica = Uuid::now_v7();
    let due = || async { store.due_timers(LOST).await.unwrap().len() };
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    live(&store, replica).await;
    sql(&store, "UPDATE task SET timer_at = now()").await;
    assert_eq!(due().await, 1);
    // Its stream has ended: that has a limit of its own.
    sql(&store, "UPDATE attempt SET lost_at = now()").await;
    assert_eq!(due().await, 0);
    sql(&store, "UPDATE attempt SET lost_at = NULL").await;
    // The plane was away, and is back.
    store.drop_lease(replica).await.unwrap();
    assert_eq!(due().await, 0);
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert_eq!(due().await, 0);
    let a_minute_ago = "UPDATE replica SET started_at = now() - interval '61 s'; \
                        UPDATE attempt SET created_at = now() - interval '2 min'";
    sql(&store, a_minute_ago).await;
    assert_eq!(due().await, 1);
    // It slept, and so did the work.
    let an_hour_ago = "UPDATE replica SET lease_until = now() - interval '1 hour'; \
                       UPDATE task SET busy_since = now() - interval '2 hours'";
    sql(&store, an_hour_ago).await;
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    sql(&store, a_minute_ago).await;
    assert_eq!(due().await, 0);
}

#[tokio::test]
async fn what_comes_before_the_first_renewal_after_a_sleep_counts_no_sleep() {
    let store = testing::store().await;
    let replica = Uuid::now_v7();
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    let task = queued(&store, "one", 0).await;
    store.claim("here", CAPS).await.unwrap();
    let slept = "UPDATE replica SET started_at = started_at - interval '1 day', lease_until = lease_until - interval '1 day'; \
                 UPDATE task SET busy_since = busy_since - interval '1 day', timer_at = timer_at - interval '1 day'";
    sql(&store, slept).await;
    let connected = apply(&store, task, 1, Event::AttemptConnected).await;
    assert!(matches!(connected, Applied::Changed(_)), "{connected:?}");
    let worked = async || {
        let row = store.task_for_link(task).await.unwrap().unwrap();
        (row.task.worked.as_secs(), row.timer.unwrap().at())
    };
    let (seconds, deadline) = worked().await;
    assert!(seconds < 60, "{seconds}");
    assert!(deadline > jiff::Timestamp::now(), "{deadline}");
    // The renewal does not move it once more.
    store.hold_lease(replica, "here", 10.0).await.unwrap();
    assert_eq!(worked().await, (seconds, deadline));
}

#[tokio::test]
async fn timers_go_back_with_the_clock_once() {
    let store = testing::store().await;
    let (gone, here) = (Uuid::now_v7(), Uuid::now_v7());
    store.hold_lease(gone, "there", 10.0).await.unwrap();
    let (task, _) = live(&store, gone).await;
    // Everything is of a clock that was a day ahead.
    sql(
        &store,
        "UPDATE clock SET seen = now() + interval '1 day'; \
         UPDATE task SET timer_at = now() + interval '1 day', asked_at = now() + interval '1 day', \
         busy_since = now() + interval '1 day', step_at = now() + interval '1 day', reminded_at = now() + interval '1 day'; \
         UPDATE attempt SET lost_at = now() + interval '1 day'; \
         UPDATE replica SET started_at = now() + interval '1 day', lease_until = now() + interval '1 day'; \
         INSERT INTO hold (credential, reason, why, task_id, until) \
         SELECT 'model', 'rate_limited', '', id, now() + interval '1 day' FROM task; \
         INSERT INTO pull_watch (task_id, due_at) SELECT id, now() + interval '1 day' FROM task; \
         INSERT INTO tidying (task_id, due_at) SELECT id, now() + interval '1 day' FROM task",
    )
    .await;
    let held = store.hold_lease(here, "here", 10.0).await.unwrap();
    let back = held.back.unwrap();
    assert!((86_000.0..=86_400.0).contains(&back), "{held:?}");
    let client = store.connection("look at times").await.unwrap();
    let late = client
        .query(
            "SELECT what, at FROM (SELECT 'timer', timer_at FROM task UNION SELECT 'asked', asked_at FROM task \
             UNION SELECT 'busy', busy_since FROM task UNION SELECT 'step', step_at FROM task UNION SELECT 'reminded', reminded_at FROM task UNION SELECT 'lost', lost_at FROM attempt \
             UNION SELECT 'replica', started_at FROM replica UNION SELECT 'lease', lease_until FROM replica WHERE id = $1 \
             UNION SELECT 'hold', until FROM hold UNION SELECT 'pull', due_at FROM pull_watch \
             UNION SELECT 'tidying', due_at FROM tidying) AS times (what, at) WHERE at > clock_timestamp() + interval '1 min'",
            &[&gone],
        )
        .await
        .unwrap();
    assert!(late.is_empty(), "{late:?}");
    // It is done once, also where another replica looks.
    let again = store.hold_lease(gone, "there", 10.0).await.unwrap();
    assert_eq!(again.back, None);
    let a_minute_later = "UPDATE replica SET started_at = started_at - interval '61 s'; \
                          UPDATE attempt SET lost_at = lost_at - interval '61 s'";
    sql(&store, a_minute_later).await;
    assert_eq!(store.expired_attempts(LOST).await.unwrap(), [(task, 1)]);
}

#[tokio::test]
async fn attempts_of_a_host_that_is_gone_are_named() {
    let store = testing::store().await;
    let (task, _) = live(&store, Uuid::now_v7()).await;
    let strays = || async { store.strays("elsewhere", 600.0).await.unwrap() };
    assert_eq!(strays().await, []);
    sql(
        &store,
        "UPDATE attempt SET created_at = now() - interval '11 min'",
    )
    .await;
    let short = store.task_for_link(task).await.unwrap().unwrap().short_id;
    assert_eq!(strays().await, [(short.clone(), "here".to_owned())]);
    let problem = super::stray_problem(&strays().await).unwrap();
    assert!(problem.contains(&short), "{problem}");
    assert_eq!(store.strays("here", 600.0).await.unwrap(), []);
    let there = Uuid::now_v7();
    store.hold_lease(there, "here", 10.0).await.unwrap();
    assert_eq!(strays().await, []);
    assert_eq!(super::stray_problem(&[]), None);
}

/// A person cancels while the worker tells what it has spent.
#[tokio::test]
async fn spend_and_a_transition_do_not_lock_each_other_out() {
    use crate::db::{
        attempts::Spend,
        transition::{apply_in, lock_task},
    };

    let store = testing::store().await;
    let (task, attempt) = live(&store, Uuid::now_v7()).await;
    let mut client = store.connection("cancel").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let (row, now) = lock_task(&transaction, task).await.unwrap().unwrap();
    let spend = Spend {
        cost_micros: 7,
        input_tokens: 1,
        output_tokens: 1,
    };
    let cancelling = async {
        testing::until("the spend to wait for the task", || async {
            let client = store.connection("look").await.unwrap();
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                           AND wait_event_type = 'Lock'";
            let count: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
            if count > 0 { Ok(()) } else { Err(count) }
        })
        .await;
        let cancel = Occurrence::new(Event::CancelRequested, "ada");
        apply_in(&transaction, row, now, &cancel).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let (stored, ()) = tokio::join!(store.attempt_spent(attempt, spend), cancelling);
    stored.unwrap();
    let row = store.task_for_link(task).await.unwrap().unwrap();
    assert_eq!(row.cost_micros, 7);
}

#[tokio::test]
async fn a_new_worker_is_not_told_again_what_its_welcome_tells() {
    let store = testing::store().await;
    let (task, attempt) = live(&store, Uuid::now_v7()).await;
    let said = store.say_to_task(task, Uuid::new_v4(), "Mind the gap.", "ada");
    said.await.unwrap();
    assert_eq!(store.pending_commands(task).await.unwrap().len(), 1);
    let why = "killed".to_owned();
    apply(&store, task, 1, Event::AttemptLost { why }).await;
    store.attempt_ended(attempt, "gone").await.unwrap();
    apply(&store, task, 0, Event::WaitElapsed).await;
    store.claim("here", CAPS).await.unwrap();
    apply(&store, task, 2, Event::AttemptConnected).await;
    assert_eq!(store.pending_commands(task).await.unwrap().len(), 0);
    let words = store.human_words(task).await.unwrap();
    assert_eq!(words[0].text, "Mind the gap.");
}
