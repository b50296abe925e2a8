#![allow(clippy::unwrap_used)]

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
fn a_wait_that_the_other_side_names_is_bounded() {
    let limits = Limits::default();
    for (named, wanted) in [
        (None, 5),
        (Some(-10), 5),
        (Some(0), 5),
        (Some(60), 60),
        (Some(i64::from(u32::MAX)), 8 * 24 * 3600),
    ] {
        assert_eq!(limits.wait_until(named.map(at), 1, at(0)), at(wanted));
    }
    assert_eq!(limits.wait_until(Some(at(1)), 4, at(0)), at(40));
    assert_eq!(bounded(at(60), at(0)), at(60));
    assert_eq!(bounded(Timestamp::MAX, at(0)), at(8 * 24 * 3600));
}

#[test]
fn each_reason_ends_in_a_timer_or_an_item_with_a_way_on() {
    assert_eq!(REASONS.len(), Reason::ALL.len());
    let working = [
        run(&[Event::Confirmed, Event::Claimed, Event::AttemptConnected]),
        run(&in_ci()),
    ];
    for (task, reason) in working
        .iter()
        .flat_map(|task| Reason::ALL.iter().map(move |reason| (task, *reason)))
    {
        let mut task = task.clone();
        let stopped = Event::StepFailed {
            failure: broke(reason),
            retry_at: None,
        };
        let mut rounds = 0;
        // Whatever waits by itself does so a bounded number of times.
        while !matches!(task.wait, Wait::Human(_)) {
            for event in [
                &stopped,
                &Event::WaitElapsed,
                &Event::Claimed,
                &Event::AttemptConnected,
            ] {
                if let Ok(after) = next(&task, event, at(0), &Limits::default()) {
                    task = after.task;
                }
            }
            rounds += 1;
            assert!(rounds < 100, "{reason:?} spins");
        }
        let Wait::Human(gate) = &task.wait else {
            unreachable!()
        };
        let reason = if reason.is_the_planes() {
            Reason::Internal
        } else {
            reason
        };
        assert_eq!(gate, &Gate::Stuck(reason));
        assert_eq!(gate.choices().last(), Some(&Choice::Reject), "{reason:?}");
        let given_up = next(&task, &Event::GivenUp, at(0), &Limits::default()).unwrap();
        assert!(matches!(given_up.task.phase, Phase::Failed { .. }));
        let taken_over = next(&task, &Event::TakenOver, at(0), &Limits::default()).unwrap();
        assert_eq!(
            taken_over.task.phase,
            Phase::Completed(Completion::TakenOver)
        );
        let afresh = next(&task, &Event::StartedAfresh, at(0), &Limits::default()).unwrap();
        assert_eq!(
            (afresh.task.run, afresh.task.generation, afresh.task.pull),
            (Run::Queued, 2, None)
        );
    }
}

#[test]
fn words_of_reasons_are_their_own() {
    let words: std::collections::BTreeSet<_> =
        Reason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(Reason::of_word(reason.word()), Some(*reason));
        let row = reason.row();
        for text in [row.meaning, row.remedy].into_iter().chain(row.meanwhile) {
            assert!(text.ends_with('.') && text.len() < 240, "{text}");
        }
        let waits = row.response == Response::Wait;
        assert_eq!(row.meanwhile.is_some(), waits, "{reason:?}");
        // Whoever is asked is waited for.
        assert!(!row.remedy.contains("by itself") || !waits, "{reason:?}");
        assert!(
            row.title.len() < 48 && !row.title.ends_with('.'),
            "{}",
            row.title
        );
    }
}

#[test]
fn more_turns_are_counted_on_and_end_as_well() {
    let mut events = in_ci();
    let round = |number: u32| {
        [
            failed("aaa", &format!("s{number}")),
            Event::WorkFinished { changed: true },
        ]
    };
    for number in 0..3 {
        events.extend(round(number));
    }
    events.push(failed("aaa", "s3"));
    events.push(Event::MoreAttempts { count: 2 });
    let task = run(&events);
    assert_eq!((task.phase.kind(), task.ci_attempts), (P::FixingCi, 4));
    events.push(Event::WorkFinished { changed: true });
    events.extend(round(5));
    events.push(failed("aaa", "s6"));
    assert_eq!(run(&events).wait, Wait::Human(Gate::Stuck(Reason::CiLimit)));
}

