//! Pushes that wait for a person, and commits that are not what they should be.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, TaskState};
use mainloop_tests::{
    anthropic::{Script, ToolCall, call, when},
    world::{Item, Settings, Task, World, script},
};

const CI: &str = ".github/workflows/ci.yml";
/// A step that the workflow does not have.
const STEP: &str = "      - name: Compile everything\n        run: python3 -m compileall -q .\n";
/// What a person says who wants no such step.
const WORDS: &str = "leave the workflow as it is";

fn workflow() -> String {
    let files = script::calculator();
    let (_, text) = files.iter().find(|(path, _)| *path == CI).unwrap();
    format!("{text}{STEP}")
}

/// Implements it, and changes the workflow beside it; undoes that when told.
fn changes_the_workflow() -> Script {
    let change = script::commit(&[(CI, &workflow())], "Compile in CI");
    let undo = call::bash(&format!(
        "git checkout -q origin/main -- {CI} && git commit -qm 'Leave the workflow alone' && git log --oneline -1"
    ));
    script_of(vec![script::subtract(true), change], vec![undo])
}

fn script_of(work: Vec<ToolCall>, mend: Vec<ToolCall>) -> Script {
    script::rules(
        "changes the workflow",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(
                when::prompt("did not allow it"),
                mend.clone(),
                "Without the workflow.",
            ),
            script::steps(when::prompt("could not be pushed"), mend, "Mended."),
            script::implementing(work, "Subtract is there, and CI compiles."),
        ],
    )
}

/// A task whose push is held, and its item.
async fn held(world: &World) -> Result<(Task, Item)> {
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::WorkflowChange).await?;
    Ok((task, item))
}

/// The workflow as the code host has it on a branch; none where there is no such branch.
fn on_github(world: &World, branch: &str) -> Option<String> {
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        repo.file(repo.branch(branch)?, CI)
    })
}

fn nothing_was_pushed_of_it(world: &World) {
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        for push in &repo.pushes {
            let after = push.after.as_deref().unwrap();
            let text = repo.file(after, CI).unwrap();
            assert!(!text.contains("compileall"), "{push:?} has the change");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_workflow_is_shown_before_it_is_pushed_and_a_yes_lets_it_pass() -> Result<()>
{
    let world = World::scripted(changes_the_workflow()).await?;
    let (task, item) = held(&world).await?;
    let body = &item.seen.body;
    assert!(
        body.contains(CI) && body.contains("+        run: python3 -m compileall -q ."),
        "{body}"
    );
    let actions: Vec<InboxAction> = item.seen.actions().collect();
    assert_eq!(
        actions,
        [
            InboxAction::Approve,
            InboxAction::Revise,
            InboxAction::Reject
        ]
    );
    nothing_was_pushed_of_it(&world);
    item.approve().await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    assert_eq!(on_github(&world, &ready.branch), Some(workflow()));
    assert!(ready.pull_request.is_some());
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_workflow_that_is_sent_back_is_done_without() -> Result<()> {
    let world = World::scripted(changes_the_workflow()).await?;
    let (task, item) = held(&world).await?;
    item.revise(WORDS).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.attempt, 1, "the worker that held it went on");
    assert_eq!(ready.summary, "Without the workflow.");
    let told = world.model().told(WORDS) > 0;
    assert!(told, "the words reached Claude");
    assert_eq!(
        on_github(&world, &ready.branch),
        on_github(&world, "main"),
        "the workflow is the base's"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_outlives_the_worker_that_asked_and_the_plane() -> Result<()> {
    let mut world = World::scripted(changes_the_workflow()).await?;
    let (task, item) = held(&world).await?;
    world.kill_plane().await?;
    assert!(world.kill_agents()? > 0);
    world.start_plane().await?;
    item.approve().await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.attempt, 2, "another worker did it again");
    assert_eq!(on_github(&world, &ready.branch), Some(workflow()));
    let asked = task
        .events()
        .iter()
        .filter(|event| event.kind == "change_held")
        .count();
    assert_eq!(asked, 1, "the same change is not asked about twice");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_workflow_that_policy_refuses_is_undone_by_itself() -> Result<()> {
    let settings = Settings::script(changes_the_workflow()).policy("workflow_files = \"refuse\"");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.summary, "Mended.");
    assert_eq!(on_github(&world, &ready.branch), on_github(&world, "main"));
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_workflow_that_policy_refuses_ends_with_a_person_where_it_stays() -> Result<()>
{
    let change = script::commit(&[(CI, &workflow())], "Compile in CI");
    let script = script_of(vec![script::subtract(true), change], Vec::new());
    let settings = Settings::script(script).policy("workflow_files = \"refuse\"");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::WorkflowRefused).await?;
    assert!(item.seen.body.contains(CI), "{}", item.seen.body);
    nothing_was_pushed_of_it(&world);
    item.reject("as expected").await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_would_mention_or_close_is_written_anew_before_it_is_pushed() -> Result<()> {
    // What writes the commit without asking anybody, as a tool might.
    let careless = call::bash(
        "echo x > x && git add x && git commit -q --no-verify -m 'Fixes #1' -m 'As @eve asked' && git log --oneline -1",
    );
    let mend = call::bash("git commit -q --amend -m 'Add x' && git log --oneline -1");
    let script = script_of(vec![script::subtract(true), careless], vec![mend]);
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.summary, "Mended.");
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        for message in repo.messages(&ready.branch) {
            assert!(
                !message.contains("#1") && !message.contains("@eve"),
                "{message}"
            );
        }
    });
    world.end().await
}
