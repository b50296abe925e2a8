//! Refusals from outside, each by its own name, and what is no refusal because there is another way.

use std::time::Duration;

use anyhow::Result;
use mainloop_proto::v1::{CreateTaskRequest, FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::Trouble,
    github::{Fault, FaultKind},
    world::{BOT, PERSON, World, script, wait},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_cannot_be_worked_on_is_refused_by_name() -> Result<()> {
    let world = World::new().await?;
    let url = |name: &str| format!("{}/{PERSON}/{name}", world.github().base_url());
    world.repo("archived", &script::calculator())?;
    world
        .github()
        .change_repo(&format!("{PERSON}/archived"), |repo| repo.archived = true)?;
    world.repo("empty", &[])?;
    world
        .github()
        .change_repo(&format!("{PERSON}/empty"), |repo| repo.refs.clear())?;
    let based = world.repo("based", &script::calculator())?;
    world.repo("large", &script::calculator())?;
    world
        .github()
        .change_repo(&format!("{PERSON}/large"), |repo| repo.size_kib = 20 << 20)?;
    for (repository_url, base_ref, reason, words) in [
        (
            url("absent"),
            "",
            FailureReason::RepositoryAbsent,
            "Repository not found",
        ),
        (
            url("archived"),
            "",
            FailureReason::RepositoryArchived,
            "read-only",
        ),
        (
            url("empty"),
            "",
            FailureReason::RepositoryEmpty,
            "no commit",
        ),
        (
            url("large"),
            "",
            FailureReason::RepositoryTooLarge,
            "20480 MiB",
        ),
        (
            based,
            "release",
            FailureReason::BaseGone,
            "no branch release",
        ),
    ] {
        let task = world
            .create(CreateTaskRequest {
                repository_url,
                base_ref: base_ref.to_owned(),
                description: script::TASK.to_owned(),
                confirm: true,
                ..CreateTaskRequest::default()
            })
            .await?;
        let item = task.expect_item(InboxItemKind::Blocker).await?;
        assert_eq!(item.seen.reason(), reason);
        let shown = format!("{}\n{}", item.seen.title, item.seen.body);
        assert!(shown.contains(words), "{words}: {shown}");
        item.reject("as expected").await?;
    }
    world.expect_no_worker().await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_branch_that_goes_in_mid_run_is_told_as_that_and_the_work_goes_on_when_it_is_back()
-> Result<()> {
    let world = World::new().await?;
    let repository_url = world.repo("calc", &script::calculator())?;
    let name = format!("{PERSON}/calc");
    let ada = world.github().person(PERSON);
    ada.push_file(&name, "release", "RELEASE", "1\n")?;
    let task = world
        .create(CreateTaskRequest {
            repository_url,
            base_ref: "release".to_owned(),
            description: script::TASK.to_owned(),
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await?;
    task.expect_item(InboxItemKind::Plan).await?;
    ada.delete_branch(&name, "release")?;
    task.approve().await?;
    let item = task.expect_stuck(FailureReason::BaseGone).await?;
    assert!(item.seen.body.contains("release"), "{}", item.seen.body);
    ada.push_file(&name, "release", "RELEASE", "2\n")?;
    item.resolve(InboxAction::Retry, "").await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_branch_that_moves_in_mid_run_is_in_nobodys_way() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let name = format!("{PERSON}/calc");
    let task = world.submit(&repo, script::TASK).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    let ada = world.github().person(PERSON);
    // A workflow as well: what the base has by now is no change of the worker's.
    ada.push_file(
        &name,
        "main",
        ".github/workflows/other.yml",
        "name: other\n",
    )?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    let number = task.pull()?;
    ada.merge(&name, number)?;
    task.expect_state(TaskState::Completed).await?;
    world.end().await
}

/// A push that GitHub refuses with these words is told by this reason, and goes through once that is mended.
async fn refused_push(words: &str, reason: FailureReason) -> Result<()> {
    let world = World::new().await?;
    let task = world.begin(&script::calculator()).await?;
    world
        .github()
        .refuse_pushes(&format!("{PERSON}/calc"), words)?;
    task.approve().await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert_eq!(item.seen.reason(), reason, "{}", item.seen.body);
    assert!(item.seen.body.contains(words), "{}", item.seen.body);
    item.reject("as expected").await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_a_branch_rule_forbids_is_told_as_that() -> Result<()> {
    refused_push(
        "error: GH006: Protected branch update failed for refs/heads/mainloop.",
        FailureReason::BranchProtected,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_lacks_signatures_is_told_as_that() -> Result<()> {
    refused_push(
        "error: GH013: Repository rule violations found: Commits must have verified signatures.",
        FailureReason::SignedCommits,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_issues_the_plan_is_in_the_inbox_and_without_drafts_a_label_says_so() -> Result<()>
{
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let name = format!("{PERSON}/calc");
    world.github().change_repo(&name, |repo| {
        repo.has_issues = false;
        repo.drafts = false;
    })?;
    let task = world.submit(&repo, script::TASK).await?;
    let item = task.expect_item(InboxItemKind::Plan).await?;
    assert!(
        item.seen.body.contains("Add subtract"),
        "{}",
        item.seen.body
    );
    item.approve().await?;
    task.expect_event("pull_request_opened").await?;
    let labels = || {
        world.github().read(|site| {
            let repo = site.repo(&name).unwrap();
            let (issue, pull) = repo.pulls().next().unwrap();
            (issue.labels.clone(), pull.draft)
        })
    };
    assert_eq!(labels(), (vec!["work in progress".to_owned()], false));
    task.expect_state(TaskState::Ready).await?;
    assert_eq!(labels(), (Vec::new(), false));
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_in_mid_run_holds_all_tasks_until_it_is_mended() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit(&repo, script::TASK).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    world
        .github()
        .fault(Fault::new("", "/issues", FaultKind::Status(401)).times(1_000));
    task.approve().await?;
    task.expect_stuck(FailureReason::GithubCredential).await?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_wait("GitHub token refused").await?;
    world.github().mend();
    task.retry("").await?;
    task.expect_state(TaskState::Ready).await?;
    other.expect_item(InboxItemKind::Plan).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_limit_is_waited_out_by_one_task_for_all() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    world
        .model()
        .outage(Some(Trouble::rate_limited(4).not_to_retry()));
    let task = world.submit(&repo, script::TASK).await?;
    task.expect_state(TaskState::Waiting).await?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_wait("Model limit reached").await?;
    world.model().outage(None);
    for task in [&task, &other] {
        task.expect_item(InboxItemKind::Plan).await?;
        assert_eq!(task.now().failures, 0, "a limit is no failure");
    }
    assert_eq!(other.now().attempt, 1, "it never ran into the limit");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_of_the_code_host_is_waited_out_by_one_task_for_all() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit(&repo, script::TASK).await?;
    let item = task.expect_item(InboxItemKind::Plan).await?;
    let reset_in = Duration::from_secs(8);
    world.github().leave_requests(BOT, 0, reset_in);
    item.approve().await?;
    task.wait("the time at which the limit ends", |view| {
        let wait = view.task.wait.clone().unwrap_or_default();
        wait.until.filter(|_| wait.reason.contains("rate limit"))
    })
    .await?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_wait("GitHub rate limit").await?;
    task.expect_state(TaskState::Ready).await?;
    other.expect_item(InboxItemKind::Plan).await?;
    assert_eq!(other.now().attempt, 1, "it never ran into the limit");
    assert_eq!(task.now().failures, 0, "a limit is no failure");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_that_the_watch_of_pull_requests_meets_holds_the_workers() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let ready = world.submit(&repo, script::TASK).await?;
    ready.approve().await?;
    ready.expect_state(TaskState::Ready).await?;
    world
        .github()
        .leave_requests(BOT, 0, Duration::from_secs(10));
    let log = world.folder().join("plane.log");
    wait::until("the watch to meet the limit", wait::PATIENCE, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let met = text.contains("the code host limits the token");
        met.then_some(()).ok_or("no word of a limit")
    })
    .await?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_wait("GitHub rate limit").await?;
    other.expect_item(InboxItemKind::Plan).await?;
    assert_eq!(other.now().attempt, 1, "it never ran into the limit");
    let refused = world
        .github()
        .requests()
        .iter()
        .filter(|request| request.status == 403)
        .count();
    assert_eq!(refused, 1, "what is known to be used up is not asked for");
    world.end().await
}