#[test]
fn a_limit_holds_the_credential_until_it_is_over_and_a_wrong_key_until_a_person_mends_it() {
    let live = run(&[Event::Confirmed, Event::Claimed, Event::AttemptConnected]);
    let stop = |reason, retry_at| {
        let event = Event::StepFailed {
            failure: broke(reason),
            retry_at,
        };
        next(&live, &event, at(0), &Limits::default()).unwrap()
    };
    let limited = stop(Reason::ModelLimit, Some(at(3600)));
    assert!(
        limited
            .wants
            .contains(&Want::Hold(Credential::Model, Some(at(3600))))
    );
    assert_eq!(limited.task.failures, 0);
    let at_once = next(
        &limited.task,
        &Event::RetryRequested,
        at(9),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!((at_once.task.run, at_once.task.waits), (Run::Queued, 0));
    assert!(at_once.wants.contains(&Want::TryHeld));
    assert!(at_once.wants.contains(&Want::SetTimer(None)));
    let wrong = stop(Reason::GithubCredential, None);
    assert!(
        wrong
            .wants
            .contains(&Want::Hold(Credential::CodeHost, None))
    );
    let mended = next(
        &wrong.task,
        &Event::RetryRequested,
        at(9),
        &Limits::default(),
    )
    .unwrap();
    assert!(mended.wants.contains(&Want::Release(Credential::CodeHost)));
    for end in [Event::GivenUp, Event::TakenOver, Event::CancelRequested] {
        let ended = next(&wrong.task, &end, at(9), &Limits::default()).unwrap();
        let released = Want::Release(Credential::CodeHost);
        assert!(
            ended.wants.contains(&released),
            "{end:?} leaves the others held"
        );
    }
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

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how a developer asks for the document to be written"
)]
fn every_reason_is_documented_as_the_table_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/troubleshooting.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("<!-- reasons -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of reasons -->").unwrap();
    let wanted = format!(
        "{before}<!-- reasons -->\n{}<!-- end of reasons -->{after}",
        crate::troubleshooting()
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        wanted,
        "run it with UPDATE_DOCS=1"
    );
}

fn ready() -> Vec<Event> {
    let mut events = in_ci();
    events.extend([
        Event::CiPassed { sha: "aaa".into() },
        Event::MarkedReady { sha: "aaa".into() },
    ]);
    events
}

/// A worker comes, does its work, and the pull request is ready again.
fn done(changed: bool) -> Vec<Event> {
    vec![
        Event::Claimed,
        Event::AttemptConnected,
        Event::WorkFinished { changed },
    ]
}

#[test]
fn a_review_is_addressed_and_the_new_head_becomes_ready_when_it_is_green() {
    let mut events = ready();
    events.push(reviewed(2));
    let taken_up = run(&events);
    assert_eq!(
        (taken_up.phase.kind(), taken_up.run, step(&taken_up)),
        (P::AddressingReview, Run::Queued, Some(Step::AddressReview))
    );
    events.extend([
        Event::Claimed,
        Event::AttemptConnected,
        Event::BranchPushed { sha: "bbb".into() },
        Event::WorkFinished { changed: true },
    ]);
    assert_eq!(step(&run(&events)), Some(Step::AwaitCi));
    events.extend([
        Event::CiPassed { sha: "bbb".into() },
        Event::MarkedReady { sha: "bbb".into() },
    ]);
    assert_eq!(run(&events).phase, Phase::Ready);
}

#[test]
fn a_review_that_needs_no_change_is_answered_and_the_green_head_stays() {
    let mut events = ready();
    events.push(reviewed(1));
    events.extend(done(false));
    assert_eq!(step(&run(&events)), Some(Step::MarkReady));
}

#[test]
fn a_conflict_is_resolved_before_a_review_is_addressed() {
    let mut events = ready();
    events.push(conflicted("aaa"));
    assert_eq!(step(&run(&events)), Some(Step::Rebase));
    let failed = [
        events.clone(),
        vec![
            Event::Claimed,
            Event::AttemptConnected,
            Event::StepFailed {
                failure: broke(Reason::Unmerged),
                retry_at: None,
            },
            Event::GivenUp,
            Event::RetryRequested,
        ],
    ]
    .concat();
    assert_eq!(step(&run(&failed)), Some(Step::Rebase), "the retry too");
    events.extend(done(true));
    assert!(!run(&events).conflicted);
}

#[test]
fn a_head_that_turns_red_again_has_its_checks_read_and_mended() {
    let mut events = ready();
    let other = Event::RedAgain { sha: "bbb".into() };
    assert!(next(&run(&events), &other, at(0), &Limits::default()).is_err());
    events.extend([
        Event::RedAgain { sha: "aaa".into() },
        Event::Claimed,
        Event::AttemptConnected,
    ]);
    assert_eq!(step(&run(&events)), Some(Step::AwaitCi));
    events.push(failed("aaa", "s1"));
    assert_eq!(step(&run(&events)), Some(Step::FixCi));
}

