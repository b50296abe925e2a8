#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, ToSpan};
use mainloop_core::{Event, Run};

use super::*;
use crate::{
    db::{
        Applied, Occurrence,
        attempts::Spend,
        claims::Caps,
        transition::{apply_in, lock_task},
    },
    dispatch::tests::{apply, live, queued, sql},
    testing,
};

const CAPS: Caps = Caps {
    total: 9,
    per_repository: 9,
};

/// How long a limit lasts that nobody waits for.
const LATER: SignedDuration = SignedDuration::from_hours(5 * 24);

fn limited(reason: Reason) -> Event {
    Event::StepFailed {
        failure: Failure {
            reason,
            message: "come back later".to_owned(),
        },
        retry_at: Some(Timestamp::now() + LATER),
    }
}

/// A task that met a limit for days, and one that is queued behind it.
async fn held(store: &Store, reason: Reason) -> (Uuid, Uuid) {
    let (task, attempt) = live(store, Uuid::now_v7()).await;
    apply(store, task, 1, limited(reason)).await;
    store.attempt_ended(attempt, "gone").await.unwrap();
    let other = queued(store, "other", 0).await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);
    (task, other)
}

/// A limit that is over: the task that tries so, which is live, its attempt, and one that is queued behind it.
async fn tried(store: &Store, reason: Reason) -> (Uuid, Uuid, Uuid) {
    let (_, trial) = held(store, reason).await;
    sql(store, "UPDATE hold SET until = now()").await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 1);
    apply(store, trial, 1, Event::AttemptConnected).await;
    let attempts = store.open_attempts("here").await.unwrap();
    let attempt = attempts.iter().find(|open| open.task_id == trial).unwrap();
    let behind = queued(store, "behind", 0).await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0, "one tries");
    (trial, attempt.id, behind)
}

async fn run(store: &Store, task: Uuid) -> Run {
    store.task_for_link(task).await.unwrap().unwrap().task.run
}

async fn only_hold(store: &Store) -> Hold {
    let mut holds = store.holds().await.unwrap();
    assert_eq!(holds.len(), 1, "{holds:?}");
    holds.remove(0)
}

#[tokio::test]
async fn a_plane_that_starts_has_one_task_try_whether_a_limit_is_over() {
    let store = testing::store().await;
    let (task, other) = held(&store, Reason::ModelLimit).await;
    store.release_holds().await.unwrap();
    let hold = only_hold(&store).await;
    assert!(hold.over && !hold.closed, "{hold:?}");
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 1);
    assert_eq!(run(&store, other).await, Run::Starting);
    let hold = only_hold(&store).await;
    assert!(hold.over && hold.closed, "{hold:?}");
    // Where no other task is queued, the one that met the limit is the one that tries.
    assert_eq!(store.due_timers(0.0).await.unwrap(), [task]);
    store.fire_timer(task).await.unwrap();
    assert_eq!(run(&store, task).await, Run::Queued);
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_person_has_to_mend_is_mended_at_a_start_and_not_by_a_retry_of_another() {
    let store = testing::store().await;
    let (task, _) = held(&store, Reason::ModelLimit).await;
    sql(&store, "UPDATE hold SET until = NULL").await;
    apply(&store, task, 0, Event::RetryRequested).await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);
    store.release_holds().await.unwrap();
    assert_eq!(store.holds().await.unwrap(), []);
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 2);
}

#[tokio::test]
async fn who_retries_a_task_that_waits_for_a_limit_has_it_tried_at_once() {
    for reason in [Reason::ModelLimit, Reason::GithubLimit] {
        let store = testing::store().await;
        let (task, other) = held(&store, reason).await;
        apply(&store, other, 0, Event::CancelRequested).await;
        let retried = store.retry_task(task, "", false, "ada").await.unwrap();
        assert!(matches!(retried, Applied::Changed(_)), "{retried:?}");
        assert_eq!(store.claim("here", CAPS).await.unwrap(), 1, "{reason:?}");
        // The limit is not over: it is waited for again, by all.
        apply(&store, task, 2, Event::AttemptConnected).await;
        apply(&store, task, 2, limited(reason)).await;
        let hold = only_hold(&store).await;
        assert!(!hold.over && hold.closed, "{hold:?}");
    }
}

