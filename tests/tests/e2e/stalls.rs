//! Turns that do not get on: they are interrupted and told why, and a person sees what was last. And what a worker says
//! itself that it cannot go on for.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Reply, Rule, Script, call, when},
    world::{PERSON, Settings, Task, World, script},
};

/// What the prompt after an interrupt says.
const HINT: &str = "did not get on";
/// A command that waits for input.
const WAITS: &str = "read answer < <(tail -f /dev/null)";
/// A command that runs for ever.
const RUNS: &str = "tail -f /dev/null";
/// So many calls are a loop.
const LOOP: usize = 20;

/// Implements it with `first`, and after the hint with `then`.
fn hinted(first: Vec<Reply>, then: Vec<Reply>) -> Script {
    script::rules(
        "hinted",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(when::prompt(HINT), then),
            Rule::sequence(when::prompt(script::IMPLEMENT), first),
        ],
    )
}

/// The right implementation.
fn right() -> Vec<Reply> {
    vec![Reply::call(script::subtract(true)), Reply::text("Done.")]
}

/// The same call, for as long as anybody listens.
fn again_and_again(command: &str) -> Vec<Reply> {
    vec![Reply::call(call::bash(command))]
}

async fn approved(script: Script) -> Result<(World, Task)> {
    let world = World::with(Settings::script(script).policy("stall_seconds = 6")).await?;
    let task = world.approved(&script::calculator()).await?;
    Ok((world, task))
}

