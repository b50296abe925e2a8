//! What a task may cost.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::world::{World, script};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_budget_is_used_up_asks_a_person_and_the_model_no_more() -> Result<()> {
    let world = World::scripted(script::dear()).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit_within(&repo, 50_000).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert_eq!(item.seen.reason(), FailureReason::Budget);
    assert!(
        item.seen
            .actions()
            .any(|action| action == InboxAction::TopUp)
    );
    let blocked = task.expect_state(TaskState::Blocked).await?;
    assert!(
        blocked.cost_micros > 50_000,
        "what was spent is shown: {}",
        blocked.cost_micros
    );
    world.expect_no_worker().await?;
    let asked = world
        .model()
        .requests()
        .iter()
        .filter(|seen| seen.is_message())
        .count();
    assert_eq!(
        asked, 1,
        "after the reply that used it up the model is not asked again"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_told_when_most_of_the_budget_is_spent() -> Result<()> {
    let world = World::scripted(script::dear()).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit_within(&repo, 1_800_000).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    let told = world
        .model()
        .requests()
        .iter()
        .filter(|seen| seen.is_message())
        .any(|seen| {
            seen.request()
                .text()
                .contains("80% of this task's budget is spent")
        });
    assert!(told, "it is in a later request");
    world.end().await
}
