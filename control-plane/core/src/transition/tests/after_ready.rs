//! What happens to a pull request that was ready: reviews, conflicts, checks that turn red.

use super::*;

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