/// It was interrupted for this, said so in its log, and the next prompt said so to Claude.
async fn expect_interrupted(world: &World, task: &Task, why: &str) -> Result<()> {
    let log = world.cli(&["task", "logs", &task.short_id]).await?.stdout;
    assert!(log.contains(&format!("interrupted: {why}")), "{log}");
    let told = world.model().requests().into_iter().any(|seen| {
        seen.is_message() && {
            let request = seen.request();
            let prompt = request.prompt();
            prompt.contains(HINT) && prompt.contains(why)
        }
    });
    assert!(told, "Claude was told: {why}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_for_input_is_interrupted_and_the_work_goes_on() -> Result<()> {
    let (world, task) = approved(hinted(again_and_again(WAITS), right())).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    expect_interrupted(&world, &task, "nothing was heard for 6 s").await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_runs_for_ever_after_a_hint_as_well_is_shown_to_a_person() -> Result<()> {
    const WORDS: &str = "Nothing is to be followed.";
    let script = script::rules(
        "follows",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(when::prompt(WORDS), right()),
            Rule::sequence(
                when::prompt(HINT).or(when::prompt(script::IMPLEMENT)),
                vec![
                    Reply::text("I follow the log.").and_call(call::bash("echo begun")),
                    Reply::call(call::bash(RUNS)),
                ],
            ),
        ],
    );
    let (world, task) = approved(script).await?;
    let item = task.expect_stuck(FailureReason::Stalled).await?;
    for words in [
        "nothing was heard for 6 s, after a hint as well",
        "I follow the log.",
        "Bash: echo begun",
        "Bash: tail -f /dev/null",
    ] {
        assert!(
            item.seen.body.contains(words),
            "{words}: {}",
            item.seen.body
        );
    }
    item.answer(WORDS).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_again_and_again_is_interrupted_and_the_work_goes_on() -> Result<()> {
    let (world, task) = approved(hinted(again_and_again("git status --short"), right())).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    let why = "the same call was made 20 times in a row: Bash: git status --short";
    expect_interrupted(&world, &task, why).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_again_and_again_after_a_hint_as_well_is_shown_to_a_person() -> Result<()> {
    let script = hinted(
        again_and_again("git status --short"),
        again_and_again("git log"),
    );
    let (world, task) = approved(script).await?;
    let item = task.expect_stuck(FailureReason::Stalled).await?;
    let last = "Bash: git log";
    let why = format!("the same call was made 20 times in a row: {last}, after a hint as well");
    assert!(item.seen.body.contains(&why), "{}", item.seen.body);
    let evidence = item
        .seen
        .body
        .lines()
        .filter(|line| *line == format!("> {last}"));
    assert_eq!(evidence.count(), 8, "{}", item.seen.body);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_edits_of_one_file_are_no_loop() -> Result<()> {
    let edit = |from: usize| {
        let call = call::edit(
            "{{re:(/\\S+)/DIARY\\.md}}/DIARY.md",
            &format!("day {from}."),
            &format!("day {}.", from + 1),
        );
        Reply::call(call)
    };
    let mut replies = vec![
        Reply::call(script::commit(&[("DIARY.md", "day 0.\n")], "Begin a diary")),
        Reply::call(call::bash("ls $PWD/DIARY.md")),
        Reply::call(call::read("{{re:(/\\S+)/DIARY\\.md}}/DIARY.md")),
    ];
    replies.extend((0..LOOP + 2).map(edit));
    replies.extend(right());
    let (world, task) = approved(script::working("keeps a diary", replies)).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    let last = format!("day {}.", LOOP + 2);
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let diary = repo.file(&ready.branch, "DIARY.md").unwrap();
        assert!(diary.contains(&last), "all edits were made");
    });
    assert_eq!(world.model().told(HINT), 0, "nobody was interrupted");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_that_is_ignored_ends_the_worker_and_the_next_one_goes_on() -> Result<()> {
    let script = script::rules(
        "stops",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(when::prompt("You were interrupted"), right()),
            script::implementing(
                // The shell's parent is Claude Code.
                vec![
                    script::commit(&[("NOTES.md", "begun\n")], "Begin"),
                    call::bash("kill -STOP $PPID; sleep 1"),
                ],
                "never said",
            ),
        ],
    );
    let (world, task) = approved(script).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.attempt, 2);
    let failed = task.events().into_iter().any(|event| {
        event
            .text
            .contains("nothing was heard for 6 s, and Claude Code does not react to an interrupt")
    });
    assert!(failed, "{}", task.report());
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocker_that_the_worker_reports_is_answered_and_the_work_goes_on() -> Result<()> {
    const BLOCKED: &str = "The registry asks for a token that I do not have.";
    const WAY: &str = "Leave the registry out: the standard library does.";
    let script = script::working(
        "is blocked",
        vec![
            Reply::call(call::report_blocker("access", BLOCKED)),
            Reply::call(script::subtract(true)),
            Reply::text("Done."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert_eq!(item.seen.title, format!("Blocked: {}", script::TASK));
    assert!(item.seen.body.contains(BLOCKED), "{}", item.seen.body);
    assert_eq!(
        item.seen.actions().collect::<Vec<_>>(),
        [InboxAction::Answer, InboxAction::Reject]
    );
    item.answer(WAY).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.attempt, 1, "the same worker went on");
    let heard = world.model().outcomes("mcp__mainloop__report_blocker");
    assert!(heard.iter().any(|outcome| outcome.text.contains(WAY)));
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_commands_that_do_not_do_are_mended_in_the_repository_and_a_retry_goes_on()
-> Result<()> {
    let settings = Settings::script(script::good_day()).policy("setup_seconds = 3");
    let world = World::with(settings).await?;
    for (repo, command, words) in [
        (
            "fails",
            "echo 'cc: no such compiler' >&2; exit 3",
            ["exit 3", "cc: no such compiler"],
        ),
        (
            "hangs",
            "echo 'fetching the world'; tail -f /dev/null",
            ["3 s", "fetching the world"],
        ),
    ] {
        let setup = format!("setup = [\"{command}\"]\n");
        let mut files = script::calculator();
        files.push((".mainloop.toml", &setup));
        let url = world.repo(repo, &files)?;
        let task = world.submit(&url, script::TASK).await?;
        let item = task.expect_stuck(FailureReason::Setup).await?;
        for words in words {
            assert!(
                item.seen.body.contains(words),
                "{words}: {}",
                item.seen.body
            );
        }
        assert!(
            item.seen.body.contains("mend the command"),
            "{}",
            item.seen.body
        );
        world.github().person(PERSON).push_file(
            &format!("{PERSON}/{repo}"),
            "main",
            ".mainloop.toml",
            "setup = [\"true\"]\n",
        )?;
        item.resolve(InboxAction::Retry, "").await?;
        task.expect_item(InboxItemKind::Plan).await?;
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_goes_on_in_the_background_holds_nothing_up_after_the_last_words()
-> Result<()> {
    let left = serde_json::json!({
        "command": "exec tail -f /dev/null",
        "description": "follow",
        "run_in_background": true,
    });
    let replies = vec![
        Reply::call(script::subtract(true)),
        Reply::call(call::tool("Bash", left)),
        Reply::text("Done."),
    ];
    let (world, task) = approved(script::working("leaves", replies)).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    assert_eq!(world.model().told(HINT), 0, "nobody was interrupted");
    world.expect_no_worker().await?;
    world.end().await
}
