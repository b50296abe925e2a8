//! The plane or the agent killed with `kill -9` in each step: the task comes to the same end, and nothing is there twice.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Rule, call, when},
    github::{Fault, FaultKind},
    world::{Settings, Task, World, script},
};

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Plane,
    Agent,
    Both,
}

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Planning,
    Question,
    PlanReview,
    Implementing,
    Ci,
    FixingCi,
    MarkingReady,
}

/// Kills, and starts the plane again where it was the victim.
async fn strike(world: &mut World, victim: Victim) -> Result<()> {
    if matches!(victim, Victim::Plane | Victim::Both) {
        world.kill_plane().await?;
    }
    if matches!(victim, Victim::Agent | Victim::Both) && world.kill_agents()? == 0 {
        bail!("there was no agent to kill");
    }
    if matches!(victim, Victim::Plane | Victim::Both) {
        world.start_plane().await?;
    }
    Ok(())
}

async fn survives(victim: Victim, moment: Moment) -> Result<()> {
    let gates: BTreeMap<&str, Gate> = ["plan", "implement", "fix", "mark"]
        .into_iter()
        .map(|name| (name, Gate::closed()))
        .collect();
    let look = Reply::call(call::bash("cat calc.py")).held_by(&gates["plan"]);
    let mut plan = vec![look.clone()];
    if moment == Moment::Question {
        plan.push(Reply::call(call::ask_human(
            "Which one?",
            &["This", "That"],
        )));
    }
    plan.extend(script::present(script::SUBTRACT_PLAN));
    let mut answered = vec![look];
    answered.extend(script::present(script::SUBTRACT_PLAN));
    let script = script::rules(
        "killed on the way",
        vec![
            // What was answered is in the prompt, and is not asked again.
            Rule::sequence(
                when::prompt(script::PLAN).and(when::prompt("Their answer:")),
                answered,
            ),
            Rule::sequence(when::prompt(script::PLAN), plan),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(script::subtract(false)),
                    Reply::call(call::bash("cat calc.py")).held_by(&gates["implement"]),
                    Reply::text("Subtract is there."),
                ],
            ),
            Rule::sequence(
                when::prompt(script::FIX),
                vec![
                    Reply::call(script::subtract(true)).held_by(&gates["fix"]),
                    Reply::text("Mended."),
                ],
            ),
        ],
    );
    let mut settings = Settings::script(script);
    if victim == Victim::Plane {
        // However long the plane takes to come back, its worker is not given up.
        settings = settings.policy("lost_after_seconds = 300");
    }
    let mut world = World::with(settings).await?;
    let repo = world.repo("calc", &script::calculator())?;
    if moment == Moment::Ci {
        world.github().set_ci("ada/calc", |ci| ci.hold = true)?;
    }
    if moment == Moment::MarkingReady {
        let answer = FaultKind::HeldAfter(gates["mark"].clone());
        world.github().fault(Fault::new("POST", "graphql", answer));
    }
    let task = world.submit(&repo, script::TASK).await?;
    walk(&mut world, &task, &gates, victim, moment).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.green_sha, ready.head_sha);
    match victim {
        Victim::Plane => assert_eq!(
            (ready.attempt, ready.failures),
            (1, 0),
            "the worker went on"
        ),
        Victim::Agent | Victim::Both => assert!(ready.attempt > 1, "another worker went on"),
    }
    world.expect_no_worker().await?;
    nothing_twice(&world, &task, moment);
    task.check_watch()?;
    world.end().await
}

