//! What people decide: plans revised and rejected, questions answered, guidance, an issue of theirs as the start.

use anyhow::{Context, Result};
use mainloop_proto::v1::{Completion, CreateTaskRequest, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, call, when},
    world::{PERSON, World, script},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_revised_twice_is_the_one_carried_out() -> Result<()> {
    let plan =
        |n: u32| format!("# Add subtract, version {n}\n\nThe calculator learns to subtract.\n");
    let script = script::rules(
        "revised",
        vec![
            script::planning(&plan(1)),
            Rule::sequence(
                when::prompt(script::REVISE).and(when::prompt("Name the risks.")),
                script::present(&plan(3)),
            ),
            Rule::sequence(
                when::prompt(script::REVISE).and(when::prompt("Shorter.")),
                script::present(&plan(2)),
            ),
            script::implementing(vec![script::subtract(true)], "Done."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.begin(&script::calculator()).await?;

    let first = task.expect_item(InboxItemKind::Plan).await?;
    assert_eq!(first.seen.body, plan(1));
    first.revise("Shorter.").await?;
    task.wait("plan 2", |view| {
        view.task
            .plan
            .as_ref()
            .filter(|plan| plan.revision == 2)
            .map(|_| ())
    })
    .await?;
    let second = task.expect_item(InboxItemKind::Plan).await?;
    assert_eq!(second.seen.body, plan(2));
    assert_eq!(second.seen.previous_body, plan(1));
    second.revise("Name the risks.").await?;
    task.wait("plan 3", |view| {
        view.task
            .plan
            .as_ref()
            .filter(|plan| plan.revision == 3)
            .map(|_| ())
    })
    .await?;
    let third = task.expect_item(InboxItemKind::Plan).await?;
    assert_eq!(third.seen.body, plan(3));

    let refused = second
        .expect_refusal(InboxAction::Approve, "", Code::Aborted)
        .await?;
    assert!(
        refused.message().contains(&third.seen.revision.to_string()),
        "it names the newest: {refused}"
    );
    assert_eq!(
        task.now().state(),
        TaskState::PlanReview,
        "the old approval changed nothing"
    );
    let beside = "Fine, but keep the sign as it is.";
    third.resolve(InboxAction::Approve, beside).await?;
    task.expect_state(TaskState::Ready).await?;

    let carried_out = world
        .model()
        .requests()
        .iter()
        .filter(|seen| seen.is_message())
        .any(|seen| {
            let request = seen.request();
            [script::IMPLEMENT, &plan(3), beside]
                .iter()
                .all(|words| request.prompt().contains(words))
        });
    assert!(
        carried_out,
        "the third plan is what the model was given, with what was said to it"
    );
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let issues: Vec<_> = repo
            .issues
            .values()
            .filter(|issue| issue.pull.is_none())
            .collect();
        assert_eq!(issues.len(), 1, "one issue through all revisions");
        assert!(
            issues[0]
                .body
                .as_deref()
                .unwrap_or_default()
                .contains("version 3"),
            "{:?}",
            issues[0].body
        );
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_plan_ends_the_task_without_a_push() -> Result<()> {
    let world = World::new().await?;
    let task = world.begin(&script::calculator()).await?;
    task.reject().await?;
    task.expect_state(TaskState::Declined).await?;
    world.expect_no_worker().await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert!(repo.pushes.is_empty(), "{:?}", repo.pushes);
        assert_eq!(repo.pulls().count(), 0);
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_and_the_answer_reaches_the_model() -> Result<()> {
    let mut replies = vec![Reply::call(call::ask_user_question(
        "Is the result ever negative?",
        "Sign",
        &[("Yes", "It may be below zero"), ("No", "It stops at zero")],
    ))];
    replies.extend(script::present(script::SUBTRACT_PLAN));
    let script = script::rules(
        "asks",
        vec![
            Rule::sequence(when::prompt(script::PLAN), replies),
            script::steps(
                when::prompt(script::IMPLEMENT),
                vec![
                    call::ask_human("May I add a test file?", &["Yes", "No"]),
                    script::subtract(true),
                ],
                "Done.",
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.begin(&script::calculator()).await?;

    let asked = task.expect_item(InboxItemKind::Question).await?;
    assert_eq!(task.now().state(), TaskState::Question);
    assert_eq!(asked.seen.questions.len(), 1);
    assert_eq!(asked.seen.questions[0].text, "Is the result ever negative?");
    assert_eq!(asked.seen.questions[0].options.len(), 2);
    asked.answer("Yes").await?;
    task.approve().await?;
    let again = task.expect_item(InboxItemKind::Question).await?;
    assert_eq!(again.seen.questions[0].text, "May I add a test file?");
    again
        .answer("Yes, but only one, and call it test_subtract.py")
        .await?;
    task.expect_state(TaskState::Ready).await?;

    let results: Vec<String> = world
        .model()
        .requests()
        .iter()
        .filter(|seen| seen.is_message())
        .flat_map(|seen| {
            seen.request()
                .outcomes()
                .into_iter()
                .map(|outcome| outcome.text.clone())
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        results
            .iter()
            .any(|text| text.contains("Is the result ever negative?") && text.contains("Yes")),
        "{results:?}"
    );
    assert!(
        results
            .iter()
            .any(|text| text.contains("only one, and call it test_subtract.py")),
        "{results:?}"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issue_of_a_person_is_the_start_and_gets_one_comment() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let body = "Please teach it to subtract. The magic word is heliotrope.";
    let number =
        world
            .github()
            .person(PERSON)
            .open_issue("ada/calc", "Subtraction is missing", body)?;
    let task = world
        .create(CreateTaskRequest {
            repository_url: repo,
            issue_number: i32::try_from(number)?,
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let issue = &repo.issues[&number];
        assert_eq!(
            issue.body.as_deref(),
            Some(body),
            "a person's words are not touched"
        );
        let plans = issue
            .comments
            .iter()
            .filter(|comment| comment.body.contains("The calculator learns to subtract."))
            .count();
        assert_eq!(plans, 1, "{:?}", issue.comments);
        assert_eq!(
            repo.issues
                .values()
                .filter(|issue| issue.pull.is_none())
                .count(),
            1,
            "no other issue"
        );
    });
    let read = world
        .model()
        .requests()
        .iter()
        .any(|seen| seen.is_message() && seen.request().prompt().contains("heliotrope"));
    assert!(read, "the issue's text is in the prompt");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_change_completes_the_task() -> Result<()> {
    let script = script::rules(
        "nothing",
        vec![script::steps(
            when::prompt(script::PLAN),
            vec![call::nothing_to_change("The calculator subtracts already.")],
            "Nothing needs to change.",
        )],
    );
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit(&repo, "Teach the calculator to add.").await?;
    let done = task.expect_state(TaskState::Completed).await?;
    assert_eq!(done.completion(), Completion::NoChange);
    assert!(
        done.summary.contains("subtracts already"),
        "{}",
        done.summary
    );
    world.expect_no_worker().await?;
    world
        .github()
        .read(|site| assert!(site.repo("ada/calc").unwrap().pushes.is_empty()));
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guidance_in_mid_run_reaches_the_model() -> Result<()> {
    let gate = Gate::closed();
    let script = script::rules(
        "guided",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(call::bash("cat calc.py")),
                    Reply::call(script::subtract(true)).held_by(&gate),
                    Reply::text("Done."),
                ],
            ),
            Rule::reply(
                when::prompt("Mind the parentheses."),
                Reply::text("I mind them."),
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    task.say("Mind the parentheses.").await?;
    gate.open();
    task.expect_state(TaskState::Ready).await?;
    let heard = world.model().told("Mind the parentheses.") > 0;
    assert!(heard, "the model was told");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_twice_makes_one_task() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let request = CreateTaskRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        repository_url: repo,
        description: script::TASK.to_owned(),
        ..CreateTaskRequest::default()
    };
    let first = world
        .client()
        .tasks()
        .create_task(request.clone())
        .await?
        .into_inner();
    let second = world
        .client()
        .tasks()
        .create_task(request.clone())
        .await?
        .into_inner();
    assert!(!first.existed && second.existed);
    assert_eq!(
        first.task.context("a task")?.id,
        second.task.context("a task")?.id
    );
    let other = CreateTaskRequest {
        description: "Something else.".to_owned(),
        ..request
    };
    let refused = world.client().tasks().create_task(other).await;
    assert_eq!(
        refused.unwrap_err().code(),
        tonic::Code::AlreadyExists,
        "the same id with other content is refused"
    );
    world.end().await
}
