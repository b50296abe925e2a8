//! What holds in every state that can be reached: by chance, and one after another.

use proptest::prelude::*;

use super::*;

fn event() -> impl Strategy<Value = Event> {
    let sha = prop::sample::select(&SHAS[..])
        .prop_map(str::to_owned)
        .boxed();
    let failure = prop::sample::select(Reason::ALL).prop_map(broke);
    prop_oneof![
        1 => prop::sample::select(vec![
            Event::Confirmed,
            Event::SpawnRejected,
            Event::PlanRejected,
            Event::PlanRevised,
            Event::Answered,
            Event::AnswerAssumed,
            Event::Reminded,
            Event::UncheckedAccepted,
            Event::ReadyAllowed,
            Event::CiNotStarted,
            Event::MoreAttempts { count: 2 },
            Event::StartedAfresh,
            Event::ToppedUp,
            Event::TakenOver,
            Event::GivenUp,
            Event::CancelRequested,
            Event::RetryRequested,
            Event::AttemptLost { why: "lost".into() },
            Event::Suspended,
            Event::DeadlinePassed,
            Event::NothingToChange,
            question("q"),
            Event::BlockerReported { id: "b".into() },
            Event::ReviewReceived { threads: 1 },
            Event::Conflicted,
            Event::ChangeHeld { hash: "c".into() },
            Event::ChangeAllowed { hash: "c".into() },
            Event::PullMerged,
            Event::PullClosed,
        ]),
        // What moves work on comes more often, so that late phases are reached.
        5 => prop::sample::select(vec![
            Event::Confirmed,
            Event::Claimed,
            Event::AttemptConnected,
            Event::WaitElapsed,
            Event::Answered,
            Event::PullOpened { number: 7 },
        ]),
        3 => (1_u32..4, prop::sample::select(vec!["h1", "h2"])).prop_map(|(revision, hash)| {
            Event::PlanStored { revision, hash: hash.into() }
        }),
        3 => prop::sample::select(vec!["h1", "h2"])
            .prop_map(|hash| Event::PlanApproved { hash: hash.into() }),
        3 => sha.clone().prop_map(|sha| Event::BranchPushed { sha }),
        3 => any::<bool>().prop_map(|changed| Event::WorkFinished { changed }),
        1 => sha.clone().prop_map(|sha| Event::CiRunning { sha }),
        3 => sha.clone().prop_map(|sha| Event::CiPassed { sha }),
        2 => (sha.clone(), prop::sample::select(vec!["s1", "s2", "s3", "s4"]))
            .prop_map(|(sha, signature)| failed(&sha, signature)),
        1 => sha.clone().prop_map(|sha| Event::CiAbsent { sha }),
        1 => sha.clone().prop_map(|sha| Event::RedAgain { sha }),
        1 => (sha.clone(), prop::sample::select(vec![CiHold::Approval, CiHold::Draft]))
            .prop_map(|(sha, hold)| Event::CiHeld { sha, hold }),
        3 => sha.prop_map(|sha| Event::MarkedReady { sha }),
        1 => (failure, prop::option::of(0_i64..100)).prop_map(|(failure, later)| {
            Event::StepFailed { failure, retry_at: later.map(at) }
        }),
    ]
}

/// Whether something will move the task on: nothing is ever stuck.
fn is_moved_on(task: &Task, timer: Option<Timer>) -> bool {
    task.phase.is_settled()
        || task.phase == Phase::Ready
        || task.run == Run::Queued
        || matches!(task.wait, Wait::Human(_))
        || timer.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_reachable_state_keeps_the_invariants(events in prop::collection::vec(event(), 0..60)) {
        let limits = Limits::default();
        let mut task = Task::proposed();
        let mut timer = None;
        for (second, event) in events.iter().enumerate() {
            let now = at(i64::try_from(second).unwrap());
            let before = task.clone();
            let Ok(transition) = next(&task, event, now, &limits) else { continue };
            task = transition.task;
            for want in &transition.wants {
                if let Want::SetTimer(set) = want { timer = *set; }
            }
            let (from, to) = (before.phase.kind(), task.phase.kind());
            prop_assert!(!before.phase.is_final(), "{from:?} is final, but took {event:?}");
            prop_assert!(
                TABLE.iter().any(|edge| edge.on == event.kind() && edge.leads(from, to)),
                "{from:?} --{event:?}--> {to:?} is not in the table"
            );
            prop_assert!(is_moved_on(&task, timer), "stuck in {task:?} after {event:?}");
            prop_assert!(task.phase_version >= before.phase_version);
            prop_assert_eq!(
                transition.wants.contains(&Want::EndAttempt(before.attempt)),
                before.run.holds_slot() && !task.run.holds_slot()
            );
            if task.phase.is_settled() || task.phase == Phase::Ready {
                prop_assert_eq!(task.run, Run::Idle);
                prop_assert_eq!(&task.wait, &Wait::None);
                prop_assert!(timer.is_none());
            }
            if matches!(to, P::Implementing | P::Ci | P::FixingCi | P::Ready | P::AddressingReview) {
                prop_assert!(task.plan.as_ref().is_some_and(|plan| plan.approved), "{task:?}");
            }
            if to == P::Ready {
                prop_assert!(task.head.is_some() && task.head == task.green);
            }
            prop_assert_eq!(
                task.asked.is_some(),
                matches!(task.wait, Wait::Human(_)) && task.phase != Phase::Proposed
            );
            if task.run == Run::Live && step(&task).is_some() && !matches!(task.wait, Wait::Human(_)) {
                prop_assert!(timer.is_some(), "a step without a deadline: {task:?}");
            }
            prop_assert!(
                task.failures < limits.max_attempts || matches!(task.wait, Wait::Human(Gate::Stuck(_)))
                    || task.phase.is_settled(),
                "it spins: {task:?}"
            );
            // The projection is total, and each state has its one group.
            State::of(&task).group();
        }
    }
}

