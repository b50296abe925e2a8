//! A cancel in each state leaves no process.

use anyhow::Result;
use mainloop_proto::v1::{InboxItemKind, Link, TaskState};
use mainloop_tests::{
    anthropic::{Conversation, Gate, Reply, Rule, Script, call, when},
    github::{Fault, FaultKind},
    world::{Settings, Task, World, script},
};
use tonic::Code;

/// Cancels, and checks that nothing is left of the worker.
async fn cancelled(world: &World, task: &Task) -> Result<()> {
    task.cancel().await?;
    task.expect_state(TaskState::Cancelled).await?;
    assert!(
        task.now().open_items.is_empty(),
        "nothing is asked any more"
    );
    world.expect_no_worker().await
}

fn held(reply: Reply) -> (Gate, Reply) {
    let gate = Gate::closed();
    (gate.clone(), reply.held_by(&gate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_any_worker_it_starts_none() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world
        .propose(&repo, "Teach the calculator to subtract.")
        .await?;
    cancelled(&world, &task).await?;
    assert_eq!(task.now().attempt, 0);
    let refused = world
        .client()
        .tasks()
        .confirm_task(mainloop_proto::v1::ConfirmTaskRequest {
            task_id: task.id.clone(),
        })
        .await;
    assert_eq!(
        refused.unwrap_err().code(),
        Code::FailedPrecondition,
        "what is cancelled does not start"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_planning_and_at_its_gates_it_ends_the_worker() -> Result<()> {
    let (gate, reply) = held(Reply::text("never said"));
    let script = Script::new()
        .with(Conversation::rules(
            "stuck",
            when::about("heliotrope"),
            vec![Rule::reply(when::always(), reply)],
        ))
        .with(Conversation::rules(
            "asks",
            when::about("saffron"),
            vec![Rule::reply(
                when::prompt(script::PLAN),
                Reply::call(call::ask_human("Which one?", &["This", "That"])),
            )],
        ))
        .with(Conversation::rules(
            "plans",
            when::always(),
            vec![script::planning(script::SUBTRACT_PLAN)],
        ));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;

    let planning = world.submit(&repo, "Subtract, in heliotrope.").await?;
    gate.reached().await?;
    planning.expect_state(TaskState::Planning).await?;
    cancelled(&world, &planning).await?;

    let question = world.submit(&repo, "Subtract, in saffron.").await?;
    question.expect_item(InboxItemKind::Question).await?;
    cancelled(&world, &question).await?;

    let review = world.submit(&repo, "Subtract.").await?;
    review.expect_item(InboxItemKind::Plan).await?;
    cancelled(&world, &review).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_work_and_after_it_it_ends_the_worker() -> Result<()> {
    let (implementing, implement) = held(Reply::text("never said"));
    let (fixing, fix) = held(Reply::text("never said"));
    let script = Script::new()
        .with(Conversation::rules(
            "stuck in the work",
            when::about("heliotrope"),
            vec![
                script::planning(script::SUBTRACT_PLAN),
                Rule::sequence(
                    when::prompt(script::IMPLEMENT),
                    vec![Reply::call(script::subtract(true)), implement],
                ),
            ],
        ))
        .with(Conversation::rules(
            "stuck in mending",
            when::about("saffron"),
            vec![
                script::planning(script::SUBTRACT_PLAN),
                script::implementing(vec![script::subtract(false)], "Done."),
                Rule::reply(when::prompt(script::FIX), fix),
            ],
        ))
        .with(Conversation::rules(
            "plans and works",
            when::always(),
            vec![
                script::planning(script::SUBTRACT_PLAN),
                script::implementing(vec![script::subtract(true)], "Done."),
            ],
        ));
    let world = World::scripted(script).await?;

    let repo = world.repo("one", &script::calculator())?;
    let task = world.submit(&repo, "Subtract, in heliotrope.").await?;
    task.approve().await?;
    implementing.reached().await?;
    task.expect_state(TaskState::Implementing).await?;
    cancelled(&world, &task).await?;

    let repo = world.repo("two", &script::calculator())?;
    let task = world.submit(&repo, "Subtract, in saffron.").await?;
    task.approve().await?;
    fixing.reached().await?;
    task.expect_state(TaskState::FixingCi).await?;
    cancelled(&world, &task).await?;

    let repo = world.repo("three", &script::calculator())?;
    world.github().set_ci("ada/three", |ci| ci.hold = true)?;
    let task = world.submit(&repo, "Subtract.").await?;
    task.approve().await?;
    task.expect_event("ci_running").await?;
    task.expect_state(TaskState::Ci).await?;
    cancelled(&world, &task).await?;

    let repo = world.repo("four", &script::calculator())?;
    let task = world.submit(&repo, "Subtract.").await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    cancelled(&world, &task).await?;
    world.end().await
}

/// Waits until what it left is closed.
async fn tidied(task: &Task) -> Result<()> {
    task.wait("what it left to be closed", |view| {
        view.events
            .iter()
            .find(|event| event.kind == "tidied")
            .map(|_| ())
    })
    .await
}

/// Whether the task's pull request, its issue and its branch are still there.
fn left(world: &World, task: &Task) -> [bool; 3] {
    let task = task.now();
    let number = |link: Option<Link>| u64::try_from(link.unwrap_or_default().number).unwrap();
    let (pull, issue) = (number(task.pull_request), number(task.issue));
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        [
            repo.issues.get(&pull).is_some_and(|pull| pull.open),
            repo.issues[&issue].open,
            repo.branch(&task.branch).is_some(),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_leaves_at_the_code_host_is_closed_as_policy_says() -> Result<()> {
    for (policy, pull_issue_branch) in [
        ("on_cancel = 'close'", [false, false, true]),
        ("on_cancel = 'delete'", [false, false, false]),
    ] {
        let settings = Settings::script(script::good_day()).policy(policy);
        let world = World::with(settings).await?;
        let repo = world.repo("calc", &script::calculator())?;
        let task = world
            .submit(&repo, "Teach the calculator to subtract.")
            .await?;
        task.approve().await?;
        task.expect_state(TaskState::Ready).await?;
        assert_eq!(left(&world, &task), [true, true, true]);
        // The code host is away for a while: it is tried again.
        world
            .github()
            .fault(Fault::new("PATCH", "/pulls/", FaultKind::Status(503)));
        cancelled(&world, &task).await?;
        tidied(&task).await?;
        assert_eq!(left(&world, &task), pull_issue_branch, "{policy}");

        let declined = world.submit(&repo, "Teach it once more.").await?;
        declined.reject().await?;
        declined.expect_state(TaskState::Declined).await?;
        tidied(&declined).await?;
        assert_eq!(left(&world, &declined), [false; 3], "{policy}");
        world.end().await?;
    }
    Ok(())
}
