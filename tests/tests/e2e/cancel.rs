//! A cancel in each state leaves no process.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxItemKind, Link, TaskState};
use mainloop_tests::{
    anthropic::{Conversation, Gate, Reply, Rule, Script, Trouble, call, when},
    github::{Fault, FaultKind, Site},
    world::{PERSON, Settings, Task, World, script, wait},
};
use nix::sys::signal::Signal;
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
    let task = world.propose(&repo, script::TASK).await?;
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

/// Cancels, and checks that nothing is left of it in `ada/<repo>` either, as this world's policy says.
async fn gone(world: &World, task: &Task, repo: &str) -> Result<()> {
    task.cancel().await?;
    task.wait("it to be cancelled", |view| {
        (view.task.state() == TaskState::Cancelled).then_some(())
    })
    .await?;
    assert!(task.now().open_items.is_empty());
    world.expect_no_worker().await?;
    let repo = format!("ada/{repo}");
    let closed = |site: &Site| {
        let repo = site.repo(&repo)?;
        let open = repo.issues.values().any(|issue| issue.open);
        let branches = repo.refs.keys();
        let branches = branches.filter(|name| name.starts_with("refs/heads/"));
        (!open && branches.eq(["refs/heads/main"])).then_some(())
    };
    let what = "everything of it to be closed";
    world.github().wait_for(what, closed).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_stuck_or_waits_or_has_failed_it_ends_all_of_it() -> Result<()> {
    let (reviewing, review) = held(Reply::text("never said"));
    let mends_nothing = Rule::reply(when::prompt(script::FIX), Reply::text("No."));
    let changes_ci = script::commit(&[(".github/workflows/x.yml", "on: push\n")], "Change CI");
    let planning = || script::planning(script::SUBTRACT_PLAN);
    let script = Script::new()
        .with(Conversation::rules(
            "stuck in mending",
            when::about("saffron"),
            vec![
                planning(),
                script::implementing(vec![script::subtract(false)], "Done."),
                mends_nothing,
            ],
        ))
        .with(Conversation::rules(
            "held by its push",
            when::about("heliotrope"),
            vec![planning(), script::implementing(vec![changes_ci], "Done.")],
        ))
        .with(Conversation::rules(
            "reviewed",
            when::always(),
            vec![
                planning(),
                script::implementing(vec![script::subtract(true)], "Done."),
                Rule::reply(when::prompt(script::REVIEW), review),
            ],
        ));
    let settings = Settings::script(script)
        .policy("on_cancel = 'delete'\nslots = { total = 1, per_repository = 1 }");
    let world = World::with(settings).await?;

    for name in ["blocked", "failed"] {
        let repo = world.repo(name, &script::calculator())?;
        let task = world.submit(&repo, "Subtract, in saffron.").await?;
        task.approve().await?;
        let item = task.expect_stuck(FailureReason::NoFix).await?;
        if name == "failed" {
            item.reject("not like this").await?;
            task.expect_event("given_up").await?;
            assert_eq!(task.now().state(), TaskState::Failed);
        }
        gone(&world, &task, name).await?;
    }

    let repo = world.repo("held", &script::calculator())?;
    let task = world.submit(&repo, "Subtract, in heliotrope.").await?;
    task.approve().await?;
    task.expect_stuck(FailureReason::WorkflowChange).await?;
    gone(&world, &task, "held").await?;

    let repo = world.repo("reviewed", &script::calculator())?;
    let task = world.submit(&repo, "Subtract.").await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    let ada = world.github().person(PERSON);
    let asks = "CHANGES_REQUESTED";
    ada.review("ada/reviewed", task.pull()?, asks, "Document it.")?;
    reviewing.reached().await?;
    task.expect_state(TaskState::AddressingReview).await?;
    // The only slot is taken.
    let repo = world.repo("queued", &script::calculator())?;
    let queued = world.submit(&repo, "Subtract.").await?;
    queued.expect_state(TaskState::Queued).await?;
    queued.cancel().await?;
    queued.expect_state(TaskState::Cancelled).await?;
    gone(&world, &task, "reviewed").await?;
    assert_eq!(queued.now().attempt, 0, "it never had a worker");

    let limit = Trouble::rate_limited(600).not_to_retry();
    world.model().outage(Some(limit));
    let repo = world.repo("waiting", &script::calculator())?;
    let task = world.submit(&repo, "Subtract.").await?;
    task.expect_state(TaskState::Waiting).await?;
    gone(&world, &task, "waiting").await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deaf_to_signals_is_killed() -> Result<()> {
    let deaf = "trap '' TERM INT HUP QUIT; while :; do sleep 86396; done";
    for is_agent_stopped in [false, true] {
        let replies = vec![Reply::call(call::bash(deaf))];
        let world = World::scripted(script::working("deaf", replies)).await?;
        let task = world.approved(&script::calculator()).await?;
        wait::until("the command to run", wait::PATIENCE, async || {
            let all = world.worker_processes();
            let runs = all
                .iter()
                .any(|found| found.command.starts_with("sleep 86396"));
            runs.then_some(()).ok_or("it does not")
        })
        .await?;
        if is_agent_stopped {
            assert_eq!(world.signal_agents(Signal::SIGSTOP)?, 1);
        }
        cancelled(&world, &task).await?;
        world.end().await?;
    }
    Ok(())
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
        let task = world.submit(&repo, script::TASK).await?;
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
