//! The limits that the workflow keeps. They are snapshotted into a task when it is confirmed.

use jiff::{SignedDuration, Timestamp};

use crate::Step;

/// Longest wait that the other side may name: no limit of a week lasts longer.
const NAMED_WAIT_MAX: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Bounds on attempts and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts that may crash or time out before a person is asked.
    pub max_attempts: u32,
    /// Turns that may be spent on mending CI before a person is asked.
    pub max_ci_attempts: u32,
    /// Rounds of review that are addressed before a person is asked.
    pub max_review_rounds: u32,
    /// Conflicts with the base that are taken up before a person is asked.
    pub max_rebases: u32,
    /// Limits and outages in a row that are waited for before a person is asked.
    pub max_waits: u32,
    /// Whether work goes on by itself when a limit is over; a person is asked otherwise.
    pub resume_after_limit: bool,
    /// What a head without checks means.
    pub no_ci: NoCi,
    /// How long a person is waited for before they are reminded; never when zero.
    pub remind: SignedDuration,
    /// What happens when a question stays unanswered after that.
    pub unanswered: Unanswered,
    /// How long after the reminder the recommended option is taken, where `unanswered` says so.
    pub assume: SignedDuration,
    /// How long workers may be busy with the task until a person is asked.
    pub task: SignedDuration,
    /// What is done where checks skip drafts.
    pub ready_before_ci: ReadyBeforeCi,
    /// How long a worker may take to say hello.
    pub start: SignedDuration,
    /// How long `Plan` may take, without the time that a person takes.
    pub plan: SignedDuration,
    /// How long `Implement` may take.
    pub implement: SignedDuration,
    /// How long checks may take to be decided.
    pub await_ci: SignedDuration,
    /// How long `FixCi` may take.
    pub fix_ci: SignedDuration,
    /// How long `MarkReady` may take.
    pub mark_ready: SignedDuration,
    /// How long `AddressReview` may take.
    pub address_review: SignedDuration,
    /// How long `Rebase` may take.
    pub rebase: SignedDuration,
    /// Wait after the first failure; doubles with each further one.
    pub backoff: SignedDuration,
    /// Longest wait after a failure.
    pub backoff_max: SignedDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_ci_attempts: 3,
            max_review_rounds: 5,
            max_rebases: 5,
            max_waits: 24,
            resume_after_limit: true,
            no_ci: NoCi::Ask,
            remind: SignedDuration::from_hours(4),
            unanswered: Unanswered::Wait,
            assume: SignedDuration::from_hours(1),
            task: SignedDuration::from_hours(24),
            ready_before_ci: ReadyBeforeCi::Ask,
            start: SignedDuration::from_secs(120),
            plan: SignedDuration::from_mins(60),
            implement: SignedDuration::from_hours(4),
            await_ci: SignedDuration::from_hours(2),
            fix_ci: SignedDuration::from_hours(2),
            mark_ready: SignedDuration::from_mins(10),
            address_review: SignedDuration::from_hours(2),
            rebase: SignedDuration::from_hours(2),
            backoff: SignedDuration::from_secs(5),
            backoff_max: SignedDuration::from_mins(10),
        }
    }
}

impl Limits {
    /// How long a step may take.
    pub fn of(&self, step: Step) -> SignedDuration {
        match step {
            Step::Plan => self.plan,
            Step::Implement => self.implement,
            Step::AwaitCi => self.await_ci,
            Step::FixCi => self.fix_ci,
            Step::MarkReady => self.mark_ready,
            Step::AddressReview => self.address_review,
            Step::Rebase => self.rebase,
        }
    }

    /// When to try again after the `waits`-th wait in a row, where the other side may have named the time: not at once,
    /// and not in a year.
    pub fn wait_until(&self, named: Option<Timestamp>, waits: u32, now: Timestamp) -> Timestamp {
        let soonest = self.retry_at(waits, now);
        named.map_or(soonest, |named| bounded(named, now).max(soonest))
    }

    /// When to try again after the `failures`-th failure in a row.
    pub fn retry_at(&self, failures: u32, now: Timestamp) -> Timestamp {
        let factor = 1_i32 << failures.saturating_sub(1).min(20);
        let wait = self
            .backoff
            .checked_mul(factor)
            .unwrap_or(self.backoff_max)
            .min(self.backoff_max);
        now.checked_add(wait).unwrap_or(now)
    }
}

/// When a limit is over whose end the other side named: not in a year.
pub fn bounded(named: Timestamp, now: Timestamp) -> Timestamp {
    named.min(later(now, NAMED_WAIT_MAX))
}

/// A point in time so much later, as far as time goes.
pub(crate) fn later(from: Timestamp, wait: SignedDuration) -> Timestamp {
    from.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// What happens when nobody answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It stays open.
    Wait,
    /// The recommended option is taken, and marked as assumed.
    Assume,
}

/// What a head without checks means. It is never success by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCi {
    /// A person decides.
    Ask,
    /// Policy takes it: the pull request is marked ready, and says that nothing checked it.
    Accept,
    /// The task fails.
    Fail,
}

/// What is done where the checks of a draft never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyBeforeCi {
    /// A person decides.
    Ask,
    /// The pull request is marked ready for review, and then its checks are awaited.
    Always,
}
