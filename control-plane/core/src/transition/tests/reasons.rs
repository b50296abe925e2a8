//! Each reason why work stops short: what follows from it, its words, its documents.

use super::*;

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
