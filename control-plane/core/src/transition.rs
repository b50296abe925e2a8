//! What an event makes of a task: the function that follows the table.
//!
//! [`TABLE`] says which event is taken in which phase and where it may lead; [`next`] refuses everything else, and a
//! test holds each of its results against the table. The diagram in the documentation is rendered from it.

mod apply;
mod table;
mod wants;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

pub use self::table::{Edge, TABLE, diagram};
use crate::{
    Asked, Credential, Event, EventKind, Gate, Limits, Phase, PhaseKind, Run, Step, Task, Wait,
};

/// A task after an event, and what is wanted done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The task as it is from now on.
    pub task: Task,
    /// To be stored in the same transaction, in this order.
    pub wants: Vec<Want>,
}

/// A desired state that a transition changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A worker for this attempt.
    StartAttempt(u32),
    /// No worker for this attempt any more.
    EndAttempt(u32),
    /// The open item of the task, if any, is no longer asked.
    WithdrawItem,
    /// A person is asked.
    OpenItem(Gate),
    /// The one timer of the task: set, or cleared.
    SetTimer(Option<Timer>),
    /// The agent is told its assignment anew.
    Assign,
    /// Nothing is started that needs this credential, until then or until a person says that it is mended.
    Hold(Credential, Option<Timestamp>),
    /// It may be tried again: a person says that it is mended, or nobody is left who could.
    Release(Credential),
    /// A person does not wait for the end of the limits that its next step needs: one task tries at once.
    TryHeld,
    /// What it leaves at the code host is closed, or left, as policy says.
    Tidy,
    /// The pull request is watched from now on.
    WatchPull,
    /// It no longer is.
    UnwatchPull,
}

/// The one timer that a task may have. When it is due it becomes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The start, the step or the task is to be over by then: [`Event::DeadlinePassed`].
    Deadline(Timestamp),
    /// The wait is over then: [`Event::WaitElapsed`].
    Wait(Timestamp),
    /// Who is asked is reminded then: [`Event::Reminded`].
    Remind(Timestamp),
    /// The recommended answer is taken then: [`Event::AnswerAssumed`].
    Assume(Timestamp),
}

impl Timer {
    /// When it is due.
    pub fn at(self) -> Timestamp {
        match self {
            Self::Deadline(at) | Self::Wait(at) | Self::Remind(at) | Self::Assume(at) => at,
        }
    }
}

/// Why an event changes nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejected {
    /// The phase does not take it.
    #[error("a task in phase {} does not take {}", .phase.word(), .event.word())]
    Phase {
        /// Where the task is.
        phase: PhaseKind,
        /// What came.
        event: EventKind,
    },
    /// The phase takes it, but not now.
    #[error("{} does not fit: {why}", .event.word())]
    Guard {
        /// What came.
        event: EventKind,
        /// What does not fit.
        why: &'static str,
    },
}

/// The step that a worker of this task does; none while it only waits for a person, or has no work.
pub fn step(task: &Task) -> Option<Step> {
    match (&task.phase, &task.wait) {
        // A question or a blocker of the worker's own is answered inside its step.
        (_, Wait::Human(gate)) if !gate.is_the_workers() && !gate.looks_on() => None,
        (Phase::Planning, _) => Some(Step::Plan),
        (Phase::Implementing, _) => Some(Step::Implement),
        (Phase::Ci, _) if task.green.is_some() && task.green == task.head => Some(Step::MarkReady),
        (Phase::Ci, _) => Some(Step::AwaitCi),
        (Phase::FixingCi, _) => Some(Step::FixCi),
        (Phase::AddressingReview, _) if task.conflicted => Some(Step::Rebase),
        (Phase::AddressingReview, _) => Some(Step::AddressReview),
        (
            Phase::Proposed
            | Phase::PlanReview
            | Phase::Ready
            | Phase::Completed(_)
            | Phase::Failed { .. }
            | Phase::Cancelled
            | Phase::Declined,
            _,
        ) => None,
    }
}

/// The task after `event` at `now`, or why nothing changes.
pub fn next(
    task: &Task,
    event: &Event,
    now: Timestamp,
    limits: &Limits,
) -> Result<Transition, Rejected> {
    let phase = task.phase.kind();
    if !TABLE
        .iter()
        .any(|edge| edge.on == event.kind() && edge.from.contains(&phase))
    {
        return Err(Rejected::Phase {
            phase,
            event: event.kind(),
        });
    }
    let mut after = task.clone();
    if let Some(since) = after.busy_since.take() {
        after.worked += now.duration_since(since).max(SignedDuration::ZERO);
    }
    apply::apply(&mut after, event, now, limits).map_err(|why| Rejected::Guard {
        event: event.kind(),
        why,
    })?;
    let busy = after.run.holds_slot() && !matches!(after.wait, Wait::Human(_));
    after.busy_since = busy.then_some(now);
    ask(task, &mut after, event, now);
    if step(task) != step(&after) || starts_anew(task, &after, event) {
        after.phase_version += 1;
    }
    let mut wants = wants::wants(task, &after, now, limits);
    wants.extend(wants::holds(task, &after, event));
    Ok(Transition { task: after, wants })
}

/// Notes since when a person is asked.
fn ask(before: &Task, after: &mut Task, event: &Event, now: Timestamp) {
    if before.wait == after.wait {
        return;
    }
    after.asked = matches!(after.wait, Wait::Human(_)).then_some(Asked {
        at: now,
        reminded: None,
        recommends: matches!(
            event,
            Event::QuestionAsked {
                recommends: true,
                ..
            }
        ),
    });
}

/// Whether the same step begins again: another round of a phase is another assignment.
fn starts_anew(before: &Task, after: &Task, event: &Event) -> bool {
    match event {
        Event::Answered | Event::AnswerAssumed | Event::ChangeAllowed { .. } => {
            match &before.wait {
                Wait::Human(gate) => !gate.is_the_workers() || before.run == Run::Idle,
                Wait::None | Wait::Ci | Wait::Until { .. } => true,
            }
        }
        Event::RetryRequested
        | Event::ToppedUp
        | Event::ReadyAllowed
        | Event::MoreAttempts { .. }
        | Event::StartedAfresh
        | Event::Claimed => true,
        Event::CiHeld { .. } => after.ready_first && !before.ready_first,
        // Other checks are awaited.
        Event::BranchPushed { .. } => after.phase == Phase::Ci,
        _ => before.phase.kind() != after.phase.kind(),
    }
}

#[cfg(test)]
mod tests;
