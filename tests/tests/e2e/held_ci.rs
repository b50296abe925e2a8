//! Checks that wait for somebody: for an approval, for a runner, for a pull request that is no draft.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxItemKind, InboxItemState, TaskState};
use mainloop_tests::{
    github::{Fault, FaultKind},
    world::{Item, PERSON, Settings, Task, World, script},
};

const REPO: &str = "ada/calc";
const FILE: &str = ".github/workflows/ci.yml";
/// Starts when a draft becomes ready, and not before.
const ON_READY: &str = "name: ci\non:\n  pull_request:\n    types: [ready_for_review]\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - name: Run the tests\n        run: python3 -m unittest -v\n";
/// Starts for drafts as well, and skips its only job.
const SKIPS_DRAFTS: &str = "name: ci\non:\n  pull_request:\n    types: [opened, synchronize, ready_for_review]\njobs:\n  test:\n    if: github.event.pull_request.draft == false\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - name: Run the tests\n        run: python3 -m unittest -v\n";

/// A world in which an approved task works on the calculator with this workflow.
async fn working(workflow: Option<&'static str>, limits: &str) -> Result<(World, Task)> {
    let settings = Settings::script(script::good_day()).limits(limits);
    let world = World::with(settings).await?;
    let mut files = script::calculator();
    if let Some(workflow) = workflow {
        files.retain(|(path, _)| *path != FILE);
        files.push((FILE, workflow));
    }
    let task = world.begin(&files).await?;
    Ok((world, task))
}

async fn asked(task: &Task, reason: FailureReason) -> Result<Item> {
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert_eq!(item.seen.reason(), reason, "{}", item.seen.body);
    Ok(item)
}

fn is_draft(world: &World) -> bool {
    world.github().read(|site| {
        let repo = site.repo(REPO).unwrap();
        repo.pulls().any(|(_, pull)| pull.draft)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wait_for_an_approval_are_told_and_go_on_by_themselves_once_approved()
-> Result<()> {
    let (world, task) = working(None, "").await?;
    world.github().set_ci(REPO, |ci| ci.approval = true)?;
    task.approve().await?;
    let item = asked(&task, FailureReason::CiApproval).await?;
    assert!(
        item.seen.body.contains("A maintainer must approve")
            && item.seen.body.contains(&format!("/{REPO}/actions/runs/")),
        "{}",
        item.seen.body
    );
    world.github().approve_runs(REPO)?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0), "the worker stayed");
    let name = format!("{}@{}", item.seen.id, item.seen.revision);
    assert_eq!(
        task.item(&name).await?.seen.state(),
        InboxItemState::Withdrawn
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_while_checks_wait_for_an_approval_is_replaced() -> Result<()> {
    let (world, task) = working(None, "").await?;
    world.github().set_ci(REPO, |ci| ci.approval = true)?;
    task.approve().await?;
    asked(&task, FailureReason::CiApproval).await?;
    assert_eq!(world.kill_agents()?, 1);
    task.expect_event("worker_lost").await?;
    asked(&task, FailureReason::CiApproval).await?;
    world.github().approve_runs(REPO)?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_skip_drafts_run_once_a_person_lets_it_be_marked_ready() -> Result<()> {
    for workflow in [ON_READY, SKIPS_DRAFTS] {
        let (world, task) = working(Some(workflow), "").await?;
        task.approve().await?;
        let item = asked(&task, FailureReason::CiDraft).await?;
        assert!(is_draft(&world), "nothing is marked ready unasked");
        item.approve().await?;
        task.expect_event("ci_passed").await?;
        task.expect_state(TaskState::Ready).await?;
        world.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_that_cannot_be_read_for_a_moment_are_read_again() -> Result<()> {
    let (world, task) = working(Some(ON_READY), "").await?;
    task.approve().await?;
    task.expect_event("pull_request_opened").await?;
    let path = "/contents/.github/workflows";
    world
        .github()
        .fault(Fault::new("GET", path, FaultKind::Status(502)).times(6));
    asked(&task, FailureReason::CiDraft).await?;
    let now = task.now();
    assert_eq!((now.attempt, now.failures), (1, 0), "the worker stayed");
    let failed = world
        .github()
        .requests()
        .iter()
        .filter(|request| request.path.contains(path) && request.status == 502)
        .count();
    assert_eq!(failed, 6);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_skip_drafts_are_seen_when_a_person_marks_it_ready_on_the_site() -> Result<()> {
    let (world, task) = working(Some(ON_READY), "").await?;
    task.approve().await?;
    asked(&task, FailureReason::CiDraft).await?;
    let number = task.pull()?;
    world.github().person(PERSON).mark_ready(REPO, number)?;
    task.expect_event("ci_passed").await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_can_have_it_marked_ready_where_checks_skip_drafts() -> Result<()> {
    let (world, task) = working(Some(ON_READY), "ready_before_ci = 'always'").await?;
    task.approve().await?;
    task.expect_event("ci_passed").await?;
    task.expect_state(TaskState::Ready).await?;
    assert!(
        task.events()
            .iter()
            .all(|event| event.kind != "ready_allowed"),
        "nobody was asked"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_no_runner_takes_are_named_when_the_time_is_over() -> Result<()> {
    let (world, task) = working(None, "await_ci_seconds = 4").await?;
    world.github().set_ci(REPO, |ci| ci.hold = true)?;
    task.approve().await?;
    let item = asked(&task, FailureReason::CiNotStarted).await?;
    assert!(
        item.seen.body.contains("Not over after 4s:\n\n- test http"),
        "{}",
        item.seen.body
    );
    item.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}
