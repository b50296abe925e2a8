//! Limits and outages that last: how long they are waited for, who is asked then, and who need not wait. And what is said
//! of a pull request that the code host shows no more.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::Trouble,
    github::{Fault, FaultKind},
    world::{
        Item, Settings, World, script,
        wait::{PATIENCE, until},
    },
};

/// Longer than any test waits, in seconds.
const HOUR: u32 = 3600;

/// Whoever is asked is waited for: the item says so, and what to do.
fn expect_remedy(item: &Item, words: &str) {
    let body = &item.seen.body;
    assert!(body.contains(words), "{words}: {body}");
    assert!(!body.contains("by itself"), "{body}");
}

/// With these limits a task that meets the model's asks a person in its `attempt`, and goes on at their retry.
async fn asks_at_the_limit(limits: &str, attempt: i32) -> Result<()> {
    let settings = Settings::script(script::good_day()).limits(limits);
    let world = World::with(settings).await?;
    world
        .model()
        .outage(Some(Trouble::rate_limited(1).not_to_retry()));
    let task = world.begin(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::ModelLimit).await?;
    expect_remedy(&item, "Retry once the limit is over");
    let now = task.now();
    assert_eq!((now.attempt, now.failures), (attempt, 0));
    world.model().outage(None);
    item.resolve(InboxAction::Retry, "").await?;
    task.expect_item(InboxItemKind::Plan).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_met_again_and_again_asks_a_person_and_their_retry_goes_on() -> Result<()> {
    asks_at_the_limit("max_waits = 1", 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_policy_resumes_nothing_a_limit_asks_at_once() -> Result<()> {
    asks_at_the_limit("resume_after_limit = false", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_model_that_lasts_is_an_item_by_its_name() -> Result<()> {
    let settings = Settings::script(script::good_day()).limits("max_waits = 1");
    let world = World::with(settings).await?;
    let repo = world.repo("calc", &script::calculator())?;
    for (trouble, reason, words) in [
        (
            Trouble::overloaded(),
            FailureReason::ModelOverloaded,
            "retry once it answers again",
        ),
        (
            Trouble::internal(),
            FailureReason::ModelUnavailable,
            "retry once it does",
        ),
    ] {
        world.model().outage(Some(trouble.not_to_retry()));
        let task = world.submit(&repo, script::TASK).await?;
        let item = task.expect_stuck(reason).await?;
        expect_remedy(&item, words);
        world.model().outage(None);
        item.resolve(InboxAction::Retry, "").await?;
        task.expect_item(InboxItemKind::Plan).await?;
        task.cancel().await?;
    }
    world.end().await
}

/// A model whose limit lasts for an hour, with a task that met it and one that is queued behind it; then it is lifted,
/// and nobody waits for the hour to pass.
async fn lifted(start_anew: bool) -> Result<()> {
    let mut world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    world
        .model()
        .outage(Some(Trouble::rate_limited(HOUR).not_to_retry()));
    let task = world.submit(&repo, script::TASK).await?;
    task.expect_state(TaskState::Waiting).await?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_wait("Model limit reached").await?;
    let status = world.cli(&["status"]).await?;
    assert!(
        status.stdout.contains("Model limit reached"),
        "{}",
        status.stdout
    );
    world.model().outage(None);
    if start_anew {
        world.interrupt_plane().await?;
        world.start_plane().await?;
    } else {
        task.retry("").await?;
    }
    for task in [&task, &other] {
        task.expect_item(InboxItemKind::Plan).await?;
    }
    let status = world.cli(&["status"]).await?;
    assert!(!status.stdout.contains("Model limit"), "{}", status.stdout);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_retries_a_task_that_waits_for_a_limit_need_not_wait_for_its_end() -> Result<()> {
    lifted(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_starts_anew_tries_whether_a_limit_is_over() -> Result<()> {
    lifted(true).await
}

/// What `status` says is waited for.
async fn expect_status(world: &World, words: &str, there: bool) -> Result<()> {
    until(
        &format!("{words:?} in the status: {there}"),
        PATIENCE,
        async || {
            let status = world.cli(&["status"]).await.map(|ran| ran.stdout);
            match status {
                Ok(shown) if shown.contains(words) == there => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_that_cannot_be_read_any_more_is_told_and_a_refused_token_shows_in_the_status()
-> Result<()> {
    let world = World::new().await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Ready).await?;
    let refused = |status| Fault::new("GET", "/pulls/", FaultKind::Status(status)).times(1_000);
    world.github().fault(refused(401));
    expect_status(&world, "the code host refuses the token", true).await?;
    world.github().mend();
    expect_status(&world, "the code host refuses the token", false).await?;
    world.github().fault(refused(404));
    task.expect_event("pull_request_unreadable").await?;
    let shown = task.now().milestone;
    assert!(shown.contains("cannot be read"), "{shown}");
    world.github().mend();
    task.expect_event("pull_request_readable").await?;
    assert_eq!(task.now().state(), TaskState::Ready);
    world.end().await
}
