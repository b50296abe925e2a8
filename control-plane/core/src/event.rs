//! What can happen to a task.

use jiff::Timestamp;

use crate::Failure;

/// Something that happened. Milestones come from a worker's sidecar, decisions from a person's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A person said yes to the proposal.
    Confirmed,
    /// A person said no to the proposal.
    SpawnRejected,
    /// A person approved the plan with this hash.
    PlanApproved {
        /// What they saw.
        hash: String,
    },
    /// A person said no to the plan.
    PlanRejected,
    /// A person wants the plan changed.
    PlanRevised,
    /// A person answered the open question or blocker.
    Answered,
    /// Nobody answered the open question, and policy takes what the worker recommends.
    AnswerAssumed,
    /// The person who is asked was reminded.
    Reminded,
    /// A person allowed a push that was held, for exactly these definitions.
    ChangeAllowed {
        /// What they saw.
        hash: String,
    },
    /// A person accepted a head whose checks say nothing.
    UncheckedAccepted,
    /// A person lets the pull request be marked ready before its checks, because they skip drafts.
    ReadyAllowed,
    /// A person allowed so many more turns of mending.
    MoreAttempts {
        /// How many.
        count: u32,
    },
    /// A person wants it done again, on a new branch.
    StartedAfresh,
    /// A person let it cost more.
    ToppedUp,
    /// A person goes on by hand.
    TakenOver,
    /// A person gave up on a blocked task.
    GivenUp,
    /// A person ended the task.
    CancelRequested,
    /// A person wants a task tried again that failed or is stuck, or one that waits to be tried again tried at once.
    RetryRequested,

    /// The dispatcher took a slot for it.
    Claimed,
    /// The attempt's agent said hello for the first time.
    AttemptConnected,
    /// The attempt crashed, was lost or did not start.
    AttemptLost {
        /// A few words for people.
        why: String,
    },
    /// The plane ends all its workers, to go on at its next start: nobody's failure.
    Suspended,
    /// The deadline of the start or of the step passed.
    DeadlinePassed,
    /// The deadline of the checks passed, and none of those that are awaited has begun.
    CiNotStarted,
    /// The point in time that it waited for has come.
    WaitElapsed,

    /// The worker stored a plan.
    PlanStored {
        /// Its revision.
        revision: u32,
        /// Its hash.
        hash: String,
    },
    /// The worker found nothing to change.
    NothingToChange,
    /// The worker asks a person.
    QuestionAsked {
        /// The worker's id for it.
        id: String,
        /// Every one of its questions has an option that the worker recommends.
        recommends: bool,
    },
    /// The worker cannot go on without a person.
    BlockerReported {
        /// The worker's id for it.
        id: String,
    },
    /// A push is held: a person has to allow what it changes.
    ChangeHeld {
        /// Hash of the definitions as they would be.
        hash: String,
    },
    /// The branch has a new head.
    BranchPushed {
        /// The head.
        sha: String,
    },
    /// The pull request is there.
    PullOpened {
        /// Its number.
        number: u32,
    },
    /// The implement or fix step is done.
    WorkFinished {
        /// False when it pushed nothing.
        changed: bool,
    },
    /// Checks run.
    CiRunning {
        /// The commit.
        sha: String,
    },
    /// All checks that count are green.
    CiPassed {
        /// The commit.
        sha: String,
    },
    /// At least one failed, and none runs.
    CiFailed {
        /// The commit.
        sha: String,
        /// The same for the same failure.
        signature: String,
    },
    /// Nothing is decided before somebody acts on the code host; the worker goes on looking.
    CiHeld {
        /// The commit.
        sha: String,
        /// What has to be done there.
        hold: CiHold,
    },
    /// No check came.
    CiAbsent {
        /// The commit.
        sha: String,
    },
    /// The pull request is ready for review.
    MarkedReady {
        /// The commit.
        sha: String,
    },
    /// The step stopped short.
    StepFailed {
        /// Why.
        failure: Failure,
        /// When the limit is over, if that is known.
        retry_at: Option<Timestamp>,
    },

    /// People with write access said so many things about the ready pull request that are not answered.
    ReviewReceived {
        /// Number of the pull request.
        pull: u32,
        /// How many.
        threads: u32,
    },
    /// The pull request conflicts with its base: once it is ready, and while its checks are awaited, which do not run then.
    Conflicted {
        /// Number of the pull request.
        pull: u32,
        /// The commit that conflicts.
        sha: String,
    },
    /// A check of the ready head is red.
    RedAgain {
        /// The commit.
        sha: String,
    },
    /// The pull request was merged.
    PullMerged {
        /// Its number.
        pull: u32,
    },
    /// The pull request was closed.
    PullClosed {
        /// Its number.
        pull: u32,
    },
}

