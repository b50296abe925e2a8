//! Which event is taken in which phase and where it may lead, and the diagram of it.

use EventKind as E;
use PhaseKind as P;

use crate::{EventKind, PhaseKind};

/// One row: in any of `from`, `on` is taken and leads to one of `to`, or changes no phase.
#[derive(Debug)]
pub struct Edge {
    /// Phases that take the event.
    pub from: &'static [PhaseKind],
    /// The event.
    pub on: EventKind,
    /// Phases that it may lead to; none where the task stays in its phase.
    pub to: &'static [PhaseKind],
}

impl Edge {
    /// Whether it leads from this phase to that one.
    pub fn leads(&self, from: PhaseKind, to: PhaseKind) -> bool {
        let stays = self.to.is_empty() && from == to;
        self.from.contains(&from) && (stays || self.to.contains(&to))
    }
}

const fn edge(from: &'static [P], on: E, to: &'static [P]) -> Edge {
    Edge { from, on, to }
}

const fn stays(from: &'static [P], on: E) -> Edge {
    edge(from, on, &[])
}

/// Phases in which a worker has something to do or waits for a person in the middle of it.
const WORK: &[P] = &[
    P::Planning,
    P::Implementing,
    P::Ci,
    P::FixingCi,
    P::AddressingReview,
];

/// The same, with the plan's review in between.
const UNDER_WAY: &[P] = &[
    P::Planning,
    P::PlanReview,
    P::Implementing,
    P::Ci,
    P::FixingCi,
    P::AddressingReview,
];

/// Phases in which Claude has turns.
const TURNS: &[P] = &[
    P::Planning,
    P::Implementing,
    P::FixingCi,
    P::AddressingReview,
];

/// Phases in which there may be a pull request.
const WITH_PULL: &[P] = &[
    P::Implementing,
    P::Ci,
    P::FixingCi,
    P::Ready,
    P::AddressingReview,
    P::Failed,
];

/// Every edge of the workflow. An event that stands in several rows is taken in the phases of all of them.
pub const TABLE: &[Edge] = &[
    // People
    edge(&[P::Proposed], E::Confirmed, &[P::Planning]),
    edge(&[P::Proposed], E::SpawnRejected, &[P::Declined]),
    edge(&[P::PlanReview], E::PlanApproved, &[P::Implementing]),
    edge(&[P::PlanReview], E::PlanRejected, &[P::Declined]),
    edge(&[P::PlanReview], E::PlanRevised, &[P::Planning]),
    stays(TURNS, E::Answered),
    edge(&[P::Ci], E::Answered, &[P::Ci, P::FixingCi]),
    stays(TURNS, E::AnswerAssumed),
    stays(UNDER_WAY, E::Reminded),
    stays(
        &[P::Implementing, P::FixingCi, P::AddressingReview],
        E::ChangeAllowed,
    ),
    stays(&[P::Ci], E::UncheckedAccepted),
    stays(&[P::Ci], E::ReadyAllowed),
    edge(&[P::Ci, P::FixingCi], E::MoreAttempts, &[P::FixingCi]),
    edge(
        &[
            P::Planning,
            P::Implementing,
            P::Ci,
            P::FixingCi,
            P::AddressingReview,
            P::Failed,
        ],
        E::StartedAfresh,
        &[P::Planning, P::Implementing],
    ),
    stays(WORK, E::ToppedUp),
    edge(WORK, E::TakenOver, &[P::Completed]),
    edge(WORK, E::GivenUp, &[P::Failed]),
    edge(
        &[
            P::Proposed,
            P::Planning,
            P::PlanReview,
            P::Implementing,
            P::Ci,
            P::FixingCi,
            P::Ready,
            P::AddressingReview,
            P::Failed,
        ],
        E::CancelRequested,
        &[P::Cancelled],
    ),
    edge(
        &[P::Failed],
        E::RetryRequested,
        &[
            P::Planning,
            P::Implementing,
            P::Ci,
            P::FixingCi,
            P::AddressingReview,
        ],
    ),
    stays(WORK, E::RetryRequested),
    // The worker comes and goes
    stays(WORK, E::Claimed),
    stays(WORK, E::AttemptConnected),
    stays(UNDER_WAY, E::AttemptLost),
    stays(UNDER_WAY, E::Suspended),
    stays(WORK, E::DeadlinePassed),
    stays(&[P::Ci], E::CiNotStarted),
    stays(WORK, E::WaitElapsed),
    // Milestones
    edge(&[P::Planning], E::PlanStored, &[P::PlanReview]),
    edge(&[P::Planning], E::NothingToChange, &[P::Completed]),
    stays(TURNS, E::QuestionAsked),
    stays(TURNS, E::BlockerReported),
    stays(
        &[P::Implementing, P::FixingCi, P::AddressingReview],
        E::ChangeHeld,
    ),
    // While checks run somebody else pushes.
    stays(
        &[P::Implementing, P::FixingCi, P::AddressingReview, P::Ci],
        E::BranchPushed,
    ),
    stays(&[P::Implementing, P::FixingCi], E::PullOpened),
    edge(
        &[P::Implementing],
        E::WorkFinished,
        &[P::Ci, P::Implementing],
    ),
    edge(&[P::FixingCi], E::WorkFinished, &[P::Ci, P::FixingCi]),
    edge(&[P::AddressingReview], E::WorkFinished, &[P::Ci]),
    stays(&[P::Ci], E::CiRunning),
    stays(&[P::Ci], E::CiPassed),
    edge(&[P::Ci], E::CiFailed, &[P::FixingCi, P::Ci]),
    stays(&[P::Ci], E::CiHeld),
    edge(&[P::Ci], E::CiAbsent, &[P::Ci, P::Failed]),
    edge(&[P::Ci], E::MarkedReady, &[P::Ready]),
    stays(WORK, E::StepFailed),
    // The code host
    edge(&[P::Ready], E::ReviewReceived, &[P::AddressingReview]),
    edge(&[P::Ci, P::Ready], E::Conflicted, &[P::AddressingReview]),
    edge(&[P::Ready], E::RedAgain, &[P::Ci]),
    edge(WITH_PULL, E::PullMerged, &[P::Completed]),
    edge(WITH_PULL, E::PullClosed, &[P::Cancelled]),
];

/// The workflow as a Mermaid state diagram, for the documentation.
pub fn diagram() -> String {
    use std::{collections::BTreeMap, fmt::Write};

    let mut arrows: BTreeMap<(P, P), Vec<&str>> = BTreeMap::new();
    for edge in TABLE {
        for from in edge.from {
            for to in edge.to.iter().filter(|to| *to != from) {
                arrows.entry((*from, *to)).or_default().push(edge.on.word());
            }
        }
    }
    let mut text = "stateDiagram-v2\n    [*] --> proposed\n".to_owned();
    for ((from, to), on) in arrows {
        writeln!(
            text,
            "    {} --> {}: {}",
            from.word(),
            to.word(),
            on.join(", ")
        )
        .expect("a String takes any text");
    }
    for phase in [P::Completed, P::Cancelled, P::Declined] {
        writeln!(text, "    {} --> [*]", phase.word()).expect("a String takes any text");
    }
    text
}
