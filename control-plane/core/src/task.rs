//! What a task is to the workflow: phase, run and wait, and the facts that decide between edges.

use jiff::{SignedDuration, Timestamp};

use crate::{Choice, Limits, Reason, Unanswered, limits::later};

/// A task as the workflow sees it. Words, links and costs are the store's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the work has reached.
    pub phase: Phase,
    /// Whether a worker is wanted or there.
    pub run: Run,
    /// What it waits for.
    pub wait: Wait,
    /// Since when a person is asked; none while nobody is, and on a proposal.
    pub asked: Option<Asked>,
    /// Time that workers took since the last human word, without the time that a person took.
    pub worked: SignedDuration,
    /// Since when a worker is busy with it, as far as `worked` does not have it; none while none is.
    pub busy_since: Option<Timestamp>,
    /// Grows whenever the worker's assignment changes; milestones repeat it.
    pub phase_version: i64,
    /// Number of the newest attempt, 0 before the first.
    pub attempt: u32,
    /// Attempts that crashed or timed out since the last human word.
    pub failures: u32,
    /// Limits and outages that were waited for in a row.
    pub waits: u32,
    /// Turns spent on mending CI since the last human word.
    pub ci_attempts: u32,
    /// Turns that a person allowed; none for as many as policy says.
    pub ci_allowed: Option<u32>,
    /// Rounds of review that were addressed since the last human word.
    pub review_rounds: u32,
    /// Conflicts with the base that were taken up since the last human word.
    pub rebases: u32,
    /// Times that checks turned red again on a ready head since the last human word.
    pub reds: u32,
    /// The head conflicts with its base: that comes before what reviewers say.
    pub conflicted: bool,
    /// Counts the branches that the work was begun on, from 1.
    pub generation: u32,
    /// Signature of the failure that the last fix was for.
    pub signature: Option<String>,
    /// The newest stored plan.
    pub plan: Option<Plan>,
    /// Last commit that was seen pushed.
    pub head: Option<String>,
    /// Commit that may be marked ready: its checks are green, or a person took it without checks.
    pub green: Option<String>,
    /// Number of the pull request.
    pub pull: Option<u32>,
    /// The pull request is marked ready before its checks: they skip drafts.
    pub ready_first: bool,
}

impl Task {
    /// A proposal that waits for a person's yes.
    pub fn proposed() -> Self {
        Self {
            phase: Phase::Proposed,
            run: Run::Idle,
            wait: Wait::Human(Gate::Spawn),
            asked: None,
            worked: SignedDuration::ZERO,
            busy_since: None,
            phase_version: 1,
            attempt: 0,
            failures: 0,
            waits: 0,
            ci_attempts: 0,
            ci_allowed: None,
            review_rounds: 0,
            rebases: 0,
            reds: 0,
            conflicted: false,
            generation: 1,
            signature: None,
            plan: None,
            head: None,
            green: None,
            pull: None,
            ready_first: false,
        }
    }
}

impl Task {
    /// When the recommended answer is assumed; none unless a question is open that policy lets the plane answer.
    pub fn assumes_at(&self, limits: &Limits) -> Option<Timestamp> {
        let asked = self.asked.filter(|asked| asked.recommends)?;
        let reminded = asked
            .reminded
            .unwrap_or_else(|| later(asked.at, limits.remind));
        (limits.unanswered == Unanswered::Assume).then(|| later(reminded, limits.assume))
    }
}

/// What the work has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a person's yes.
    Proposed,
    /// A plan is being made.
    Planning,
    /// A plan waits for a person.
    PlanReview,
    /// The approved plan is being implemented.
    Implementing,
    /// Checks are awaited, or the pull request is being marked ready.
    Ci,
    /// What failed is being mended.
    FixingCi,
    /// Green and ready for review.
    Ready,
    /// What reviewers said is being addressed, or a conflict with the base resolved.
    AddressingReview,
    /// Over, well.
    Completed(Completion),
    /// Over, not well; a retry goes back to the stage that failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Where to begin again.
        from: Stage,
    },
    /// Ended by a person, here or by closing the pull request.
    Cancelled,
    /// A person said no to the proposal or the plan.
    Declined,
}

impl Phase {
    /// The phase without its data.
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Proposed => PhaseKind::Proposed,
            Self::Planning => PhaseKind::Planning,
            Self::PlanReview => PhaseKind::PlanReview,
            Self::Implementing => PhaseKind::Implementing,
            Self::Ci => PhaseKind::Ci,
            Self::FixingCi => PhaseKind::FixingCi,
            Self::Ready => PhaseKind::Ready,
            Self::AddressingReview => PhaseKind::AddressingReview,
            Self::Completed(_) => PhaseKind::Completed,
            Self::Failed { .. } => PhaseKind::Failed,
            Self::Cancelled => PhaseKind::Cancelled,
            Self::Declined => PhaseKind::Declined,
        }
    }

    /// Whether the work is over, well or not.
    pub fn is_settled(&self) -> bool {
        self.is_final() || matches!(self, Self::Failed { .. })
    }

    /// Whether nothing can ever change it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Cancelled | Self::Declined)
    }
}

