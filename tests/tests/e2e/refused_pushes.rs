//! Pushes that do not pass: the code host refuses them, each by its own name and in its words; the base has moved; the
//! plane is away.

use std::time::Duration;

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, ToolCall},
    github::{Fault, FaultKind, Files, Level, Scope, Token},
    world::{BOT, PERSON, Settings, Task, World, script},
};

const REPO: &str = "ada/calc";
const CI: &str = ".github/workflows/ci.yml";

/// What the code host answers git with, so often that no push passes.
const ALWAYS: u32 = 1_000;

/// Longer than a worker may be out of touch.
const ABSENCE: Duration = Duration::from_secs(12);

/// A world in which any CI definitions pass, and a task that has done nothing yet of what it will: its gate holds that.
async fn about_to_work(calls: Vec<ToolCall>) -> Result<(World, Task, Gate)> {
    let gate = Gate::closed();
    let mut work: Vec<Reply> = calls.into_iter().map(Reply::call).collect();
    let first = work.remove(0).held_by(&gate);
    work.insert(0, first);
    work.push(Reply::text("Subtract is there."));
    let script = script::working("about to work", work);
    let settings = Settings::script(script).policy("workflow_files = \"allow\"");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    Ok((world, task, gate))
}

fn token(world: &World, scope: Scope, level: Level) {
    let token = Token::classic(BOT).with(scope, level);
    world.github().add_token(&world.secrets().github, token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_code_host_refuses_is_told_by_its_name_and_in_its_words() -> Result<()> {
    type Mind = fn(&World) -> Result<()>;
    let change = || script::commit(&[(CI, "name: ci\non: push\n")], "Say less in CI");
    let cases: [(Mind, Vec<ToolCall>, FailureReason, &str); 6] = [
        (
            |world| {
                let words = "every commit names a ticket";
                world.github().refuse_pushes(REPO, words)
            },
            Vec::new(),
            FailureReason::PushRejected,
            "every commit names a ticket",
        ),
        (
            |world| {
                token(world, Scope::Workflows, Level::None);
                Ok(())
            },
            vec![change()],
            FailureReason::GithubWorkflow,
            "without `workflow` scope",
        ),
        (
            |world| {
                token(world, Scope::PullRequests, Level::Read);
                Ok(())
            },
            Vec::new(),
            FailureReason::GithubPermission,
            "pull_requests",
        ),
        (
            |world| {
                token(world, Scope::Contents, Level::Read);
                Ok(())
            },
            Vec::new(),
            FailureReason::GithubPermission,
            "Permission to ada/calc.git denied to",
        ),
        (
            |world| {
                let archive = |repo: &mut mainloop_tests::github::Repo| repo.archived = true;
                world.github().change_repo(REPO, archive)
            },
            Vec::new(),
            FailureReason::RepositoryArchived,
            "archived so it is read-only",
        ),
        (
            |world| {
                let refused = FaultKind::Status(401);
                let fault = Fault::new("POST", "git-receive-pack", refused).times(ALWAYS);
                world.github().fault(fault);
                Ok(())
            },
            Vec::new(),
            FailureReason::GithubCredential,
            "did not accept the worker's token (401)",
        ),
    ];
    for (change_mind, more, reason, words) in cases {
        let mut calls = vec![script::subtract(true)];
        calls.extend(more);
        let (world, task, gate) = about_to_work(calls).await?;
        change_mind(&world)?;
        gate.open();
        let item = task.expect_stuck(reason).await?;
        assert!(
            item.seen.body.contains(words),
            "{words}: {}",
            item.seen.body
        );
        item.reject("as expected").await?;
        // No more pushes are refused than those that were made.
        world.github().mend();
        world.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_for_issues_that_is_missing_is_told_by_its_name() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    token(&world, Scope::Issues, Level::Read);
    let task = world.submit(&repo, script::TASK).await?;
    let item = task.expect_stuck(FailureReason::GithubPermission).await?;
    assert!(item.seen.body.contains("issues"), "{}", item.seen.body);
    token(&world, Scope::Issues, Level::Write);
    task.retry("").await?;
    task.expect_state(TaskState::PlanReview).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_moves_while_claude_works_is_not_judged_with_the_work() -> Result<()> {
    let gate = Gate::closed();
    let work = vec![
        Reply::call(script::subtract(true)).held_by(&gate),
        Reply::text("Subtract is there."),
    ];
    let world = World::scripted(script::working("slow", work)).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let ada = world.github().person(PERSON);
    let notes = |text: &str| Files::from([("NOTES.md".to_owned(), Some(text.into()))]);
    // Without a look at the base as it is then, a push brings all that was in it before.
    ada.push(REPO, "main", "Fix w (#11)", &notes("w\n"))?;
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    gate.reached().await?;
    ada.push(REPO, "main", "Fix x (#12)", &notes("x\n"))?;
    ada.push_file(REPO, "main", ".github/workflows/other.yml", "name: other\n")?;
    gate.open();
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    assert!(
        task.events()
            .iter()
            .all(|event| event.kind != "push_refused")
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_the_planes_absence_cuts_short_is_made_again_when_it_is_back() -> Result<()> {
    let work = vec![
        Reply::call(script::subtract(true)),
        Reply::text("Subtract is there."),
    ];
    let settings = Settings::script(script::working("alone for a while", work))
        .policy("lost_after_seconds = 300");
    let mut world = World::with(settings).await?;
    // The push waits for what the code host says of the base's definitions.
    let gate = Gate::closed();
    let held = FaultKind::HeldAfter(gate.clone());
    world.github().fault(Fault::new("GET", "/git/trees/", held));
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    world.kill_plane().await?;
    tokio::time::sleep(ABSENCE).await;
    gate.open();
    world.start_plane().await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    let refused = task.expect_event("push_refused").await?;
    assert!(
        format!("{refused:?}").contains("touch with mainloop is lost"),
        "{refused:?}"
    );
    world.end().await
}
