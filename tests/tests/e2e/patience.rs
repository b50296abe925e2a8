//! When a person does not answer: they are reminded, and policy may go on with what the worker recommends.

use anyhow::{Context as _, Result};
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, Script, call, when},
    world::{PERSON, Settings, World, script},
};

/// A question in each stage, both with options.
fn asking() -> Script {
    let mut replies = vec![Reply::call(call::ask_user_question(
        "Is the result ever negative?",
        "Sign",
        &[("Yes", "It may be below zero"), ("No", "It stops at zero")],
    ))];
    replies.extend(script::present(script::SUBTRACT_PLAN));
    script::rules(
        "asks",
        vec![
            Rule::sequence(when::prompt(script::PLAN), replies),
            script::steps(
                when::prompt(script::IMPLEMENT),
                vec![
                    call::ask_human("May I add a test file?", &["One only", "None"]),
                    script::subtract(true),
                ],
                "Done.",
            ),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_questions_are_assumed_by_policy_and_marked_so() -> Result<()> {
    let patience = "remind_seconds = 1\nunanswered = 'assume'\nassume_seconds = 1";
    let world = World::with(Settings::script(asking()).limits(patience)).await?;
    let task = world.approved(&script::calculator()).await?;
    let ready = task.expect_state(TaskState::Ready).await?;

    let assumed: Vec<String> = task
        .events()
        .into_iter()
        .filter(|event| event.kind == "answer_assumed")
        .map(|event| format!("{}: {}", event.actor, event.text))
        .collect();
    assert_eq!(
        assumed,
        [
            "policy: nobody answered: went on with Yes",
            "policy: nobody answered: went on with One only"
        ]
    );
    let told = world.model().requests().iter().any(|seen| {
        seen.is_message()
            && seen
                .request()
                .outcomes()
                .iter()
                .any(|outcome| outcome.text.contains("Yes (Nobody answered in time"))
    });
    assert!(told, "Claude knows that nobody answered");
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        for number in [
            ready.issue.as_ref().unwrap().number,
            ready.pull_request.as_ref().unwrap().number,
        ] {
            let thread = &repo.issues[&u64::try_from(number).unwrap()];
            let marks: Vec<&str> = thread
                .comments
                .iter()
                .map(|comment| comment.body.as_str())
                .filter(|body| body.contains("**Assumed.**"))
                .collect();
            let [mark] = marks.as_slice() else {
                panic!("#{number} has {} marks: {:?}", marks.len(), thread.comments);
            };
            for words in [
                "Is the result ever negative?",
                "Assumed: Yes",
                "Assumed: One only",
            ] {
                assert!(
                    mark.contains(words),
                    "{words:?} is missing on #{number}: {mark}"
                );
            }
        }
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_assumed_is_marked_on_the_pull_request_where_the_issue_is_gone() -> Result<()> {
    let gate = Gate::closed();
    let ask = call::ask_human("May I add a test file?", &["One only", "None"]);
    let replies = vec![
        Reply::call(ask).held_by(&gate),
        Reply::call(script::subtract(true)),
        Reply::text("Done."),
    ];
    let patience = "remind_seconds = 1\nunanswered = 'assume'\nassume_seconds = 1";
    let settings = Settings::script(script::working("asks", replies)).limits(patience);
    let world = World::with(settings).await?;
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    let issue = task.now().issue.context("it has an issue")?.number;
    let ada = world.github().person(PERSON);
    ada.delete_issue("ada/calc", u64::try_from(issue)?)?;
    gate.open();
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    let number = task.pull()?;
    let marked = world.github().read(|site| {
        let comments = &site.repo("ada/calc").unwrap().issues[&number].comments;
        comments
            .iter()
            .any(|comment| comment.body.contains("Assumed: One only"))
    });
    assert!(marked, "the pull request says so");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_that_policy_they_are_overdue_and_wait() -> Result<()> {
    let world = World::with(Settings::script(asking()).limits("remind_seconds = 1")).await?;
    let task = world.begin(&script::calculator()).await?;
    let asked = task.expect_item(InboxItemKind::Question).await?;
    task.wait("a reminder", |view| {
        let reminded = |event: &&mainloop_proto::v1::TaskEvent| event.kind == "reminded";
        view.events.iter().find(reminded).map(|_| ())
    })
    .await?;
    let item = task.item(&asked.seen.id).await?;
    assert!(item.seen.reminded && item.seen.assume_time.is_none());
    assert_eq!(
        item.seen.revision, asked.seen.revision,
        "it is the same question"
    );
    let list = world.cli(&["inbox"]).await?;
    assert!(list.stdout.contains("question, overdue"), "{}", list.stdout);
    item.answer("No").await?;
    task.approve().await?;
    task.expect_item(InboxItemKind::Question)
        .await?
        .answer("2")
        .await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_keeps_workers_busy_for_too_long_asks_a_person() -> Result<()> {
    let never = Gate::closed();
    let script = script::rules(
        "slow",
        vec![
            Rule::sequence(
                when::prompt(script::PLAN),
                vec![Reply::text("Let me think.").held_by(&never)],
            ),
            script::implementing(vec![script::subtract(true)], "Done."),
        ],
    );
    let world = World::with(Settings::script(script).limits("task_seconds = 5")).await?;
    let task = world.begin(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::TaskDeadline).await?;
    world
        .expect_no_worker()
        .await
        .context("the worker is gone")?;
    item.resolve(InboxAction::TakeOver, "").await?;
    task.expect_state(TaskState::Completed).await?;
    world.end().await
}
