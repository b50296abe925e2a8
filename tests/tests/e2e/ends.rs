//! How work stops short, and what a person can do then: each reason with its choices, bounds that end what goes round in
//! circles, and a second word on what was decided.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context, Result};
use mainloop_proto::v1::{FailureReason as Reason, InboxAction as Do, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, Script, ToolCall, call, when},
    github::Conclusion,
    world::{
        Item, Settings, Task, World,
        binaries::{self, binary},
        script,
    },
};
use tempfile::TempDir;
use tonic::Code;

const REPO: &str = "ada/calc";
/// What a person can do about checks that do not become green.
const CHECKS: &[Do] = &[
    Do::Answer,
    Do::MoreAttempts,
    Do::StartAfresh,
    Do::TakeOver,
    Do::Reject,
];
/// About checks that nobody ends.
const UNCHECKED: &[Do] = &[Do::Approve, Do::Retry, Do::Answer, Do::TakeOver, Do::Reject];
/// About what another word can mend.
const STEER: &[Do] = &[
    Do::Answer,
    Do::Retry,
    Do::StartAfresh,
    Do::TakeOver,
    Do::Reject,
];
/// About what is mended elsewhere.
const MEND: &[Do] = &[
    Do::Retry,
    Do::Answer,
    Do::StartAfresh,
    Do::TakeOver,
    Do::Reject,
];

/// Waits for a blocker of this reason, with just these choices.
async fn stuck(task: &Task, reason: Reason, choices: &[Do], words: &str) -> Result<Item> {
    let item = task.expect_stuck(reason).await?;
    assert_eq!(item.seen.actions().collect::<Vec<_>>(), choices);
    assert!(item.seen.body.contains(words), "{}", item.seen.body);
    assert_eq!(task.now().state(), TaskState::Blocked);
    Ok(item)
}

/// Commits something else each time.
fn note() -> ToolCall {
    call::bash("date +%s%N >> NOTES.md; git add NOTES.md; git commit -qm 'Note it'")
}

/// Implements it wrongly, and does this about each failure of the checks.
fn wrong_then(mending: Vec<ToolCall>) -> Script {
    script::rules(
        "wrong",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![script::subtract(false)], "Done."),
            script::fixing(mending, "Hm."),
        ],
    )
}

/// How many pull requests there are, and how many of them are open.
fn pulls(world: &World) -> (usize, usize) {
    world.github().read(|site| {
        let repo = site.repo(REPO).unwrap();
        let open = repo.pulls().filter(|(issue, _)| issue.open).count();
        (repo.pulls().count(), open)
    })
}

