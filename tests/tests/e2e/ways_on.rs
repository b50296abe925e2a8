//! What a person can choose when a task is stuck, and where each choice leads.

use anyhow::Result;
use mainloop_proto::v1::{Completion, FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, Script, when},
    world::{Item, Settings, Task, World, script},
};

const INSIGHT: &str = "subtract, do not add";

/// Implements it wrongly until somebody says how.
fn wrong_until_told() -> Script {
    script::rules(
        "wrong until told",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(
                when::prompt(INSIGHT),
                vec![script::subtract(true)],
                "Right now.",
            ),
            script::implementing(vec![script::subtract(false)], "Done."),
            script::fixing(
                vec![script::commit(&[("NOTES.md", "hm\n")], "Note it")],
                "Mended, I think.",
            ),
        ],
    )
}

/// A task whose checks fail again and again, and its item.
async fn stuck(world: &World) -> Result<(Task, Item)> {
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::SameFailure).await?;
    Ok((task, item))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_afresh_it_gets_a_new_branch_and_the_old_pull_request_is_closed() -> Result<()> {
    let settings = Settings::script(wrong_until_told()).policy("on_cancel = 'delete'");
    let world = World::with(settings).await?;
    let (task, item) = stuck(&world).await?;
    let before = task.now();
    item.resolve(InboxAction::StartAfresh, INSIGHT).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.branch, format!("{}-2", before.branch));
    let old = before.pull_request.unwrap_or_default().number;
    assert_eq!(ready.superseded_pull_requests, [old]);
    let new = ready.pull_request.unwrap_or_default().number;
    let open = |number: i32| {
        world.github().read(|site| {
            site.repo("ada/calc")
                .unwrap()
                .pulls()
                .any(|(issue, _)| i32::try_from(issue.number).ok() == Some(number) && issue.open)
        })
    };
    assert!(!open(old) && open(new), "#{old} is closed, #{new} open");
    task.cancel().await?;
    task.wait("what it left to be closed", |view| {
        view.of_kind("tidied").next().map(|_| ())
    })
    .await?;
    assert!(!open(new));
    world.github().read(|site| {
        let refs = &site.repo("ada/calc").unwrap().refs;
        let left: Vec<&String> = refs
            .keys()
            .filter(|name| name.contains("mainloop/"))
            .collect();
        assert!(left.is_empty(), "the branch of each start: {left:?}");
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_turns_are_taken_and_end_before_the_same_person() -> Result<()> {
    let world =
        World::with(Settings::script(wrong_until_told()).limits("max_ci_attempts = 1")).await?;
    let (task, item) = stuck(&world).await?;
    item.resolve(InboxAction::MoreAttempts, INSIGHT).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_over_it_ends_and_its_branch_is_shown_and_stays() -> Result<()> {
    let world = World::scripted(wrong_until_told()).await?;
    let (task, item) = stuck(&world).await?;
    let branch = task.now().branch;
    assert!(
        item.seen.body.contains(&format!("git switch {branch}"))
            && item.seen.body.contains("AssertionError"),
        "{}",
        item.seen.body
    );
    item.resolve(InboxAction::TakeOver, "").await?;
    let over = task.expect_state(TaskState::Completed).await?;
    assert_eq!(over.completion(), Completion::TakenOver);
    world.expect_no_worker().await?;
    let open = world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        repo.pulls().filter(|(issue, _)| issue.open).count()
    });
    assert_eq!(open, 1, "the pull request is the person's from now on");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topped_up_it_goes_on() -> Result<()> {
    let world = World::scripted(script::dear()).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit_within(&repo, 50_000).await?;
    let item = task.expect_stuck(FailureReason::Budget).await?;
    let before = task.now().budget_micros;
    item.resolve(InboxAction::TopUp, "").await?;
    task.expect_item(InboxItemKind::Plan).await?;
    assert!(task.now().budget_micros > before);
    world.end().await
}

/// Implements it right when it gets the hint, having hung before; hangs then as well where `again`.
fn hanging(gate: &Gate, again: bool) -> Script {
    let hang = || Reply::text("never said").held_by(gate);
    let after = if again {
        vec![hang()]
    } else {
        vec![Reply::call(script::subtract(true)), Reply::text("Done.")]
    };
    script::rules(
        "hanging",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(when::prompt("did not get on"), after),
            Rule::sequence(when::prompt(script::IMPLEMENT), vec![hang()]),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_hangs_is_interrupted_and_goes_on_with_a_hint() -> Result<()> {
    let gate = Gate::closed();
    let settings = Settings::script(hanging(&gate, false)).policy("stall_seconds = 6");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    gate.open();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_hangs_in_spite_of_a_hint_asks_a_person_and_shows_what_was_last() -> Result<()>
{
    let gate = Gate::closed();
    let settings = Settings::script(hanging(&gate, true)).policy("stall_seconds = 6");
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::Stalled).await?;
    assert!(
        item.seen.body.contains("nothing was heard for 6 s"),
        "{}",
        item.seen.body
    );
    gate.open();
    world.end().await
}
