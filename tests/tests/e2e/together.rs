//! Two tasks on one repository at once.

use anyhow::Result;
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Conversation, Script, when},
    world::{World, script},
};

fn one(name: &str, marker: &str) -> Conversation {
    let plan = format!("# Add {name}\n\nThe repository gets a file {name}.\n");
    let file = format!("{name}.txt");
    Conversation::rules(
        name,
        when::about(marker),
        vec![
            script::planning(&plan),
            script::implementing(
                vec![script::commit(
                    &[(file.as_str(), "here\n")],
                    &format!("Add {name}"),
                )],
                "Done.",
            ),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tasks_on_one_repository_each_have_their_own() -> Result<()> {
    let script = Script::new()
        .with(one("left", "marker-left"))
        .with(one("right", "marker-right"));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let left = world.submit(&repo, "Add left, marker-left.").await?;
    let right = world.submit(&repo, "Add right, marker-right.").await?;
    // Neither can end before it is approved: both are at work.
    let (first, second) = tokio::try_join!(
        left.expect_item(InboxItemKind::Plan),
        right.expect_item(InboxItemKind::Plan)
    )?;
    assert_eq!(world.workers().len(), 2, "each has a worker");
    tokio::try_join!(first.approve(), second.approve())?;
    let (left, right) = tokio::try_join!(
        left.expect_state(TaskState::Ready),
        right.expect_state(TaskState::Ready)
    )?;
    assert_ne!(left.branch, right.branch);
    assert_ne!(left.issue, right.issue);
    assert_ne!(left.pull_request, right.pull_request);
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert_eq!(repo.pulls().filter(|(_, pull)| !pull.draft).count(), 2);
        assert_eq!(
            repo.issues
                .values()
                .filter(|issue| issue.pull.is_none())
                .count(),
            2
        );
        for (task, own, other) in [
            (&left, "left.txt", "right.txt"),
            (&right, "right.txt", "left.txt"),
        ] {
            assert!(
                repo.file(&task.head_sha, own).is_some(),
                "{own} is on {}",
                task.branch
            );
            assert!(
                repo.file(&task.head_sha, other).is_none(),
                "{other} is not on {}",
                task.branch
            );
        }
    });
    world.end().await
}
