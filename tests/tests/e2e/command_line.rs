//! The whole way with the `mainloop` command, as a user types it.

use anyhow::{Context, Result};
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::world::{World, script};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_goes_the_whole_way_at_a_shell() -> Result<()> {
    let world = World::scripted(script::red_then_green()).await?;
    let repo = world.repo("calc", &script::calculator())?;

    let created = world
        .cli(&[
            "task",
            "create",
            "-y",
            "-o",
            "json",
            "--repo",
            &repo,
            script::TASK,
        ])
        .await?;
    assert_eq!(created.code, 0, "{}", created.stderr);
    let created: Value = serde_json::from_str(&created.stdout).context("the CLI prints JSON")?;
    let short = created["task"]["shortId"]
        .as_str()
        .context("it has a short id")?
        .to_owned();

    // The library's handle follows the same task, so that the shell's commands come when they make sense.
    let reply = world
        .client()
        .tasks()
        .get_task(mainloop_proto::v1::GetTaskRequest {
            task_id: short.clone(),
        })
        .await?;
    let task = world.follow(reply.into_inner().task.context("the plane has it")?);
    let plan = task.expect_item(InboxItemKind::Plan).await?;
    let id = format!("{}@{}", plan.seen.id, plan.seen.revision);

    let inbox = world.cli(&["inbox"]).await?;
    assert_eq!(inbox.code, 0, "{}", inbox.stderr);
    assert!(inbox.stdout.contains(&id), "{}", inbox.stdout);
    let shown = world.cli(&["show", &id]).await?;
    assert!(
        shown.stdout.contains("The calculator learns to subtract."),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    let approved = world.cli(&["approve", &id]).await?;
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    let again = world.cli(&["approve", &id]).await?;
    assert_eq!(again.code, 1, "an item is resolved once: {}", again.stderr);
    assert!(again.stderr.contains("cannot approve"), "{}", again.stderr);

    let watched = world.cli(&["task", "watch", &short]).await?;
    assert_eq!(watched.code, 0, "{}{}", watched.stdout, watched.stderr);
    for words in [
        "plan approved",
        "draft PR created",
        "CI failed",
        "CI passed",
        "ready for review",
    ] {
        assert!(
            watched.stdout.contains(words),
            "no {words:?} in:\n{}",
            watched.stdout
        );
    }
    task.expect_state(TaskState::Ready).await?;
    let events = world.cli(&["task", "events", &short]).await?;
    assert!(
        events.stdout.contains("ready for review"),
        "{}",
        events.stdout
    );
    let logs = world.cli(&["task", "logs", &short]).await?;
    assert!(
        logs.stdout.contains("Subtract subtracts now."),
        "Claude's words are in the log:\n{}",
        logs.stdout
    );
    let absent = world.cli(&["task", "get", "nosuch"]).await?;
    assert_eq!(absent.code, 3, "{}", absent.stderr);
    world.end().await
}
