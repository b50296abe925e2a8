//! The plane stopped with SIGTERM, away for longer than a worker may be, and started again: workers go on.

use std::time::Duration;

use anyhow::Result;
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, call, when},
    world::{World, script},
};

/// Longer than the `lost_after_seconds` of a world.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_outlive_an_upgrade_however_long_it_takes() -> Result<()> {
    let (planning, working) = (Gate::closed(), Gate::closed());
    let mut plan = vec![Reply::call(call::bash("cat calc.py")).held_by(&planning)];
    plan.extend(script::present(script::SUBTRACT_PLAN));
    let script = script::rules(
        "an upgrade in the middle",
        vec![
            Rule::sequence(when::prompt(script::PLAN), plan),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(script::subtract(true)).held_by(&working),
                    Reply::text("Subtract is there."),
                ],
            ),
        ],
    );
    let mut world = World::scripted(script).await?;
    let task = world.begin(&script::calculator()).await?;
    planning.reached().await?;
    upgrade(&mut world).await?;
    planning.open();
    task.expect_item(InboxItemKind::Plan).await?;
    // Its worker waits for the decision.
    upgrade(&mut world).await?;
    task.approve().await?;
    working.reached().await?;
    upgrade(&mut world).await?;
    working.open();
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0), "{}", task.report());
    assert_eq!(task.watch().borrow().of_kind("worker_lost").count(), 0);
    world.expect_no_worker().await?;
    task.check_watch()?;
    world.end().await
}

/// What passes here is the story itself: nothing is awaited.
async fn upgrade(world: &mut World) -> Result<()> {
    world.terminate_plane().await?;
    tokio::time::sleep(AWAY).await;
    world.start_plane().await
}
