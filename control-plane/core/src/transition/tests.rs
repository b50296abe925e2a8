#![allow(clippy::unwrap_used)]

mod after_ready;
mod reasons;
mod states;

use jiff::SignedDuration;

use super::{wants::is_watched, *};
use crate::{
    Choice, CiHold, Completion, Failure, NoCi, Phase, PhaseKind as P, REASONS, ReadyBeforeCi,
    Reason, Response, Run, State, Unanswered, bounded,
};

const SHAS: [&str; 2] = ["aaa", "bbb"];
const PULL: u32 = 7;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
}

/// Runs events through a task; panics at the first that is refused.
fn run(events: &[Event]) -> Task {
    let mut task = Task::proposed();
    for event in events {
        task = next(&task, event, at(0), &Limits::default())
            .unwrap_or_else(|rejected| panic!("{rejected} in {task:?}"))
            .task;
    }
    task
}

fn planned() -> Vec<Event> {
    vec![
        Event::Confirmed,
        Event::Claimed,
        Event::AttemptConnected,
        Event::PlanStored {
            revision: 1,
            hash: "h1".into(),
        },
    ]
}

fn in_ci() -> Vec<Event> {
    let mut events = planned();
    events.extend([
        Event::PlanApproved { hash: "h1".into() },
        Event::BranchPushed { sha: "aaa".into() },
        Event::PullOpened { number: PULL },
        Event::WorkFinished { changed: true },
    ]);
    events
}

fn broke(reason: Reason) -> Failure {
    Failure {
        reason,
        message: "it broke".into(),
    }
}

fn question(id: &str) -> Event {
    Event::QuestionAsked {
        id: id.into(),
        recommends: true,
    }
}

fn reviewed(threads: u32) -> Event {
    Event::ReviewReceived {
        pull: PULL,
        threads,
    }
}

fn conflicted(sha: &str) -> Event {
    Event::Conflicted {
        pull: PULL,
        sha: sha.into(),
    }
}

fn failed(sha: &str, signature: &str) -> Event {
    Event::CiFailed {
        sha: sha.into(),
        signature: signature.into(),
    }
}

#[test]
fn a_good_day_ends_merged() {
    let mut events = in_ci();
    events.extend([
        Event::CiRunning { sha: "aaa".into() },
        failed("aaa", "s1"),
        Event::BranchPushed { sha: "bbb".into() },
        Event::WorkFinished { changed: true },
        Event::CiPassed { sha: "bbb".into() },
    ]);
    assert_eq!(step(&run(&events)), Some(Step::MarkReady));
    events.push(Event::MarkedReady { sha: "bbb".into() });
    let ready = run(&events);
    assert_eq!((ready.phase.kind(), ready.run), (P::Ready, Run::Idle));
    events.push(Event::PullMerged { pull: PULL });
    assert_eq!(run(&events).phase, Phase::Completed(Completion::Merged));
}

#[test]
fn approval_of_an_older_plan_is_refused() {
    let mut events = planned();
    events.extend([
        Event::PlanRevised,
        Event::PlanStored {
            revision: 2,
            hash: "h2".into(),
        },
    ]);
    let task = run(&events);
    let old = Event::PlanApproved { hash: "h1".into() };
    assert!(matches!(
        next(&task, &old, at(0), &Limits::default()),
        Err(Rejected::Guard { .. })
    ));
}

#[test]
fn only_the_green_head_becomes_ready() {
    let mut events = in_ci();
    events.push(Event::CiPassed { sha: "aaa".into() });
    let task = run(&events);
    let other = Event::MarkedReady { sha: "bbb".into() };
    assert!(next(&task, &other, at(0), &Limits::default()).is_err());
}

#[test]
fn the_same_failure_twice_asks_a_person() {
    let mut events = in_ci();
    events.extend([
        failed("aaa", "s1"),
        Event::BranchPushed { sha: "bbb".into() },
        Event::WorkFinished { changed: true },
        failed("bbb", "s1"),
    ]);
    let task = run(&events);
    assert_eq!(task.wait, Wait::Human(Gate::Stuck(Reason::SameFailure)));
    assert_eq!(step(&task), None);
    events.push(Event::Answered);
    let task = run(&events);
    assert_eq!((task.phase.kind(), task.ci_attempts), (P::FixingCi, 1));
}