/// One of each kind of event, with the data that the reachable states can meet.
fn alphabet() -> Vec<Event> {
    let mut events = vec![
        Event::Confirmed,
        Event::SpawnRejected,
        Event::PlanApproved { hash: "h1".into() },
        Event::PlanRejected,
        Event::PlanRevised,
        Event::Answered,
        Event::AnswerAssumed,
        Event::Reminded,
        Event::UncheckedAccepted,
        Event::ReadyAllowed,
        Event::MoreAttempts { count: 1 },
        Event::StartedAfresh,
        Event::ToppedUp,
        Event::TakenOver,
        Event::GivenUp,
        Event::CancelRequested,
        Event::RetryRequested,
        Event::Claimed,
        Event::AttemptConnected,
        Event::AttemptLost { why: "lost".into() },
        Event::Suspended,
        Event::DeadlinePassed,
        Event::CiNotStarted,
        Event::WaitElapsed,
        Event::PlanStored {
            revision: 1,
            hash: "h1".into(),
        },
        Event::NothingToChange,
        question("q"),
        Event::BlockerReported { id: "b".into() },
        Event::ChangeHeld { hash: "c".into() },
        Event::ChangeAllowed { hash: "c".into() },
        Event::PullOpened { number: 7 },
        Event::WorkFinished { changed: true },
        Event::WorkFinished { changed: false },
        Event::ReviewReceived { threads: 1 },
        Event::Conflicted,
        Event::PullMerged,
        Event::PullClosed,
    ];
    for sha in SHAS {
        let sha = sha.to_owned();
        events.extend([
            Event::BranchPushed { sha: sha.clone() },
            Event::CiRunning { sha: sha.clone() },
            Event::CiPassed { sha: sha.clone() },
            failed(&sha, "s1"),
            failed(&sha, "s2"),
            Event::CiAbsent { sha: sha.clone() },
            Event::RedAgain { sha: sha.clone() },
            Event::CiHeld {
                sha: sha.clone(),
                hold: CiHold::Approval,
            },
            Event::CiHeld {
                sha: sha.clone(),
                hold: CiHold::Draft,
            },
            Event::MarkedReady { sha },
        ]);
    }
    // One of each response; each reason by itself is another test's.
    for reason in [Reason::Git, Reason::ModelLimit, Reason::Budget] {
        events.push(Event::StepFailed {
            failure: broke(reason),
            retry_at: None,
        });
    }
    events
}

#[test]
fn every_event_in_every_reachable_state_is_taken_or_refused_as_the_table_says() {
    let limits = Limits {
        max_attempts: 2,
        max_ci_attempts: 1,
        max_review_rounds: 0,
        max_rebases: 1,
        max_waits: 1,
        ..Limits::default()
    };
    let alphabet = alphabet();
    assert!(
        EventKind::ALL
            .iter()
            .all(|kind| alphabet.iter().any(|event| event.kind() == *kind))
    );
    let mut seen = std::collections::HashSet::new();
    let mut phases = std::collections::BTreeSet::new();
    let mut open = vec![Task::proposed()];
    while let Some(task) = open.pop() {
        phases.insert(task.phase.kind());
        for event in &alphabet {
            let listed = TABLE
                .iter()
                .any(|edge| edge.on == event.kind() && edge.from.contains(&task.phase.kind()));
            match next(&task, event, at(0), &limits) {
                Ok(Transition {
                    task: mut after, ..
                }) => {
                    assert!(listed);
                    // Counters that only name things do not make another state.
                    (after.phase_version, after.attempt) = (1, after.attempt.min(1));
                    (after.generation, after.ci_allowed) = (1, None);
                    after.ci_attempts = after.ci_attempts.min(1);
                    // What is bounded by its own counter is another test's.
                    (after.review_rounds, after.rebases, after.reds) = (0, 0, 0);
                    if seen.insert(format!("{after:?}")) {
                        open.push(after);
                    }
                }
                Err(Rejected::Phase { .. }) => assert!(!listed),
                Err(Rejected::Guard { .. }) => assert!(listed),
            }
        }
    }
    assert_eq!(
        phases.len(),
        PhaseKind::ALL.len(),
        "only reached {phases:?}"
    );
}
