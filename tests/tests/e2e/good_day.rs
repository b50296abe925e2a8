//! From a sentence to a pull request that is merged.

use anyhow::{Context, Result};
use mainloop_proto::v1::{Completion, TaskState};
use mainloop_tests::world::{
    PERSON, World,
    script::{self, SUBTRACT_PLAN},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentence_becomes_a_merged_pull_request() -> Result<()> {
    let world = World::scripted(script::red_then_green()).await?;
    let repo = world.repo("calc", &script::calculator())?;

    let task = world.propose(&repo, script::TASK).await?;
    task.expect_state(TaskState::Proposed).await?;
    assert_eq!(
        task.now().attempt,
        0,
        "nothing starts before a person says yes"
    );
    task.confirm().await?;

    let plan = task
        .expect_item(mainloop_proto::v1::InboxItemKind::Plan)
        .await?;
    assert_eq!(plan.seen.body.trim(), SUBTRACT_PLAN.trim());
    let issue = u64::try_from(task.now().issue.context("the plan has an issue")?.number)?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let issue = &repo.issues[&issue];
        assert!(
            issue
                .body
                .as_deref()
                .unwrap_or_default()
                .contains("The calculator learns to subtract."),
            "{issue:?}"
        );
        assert!(
            repo.pushes.is_empty(),
            "nothing is pushed before the approval: {:?}",
            repo.pushes
        );
    });
    plan.approve().await?;

    task.expect_event("ci_failed").await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.ci_attempts, 1);
    assert_eq!(ready.green_sha, ready.head_sha);
    assert!(
        ready.cost_micros > 0 && ready.cost_micros < ready.budget_micros,
        "{ready:?}"
    );
    let number = u64::try_from(
        ready
            .pull_request
            .clone()
            .context("there is a pull request")?
            .number,
    )?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let pulls: Vec<_> = repo.pulls().collect();
        assert_eq!(pulls.len(), 1, "one pull request");
        let (_, pull) = pulls[0];
        assert!(!pull.draft, "it is ready for review");
        assert_eq!(pull.head, ready.branch);
        assert_eq!(pull.head_sha, ready.head_sha);
        assert!(
            pull.head
                .starts_with(&format!("mainloop/{}-", ready.short_id)),
            "{}",
            pull.head
        );
        assert_eq!(
            repo.issues
                .values()
                .filter(|issue| issue.pull.is_none())
                .count(),
            1,
            "one issue"
        );
        assert!(
            repo.file(&pull.head_sha, "calc.py")
                .unwrap()
                .contains("return a - b")
        );
        let green = repo
            .checks(&pull.head_sha)
            .iter()
            .all(|check| check.conclusion.is_some_and(|it| it.name() == "success"));
        assert!(
            green && !repo.checks(&pull.head_sha).is_empty(),
            "its checks are green"
        );
    });
    world.expect_no_worker().await?;

    world.github().person(PERSON).merge("ada/calc", number)?;
    let done = task.expect_state(TaskState::Completed).await?;
    assert_eq!(done.completion(), Completion::Merged);
    let issue_open = world
        .github()
        .read(|site| site.repo("ada/calc").unwrap().issues[&issue].open);
    assert!(!issue_open, "the merge closes the planning issue");
    let kinds: Vec<String> = task.events().into_iter().map(|event| event.kind).collect();
    for kind in [
        "confirmed",
        "planning_started",
        "plan_ready",
        "plan_approved",
        "branch_pushed",
        "pull_request_opened",
        "ci_running",
        "ci_failed",
        "ci_passed",
        "ready_for_review",
        "merged",
    ] {
        assert!(
            kinds.iter().any(|seen| seen == kind),
            "no event {kind} in {kinds:?}"
        );
    }
    task.check_watch()?;
    world.end().await
}