/// What checks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CiHold {
    /// A maintainer's approval.
    Approval,
    /// That the pull request is no draft any more.
    Draft,
}

impl Event {
    /// The event without its data.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Confirmed => EventKind::Confirmed,
            Self::SpawnRejected => EventKind::SpawnRejected,
            Self::PlanApproved { .. } => EventKind::PlanApproved,
            Self::PlanRejected => EventKind::PlanRejected,
            Self::PlanRevised => EventKind::PlanRevised,
            Self::Answered => EventKind::Answered,
            Self::AnswerAssumed => EventKind::AnswerAssumed,
            Self::Reminded => EventKind::Reminded,
            Self::ChangeAllowed { .. } => EventKind::ChangeAllowed,
            Self::UncheckedAccepted => EventKind::UncheckedAccepted,
            Self::ReadyAllowed => EventKind::ReadyAllowed,
            Self::MoreAttempts { .. } => EventKind::MoreAttempts,
            Self::StartedAfresh => EventKind::StartedAfresh,
            Self::ToppedUp => EventKind::ToppedUp,
            Self::TakenOver => EventKind::TakenOver,
            Self::GivenUp => EventKind::GivenUp,
            Self::CancelRequested => EventKind::CancelRequested,
            Self::RetryRequested => EventKind::RetryRequested,
            Self::Claimed => EventKind::Claimed,
            Self::AttemptConnected => EventKind::AttemptConnected,
            Self::AttemptLost { .. } => EventKind::AttemptLost,
            Self::Suspended => EventKind::Suspended,
            Self::DeadlinePassed => EventKind::DeadlinePassed,
            Self::CiNotStarted => EventKind::CiNotStarted,
            Self::WaitElapsed => EventKind::WaitElapsed,
            Self::PlanStored { .. } => EventKind::PlanStored,
            Self::NothingToChange => EventKind::NothingToChange,
            Self::QuestionAsked { .. } => EventKind::QuestionAsked,
            Self::BlockerReported { .. } => EventKind::BlockerReported,
            Self::ChangeHeld { .. } => EventKind::ChangeHeld,
            Self::BranchPushed { .. } => EventKind::BranchPushed,
            Self::PullOpened { .. } => EventKind::PullOpened,
            Self::WorkFinished { .. } => EventKind::WorkFinished,
            Self::CiRunning { .. } => EventKind::CiRunning,
            Self::CiPassed { .. } => EventKind::CiPassed,
            Self::CiFailed { .. } => EventKind::CiFailed,
            Self::CiHeld { .. } => EventKind::CiHeld,
            Self::CiAbsent { .. } => EventKind::CiAbsent,
            Self::MarkedReady { .. } => EventKind::MarkedReady,
            Self::StepFailed { .. } => EventKind::StepFailed,
            Self::ReviewReceived { .. } => EventKind::ReviewReceived,
            Self::Conflicted { .. } => EventKind::Conflicted,
            Self::RedAgain { .. } => EventKind::RedAgain,
            Self::PullMerged { .. } => EventKind::PullMerged,
            Self::PullClosed { .. } => EventKind::PullClosed,
        }
    }
}

macro_rules! kinds {
    ($($name:ident $word:literal),+ $(,)?) => {
        /// An event without its data.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $(#[doc = concat!("See [`Event::", stringify!($name), "`].")] $name,)+
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word in the event log and in documents.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }
    };
}

kinds! {
    Confirmed "confirmed", SpawnRejected "spawn_rejected", PlanApproved "plan_approved", PlanRejected "plan_rejected",
    PlanRevised "plan_revised", Answered "answered", AnswerAssumed "answer_assumed", Reminded "reminded", ChangeAllowed "change_allowed", UncheckedAccepted "unchecked_accepted", ReadyAllowed "ready_allowed", MoreAttempts "more_attempts",
    StartedAfresh "started_afresh", ToppedUp "topped_up", TakenOver "taken_over", GivenUp "given_up",
    CancelRequested "cancelled", RetryRequested "retried", Claimed "claimed", AttemptConnected "worker_connected",
    AttemptLost "worker_lost", Suspended "suspended", DeadlinePassed "deadline_passed", CiNotStarted "ci_not_started", WaitElapsed "wait_elapsed", PlanStored "plan_ready",
    NothingToChange "nothing_to_change", QuestionAsked "question_asked", BlockerReported "blocked",
    ChangeHeld "change_held", BranchPushed "branch_pushed", PullOpened "pull_request_opened", WorkFinished "work_finished",
    CiRunning "ci_running", CiPassed "ci_passed", CiFailed "ci_failed", CiHeld "ci_held", CiAbsent "ci_absent",
    MarkedReady "ready_for_review", StepFailed "step_failed", ReviewReceived "review_received",
    Conflicted "conflicted", RedAgain "red_again", PullMerged "merged", PullClosed "pull_request_closed",
}