#[test]
fn mending_ci_is_bounded() {
    let mut events = in_ci();
    for round in 0..Limits::default().max_ci_attempts {
        events.extend([
            failed("aaa", &format!("s{round}")),
            Event::WorkFinished { changed: true },
        ]);
    }
    events.push(failed("aaa", "another"));
    assert_eq!(run(&events).wait, Wait::Human(Gate::Stuck(Reason::CiLimit)));
}

#[test]
fn a_worker_lost_too_often_asks_a_person_and_a_retry_begins_where_it_was() {
    let mut events = planned();
    events.push(Event::PlanApproved { hash: "h1".into() });
    for _ in 1..Limits::default().max_attempts {
        events.extend([
            Event::AttemptLost {
                why: "killed".into(),
            },
            Event::WaitElapsed,
            Event::Claimed,
            Event::AttemptConnected,
        ]);
    }
    events.push(Event::AttemptLost {
        why: "killed".into(),
    });
    let task = run(&events);
    assert_eq!(task.wait, Wait::Human(Gate::Stuck(Reason::WorkerLost)));
    events.push(Event::RetryRequested);
    let task = run(&events);
    assert_eq!(
        (task.phase.kind(), task.run, task.failures),
        (P::Implementing, Run::Queued, 0)
    );
}

#[test]
fn a_worker_that_dies_while_a_person_thinks_costs_nothing() {
    let mut events = planned();
    events.push(Event::AttemptLost {
        why: "killed".into(),
    });
    let task = run(&events);
    assert_eq!(
        (task.run, &task.wait, task.failures),
        (Run::Idle, &Wait::Human(Gate::Plan), 0)
    );
    events.push(Event::PlanApproved { hash: "h1".into() });
    assert_eq!(run(&events).run, Run::Queued);
}

#[test]
fn a_push_of_somebody_else_is_checked_before_it_becomes_ready() {
    let mut events = in_ci();
    events.push(Event::CiPassed { sha: "aaa".into() });
    let marking = run(&events);
    events.push(Event::BranchPushed { sha: "bbb".into() });
    let task = run(&events);
    assert_eq!(step(&task), Some(Step::AwaitCi));
    assert_eq!((task.head.as_deref(), task.green), (Some("bbb"), None));
    assert!(task.phase_version > marking.phase_version);
    // While checks are awaited the step stays the same, and is another one.
    let awaiting = run(&in_ci());
    let pushed = Event::BranchPushed { sha: "bbb".into() };
    let moved = next(&awaiting, &pushed, at(0), &Limits::default()).unwrap();
    assert!(moved.wants.contains(&Want::Assign));
    assert_eq!(moved.task.wait, Wait::Ci);
}

fn held(hold: CiHold) -> Event {
    Event::CiHeld {
        sha: "aaa".into(),
        hold,
    }
}

#[test]
fn a_worker_looks_on_while_its_checks_wait_for_an_approval_and_takes_the_item_back() {
    let mut events = in_ci();
    events.push(held(CiHold::Approval));
    let waiting = run(&events);
    assert_eq!(
        waiting.wait,
        Wait::Human(Gate::Stuck(Reason::CiApproval)),
        "a person is asked"
    );
    assert_eq!(
        (waiting.run, step(&waiting)),
        (Run::Live, Some(Step::AwaitCi)),
        "and the worker looks on"
    );
    for (event, wait) in [
        (Event::CiRunning { sha: "aaa".into() }, Wait::Ci),
        (Event::CiPassed { sha: "aaa".into() }, Wait::None),
        (failed("aaa", "s1"), Wait::None),
    ] {
        let after = next(&waiting, &event, at(0), &Limits::default()).unwrap();
        assert!(after.wants.contains(&Want::WithdrawItem), "{event:?}");
        assert_eq!(after.task.wait, wait, "{event:?}");
    }
    for event in [Event::AttemptLost { why: "lost".into() }, Event::Suspended] {
        let after = next(&waiting, &event, at(0), &Limits::default()).unwrap();
        assert!(
            matches!(after.task.wait, Wait::Until { .. }),
            "without a worker nobody looks, so another comes: {event:?}"
        );
    }
    let accepted = next(
        &waiting,
        &Event::UncheckedAccepted,
        at(0),
        &Limits::default(),
    );
    assert_eq!(step(&accepted.unwrap().task), Some(Step::MarkReady));
}