/// Opens the gates one after another, and strikes when the moment has come.
async fn walk(
    world: &mut World,
    task: &Task,
    gates: &BTreeMap<&str, Gate>,
    victim: Victim,
    moment: Moment,
) -> Result<()> {
    gates["plan"].reached().await?;
    if moment == Moment::Planning {
        strike(world, victim).await?;
    }
    gates["plan"].open();
    if moment == Moment::Question {
        task.expect_item(InboxItemKind::Question).await?;
        strike(world, victim).await?;
        task.answer("This").await?;
    }
    task.expect_item(InboxItemKind::Plan).await?;
    if moment == Moment::PlanReview {
        strike(world, victim).await?;
    }
    task.approve().await?;
    gates["implement"].reached().await?;
    if moment == Moment::Implementing {
        strike(world, victim).await?;
    }
    gates["implement"].open();
    if moment == Moment::Ci {
        task.expect_event("ci_running").await?;
        strike(world, victim).await?;
        world.github().set_ci("ada/calc", |ci| ci.hold = false)?;
    }
    gates["fix"].reached().await?;
    if moment == Moment::FixingCi {
        strike(world, victim).await?;
    }
    gates["fix"].open();
    if moment == Moment::MarkingReady {
        // It is ready at the code host, and nobody has been told so.
        gates["mark"].reached().await?;
        strike(world, victim).await?;
        gates["mark"].open();
    }
    Ok(())
}

/// One issue, one pull request, each marked text once, each question once.
fn nothing_twice(world: &World, task: &Task, moment: Moment) {
    let asked = task
        .events()
        .iter()
        .filter(|event| event.kind == "question_asked" && !event.ignored)
        .count();
    assert_eq!(
        asked,
        usize::from(moment == Moment::Question),
        "questions\n{}",
        task.report()
    );
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let issues = repo
            .issues
            .values()
            .filter(|issue| issue.pull.is_none())
            .count();
        assert_eq!(
            (issues, repo.pulls().count()),
            (1, 1),
            "issues and pull requests\n{}",
            task.report()
        );
        let mut marks = BTreeMap::new();
        for issue in repo.issues.values() {
            let bodies = issue.comments.iter().map(|comment| comment.body.as_str());
            for body in bodies.chain(issue.body.as_deref()) {
                for line in body
                    .lines()
                    .filter(|line| line.contains("<!-- mainloop:task="))
                {
                    *marks.entry(line.trim().to_owned()).or_insert(0) += 1;
                }
            }
        }
        assert!(!marks.is_empty(), "our texts carry marks");
        assert!(marks.values().all(|count| *count == 1), "{marks:?}");
        let messages = repo.messages(&task.now().branch);
        let ours: Vec<&String> = messages
            .iter()
            .filter(|message| message.contains("ubtract"))
            .collect();
        assert_eq!(ours.len(), 2, "each commit once: {messages:?}");
    });
}

macro_rules! stories {
    ($($name:ident: $victim:ident $moment:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                survives(Victim::$victim, Moment::$moment).await
            }
        )+
    };
}

stories! {
    a_plane_killed_in_planning_comes_to_the_same_end: Plane Planning,
    a_plane_killed_at_a_question_comes_to_the_same_end: Plane Question,
    a_plane_killed_in_plan_review_comes_to_the_same_end: Plane PlanReview,
    a_plane_killed_in_implementing_comes_to_the_same_end: Plane Implementing,
    a_plane_killed_in_ci_comes_to_the_same_end: Plane Ci,
    a_plane_killed_in_mending_comes_to_the_same_end: Plane FixingCi,
    a_plane_killed_in_marking_ready_comes_to_the_same_end: Plane MarkingReady,
    an_agent_killed_in_planning_comes_to_the_same_end: Agent Planning,
    an_agent_killed_at_a_question_comes_to_the_same_end: Agent Question,
    an_agent_killed_in_plan_review_comes_to_the_same_end: Agent PlanReview,
    an_agent_killed_in_implementing_comes_to_the_same_end: Agent Implementing,
    an_agent_killed_in_ci_comes_to_the_same_end: Agent Ci,
    an_agent_killed_in_mending_comes_to_the_same_end: Agent FixingCi,
    an_agent_killed_in_marking_ready_comes_to_the_same_end: Agent MarkingReady,
    both_killed_in_implementing_come_to_the_same_end: Both Implementing,
}