/// A phase without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PhaseKind {
    /// See [`Phase::Proposed`].
    Proposed,
    /// See [`Phase::Planning`].
    Planning,
    /// See [`Phase::PlanReview`].
    PlanReview,
    /// See [`Phase::Implementing`].
    Implementing,
    /// See [`Phase::Ci`].
    Ci,
    /// See [`Phase::FixingCi`].
    FixingCi,
    /// See [`Phase::Ready`].
    Ready,
    /// See [`Phase::AddressingReview`].
    AddressingReview,
    /// See [`Phase::Completed`].
    Completed,
    /// See [`Phase::Failed`].
    Failed,
    /// See [`Phase::Cancelled`].
    Cancelled,
    /// See [`Phase::Declined`].
    Declined,
}

impl PhaseKind {
    /// All of them, in the order of the work.
    pub const ALL: [Self; 12] = [
        Self::Proposed,
        Self::Planning,
        Self::PlanReview,
        Self::Implementing,
        Self::Ci,
        Self::FixingCi,
        Self::Ready,
        Self::AddressingReview,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Declined,
    ];

    /// The word in SQL, documents and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Planning => "planning",
            Self::PlanReview => "plan_review",
            Self::Implementing => "implementing",
            Self::Ci => "ci",
            Self::FixingCi => "fixing_ci",
            Self::Ready => "ready",
            Self::AddressingReview => "addressing_review",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Declined => "declined",
        }
    }
}

/// How a completed task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Its pull request was merged.
    Merged,
    /// Nothing had to change.
    NoChange,
    /// A person went on by hand.
    TakenOver,
}

/// Where a retry begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Make a plan.
    Planning,
    /// Implement the approved plan.
    Implementing,
    /// Read the checks of the head.
    Ci,
    /// Mend what failed.
    FixingCi,
    /// Address what reviewers said, or resolve a conflict.
    AddressingReview,
}

impl Stage {
    /// The phase that it stands for.
    pub fn phase(self) -> Phase {
        match self {
            Self::Planning => Phase::Planning,
            Self::Implementing => Phase::Implementing,
            Self::Ci => Phase::Ci,
            Self::FixingCi => Phase::FixingCi,
            Self::AddressingReview => Phase::AddressingReview,
        }
    }
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What clients can act on.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

/// Whether a worker is wanted or there. Slots and claims look at this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// None is wanted.
    Idle,
    /// One is wanted; none is there yet.
    Queued,
    /// One is being made.
    Starting,
    /// One is there and has said hello.
    Live,
}

impl Run {
    /// Whether an attempt holds a slot.
    pub fn holds_slot(self) -> bool {
        matches!(self, Self::Starting | Self::Live)
    }
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing.
    None,
    /// A person.
    Human(Gate),
    /// Checks.
    Ci,
    /// A point in time.
    Until {
        /// When.
        at: Timestamp,
        /// A few words for people.
        why: String,
    },
}

/// Since when a person is asked, and what may happen when they do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When it began.
    pub at: Timestamp,
    /// When they were reminded, which may be long after it was due.
    pub reminded: Option<Timestamp>,
    /// The worker recommends an answer.
    pub recommends: bool,
}

/// A point where a person decides or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// May this task start?
    Spawn,
    /// Is this plan right?
    Plan,
    /// The worker asks something; the id is the worker's.
    Question(String),
    /// The worker says that it cannot go on; the id is the worker's.
    Blocker(String),
    /// May this change of CI definitions be pushed? The hash is what a yes is for.
    Change(String),
    /// The plane says so, for a reason of the table.
    Stuck(Reason),
}

impl Gate {
    /// Whether the worker itself asks, in the middle of its step.
    pub fn is_the_workers(&self) -> bool {
        matches!(self, Self::Question(_) | Self::Blocker(_) | Self::Change(_))
    }

    /// Whether the worker goes on with its step: what it waits for is done elsewhere, and it sees that by itself.
    pub fn looks_on(&self) -> bool {
        matches!(self, Self::Stuck(Reason::CiApproval | Reason::CiDraft))
    }

    /// What a person can choose, the recommended first.
    pub fn choices(&self) -> &'static [Choice] {
        match self {
            Self::Spawn => &[Choice::Approve, Choice::Reject],
            Self::Plan => &[Choice::Approve, Choice::Revise, Choice::Reject],
            Self::Question(_) | Self::Blocker(_) => &[Choice::Answer, Choice::Reject],
            Self::Change(_) => Reason::WorkflowChange.row().choices,
            Self::Stuck(reason) => reason.row().choices,
        }
    }
}

/// A stored plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Counts from 1.
    pub revision: u32,
    /// SHA-256 of its bytes, lower-case hex.
    pub hash: String,
    /// A person approved this very hash.
    pub approved: bool,
}

/// What the plane asks a worker to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make a plan and store it.
    Plan,
    /// Implement the approved plan.
    Implement,
    /// Read checks until they are decided.
    AwaitCi,
    /// Mend what failed.
    FixCi,
    /// Mark the pull request ready.
    MarkReady,
    /// Address what reviewers said, and answer each of them.
    AddressReview,
    /// Merge the base into the branch, and resolve what conflicts.
    Rebase,
}
