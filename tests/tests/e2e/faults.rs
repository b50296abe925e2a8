//! The code host and the model fail in passing, or refuse.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Reply, Rule, Trouble, call, when},
    github::{Fault, FaultKind},
    world::{PERSON, World, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_lost_on_the_way_leave_nothing_twice() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    // Each write has its effect, and whoever asked for it never hears so.
    for path in ["/issues", "/pulls", "/graphql", "/comments"] {
        world
            .github()
            .fault(Fault::new("POST", path, FaultKind::CutAfter));
    }
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert_eq!(
            repo.issues
                .values()
                .filter(|issue| issue.pull.is_none())
                .count(),
            1
        );
        assert_eq!(repo.pulls().filter(|(_, pull)| !pull.draft).count(), 1);
        for issue in repo.issues.values() {
            let mut bodies: Vec<&str> = issue
                .comments
                .iter()
                .map(|comment| comment.body.as_str())
                .collect();
            bodies.sort_unstable();
            let all = bodies.len();
            bodies.dedup();
            assert_eq!(bodies.len(), all, "each comment once: {:?}", issue.comments);
        }
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_host_in_trouble_is_waited_out() -> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    world
        .github()
        .fault(Fault::new("GET", "/api/v3/", FaultKind::Status(502)).times(2));
    world.github().fault(Fault::new(
        "POST",
        "/issues",
        FaultKind::SecondaryRateLimit(1),
    ));
    world
        .github()
        .fault(Fault::new("POST", "/pulls", FaultKind::Status(503)));
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_model_credential_asks_once_and_holds_the_other_tasks_until_it_is_mended()
-> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit(&repo, script::TASK).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    world.model().outage(Some(Trouble::unauthorized()));
    task.approve().await?;
    task.expect_stuck(FailureReason::ModelCredential).await?;
    world.expect_no_worker().await?;
    // Another task does not run into it as well.
    let other = world.submit(&repo, script::TASK).await?;
    other
        .wait("the reason why it is held", |view| {
            let wait = view.task.wait.clone().unwrap_or_default();
            (view.task.state() == TaskState::Queued && wait.reason.contains("credential"))
                .then_some(())
        })
        .await?;
    world.model().outage(None);
    task.retry("The key is mended.").await?;
    other.expect_item(InboxItemKind::Plan).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(
        ready.plan.unwrap_or_default().revision,
        1,
        "the approved plan is used again"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_model_is_asked_again() -> Result<()> {
    let script = script::rules(
        "overloaded",
        vec![
            Rule::sequence(
                when::prompt(script::PLAN),
                vec![
                    Reply::call(call::write_plan(script::SUBTRACT_PLAN))
                        .after(Trouble::rate_limited(1))
                        .after(Trouble::overloaded())
                        .after(Trouble::Cut { after: 3 }),
                    Reply::call(call::exit_plan_mode()),
                ],
            ),
            script::implementing(vec![script::subtract(true)], "Done."),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_that_a_person_closes_cancels_the_task() -> Result<()> {
    let world = World::new().await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Ready).await?;
    let number = task.pull()?;
    world.github().person(PERSON).close("ada/calc", number)?;
    task.expect_state(TaskState::Cancelled).await?;
    world.end().await
}