#[tokio::test]
async fn the_others_follow_when_the_one_that_tries_got_through() {
    let sha = || "aaa".to_owned();
    for event in [
        Event::PullOpened { number: 7 },
        Event::BranchPushed { sha: sha() },
        Event::BlockerReported { id: "b".to_owned() },
        Event::ChangeHeld { hash: sha() },
    ] {
        let store = testing::store().await;
        let (trial, _, behind) = tried(&store, Reason::GithubLimit).await;
        let implementing = "UPDATE task SET phase = 'implementing', plan_revision = 1, plan_hash = 'h', \
                            plan_approved = true WHERE run = 'live'";
        sql(&store, implementing).await;
        apply(&store, trial, 1, event.clone()).await;
        store.claim("here", CAPS).await.unwrap();
        assert_eq!(run(&store, behind).await, Run::Starting, "{event:?}");
    }
}

#[tokio::test]
async fn an_answer_of_the_model_shows_that_its_limit_is_over_and_no_other() {
    let spend = |output_tokens| Spend {
        cost_micros: 1,
        input_tokens: 1,
        output_tokens,
    };
    for (reason, then) in [
        (Reason::ModelLimit, Run::Starting),
        (Reason::GithubLimit, Run::Queued),
    ] {
        let store = testing::store().await;
        let (_, attempt, behind) = tried(&store, reason).await;
        store.attempt_spent(attempt, spend(0)).await.unwrap();
        store.claim("here", CAPS).await.unwrap();
        assert_eq!(run(&store, behind).await, Run::Queued, "nothing came");
        store.attempt_spent(attempt, spend(1)).await.unwrap();
        store.claim("here", CAPS).await.unwrap();
        assert_eq!(run(&store, behind).await, then, "{reason:?}");
    }
}

#[tokio::test]
async fn a_task_that_meets_no_limit_for_four_minutes_got_through() {
    let store = testing::store().await;
    let (_, _, behind) = tried(&store, Reason::GithubLimit).await;
    let minutes = |count: i64| {
        let past = Timestamp::now() - count.minutes();
        format!("UPDATE task SET step_at = '{past}' WHERE run = 'live'")
    };
    sql(&store, &minutes(3)).await;
    assert_eq!(store.claim("here", CAPS).await.unwrap(), 0);
    sql(&store, &minutes(5)).await;
    store.claim("here", CAPS).await.unwrap();
    assert_eq!(run(&store, behind).await, Run::Starting);
    assert_eq!(store.holds().await.unwrap(), []);
}

/// The watch of pull requests meets a limit while the task that it looked at is claimed.
#[tokio::test]
async fn a_hold_and_a_claim_do_not_lock_each_other_out() {
    let store = testing::store().await;
    let (task, other) = held(&store, Reason::GithubLimit).await;
    let mut client = store.connection("claim").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let (row, now) = lock_task(&transaction, other).await.unwrap().unwrap();
    let failure = Failure {
        reason: Reason::GithubLimit,
        message: "slow down".to_owned(),
    };
    let claiming = async {
        testing::until("the hold to wait for the task", || async {
            let client = store.connection("look").await.unwrap();
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                           AND wait_event_type = 'Lock'";
            let count: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
            if count > 0 { Ok(()) } else { Err(count) }
        })
        .await;
        let claimed = Occurrence::new(Event::Claimed, "plane");
        apply_in(&transaction, row, now, &claimed).await.unwrap();
        try_with(&transaction, Credential::CodeHost, other)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    };
    let until = Timestamp::now() + LATER;
    let (stored, ()) = tokio::join!(
        store.hold_until(Credential::CodeHost, other, &failure, until),
        claiming
    );
    stored.unwrap();
    assert_eq!(only_hold(&store).await.why, "slow down");
    assert_eq!(run(&store, task).await, Run::Idle);
}
