//! Checks: red, never green, absent.

use anyhow::Result;
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{call, when},
    github::{Fault, FaultKind, Files},
    world::{PERSON, Settings, World, script},
};

/// The calculator without its workflow.
fn without_ci() -> Vec<(&'static str, &'static str)> {
    script::calculator()
        .into_iter()
        .filter(|(path, _)| !path.starts_with(".github"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ci_finds_is_shown_to_the_model_and_mended() -> Result<()> {
    let world = World::scripted(script::red_then_green()).await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Ready).await?;
    let prompts: Vec<String> = world
        .model()
        .requests()
        .iter()
        .filter(|request| request.is_message())
        .map(|request| request.request().prompt().to_owned())
        .filter(|prompt| prompt.contains(script::FIX))
        .collect();
    assert!(!prompts.is_empty(), "the model was asked to mend");
    assert!(
        prompts[0].contains("AssertionError: 8 != 2"),
        "the failing test's words are in the prompt:\n{}",
        prompts[0]
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_failure_twice_asks_a_person() -> Result<()> {
    // Each turn changes something, and the test fails in the same way.
    let note = |text: &str| script::commit(&[("NOTES.md", text)], "Note it");
    let script = script::rules(
        "never right",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![script::subtract(false)], "Done."),
            script::fixing(
                vec![note("{{re:this is attempt (\\d+ of \\d+)}}\n")],
                "Mended, I think.",
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert!(
        item.seen.body.contains("in the same way"),
        "{}",
        item.seen.body
    );
    assert_eq!(task.now().state(), TaskState::Blocked);
    item.reject("not worth it").await?;
    task.expect_state(TaskState::Failed).await?;
    world.expect_no_worker().await?;
    let drafts = world.github().read(|site| {
        site.repo("ada/calc")
            .unwrap()
            .pulls()
            .filter(|(_, pull)| pull.draft)
            .count()
    });
    assert_eq!(drafts, 1, "what never became green stays a draft");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mending_that_never_ends_asks_a_person_whose_insight_leads_on() -> Result<()> {
    const INSIGHT: &str = "drop the extra test, nobody asked for it";
    // Each turn mends what failed and breaks something else, so that no failure comes twice.
    let worse = |how: &str| {
        let test = format!(
            "import unittest\n\n\nclass MoreTest(unittest.TestCase):\n    def test_more(self):\n        self.fail(\"{how}\")\n"
        );
        script::commit(
            &[("calc.py", script::RIGHT), ("test_more.py", &test)],
            &format!("Test more, {how}"),
        )
    };
    let dropped = call::bash(
        "git rm -q --ignore-unmatch test_more.py && git commit -q -m 'Drop the extra test'",
    );
    let script = script::rules(
        "ever worse",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![script::subtract(false)], "Done."),
            script::steps(when::prompt(INSIGHT), vec![dropped], "Dropped it."),
            script::steps(
                when::prompt("this is attempt 1 of 2"),
                vec![worse("alpha")],
                "Better.",
            ),
            script::steps(
                when::prompt("this is attempt 2 of 2"),
                vec![worse("omega")],
                "Good.",
            ),
        ],
    );
    let world = World::with(Settings::script(script).limits("max_ci_attempts = 2")).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert!(
        item.seen.title.starts_with("CI keeps failing") && item.seen.body.contains("2 turns"),
        "{}: {}",
        item.seen.title,
        item.seen.body
    );
    item.answer(INSIGHT).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_what_a_person_pushes_are_awaited() -> Result<()> {
    let world = World::scripted(script::held()).await?;
    let task = world.approved(&script::holding_calculator()).await?;
    task.expect_event("ci_running").await?;
    let branch = task.now().branch;
    let released = Files::from([("hold".to_owned(), None)]);
    let sha = world
        .github()
        .person(PERSON)
        .push("ada/calc", &branch, "Release", &released)?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.head_sha, sha);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pull_request_is_seen_while_checks_cannot_be_read() -> Result<()> {
    let world = World::scripted(script::held()).await?;
    let task = world.approved(&script::holding_calculator()).await?;
    task.expect_event("ci_running").await?;
    let number = task.pull()?;
    world
        .github()
        .fault(Fault::new("GET", "/check-runs", FaultKind::Status(502)).times(1_000));
    world.github().person(PERSON).close("ada/calc", number)?;
    task.expect_state(TaskState::Cancelled).await?;
    world.github().mend();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_check_a_person_decides() -> Result<()> {
    let world = World::new().await?;
    let task = world.approved(&without_ci()).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert!(item.seen.title.starts_with("No CI"), "{}", item.seen.title);
    let drafts = world.github().read(|site| {
        site.repo("ada/calc")
            .unwrap()
            .pulls()
            .filter(|(_, pull)| pull.draft)
            .count()
    });
    assert_eq!(drafts, 1, "no checks is not success");
    item.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_can_refuse_a_repository_without_checks() -> Result<()> {
    let settings = Settings::script(script::good_day()).limits("no_ci = 'fail'");
    let world = World::with(settings).await?;
    let task = world.approved(&without_ci()).await?;
    let failed = task.expect_state(TaskState::Failed).await?;
    assert_eq!(
        failed.failure.unwrap_or_default().reason(),
        mainloop_proto::v1::FailureReason::NoCi
    );
    world.end().await
}
