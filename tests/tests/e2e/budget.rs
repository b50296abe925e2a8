//! What a task may cost.

use anyhow::Result;
use mainloop_proto::v1::{CreateTaskRequest, FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Conversation, Reply, Rule, Script, Usage, call, when},
    world::{World, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_budget_is_used_up_asks_a_person_and_the_model_no_more() -> Result<()> {
    let dear = Usage {
        input: 1_000,
        output: 100_000,
        ..Usage::default()
    };
    let script = Script::new().with(Conversation::rules(
        "dear",
        when::always(),
        vec![Rule::reply(
            when::prompt(script::PLAN),
            Reply::call(call::bash("ls")).charging(dear),
        )],
    ));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world
        .create(CreateTaskRequest {
            repository_url: repo,
            description: "Teach the calculator to subtract.".to_owned(),
            budget_micros: 50_000,
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await?;
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
    let dear = Usage {
        input: 1_000,
        output: 100_000,
        ..Usage::default()
    };
    let script = Script::new().with(Conversation::rules(
        "dear",
        when::always(),
        vec![Rule::sequence(
            when::prompt(script::PLAN),
            [
                vec![Reply::call(call::bash("ls")).charging(dear)],
                script::present(script::SUBTRACT_PLAN),
            ]
            .concat(),
        )],
    ));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world
        .create(CreateTaskRequest {
            repository_url: repo,
            description: "Teach the calculator to subtract.".to_owned(),
            // The first reply costs a little more than 1.50 US dollars.
            budget_micros: 1_800_000,
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await?;
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