/// How many issues there are that are no pull requests.
fn issues(world: &World) -> usize {
    world.github().read(|site| {
        let issues = site.repo(REPO).unwrap().issues.values();
        issues.filter(|issue| issue.pull.is_none()).count()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_carried_out_without_a_change_asks_a_person() -> Result<()> {
    const HINT: &str = "Write the function.";
    let script = script::rules(
        "changes nothing",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(when::prompt(HINT), vec![script::subtract(true)], "Done."),
            script::implementing(vec![], "It is as it should be."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = stuck(&task, Reason::NoChange, STEER, "").await?;
    assert_eq!(pulls(&world), (0, 0));
    item.answer(HINT).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_are_not_mended_ask_a_person_and_a_fresh_retry_begins_anew() -> Result<()> {
    const INSIGHT: &str = "Subtract, do not add.";
    let script = script::rules(
        "wrong until told",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(when::prompt(INSIGHT), vec![script::subtract(true)], "Done."),
            script::implementing(vec![script::subtract(false)], "Done."),
            script::fixing(vec![], "It cannot be mended."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = stuck(&task, Reason::NoFix, CHECKS, "AssertionError").await?;
    let (before, old) = (task.now(), task.pull()?);
    item.reject("not like this").await?;
    task.wait("it to have failed", |view| {
        (view.task.state() == TaskState::Failed).then_some(())
    })
    .await?;

    task.retry_afresh(INSIGHT).await?;
    task.wait("it to be ready", |view| {
        (view.task.state() == TaskState::Ready).then_some(())
    })
    .await?;
    let ready = task.now();
    assert_eq!(ready.branch, format!("{}-2", before.branch));
    assert_eq!(
        ready.superseded_pull_requests,
        [i32::try_from(old).unwrap()]
    );
    assert_ne!(task.pull()?, old);
    assert_eq!(pulls(&world), (2, 1), "the old one is closed");
    assert_eq!(issues(&world), 1, "the plan's issue is used again");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_turns_without_an_insight_are_taken_and_end() -> Result<()> {
    let settings = Settings::script(wrong_then(vec![note()])).limits("max_ci_attempts = 2");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = stuck(&task, Reason::SameFailure, CHECKS, "AssertionError").await?;
    let before = task.watch().borrow().of_kind("ci_failed").count();
    item.resolve(Do::MoreAttempts, "").await?;
    // The same failure twice more is the same failure.
    task.expect_events("ci_failed", before + 2).await?;
    let again = stuck(&task, Reason::SameFailure, CHECKS, "AssertionError").await?;
    let name = |item: &Item| (item.seen.id.clone(), item.seen.revision);
    assert_ne!(name(&again), name(&item));
    again.resolve(Do::TakeOver, "").await?;
    task.expect_state(TaskState::Completed).await?;
    world.expect_no_worker().await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_began_and_never_end_ask_a_person_and_a_retry_waits_once_more() -> Result<()> {
    let settings = Settings::script(script::held()).limits("await_ci_seconds = 8");
    let world = World::with(settings).await?;
    let task = world.approved(&script::holding_calculator()).await?;
    let item = stuck(&task, Reason::CiDeadline, UNCHECKED, "").await?;
    task.expect_event("ci_running").await?;
    item.resolve(Do::Retry, "").await?;
    task.expect_events("deadline_passed", 2).await?;
    let again = stuck(&task, Reason::CiDeadline, UNCHECKED, "").await?;
    again.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    assert_eq!(pulls(&world), (1, 1));
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_turn_red_once_too_often_ask_a_person() -> Result<()> {
    let script = script::rules(
        "flaky",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![script::subtract(true)], "Done."),
            script::fixing(vec![note()], "Noted."),
        ],
    );
    let settings = Settings::script(script).limits("max_ci_attempts = 1");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    for round in 1..=2 {
        task.expect_events("ready_for_review", round).await?;
        let head = task.expect_state(TaskState::Ready).await?.head_sha;
        let name = format!("nightly {round}");
        let red = Some(Conclusion::Failure);
        world.github().post_check(REPO, &head, &name, red)?;
    }
    let item = stuck(&task, Reason::RedAgain, STEER, "").await?;
    world.expect_no_worker().await?;
    item.answer("Note it once more.").await?;
    task.expect_events("ready_for_review", 3).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_takes_too_long_asks_a_person_when_it_did_so_too_often() -> Result<()> {
    let gate = Gate::closed();
    let work = Rule::sequence(
        when::prompt(script::IMPLEMENT),
        vec![Reply::text("never said").held_by(&gate)],
    );
    let script = script::rules("slow", vec![script::planning(script::SUBTRACT_PLAN), work]);
    let settings = Settings::script(script).limits("implement_seconds = 3\nmax_attempts = 2");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    stuck(&task, Reason::StepDeadline, STEER, "").await?;
    assert_eq!((task.now().attempt, task.now().failures), (2, 2));
    world.expect_no_worker().await?;
    gate.open();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_lost_too_often_asks_and_a_retry_uses_what_is_there() -> Result<()> {
    let gate = Gate::closed();
    let replies = vec![
        Reply::call(script::subtract(true)),
        Reply::call(call::bash("cat calc.py")).held_by(&gate),
        Reply::text("Subtract is there."),
    ];
    let script = script::working("lost", replies);
    let world = World::with(Settings::script(script).limits("max_attempts = 1")).await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_event("pull_request_opened").await?;
    gate.reached().await?;
    let pull = task.pull()?;
    assert_eq!(world.kill_agents()?, 1);
    let item = stuck(&task, Reason::WorkerLost, MEND, "").await?;
    world.expect_no_worker().await?;
    gate.open();
    item.resolve(Do::Retry, "").await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, task.pull()?), (2, pull));
    assert_eq!((pulls(&world), issues(&world)), ((1, 1), 1));
    world.end().await
}

/// An agent that does nothing while a file is there. The folder goes with it.
struct SlowAgent {
    folder: TempDir,
}

impl SlowAgent {
    fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let slow = Self { folder };
        let text = format!(
            "#!/bin/sh\nwhile [ -e '{}' ]; do sleep 0.05; done\nexec '{}' \"$@\"\n",
            slow.hold().display(),
            binary(binaries::AGENT)?.display()
        );
        fs::write(slow.program(), text)?;
        fs::set_permissions(slow.program(), fs::Permissions::from_mode(0o755))?;
        Ok(slow)
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("mainloop-worker-agent")
    }

    fn hold(&self) -> PathBuf {
        self.folder.path().join("hold")
    }

    /// A world whose workers it is, and that does not start.
    async fn world(&self, limits: &str) -> Result<World> {
        let settings = Settings::script(script::good_day()).limits(limits);
        let world = World::with(settings.env("MAINLOOP_AGENT", &self.program())).await?;
        fs::write(self.hold(), "")?;
        Ok(world)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_start_asks_a_person_when_it_did_so_too_often() -> Result<()> {
    let slow = SlowAgent::new()?;
    let world = slow.world("start_seconds = 3\nmax_attempts = 2").await?;
    let task = world.begin(&script::calculator()).await?;
    let item = stuck(&task, Reason::StartDeadline, MEND, "").await?;
    assert_eq!(task.now().failures, 2);
    world.expect_no_worker().await?;
    fs::remove_file(slow.hold())?;
    item.resolve(Do::Retry, "").await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_its_worker_starts_it_leaves_no_process() -> Result<()> {
    let slow = SlowAgent::new()?;
    let world = slow.world("").await?;
    let task = world.begin(&script::calculator()).await?;
    task.expect_state(TaskState::Starting).await?;
    task.cancel().await?;
    task.expect_state(TaskState::Cancelled).await?;
    world.expect_no_worker().await?;
    world.github().read(|site| {
        let repo = site.repo(REPO).unwrap();
        assert_eq!((repo.issues.len(), repo.refs.len()), (0, 1));
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_answered_on_two_screens_is_answered_once() -> Result<()> {
    let mut replies = vec![Reply::call(call::ask_human(
        "Which one?",
        &["This", "That"],
    ))];
    replies.extend(script::present(script::SUBTRACT_PLAN));
    let script = script::rules(
        "asks",
        vec![
            Rule::sequence(when::prompt(script::PLAN), replies),
            script::implementing(vec![script::subtract(true)], "Done."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.begin(&script::calculator()).await?;
    let here = task.expect_item(InboxItemKind::Question).await?;
    let there = task.item(&here.seen.id).await?;
    here.answer("This").await?;
    let refused = there
        .expect_refusal(Do::Answer, "That", Code::FailedPrecondition)
        .await?;
    assert!(
        refused.message().contains("was resolved by") && refused.message().ends_with(": answer"),
        "{}",
        refused.message()
    );
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    let heard = world.model().requests();
    let heard = |words: &str| {
        heard.iter().any(|seen| {
            seen.is_message()
                && seen
                    .request()
                    .outcomes()
                    .iter()
                    .any(|outcome| outcome.text.contains(words))
        })
    };
    assert!(heard("This") && !heard("That"), "the first answer counts");
    world.end().await.context("the end")
}