#[test]
fn checks_that_skip_drafts_are_awaited_on_one_that_is_ready_once_somebody_says_so() {
    let mut events = in_ci();
    events.push(held(CiHold::Draft));
    let asked = run(&events);
    assert_eq!(asked.wait, Wait::Human(Gate::Stuck(Reason::CiDraft)));
    assert!(!asked.ready_first);
    events.push(Event::ReadyAllowed);
    let allowed = run(&events);
    assert_eq!((allowed.ready_first, &allowed.wait), (true, &Wait::Ci));
    assert!(
        allowed.phase_version > asked.phase_version,
        "the worker is told"
    );
    let policy = Limits {
        ready_before_ci: ReadyBeforeCi::Always,
        ..Limits::default()
    };
    let awaiting = run(&in_ci());
    let by_policy = next(&awaiting, &held(CiHold::Draft), at(0), &policy).unwrap();
    assert!(by_policy.task.ready_first && by_policy.wants.contains(&Want::Assign));
    let again = next(&by_policy.task, &held(CiHold::Draft), at(0), &policy).unwrap();
    assert_eq!(
        again.task.wait,
        Wait::Human(Gate::Stuck(Reason::CiDraft)),
        "who made it a draft again is asked"
    );
}

#[test]
fn checks_that_never_start_are_told_from_those_that_never_end() {
    for (event, reason) in [
        (Event::CiNotStarted, Reason::CiNotStarted),
        (Event::DeadlinePassed, Reason::CiDeadline),
    ] {
        // Unless it was the task's own limit that cut the wait short.
        let over = next(&run(&in_ci()), &event, at(24 * 3600), &Limits::default());
        assert_eq!(
            over.unwrap().task.wait,
            Wait::Human(Gate::Stuck(Reason::TaskDeadline))
        );
        let mut events = in_ci();
        events.push(event);
        assert_eq!(run(&events).wait, Wait::Human(Gate::Stuck(reason)));
        events.push(Event::Answered);
        assert_eq!(
            run(&events).phase,
            Phase::FixingCi,
            "words reach the worker that can follow them"
        );
    }
}

#[test]
fn a_worker_that_goes_on_without_an_answer_takes_its_question_back() {
    let plan = Event::PlanStored {
        revision: 1,
        hash: "h1".into(),
    };
    let asked = run(&[
        Event::Confirmed,
        Event::Claimed,
        Event::AttemptConnected,
        question("q1"),
    ]);
    let again = question("q2");
    for event in [plan, Event::NothingToChange, again] {
        let after = next(&asked, &event, at(0), &Limits::default()).unwrap();
        assert!(after.wants.contains(&Want::WithdrawItem), "{event:?}");
    }
}

#[test]
fn who_is_asked_is_reminded_once_and_policy_may_answer_for_them() {
    let asked = run(&[
        Event::Confirmed,
        Event::Claimed,
        Event::AttemptConnected,
        question("q1"),
    ]);
    let waits = Limits {
        remind: SignedDuration::from_secs(60),
        assume: SignedDuration::from_secs(30),
        ..Limits::default()
    };
    let assumes = Limits {
        unanswered: Unanswered::Assume,
        ..waits.clone()
    };
    let timer = |transition: &Transition| {
        transition.wants.iter().find_map(|want| match want {
            Want::SetTimer(timer) => Some(*timer),
            _ => None,
        })
    };
    for (limits, then) in [(&waits, None), (&assumes, Some(Timer::Assume(at(90))))] {
        let reminded = next(&asked, &Event::Reminded, at(60), limits).unwrap();
        assert_eq!(timer(&reminded), Some(then));
        assert!(next(&reminded.task, &Event::Reminded, at(61), limits).is_err());
        let answer = next(&reminded.task, &Event::AnswerAssumed, at(90), limits);
        assert_eq!(answer.is_ok(), then.is_some(), "{answer:?}");
    }
    // After a sleep the reminder comes late, and the answer as long after it.
    let late = next(&asked, &Event::Reminded, at(5000), &assumes).unwrap();
    assert_eq!(timer(&late), Some(Some(Timer::Assume(at(5030)))));
    assert_eq!(late.task.assumes_at(&assumes), Some(at(5030)));
    assert_eq!(asked.assumes_at(&assumes), Some(at(90)));
    // The answer goes to the worker that asked, in the middle of its step.
    let taken = next(&asked, &Event::AnswerAssumed, at(90), &assumes).unwrap();
    assert_eq!(taken.task.wait, Wait::None);
    assert_eq!(taken.task.phase_version, asked.phase_version);
    assert!(taken.wants.contains(&Want::WithdrawItem));

    let open_ended = Event::QuestionAsked {
        id: "q2".into(),
        recommends: false,
    };
    let without = next(&asked, &open_ended, at(0), &assumes).unwrap();
    assert_eq!(timer(&without), Some(Some(Timer::Remind(at(60)))));
    assert!(next(&without.task, &Event::AnswerAssumed, at(90), &assumes).is_err());

    let never = Limits {
        remind: SignedDuration::ZERO,
        ..waits
    };
    let silent = next(&asked, &question("q3"), at(5), &never).unwrap();
    assert_eq!(timer(&silent), Some(None));
}

