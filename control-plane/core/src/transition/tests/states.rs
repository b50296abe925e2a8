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
            reviewed(1),
            Event::ChangeHeld { hash: "c".into() },
            Event::ChangeAllowed { hash: "c".into() },
            Event::PullMerged { pull: PULL },
            Event::PullClosed { pull: PULL },
        ]),
        // What moves work on comes more often, so that late phases are reached.
        5 => prop::sample::select(vec![
            Event::Confirmed,
            Event::Claimed,
            Event::AttemptConnected,
            Event::WaitElapsed,
            Event::Answered,
            Event::PullOpened { number: PULL },
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
        1 => sha.clone().prop_map(|sha| conflicted(&sha)),
        1 => (sha.clone(), prop::sample::select(vec![CiHold::Approval, CiHold::Draft]))
            .prop_map(|(sha, hold)| Event::CiHeld { sha, hold }),
        3 => sha.prop_map(|sha| Event::MarkedReady { sha }),
        1 => (failure, prop::option::of(0_i64..100)).prop_map(|(failure, later)| {
            Event::StepFailed { failure, retry_at: later.map(at) }
        }),
    ]
}

/// What stands beside a task, as the wants had it stored.
#[derive(Clone, Debug)]
struct Beside {
    timer: Option<Timer>,
    item: Option<Gate>,
    attempt: Option<u32>,
    watched: bool,
}

impl Beside {
    /// A proposal's.
    fn proposed() -> Self {
        Self {
            timer: None,
            item: Some(Gate::Spawn),
            attempt: None,
            watched: false,
        }
    }

    fn take(&mut self, wants: &[Want]) {
        for want in wants {
            match want {
                Want::StartAttempt(attempt) => self.attempt = Some(*attempt),
                Want::EndAttempt(attempt) => {
                    assert_eq!(self.attempt.take(), Some(*attempt), "it ends what it has");
                }
                Want::WithdrawItem => self.item = None,
                Want::OpenItem(gate) => {
                    assert_eq!(self.item, None, "one thing is asked at a time");
                    self.item = Some(gate.clone());
                }
                Want::SetTimer(timer) => self.timer = *timer,
                Want::WatchPull => self.watched = true,
                Want::UnwatchPull => self.watched = false,
                Want::Assign | Want::Hold(..) | Want::Release(_) | Want::TryHeld | Want::Tidy => {}
            }
        }
    }

    /// Whether it is what the task says.
    fn fits(&self, task: &Task) -> bool {
        let asked = match &task.wait {
            Wait::Human(gate) => Some(gate),
            Wait::None | Wait::Ci | Wait::Until { .. } => None,
        };
        self.item.as_ref() == asked
            && self.attempt.is_some() == task.run.holds_slot()
            && self.watched == is_watched(task)
    }

