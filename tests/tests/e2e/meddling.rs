//! What people change on the code host while a task is at work: told, and never followed as if it were an approval.

use anyhow::Result;
use mainloop_proto::v1::{CreateTaskRequest, FailureReason, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Script},
    github::{Issue, Person},
    world::{PERSON, Task, World, script},
};

const REPO: &str = "ada/calc";

/// Pushes a commit, and then thinks until the gate opens.
fn thinking(gate: &Gate) -> Script {
    script::working(
        "thinking",
        vec![
            Reply::call(script::subtract(true)),
            Reply::text("never said").held_by(gate),
        ],
    )
}

/// What a person does to a task's pull request.
type Act = fn(&Person<'_>, &Task) -> Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_that_goes_away_in_mid_turn_cancels_the_task_and_ends_its_worker()
-> Result<()> {
    let close = |person: &Person<'_>, task: &Task| person.close(REPO, task.pull()?);
    let delete = |person: &Person<'_>, task: &Task| person.delete_branch(REPO, &task.now().branch);
    for act in [close as Act, delete as Act] {
        let gate = Gate::closed();
        let world = World::scripted(thinking(&gate)).await?;
        let task = world.approved(&script::calculator()).await?;
        task.expect_event("pull_request_opened").await?;
        act(&world.github().person(PERSON), &task)?;
        task.expect_state(TaskState::Cancelled).await?;
        world.expect_no_worker().await?;
        gate.open();
        world.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_change_of_a_pull_request_is_told_and_stays() -> Result<()> {
    const BODY: &str = "In my own words.";
    let world = World::scripted(script::held()).await?;
    let repo = world.repo("calc", &script::holding_calculator())?;
    let person = world.github().person(PERSON);
    person.push_file(REPO, "next", "NEXT.md", "next\n")?;
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_event("ci_running").await?;
    let number = task.pull()?;
    // A change shows against what was seen before it.
    world.expect_look(&task).await?;
    person.edit_pull(REPO, number, "My own title", BODY)?;
    task.expect_event("pull_request_edited").await?;
    person.retarget(REPO, number, "next")?;
    let told = task.expect_event("pull_request_retargeted").await?;
    assert!(told.text.contains("goes into next now, not main"));
    let released = mainloop_tests::github::Files::from([("hold".to_owned(), None)]);
    person.push(REPO, &task.now().branch, "Release", &released)?;
    task.expect_state(TaskState::Ready).await?;
    world.expect_look(&task).await?;
    person.convert_to_draft(REPO, number)?;
    task.expect_event("pull_request_draft").await?;
    assert_eq!(task.now().state(), TaskState::Ready);
    let body = world.github().read(|site| {
        let issue = &site.repo(REPO).unwrap().issues[&number];
        (issue.title.clone(), issue.body.clone())
    });
    assert_eq!(body, ("My own title".to_owned(), Some(BODY.to_owned())));
    world.end().await
}

/// What a person does to an issue, and the event that tells it.
type Meddling = (&'static str, fn(&Person<'_>, u64, &Issue) -> Result<()>);

const MEDDLING: &[Meddling] = &[
    ("issue_closed", |person, number, _| {
        person.close(REPO, number)
    }),
    ("issue_edited", |person, number, issue| {
        let body = issue.body.clone().unwrap_or_default();
        let body = format!("A word before.\n\n{}", body.replace("test it", "break it"));
        person.edit_issue(REPO, number, "My own title", &body)
    }),
    ("issue_gone", |person, number, _| {
        person.delete_issue(REPO, number)
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_to_the_planning_issue_is_told_and_approves_nothing() -> Result<()> {
    for (kind, act) in MEDDLING {
        let world = World::new().await?;
        let task = world.begin(&script::calculator()).await?;
        let item = task.expect_item(InboxItemKind::Plan).await?;
        let issue = world
            .github()
            .read(|site| site.repo(REPO).unwrap().issues[&1].clone());
        act(&world.github().person(PERSON), 1, &issue)?;
        task.expect_event(kind).await?;
        assert_eq!(task.now().state(), TaskState::PlanReview, "{kind}");
        item.approve().await?;
        task.expect_state(TaskState::Ready).await?;
        assert_eq!(
            task.events()
                .iter()
                .filter(|event| event.kind == *kind)
                .count(),
            1,
            "{kind} is told once"
        );
        let issues: Vec<Issue> = world.github().read(|site| {
            let issues = site.repo(REPO).unwrap().issues.values();
            issues
                .filter(|issue| issue.pull.is_none())
                .cloned()
                .collect()
        });
        match *kind {
            "issue_gone" => assert!(issues.is_empty(), "none is made again"),
            "issue_closed" => assert!(!issues[0].open, "it stays closed"),
            _ => {
                let body = issues[0].body.clone().unwrap_or_default();
                assert!(
                    body.starts_with("A word before.")
                        && body.contains("`test_subtract.py`: test it"),
                    "{body}"
                );
                assert_eq!(issues[0].title, "My own title");
            }
        }
        world.end().await?;
    }
    Ok(())
}

/// A task that begins with an issue, and has no words of its own.
async fn from_issue(world: &World, repository_url: String, number: u64) -> Result<Task> {
    world
        .create(CreateTaskRequest {
            repository_url,
            issue_number: i32::try_from(number)?,
            confirm: true,
            ..CreateTaskRequest::default()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issue_of_a_person_that_is_deleted_in_mid_run_is_told_and_the_plan_carried_out()
-> Result<()> {
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let person = world.github().person(PERSON);
    let number = person.open_issue(REPO, "Subtraction is missing", "Please.")?;
    let task = from_issue(&world, repo, number).await?;
    let item = task.expect_item(InboxItemKind::Plan).await?;
    person.delete_issue(REPO, number)?;
    task.expect_event("issue_gone").await?;
    item.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issue_that_is_gone_before_there_is_a_plan_is_missed_and_words_replace_it() -> Result<()>
{
    let world = World::new().await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = from_issue(&world, repo, 7).await?;
    let item = task.expect_stuck(FailureReason::PullGone).await?;
    item.answer(script::TASK).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}