#[test]
fn workers_time_is_counted_without_the_time_that_a_person_takes() {
    let limits = Limits {
        task: SignedDuration::from_secs(100),
        ..Limits::default()
    };
    let mut task = Task::proposed();
    let mut last = None;
    for (second, event) in [
        (0, Event::Confirmed),
        (10, Event::Claimed),
        (20, Event::AttemptConnected),
        (50, question("q1")),
        (5000, Event::Answered),
        (5030, Event::Suspended),
        (9000, Event::WaitElapsed),
        (9000, Event::Claimed),
    ] {
        let transition = next(&task, &event, at(second), &limits).unwrap();
        task = transition.task;
        last = transition.wants.iter().find_map(|want| match want {
            Want::SetTimer(timer) => *timer,
            _ => None,
        });
    }
    // The answer is a human word: the count began anew at 5000.
    assert_eq!(task.worked, SignedDuration::from_secs(30));
    assert_eq!(last, Some(Timer::Deadline(at(9070))));
    let over = next(&task, &Event::DeadlinePassed, at(9070), &limits).unwrap();
    assert_eq!(
        over.task.wait,
        Wait::Human(Gate::Stuck(Reason::TaskDeadline))
    );
    let again = next(&over.task, &Event::RetryRequested, at(9999), &limits).unwrap();
    assert_eq!(
        (again.task.run, again.task.worked),
        (Run::Queued, SignedDuration::ZERO)
    );
}

#[test]
fn a_stop_of_the_plane_is_nobodys_failure() {
    let starting = [Event::Confirmed, Event::Claimed];
    let live = [Event::Confirmed, Event::Claimed, Event::AttemptConnected];
    for events in [&starting[..], &live[..]] {
        let task = next(&run(events), &Event::Suspended, at(7), &Limits::default()).unwrap();
        assert_eq!((task.task.run, task.task.failures), (Run::Idle, 0));
        assert!(
            task.wants
                .contains(&Want::SetTimer(Some(Timer::Wait(at(7)))))
        );
    }
    let mut events = planned();
    events.push(Event::Suspended);
    assert_eq!(run(&events).wait, Wait::Human(Gate::Plan));
}

#[test]
fn a_pull_request_is_watched_until_the_task_is_over() {
    let mut events = planned();
    events.push(Event::PlanApproved { hash: "h1".into() });
    assert!(!is_watched(&run(&events)), "there is none");
    for event in [
        Event::PullOpened { number: PULL },
        Event::BranchPushed { sha: "aaa".into() },
        Event::WorkFinished { changed: true },
        Event::CiAbsent { sha: "aaa".into() },
        Event::GivenUp,
        Event::RetryRequested,
        Event::Claimed,
        Event::AttemptConnected,
    ] {
        events.push(event.clone());
        assert!(is_watched(&run(&events)), "after {event:?}");
        let closed = run(&[events.clone(), vec![Event::PullClosed { pull: PULL }]].concat());
        assert_eq!((closed.phase.kind(), closed.run), (P::Cancelled, Run::Idle));
        assert!(!is_watched(&closed));
    }
    let merged = run(&[events, vec![Event::PullMerged { pull: PULL }]].concat());
    assert_eq!(merged.phase, Phase::Completed(Completion::Merged));
}

#[test]
fn backoff_doubles_up_to_its_bound() {
    let limits = Limits::default();
    let wait = |failures| limits.retry_at(failures, at(0)).as_second() - at(0).as_second();
    assert_eq!([wait(1), wait(2), wait(3), wait(30)], [5, 10, 20, 600]);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how a developer asks for the document to be written"
)]
fn the_documented_diagram_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/workflow.md");
    let text = format!(
        "# The workflow of a task\n\nRendered from `control-plane/core/src/transition/table.rs`; a test \
         fails when it is stale\n(`UPDATE_DOCS=1 cargo test -p mainloop-core` writes it anew). Events that stay in their phase \
         are left out.\n\n```mermaid\n{}```\n",
        diagram()
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        text,
        "run it with UPDATE_DOCS=1"
    );
}