    /// Whether something will move the task on: nothing is ever stuck.
    fn moves_on(&self, task: &Task) -> bool {
        match &task.wait {
            _ if task.phase.is_settled() => self.timer.is_none(),
            _ if task.phase == Phase::Ready => self.watched && self.timer.is_none(),
            Wait::Human(gate) => {
                self.item.is_some() && gate.choices().last() == Some(&Choice::Reject)
            }
            Wait::Until { at, .. } => self.timer == Some(Timer::Wait(*at)),
            Wait::None | Wait::Ci => match task.run {
                Run::Idle => false,
                Run::Queued => true,
                Run::Starting | Run::Live => matches!(self.timer, Some(Timer::Deadline(_))),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_reachable_state_keeps_the_invariants(events in prop::collection::vec(event(), 0..60)) {
        let limits = Limits::default();
        let mut task = Task::proposed();
        let mut beside = Beside::proposed();
        for (second, event) in events.iter().enumerate() {
            let now = at(i64::try_from(second).unwrap());
            let before = task.clone();
            let Ok(transition) = next(&task, event, now, &limits) else { continue };
            task = transition.task;
            beside.take(&transition.wants);
            let (from, to) = (before.phase.kind(), task.phase.kind());
            prop_assert!(!before.phase.is_final(), "{from:?} is final, but took {event:?}");
            prop_assert!(
                TABLE.iter().any(|edge| edge.on == event.kind() && edge.leads(from, to)),
                "{from:?} --{event:?}--> {to:?} is not in the table"
            );
            prop_assert!(beside.fits(&task), "{beside:?} beside {task:?} after {event:?}");
            prop_assert!(beside.moves_on(&task), "stuck in {task:?} with {beside:?} after {event:?}");
            prop_assert!(task.phase_version >= before.phase_version);
            prop_assert_eq!(
                transition.wants.contains(&Want::EndAttempt(before.attempt)),
                before.run.holds_slot() && !task.run.holds_slot()
            );
            if task.phase.is_settled() || task.phase == Phase::Ready {
                prop_assert_eq!(task.run, Run::Idle);
                prop_assert_eq!(&task.wait, &Wait::None);
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
            prop_assert!(to != P::FixingCi || task.ci_attempts > 0, "{task:?}");
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
        Event::PullOpened { number: PULL },
        Event::WorkFinished { changed: true },
        Event::WorkFinished { changed: false },
        reviewed(1),
        Event::PullMerged { pull: PULL },
        Event::PullClosed { pull: PULL },
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
            conflicted(&sha),
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
    // One of each response: the others lead to states that differ in the word alone.
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
    let mut open = vec![(Task::proposed(), Beside::proposed())];
    while let Some((task, beside)) = open.pop() {
        phases.insert(task.phase.kind());
        each_reason_that_can_come_leaves_a_way_on(&task, &beside, &limits);
        for event in &alphabet {
            let listed = TABLE
                .iter()
                .any(|edge| edge.on == event.kind() && edge.from.contains(&task.phase.kind()));
            match next(&task, event, at(0), &limits) {
                Ok(Transition {
                    task: mut after,
                    wants,
                }) => {
                    assert!(listed);
                    let mut beside = beside.clone();
                    beside.take(&wants);
                    assert!(
                        beside.fits(&after) && beside.moves_on(&after),
                        "{event:?}, then {after:?} with {beside:?}"
                    );
                    assert!(after.phase != Phase::FixingCi || after.ci_attempts > 0);
                    // Counters that only name things do not make another state.
                    (after.phase_version, after.attempt) = (1, after.attempt.min(1));
                    beside.attempt = beside.attempt.map(|attempt| attempt.min(1));
                    (after.generation, after.ci_allowed) = (1, None);
                    after.ci_attempts = after.ci_attempts.min(1);
                    // What is bounded by its own counter is another test's.
                    (after.review_rounds, after.rebases, after.reds) = (0, 0, 0);
                    if seen.insert(format!("{after:?} {:?}", beside.timer)) {
                        open.push((after, beside));
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

/// A worker stops short for each reason that there is: the task is over, waits for a time that comes, or asks a person who
/// can take it up again.
fn each_reason_that_can_come_leaves_a_way_on(task: &Task, beside: &Beside, limits: &Limits) {
    for reason in Reason::ALL {
        let stopped = Event::StepFailed {
            failure: broke(*reason),
            retry_at: None,
        };
        let Ok(after) = next(task, &stopped, at(0), limits) else {
            return;
        };
        let mut beside = beside.clone();
        beside.take(&after.wants);
        let after = after.task;
        assert!(
            beside.fits(&after) && beside.moves_on(&after) && after.run == Run::Idle,
            "{reason:?} in {task:?}: {after:?} with {beside:?}"
        );
        let ways: &[Event] = match &after.wait {
            Wait::Human(_) => &[Event::RetryRequested, Event::StartedAfresh, Event::GivenUp],
            Wait::Until { .. } => &[Event::WaitElapsed],
            Wait::None | Wait::Ci => panic!("{reason:?} in {task:?}: {after:?}"),
        };
        for way in ways {
            let taken = next(&after, way, at(0), limits)
                .unwrap_or_else(|rejected| panic!("{rejected} in {after:?}"));
            let goes_on = taken.task.run == Run::Queued || taken.task.phase.is_settled();
            assert!(goes_on, "{way:?} in {after:?}");
        }
    }
}
