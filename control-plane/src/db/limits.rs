//! The workflow's limits as they stand in policy files and in a task's snapshot: seconds and counts.

use jiff::SignedDuration;
use mainloop_core::{Limits, NoCi, ReadyBeforeCi, Unanswered};
use serde::{Deserialize, Serialize};

/// Limits in their written form; what is left out has the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    /// Attempts that may crash or time out.
    pub max_attempts: u32,
    /// Turns that may be spent on mending CI.
    pub max_ci_attempts: u32,
    /// Rounds of review that are addressed before a person is asked.
    pub max_review_rounds: u32,
    /// Conflicts with the base that are taken up before a person is asked.
    pub max_rebases: u32,
    /// Limits and outages in a row that are waited for before a person is asked.
    pub max_waits: u32,
    /// Whether work goes on by itself when a limit is over.
    pub resume_after_limit: bool,
    /// What a head without checks means: `ask`, `accept` or `fail`.
    pub no_ci: WrittenNoCi,
    /// Seconds until a person who is asked is reminded; 0 for never.
    pub remind_seconds: u32,
    /// What happens when a question stays unanswered after that: `wait` or `assume`.
    pub unanswered: WrittenUnanswered,
    /// Seconds from the reminder until the recommended option is assumed.
    pub assume_seconds: u32,
    /// Seconds that workers may be busy with the task.
    pub task_seconds: u32,
    /// What is done where checks skip drafts: `ask` or `always`.
    pub ready_before_ci: WrittenReadyBeforeCi,
    /// Seconds until a worker says hello.
    pub start_seconds: u32,
    /// Seconds for `Plan`.
    pub plan_seconds: u32,
    /// Seconds for `Implement`.
    pub implement_seconds: u32,
    /// Seconds for `AwaitCi`.
    pub await_ci_seconds: u32,
    /// Seconds for `FixCi`.
    pub fix_ci_seconds: u32,
    /// Seconds for `MarkReady`.
    pub mark_ready_seconds: u32,
    /// Seconds for `AddressReview`.
    pub address_review_seconds: u32,
    /// Seconds for `Rebase`.
    pub rebase_seconds: u32,
    /// Milliseconds of wait after the first failure.
    pub backoff_millis: u32,
    /// Seconds of wait at most.
    pub backoff_max_seconds: u32,
}

impl Written {
    /// The limits in a task's policy; the default ones where they do not read.
    pub fn of_snapshot(policy: &serde_json::Value) -> Self {
        let Some(limits) = policy.get("limits") else {
            return Self::default();
        };
        Self::deserialize(limits).unwrap_or_else(|error| {
            tracing::error!(%error, "a task's limits do not read: the default ones hold");
            Self::default()
        })
    }
}

/// See [`NoCi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenNoCi {
    /// A person decides.
    Ask,
    /// Policy takes it.
    Accept,
    /// The task fails.
    Fail,
}

/// See [`Unanswered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenUnanswered {
    /// It stays open.
    Wait,
    /// The recommended option is taken.
    Assume,
}

/// See [`ReadyBeforeCi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenReadyBeforeCi {
    /// A person decides.
    Ask,
    /// The pull request is marked ready.
    Always,
}

impl Default for Written {
    fn default() -> Self {
        let limits = Limits::default();
        let seconds =
            |duration: SignedDuration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Self {
            max_attempts: limits.max_attempts,
            max_ci_attempts: limits.max_ci_attempts,
            max_review_rounds: limits.max_review_rounds,
            max_rebases: limits.max_rebases,
            max_waits: limits.max_waits,
            resume_after_limit: limits.resume_after_limit,
            no_ci: match limits.no_ci {
                NoCi::Ask => WrittenNoCi::Ask,
                NoCi::Accept => WrittenNoCi::Accept,
                NoCi::Fail => WrittenNoCi::Fail,
            },
            remind_seconds: seconds(limits.remind),
            unanswered: match limits.unanswered {
                Unanswered::Wait => WrittenUnanswered::Wait,
                Unanswered::Assume => WrittenUnanswered::Assume,
            },
            assume_seconds: seconds(limits.assume),
            task_seconds: seconds(limits.task),
            ready_before_ci: match limits.ready_before_ci {
                ReadyBeforeCi::Ask => WrittenReadyBeforeCi::Ask,
                ReadyBeforeCi::Always => WrittenReadyBeforeCi::Always,
            },
            start_seconds: seconds(limits.start),
            plan_seconds: seconds(limits.plan),
            implement_seconds: seconds(limits.implement),
            await_ci_seconds: seconds(limits.await_ci),
            fix_ci_seconds: seconds(limits.fix_ci),
            mark_ready_seconds: seconds(limits.mark_ready),
            address_review_seconds: seconds(limits.address_review),
            rebase_seconds: seconds(limits.rebase),
            backoff_millis: u32::try_from(limits.backoff.as_millis()).unwrap_or(u32::MAX),
            backoff_max_seconds: seconds(limits.backoff_max),
        }
    }
}

impl From<&Written> for Limits {
    fn from(written: &Written) -> Self {
        let seconds = |seconds: u32| SignedDuration::from_secs(i64::from(seconds));
        Self {
            max_attempts: written.max_attempts,
            max_ci_attempts: written.max_ci_attempts,
            max_review_rounds: written.max_review_rounds,
            max_rebases: written.max_rebases,
            max_waits: written.max_waits,
            resume_after_limit: written.resume_after_limit,
            no_ci: match written.no_ci {
                WrittenNoCi::Ask => NoCi::Ask,
                WrittenNoCi::Accept => NoCi::Accept,
                WrittenNoCi::Fail => NoCi::Fail,
            },
            remind: seconds(written.remind_seconds),
            unanswered: match written.unanswered {
                WrittenUnanswered::Wait => Unanswered::Wait,
                WrittenUnanswered::Assume => Unanswered::Assume,
            },
            assume: seconds(written.assume_seconds),
            task: seconds(written.task_seconds),
            ready_before_ci: match written.ready_before_ci {
                WrittenReadyBeforeCi::Ask => ReadyBeforeCi::Ask,
                WrittenReadyBeforeCi::Always => ReadyBeforeCi::Always,
            },
            start: seconds(written.start_seconds),
            plan: seconds(written.plan_seconds),
            implement: seconds(written.implement_seconds),
            await_ci: seconds(written.await_ci_seconds),
            fix_ci: seconds(written.fix_ci_seconds),
            mark_ready: seconds(written.mark_ready_seconds),
            address_review: seconds(written.address_review_seconds),
            rebase: seconds(written.rebase_seconds),
            backoff: SignedDuration::from_millis(i64::from(written.backoff_millis)),
            backoff_max: seconds(written.backoff_max_seconds),
        }
    }
}
