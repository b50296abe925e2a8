//! The state for people: one word made of phase, run and wait, in exactly one inbox group.

use crate::{Gate, Phase, Run, Task, Wait};

/// The state for people, as the contract has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for a person's yes.
    Proposed,
    /// Waits for a slot.
    Queued,
    /// Its worker is being made.
    Starting,
    /// A plan is being made.
    Planning,
    /// The plan waits for a person.
    PlanReview,
    /// The plan is being implemented.
    Implementing,
    /// Checks run.
    Ci,
    /// What failed is being mended.
    FixingCi,
    /// The worker asked something.
    Question,
    /// A person has to unblock it.
    Blocked,
    /// Waits for a point in time.
    Waiting,
    /// Ready for review.
    Ready,
    /// What reviewers said is being addressed, or a conflict resolved.
    AddressingReview,
    /// Over, well.
    Completed,
    /// Over, ended by a person.
    Cancelled,
    /// Over, vetoed.
    Declined,
    /// Over, not well.
    Failed,
}

/// Groups of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Goes on without anybody.
    Active,
    /// A person decides or answers.
    NeedsYou,
    /// Ready for review, or over.
    Completed,
    /// Failed.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Proposed,
        Self::Queued,
        Self::Starting,
        Self::Planning,
        Self::PlanReview,
        Self::Implementing,
        Self::Ci,
        Self::FixingCi,
        Self::Question,
        Self::Blocked,
        Self::Waiting,
        Self::Ready,
        Self::AddressingReview,
        Self::Completed,
        Self::Cancelled,
        Self::Declined,
        Self::Failed,
    ];

    /// The state of a task.
    pub fn of(task: &Task) -> Self {
        match (&task.phase, &task.wait, task.run) {
            (Phase::Ready, ..) => Self::Ready,
            (Phase::Completed(_), ..) => Self::Completed,
            (Phase::Failed { .. }, ..) => Self::Failed,
            (Phase::Cancelled, ..) => Self::Cancelled,
            (Phase::Declined, ..) => Self::Declined,
            (Phase::Proposed, ..) => Self::Proposed,
            (_, Wait::Human(Gate::Question(_)), _) => Self::Question,
            (_, Wait::Human(Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_)), _) => {
                Self::Blocked
            }
            (Phase::PlanReview, ..) => Self::PlanReview,
            (_, Wait::Until { .. }, _) => Self::Waiting,
            (_, _, Run::Idle | Run::Queued) => Self::Queued,
            (_, _, Run::Starting) => Self::Starting,
            (Phase::Planning, _, Run::Live) => Self::Planning,
            (Phase::Implementing, _, Run::Live) => Self::Implementing,
            (Phase::Ci, _, Run::Live) => Self::Ci,
            (Phase::FixingCi, _, Run::Live) => Self::FixingCi,
            (Phase::AddressingReview, _, Run::Live) => Self::AddressingReview,
        }
    }

    /// The one group that it belongs to.
    pub fn group(self) -> Group {
        match self {
            Self::Queued
            | Self::Starting
            | Self::Planning
            | Self::Implementing
            | Self::Ci
            | Self::FixingCi
            | Self::AddressingReview
            | Self::Waiting => Group::Active,
            Self::Proposed | Self::PlanReview | Self::Question | Self::Blocked => Group::NeedsYou,
            Self::Ready | Self::Completed | Self::Cancelled | Self::Declined => Group::Completed,
            Self::Failed => Group::Failed,
        }
    }
}
