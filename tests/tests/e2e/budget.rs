//! What a task may cost.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Reply, Rule, Usage, when},
    world::{World, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_budget_is_used_up_asks_a_person_and_the_model_no_more() -> Result<()> {
    let world = World::scripted(script::dear()).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit_within(&repo, 50_000).await?;
    let item = task.expect_stuck(FailureReason::Budget).await?;
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
    let told = world.model().told("80% of this task's budget is spent") > 0;
    assert!(told, "it is in a later request");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_is_spent_claude_commits_and_sums_up_and_a_top_up_goes_on() -> Result<()> {
    const SUMMARY: &str = "Subtract is written; its documentation is left.";
    let dear = Usage {
        output: 100_000,
        ..Usage::default()
    };
    let script = script::rules(
        "wraps up",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(
                when::prompt("one last, short turn"),
                vec![script::commit(
                    &[("NOTES.md", "half done\n")],
                    "Note what is left",
                )],
                SUMMARY,
            ),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(script::subtract(true)).charging(dear),
                    Reply::text("Done."),
                ],
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit_within(&repo, 1_000_000).await?;
    task.approve().await?;
    let item = task.expect_stuck(FailureReason::Budget).await?;
    assert!(item.seen.body.contains(SUMMARY), "{}", item.seen.body);
    let pushed = task.now();
    assert!(pushed.pull_request.is_some(), "what is done can be seen");
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        for path in ["NOTES.md", "test_subtract.py"] {
            assert!(
                repo.file(&pushed.branch, path).is_some(),
                "{path} is pushed"
            );
        }
    });
    item.resolve(InboxAction::TopUp, "").await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}