#[test]
fn coming_back_from_ready_is_bounded_and_a_person_can_go_on() {
    let limits = Limits::default();
    let red = Event::RedAgain { sha: "aaa".into() };
    let cases = [
        (reviewed(1), limits.max_review_rounds, Reason::ReviewLimit),
        (conflicted("aaa"), limits.max_rebases, Reason::RebaseLimit),
        (red, limits.max_ci_attempts, Reason::RedAgain),
    ];
    for (event, bound, reason) in cases {
        let mut events = ready();
        for _ in 0..bound {
            events.push(event.clone());
            let worked = if reason == Reason::RedAgain {
                vec![Event::Claimed, Event::AttemptConnected]
            } else {
                done(false)
            };
            events.extend(worked);
            if reason == Reason::RedAgain {
                events.push(Event::CiPassed { sha: "aaa".into() });
            }
            events.push(Event::MarkedReady { sha: "aaa".into() });
        }
        events.push(event.clone());
        let asked = run(&events);
        assert_eq!(asked.wait, Wait::Human(Gate::Stuck(reason)));
        assert!(is_watched(&asked), "a merge ends it all the same");
        events.push(Event::Answered);
        let on = run(&events);
        assert_eq!((on.run, on.phase), (Run::Queued, asked.phase));
        assert_eq!((on.review_rounds, on.rebases, on.reds), (0, 0, 0));
    }
}

#[test]
fn what_is_seen_of_an_older_pull_request_changes_nothing() {
    let old = PULL - 1;
    let ready = run(&ready());
    for event in [
        Event::PullMerged { pull: old },
        Event::PullClosed { pull: old },
        Event::ReviewReceived {
            pull: old,
            threads: 1,
        },
        Event::Conflicted {
            pull: old,
            sha: "aaa".into(),
        },
    ] {
        let refused = next(&ready, &event, at(0), &Limits::default());
        assert!(
            matches!(refused, Err(Rejected::Guard { .. })),
            "{refused:?}"
        );
    }
    // Nor is there one, before the new branch has its own.
    let afresh = run(&[
        in_ci(),
        vec![Event::CiAbsent { sha: "aaa".into() }, Event::StartedAfresh],
    ]
    .concat());
    let closed = Event::PullClosed { pull: PULL };
    assert!(next(&afresh, &closed, at(0), &Limits::default()).is_err());
}

#[test]
fn a_conflict_is_resolved_before_checks_that_it_keeps_from_running() {
    let absent = Event::CiAbsent { sha: "aaa".into() };
    let lost = Event::AttemptLost { why: "lost".into() };
    let accepts = Limits {
        no_ci: NoCi::Accept,
        ..Limits::default()
    };
    let cases = [
        (vec![], Limits::default(), Run::Live),
        (vec![absent.clone()], Limits::default(), Run::Live),
        (vec![absent], accepts, Run::Live),
        (vec![held(CiHold::Draft)], Limits::default(), Run::Live),
        (vec![lost.clone()], Limits::default(), Run::Idle),
        (
            vec![lost, Event::WaitElapsed],
            Limits::default(),
            Run::Queued,
        ),
    ];
    for (events, limits, run) in cases {
        let mut task = self::run(&in_ci());
        for event in &events {
            task = next(&task, event, at(0), &limits).unwrap().task;
        }
        let other = next(&task, &conflicted("bbb"), at(0), &limits);
        assert!(other.is_err(), "the conflict of another head");
        let after = next(&task, &conflicted("aaa"), at(0), &limits).unwrap();
        let resolves = after.task;
        assert_eq!((step(&resolves), resolves.run), (Some(Step::Rebase), run));
        assert_eq!((resolves.rebases, resolves.green), (1, None), "{events:?}");
        assert!(!matches!(resolves.wait, Wait::Human(_)), "{events:?}");
    }
    let red = run(&[in_ci(), vec![Event::DeadlinePassed]].concat());
    let asked = Task {
        wait: Wait::Human(Gate::Stuck(Reason::CiLimit)),
        ..red
    };
    let refused = next(&asked, &conflicted("aaa"), at(0), &Limits::default());
    assert!(refused.is_err(), "a person decides first: {refused:?}");
    let never = Limits {
        max_rebases: 0,
        ..Limits::default()
    };
    let bounded = next(&run(&in_ci()), &conflicted("aaa"), at(0), &never).unwrap();
    assert_eq!(
        bounded.task.wait,
        Wait::Human(Gate::Stuck(Reason::RebaseLimit))
    );
}

#[test]
fn a_fresh_start_does_not_mark_its_pull_request_ready_before_checks() {
    let mut events = in_ci();
    events.extend([held(CiHold::Draft), Event::ReadyAllowed]);
    assert!(run(&events).ready_first);
    events.extend([held(CiHold::Draft), Event::StartedAfresh]);
    assert!(!run(&events).ready_first);
}

#[test]
fn a_turn_of_mending_is_never_the_zeroth() {
    let mut mending = in_ci();
    mending.push(failed("aaa", "s1"));
    let broke = |reason| Event::StepFailed {
        failure: broke(reason),
        retry_at: None,
    };
    for (stop, on) in [
        (Event::WorkFinished { changed: false }, Event::Answered),
        (question("q"), Event::Answered),
        (broke(Reason::Budget), Event::ToppedUp),
        (broke(Reason::Budget), Event::RetryRequested),
    ] {
        let task = run(&[mending.clone(), vec![stop, on]].concat());
        assert_eq!((task.phase.kind(), task.ci_attempts), (P::FixingCi, 1));
    }
}
