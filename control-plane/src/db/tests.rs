#![allow(clippy::unwrap_used)]

use mainloop_core::{Gate, Reason, Run, State, Task, Wait};

use super::{Error, query, query_one, read, statements, words};
use crate::testing;

/// Not through `Error`: a statement that does not fit shows what the server says.
#[tokio::test]
async fn every_statement_fits_the_migrated_schema() {
    let store = testing::store().await;
    let client = store.connection("prepare").await.unwrap();
    for (name, sql) in statements().iter().chain(crate::watchers::STATEMENTS) {
        if let Err(error) = client.prepare(sql).await {
            panic!("{name}: {error:?}");
        }
    }
}

#[test]
fn statement_names_are_unique() {
    let mut names: Vec<&str> = statements().iter().map(|(name, _)| *name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Every shape of a task that the state for people tells apart.
fn shapes() -> Vec<Task> {
    use mainloop_core::{Completion, Failure, Phase, Stage};

    let phases = [
        Phase::Proposed,
        Phase::Planning,
        Phase::PlanReview,
        Phase::Implementing,
        Phase::Ci,
        Phase::FixingCi,
        Phase::Ready,
        Phase::AddressingReview,
        Phase::Completed(Completion::Merged),
        Phase::Failed {
            failure: Failure {
                reason: Reason::NoCi,
                message: String::new(),
            },
            from: Stage::Ci,
        },
        Phase::Cancelled,
        Phase::Declined,
    ];
    let waits = [
        Wait::None,
        Wait::Ci,
        Wait::Until {
            at: jiff::Timestamp::UNIX_EPOCH,
            why: String::new(),
        },
        Wait::Human(Gate::Spawn),
        Wait::Human(Gate::Plan),
        Wait::Human(Gate::Question("q".to_owned())),
        Wait::Human(Gate::Stuck(Reason::NoCi)),
        Wait::Human(Gate::Blocker("b".to_owned())),
        Wait::Human(Gate::Change("c".to_owned())),
    ];
    let mut shapes = Vec::new();
    for phase in &phases {
        for wait in &waits {
            for run in [Run::Idle, Run::Queued, Run::Starting, Run::Live] {
                shapes.push(Task {
                    phase: phase.clone(),
                    wait: wait.clone(),
                    run,
                    ..Task::proposed()
                });
            }
        }
    }
    // The schema keeps these phases free of waits.
    shapes.retain(|task| {
        let alone = task.phase.is_settled() || task.phase == Phase::Ready;
        let asks = matches!(task.wait, Wait::Human(Gate::Spawn | Gate::Plan));
        match task.phase {
            Phase::Proposed => task.wait == Wait::Human(Gate::Spawn),
            Phase::PlanReview => task.wait == Wait::Human(Gate::Plan),
            _ if alone => task.wait == Wait::None,
            _ => !asks,
        }
    });
    shapes
}

#[tokio::test]
async fn the_state_in_statements_is_the_state_of_the_workflow() {
    let store = testing::store().await;
    let client = store.connection("read states").await.unwrap();
    let sql = format!(
        "SELECT {} AS state FROM (SELECT $1::text AS phase, $2::text AS run, $3::text AS wait, $4::text AS gate) AS task",
        read::STATE
    );
    let shapes = shapes();
    assert!(shapes.len() > 100, "{}", shapes.len());
    for task in shapes {
        let (wait, gate) = match &task.wait {
            Wait::None => ("none", None),
            Wait::Ci => ("ci", None),
            Wait::Until { .. } => ("until", None),
            Wait::Human(gate) => ("human", Some(words::gate(gate).0)),
        };
        let row = query_one(
            &client,
            "read a state",
            &sql,
            &[
                &task.phase.kind().word(),
                &words::run(task.run),
                &wait,
                &gate,
            ],
        )
        .await
        .unwrap();
        assert_eq!(
            row.get::<_, &str>("state"),
            read::state_word(State::of(&task)),
            "{task:?}"
        );
    }
}

#[tokio::test]
async fn an_error_says_what_was_attempted_and_is_transient_only_when_it_is() {
    let store = testing::store().await;
    let client = store.connection("fail").await.unwrap();
    let error = query(
        &client,
        "read what is not there",
        "SELECT * FROM nowhere",
        &[],
    )
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "could not read what is not there");
    assert!(!error.is_transient());
    assert!(matches!(error, Error::Postgres { .. }));
}
